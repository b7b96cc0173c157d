"""Does the suite notice bugs? Each of the one-line bugs in mutants.py has to fail its test."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from mutants import MUTANTS, ROOT, apart, mutate


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """name: the outcome, to come, of a mutant's test; None: of all those tests without a bug."""
    pool, folder = ThreadPoolExecutor(2), tmp_path_factory.mktemp
    everything = sorted({mutant.test for mutant in MUTANTS})
    yield {None: pool.submit(apart, folder("original"), everything),
           **{mutant.name: pool.submit(apart, folder(mutant.name), [mutant.test], mutant)
              for mutant in MUTANTS}}
    pool.shutdown(cancel_futures=True)


def test_original_passes(outcomes):
    """If it fails, mutants die of something else than their bug."""
    outcome = outcomes[None].result()
    assert not outcome.failed and not outcome.broken, outcome.output
    assert len(outcome.passed) >= len({mutant.test for mutant in MUTANTS})


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_killed(outcomes, mutant):
    """If it fails, a bug like this one would not be noticed."""
    outcome = outcomes[mutant.name].result()
    assert not outcome.broken, outcome.output
    assert outcome.failed, f"{mutant.test} passes with {mutant.mutated!r} for {mutant.original!r}"


@pytest.mark.parametrize("source", ["nothing of the kind", 2 * MUTANTS[0].original])
def test_unclear_mutants_are_refused(source):
    """If it fails, a mutant that changes nothing counts as a bug that was looked for."""
    with pytest.raises(ValueError, match="mutant 'half': convex.py holds .* [02] times, not once"):
        mutate(source, MUTANTS[0])


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_line_is_there(mutant):
    """Cheap, and first to fail where a line has changed that a mutant quotes. If it fails, that bug is no
    longer looked for."""
    assert (ROOT / "lnn_core" / mutant.file).read_text(encoding="utf-8").count(mutant.original) == 1


def test_names_are_unique():
    """If it fails, one mutant's outcome stands for another's."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
