"""The benchmarks: they time the right thing, and their records hold what the chapter reads."""

import json
import random
import re
import warnings
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import benchmarks.__main__ as command
import lnn_core as lnn
from benchmarks.handwritten import HandWritten
from benchmarks.learners import FULL, METHODS, QUICK
from benchmarks.steps import chain_steps
from benchmarks.timing import Time, interleave, ratio, threads, with_interval
from benchmarks.tracing import Operations, peak_bytes
from lnn_core.data import Split
from lnn_core.experiments.training import seeded_generator, train_epoch
from lnn_core.inference import CompilationWarning

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "book" / "records" / "cost"


def ticking() -> SimpleNamespace:
    """Clocks that go on by a second each time they are read: every turn takes one second."""
    wall, cpu = count(), count()
    return SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(cpu))


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> dict[str, dict]:
    """All sections, measured in small by the command line; how busy the machine is changes nothing."""
    folder = tmp_path_factory.mktemp("cost")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", CompilationWarning)  # where there is no compiler
        patch.setattr("benchmarks.timing.time", ticking())
        command.main(["--quick", "--folder", str(folder)])
    return {path.stem: json.loads(path.read_text()) for path in folder.iterdir()}


def chain(sizes, **options) -> lnn.LiftedNetwork:
    return lnn.LiftedNetwork(sizes, generator=seeded_generator(0, "weights"), **options)


# What is timed


def test_handwritten_back_propagation_is_back_propagation():
    """If it fails, epoch times are compared with those of something that does not train."""
    generator = seeded_generator(1, "samples")
    samples = Split(torch.rand(23, 6, generator=generator, dtype=torch.float64),
                    torch.randint(0, 3, (23,), generator=generator))
    nets = [chain([6, 5, 4, 3], dtype=torch.float64) for _ in range(2)]
    ours, reference = (torch.optim.Adam(net.parameters(), lr=0.01, fused=True) for net in nets)
    learner = HandWritten(nets[0], ours)
    for epoch in range(2):  # 23 samples in batches of 5: the last one is short
        done = learner.epoch(samples, 5, seeded_generator(epoch, "batches"))
        expected = train_epoch(nets[1], lnn.BackPropagation(), samples, reference, 5,
                               seeded_generator(epoch, "batches"))
        assert done[:5] == pytest.approx(expected[:5], rel=1e-12)  # gradients are not looked at
    for a, b in zip(nets[0].parameters(), nets[1].parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", [{"activation": lnn.Tanh()}, {"output": lnn.ReLU()},
                                     {"bias": False}, {"edges": [(0, 1), (1, 2), (0, 2)]}])
def test_handwritten_back_propagation_refuses_other_networks(options):
    """If it fails, it trains them by wrong gradients without a word."""
    net = chain([3, 4, 2], **options)
    with pytest.raises(ValueError, match="a chain of ReLU layers"):
        HandWritten(net, torch.optim.Adam(net.parameters(), fused=True))


def test_methods_take_turns():
    """If it fails, a machine that slows down slows down one method and not the other."""
    seen = []
    times = interleave({name: lambda i, name=name: seen.append((i, name)) for name in "abc"}, rounds=4)
    rounds = [seen[start:start + 3] for start in range(3, len(seen), 3)]
    assert seen[:3] == [(0, "a"), (0, "b"), (0, "c")]  # not timed
    assert [sorted(turns) for turns in rounds] == [[(i, name) for name in "abc"] for i in range(4)]
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}


def test_ratio_is_the_median_of_ratios_within_rounds():
    """If it fails, a slow round of one method is compared with a fast round of the other."""
    ours = [Time(2, 20), Time(30, 30), Time(8, 8)]
    theirs = [Time(1, 1), Time(10, 10), Time(2, 2)]
    assert ratio(ours, theirs) == {"median": 3, "low": 2, "high": 4}
    assert ratio(ours, theirs, "cpu")["high"] == 20


def test_interval_is_made_of_the_right_order_statistics():
    """The 4th and the 12th of 15 values hold the median with 1 − 2·P(Bin(15, ½) ≤ 3) = 96.5 %, the
    5th and the 11th with 88 %. If it fails, an interval is too narrow and claims too much."""
    values = list(range(1, 16))
    random.Random(0).shuffle(values)
    assert with_interval(values) == {"median": 8, "low": 4, "high": 12}


def test_threads_are_given_back():
    """If it fails, whatever runs later in the process runs with another number of threads."""
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_peak_counts_what_is_alive_at_one_time():
    """If it fails, the memory table counts views, in-place results or what is long gone."""
    there = torch.ones(1000)

    def block():
        a = there + 1           # 4000 bytes
        a.mul_(2).view(10, 100)  # nothing new
        b = a.double()          # 8000 more
        del a
        return b[:10] + 1       # 80 more, 4000 less

    assert peak_bytes(block) == 4000 + 8000
    assert peak_bytes(lambda: there.view(10, 100).t()) == 0


def test_recorded_products_are_those_of_the_step():
    """If it fails, "matrix products alone" is the time of something else."""
    net = chain([6, 5, 4, 3])
    learner = HandWritten(net, torch.optim.Adam(net.parameters(), fused=True))
    x, y = torch.rand(7, 6), torch.rand(7, 3)
    learner.step(x, y)  # makes Adam's state
    with Operations() as made:
        learner.step(x, y)
    products = made.calls["products"]
    assert len(products) == 3 + 3 + 2  # forward, weights' gradients, errors
    assert len(made.calls["Adam"]) == 1
    # Products, ReLUs, masks, biases' gradients; z − y, ½‖·‖² (4, to a Python number), ÷ batch;
    # Adam and its count of steps.
    assert made.count == 8 + 2 + 2 + 3 + (1 + 4 + 1) + 2
    before = [weight.grad.clone() for weight in net.weights]
    for weight in net.weights:
        weight.grad.zero_()
    made.again("products")
    for gradient, weight in zip(before, net.weights):
        torch.testing.assert_close(weight.grad, gradient)


# What is recorded


def test_every_section_has_a_record(records):
    """If it fails, the chapter finds no numbers, or numbers without their origin."""
    assert records.keys() == command.SECTIONS.keys()
    for name, record in records.items():
        assert record.keys() == {"section", "settings", "machine", "versions", "rows"}
        assert record["section"] == name and record["rows"]
        assert record["machine"].keys() == {"processor", "instructions", "cores", "system"}
        assert record["versions"]["torch"] == torch.__version__


def test_epoch_times_cover_all_methods(records):
    """If it fails, a method has no ratio, or one to something else than what it says, or in other
    units."""
    even = {"low": 1, "median": 1, "high": 1}  # all turns take one second
    for name in ("epochs", "training", "breakdown", "memory"):
        assert {row["method"] for row in records[name]["rows"]} == {*METHODS, "handwritten"}
    for row in records["epochs"]["rows"]:
        assert row["milliseconds"] == 1000 and row["cpu over clock"] == 1
        for reference in ("autograd", "handwritten"):
            assert row[f"ratio to {reference}"] == row[f"cpu to {reference}"] == even
        assert (row["passes"] == 0) == (row["method"] in ("autograd", "handwritten"))
        assert row["method"] != "paper" or row["passes"] == 20
    assert all(len(row["passes"]) == len(row["ratio to autograd"]) == QUICK.course
               for row in records["training"]["rows"])
    shapes = {(row["depth"], row["width"]) for row in records["size"]["rows"]}
    assert shapes == {(3, 32), (3, 64), (2, 32), (4, 32)}


def test_steps_are_compared_with_plain_torch(records):
    """If it fails, the table lacks a way of training, or a ratio has another denominator."""
    rows = records["steps"]["rows"]
    chain = {(row["method"], row["way"]) for row in rows if row["network"] == "chain"}
    assert chain == {("torch", "backward"), ("autograd", "backward"), ("autograd", "gradients")} | {
        (method, way) for method in ("arovr", "arovr_ab", "arovr_abg")
        for way in ("backward", "gradients", "compiled")}
    networks = [row["network"] for row in rows if row["method"] == "torch"]
    assert networks == ["chain", "convolutions, 0 epochs", f"convolutions, {QUICK.epochs} epochs"]
    for row in rows:  # the clock ticks once a turn
        assert row["ratio to torch"]["median"] == 1
        assert (row["passes"] > 0) == row["method"].startswith("arovr")


def test_the_plain_step_is_back_propagation():
    """If it fails, ratios are to something that does not train, or not the same."""
    samples = Split(torch.rand(20, 6), torch.arange(20) % 10)
    start = lnn.LiftedNetwork([6, 5, 10], generator=seeded_generator(0, "weights"))
    steps, nets = chain_steps(start, samples), []
    for name in (("torch", "backward"), ("autograd", "backward"), ("autograd", "gradients")):
        step = steps[name][0]
        step(torch.tensor([3, 1, 4]))
        cells = dict(zip(step.__code__.co_freevars, step.__closure__))
        nets.append(cells["optimizer"].cell_contents.param_groups[0]["params"])
    assert not torch.equal(nets[0][0], start.weight(1))
    for other in nets[1:]:
        torch.testing.assert_close(other, nets[0])


def expected_multiply_adds(sizes, method, passes):
    """By hand: F forward, F for the weights' gradients, H for errors above the first layer."""
    F = sum(a * b for a, b in zip(sizes, sizes[1:]))
    H = F - sizes[0] * sizes[1]
    return {"autograd": 2 * F + H, "handwritten": 2 * F + H,
            "arovr": 2 * F + 2 * H * passes,  # a pass: errors down, activations up
            "arovr_ab": 2 * F + H + 4 * H * passes,  # two minima, but one input
            "arovr_abg": 2 * F + H + 4 * H * passes}[method]


@pytest.mark.parametrize("published", [False, True])
def test_multiply_adds_are_those_of_the_formula(records, published):
    """If it fails, the floor that times are compared with is not the floor."""
    record = (json.loads((PUBLISHED / "operations.json").read_text()) if published
              else records["operations"])
    sizes = [784, 256, 256, 10] if published else [64, 32, 32, 10]
    rows = {(row["method"], row["passes"]): row["multiply-adds"] for row in record["rows"]}
    more = rows.pop(("paper", 20)) - expected_multiply_adds(sizes, "arovr", 20)
    assert 0 <= more <= rows["autograd", 0] / 2  # looks at where it ended: about a forward pass
    for (method, passes), found in rows.items():
        assert found == expected_multiply_adds(sizes, method, passes), (method, passes)


def test_gaps_decrease(records):
    """If it fails, the gap is not one to the minimum, or a pass does not go towards it."""
    for row in records["gaps"]["rows"]:
        means, worst = row["mean"], row["worst"]
        assert all(0 <= mean <= most for mean, most in zip(means, worst))
        assert all(after <= before + 1e-13 for before, after in zip(means, means[1:])), row
        assert means[0] > 1e-5 and means[-1] < 1e-12


def test_default_solver_keeps_its_promise(records):
    """If it fails, the default does not stop at a mean gap of 1e-3 or less, as the chapter says."""
    rows = records["default"]["rows"]
    assert {row["objective"] for row in rows} == {"arovr", "arovr_ab", "arovr_abg"}
    assert all(0 <= row["mean"] <= 1e-3 for row in rows)


def test_no_energy_is_below_a_linear_networks_optimum(records):
    """There the optimum has a closed form. If it fails, a gap is negative, so that one of both is
    wrong; or it does not get harder as β comes closer to the border."""
    rows = [row for row in records["border"]["rows"] if row["network"].startswith("linear")]
    assert all(-1e-12 <= row["mean"] <= 2e-3 for row in rows)
    for solver in ("sweeps", "shooting"):
        for seed in range(3):
            needed = [row[f"{solver} needed"] for row in rows if row["network"].endswith(str(seed))]
            found = [passes for passes in needed if passes is not None]
            assert found == sorted(found) and needed[:len(found)] == found


def test_parts_of_a_step_add_up(records):
    """If it fails, the rest is not what the step takes longer than its parts. Here a call of each
    takes a turn's second ÷ the calls in a turn."""
    for row in records["breakdown"]["rows"]:
        assert row["operations"] > row["products"] >= 8
        microseconds = {name: row[name]["median"] for name in row if name.startswith("µs ")}
        rest, call = microseconds.pop("µs rest"), 1e6 / QUICK.repeat
        assert {"µs step", "µs products", "µs Adam"} <= microseconds.keys()
        assert set(microseconds.values()) == {call}
        assert rest == pytest.approx(call * (2 - len(microseconds)))


def test_lrrn_inference_is_compared_with_a_forward_pass(records):
    """If it fails, the chapter's price of inference is relative to something else, or of one
    solver; or its arithmetic leaves out what is not a pass. By hand, n bounded units of N:"""
    rows = records["lrrn_inference"]["rows"]
    assert [row["method"] for row in rows] == ["forward pass", "SpectralDescent(0.001)",
                                               "SpectralDescent(0.0001)", "CoordinateDescent(0.001)"]
    shapes, batch, n, N = [(64, 64), (64, 64), (10, 64)], 50, 128, 138
    forward = sum(a * b for a, b in shapes)
    # H and g for a batch: WWᵀ, WᵀW but of the first layer, Wc, bᵀW but of the first; W_0 x.
    program = sum(a * a * b + a * b for a, b in shapes) + sum(a * b * b + a * b
                                                              for a, b in shapes[1:])
    program = program / batch + 64 * 64
    # The output, free, is eliminated: H_uu⁻¹ for n columns and each sample, H_ku twice, back.
    eliminate = (10**3 / 6 + 10 * 10 * n + n * 10 * n) / batch + 10 * 10 + 2 * 10 * n

    def spectral(passes):  # H⁻¹, the start, passes; slope and certificate before every fourth
        return eliminate + n**3 / 2 / batch + n**2 * (1 + passes + 2 * (passes / 4 + 1))

    def coordinate(passes):  # H⁻¹; sweeps; slope and certificate before and after each
        return N**3 / 2 / batch + N**2 * (passes + 2 * (passes + 1))

    assert rows[0]["multiply-adds"] == 1
    for row, solver in zip(rows[1:], (spectral, spectral, coordinate)):
        expected = (program + solver(row["passes"])) / forward
        assert row["multiply-adds"] == pytest.approx(expected, rel=1e-9)
    assert all(row["ratio to forward"] == {"median": 1, "low": 1, "high": 1} for row in rows)


def test_lrrn_epochs_see_all_images_that_are_not_for_testing(records):
    """If it fails, a part of an epoch is printed as an epoch."""
    digits = lnn.data.load("digits")
    images = len(digits.train.y) + len(digits.validation.y)
    rows = records["lrrn_epochs"]["rows"]
    assert [row["method"] for row in rows] == ["LRRN", "back-propagation"]
    assert all(row["images"] == images and row["seconds"] == 1 for row in rows)
    published = json.loads((PUBLISHED / "lrrn_epochs.json").read_text())
    assert all(row["images"] == 60_000 for row in published["rows"])


# The command


def test_records_are_not_made_twice(tmp_path, monkeypatch, capsys):
    """If it fails, `make bench` starts from the beginning after an interruption."""
    calls = []

    def section(name):
        return lambda settings: calls.append(name) or [{"x": len(calls)}]

    monkeypatch.setattr(command, "SECTIONS", {name: section(name) for name in "ab"})
    for function in command.SECTIONS.values():
        function.__doc__ = "One line."
    arguments = ["--quick", "--folder", str(tmp_path)]
    command.main([*arguments, "--section", "a"])
    command.main(arguments)
    assert calls == ["a", "b"]
    command.main([*arguments, "--section", "a", "--again"])
    assert calls == ["a", "b", "a"] and "| 3 |" in capsys.readouterr().out
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.json", "b.json"]


def test_a_record_of_other_settings_is_not_taken_for_ours(tmp_path):
    """If it fails, a quick run's numbers are printed as those of the full one."""
    (tmp_path / "gaps.json").write_text('{"settings": {"dataset": "digits"}}')
    with pytest.raises(ValueError, match=r"gaps\.json was made with other settings"):
        command.recorded("gaps", FULL, tmp_path)


def test_published_records_are_of_the_full_benchmark():
    """If it fails, the chapter's numbers are those of a small run, or some are missing."""
    assert {path.stem for path in PUBLISHED.glob("*.json")} == command.SECTIONS.keys()
    for name in command.SECTIONS:
        assert command.recorded(name, FULL, PUBLISHED)["rows"]


def test_the_library_does_not_depend_on_the_benchmarks():
    """If it fails, `pip install .`, which installs the library alone, installs one that does not
    run."""
    importing = re.compile(r"^\s*(?:import|from)\s+benchmarks\b", re.M)
    assert [path.name for path in (ROOT / "lnn_core").rglob("*.py")
            if importing.search(path.read_text(encoding="utf-8"))] == []
