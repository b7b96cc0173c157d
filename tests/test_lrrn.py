"""LRRN energies and inference, against loops over eq. (1) and SciPy's exact active-set solver."""

import warnings

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from lrrn_reference import EXACT, PAPER, by_hand, flat, instance, network, reference
from scipy.linalg import hadamard
from torch import nn
from torch.nn.utils import parametrizations, prune

import lnn_core as lnn
from lnn_core import lrrn
from lnn_core.propositions import lrrn_toys

# --------------------------------------------------------------------------- energy


@given(seed=st.integers(0, 10**6))
def test_energy_is_equation_1_and_17(seed):
    """If it fails, the energy is another function than the paper's."""
    net, *_ = instance(seed)
    draw = torch.Generator().manual_seed(seed)
    z = [lrrn_toys.normal(draw, 3, size) for size in net.sizes]
    expected = [by_hand(net, [part[i] for part in z]) for i in range(3)]
    torch.testing.assert_close(net.energy(z).detach(), torch.tensor(expected).double())


@given(seed=st.integers(0, 10**6))
def test_quadratic_is_the_energy(seed):
    """If it fails, inference minimises another function than the energy."""
    net, x, _ = instance(seed)
    draw, n = torch.Generator().manual_seed(seed), sum(net.sizes[1:])
    a, b = lrrn_toys.normal(draw, len(x), n), lrrn_toys.normal(draw, len(x), n)
    qp = net.quadratic(x)
    difference = net.energy(net.split(x, a)) - net.energy(net.split(x, b))
    torch.testing.assert_close(qp.value(a) - qp.value(b), difference)
    torch.testing.assert_close(qp.slope(a), torch.autograd.functional.jacobian(
        lambda z: net.energy(net.split(x, z)).sum(), a))
    assert (torch.linalg.eigvalsh(qp.H) > 0).all()


def test_default_beta_is_that_of_corollary_2():
    """If it fails, the Lipschitz constant is not that of the last weight."""
    assert lrrn.LRRN([4, 3, 3, 2]).beta == (1, 1, 0)
    assert lrrn.LRRN([4, 3, 2], beta=0.5).beta == (0.5, 0.5)


def test_same_seed_same_weights():
    """If it fails, runs are not reproducible."""
    first, second = (lrrn.LRRN([4, 3, 2], generator=torch.Generator().manual_seed(1)).weights
                     for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert (lrrn.LRRN([400, 3]).weights[0].abs() <= 1 / 20).all()


# --------------------------------------------------------------------------- inference


@pytest.mark.parametrize("solver", [EXACT, PAPER], ids=["spectral", "coordinate"])
@pytest.mark.parametrize("clamped", [False, True], ids=["free", "clamped"])
@given(seed=st.integers(0, 10**6))
def test_solution_is_that_of_scipy(solver, clamped, seed):
    """If it fails, inference does not find the minimum."""
    net, x, y = instance(seed)
    y = y if clamped else None
    z, report = lrrn.infer(net, x, y, solver=solver)
    assert report.converged.all()
    torch.testing.assert_close(flat(z), reference(net, x, y), atol=1e-7, rtol=1e-7)
    assert torch.equal(z[0], x) and (y is None or torch.equal(z[-1], y))


def test_many_layers_and_constraints_of_all_kinds():
    """A larger instance than Hypothesis draws, through both solvers. If it fails, a solver is right
    on toys only."""
    net = network([20, 15, 12, 10, 8], [lnn.ReLU(), lnn.Box(-0.1, 0.1), lnn.Identity()],
                  lnn.ReLU(), beta=[1, 0.3, 3, 0], gamma=0.7, scale=2.0)
    x = lrrn_toys.normal(torch.Generator().manual_seed(1), 6, 20)
    expected = reference(net, x)
    assert (expected == net.lower).any() and (expected == net.upper).any()
    for solver in (EXACT, PAPER):
        z = flat(lrrn.infer(net, x, solver=solver)[0])
        torch.testing.assert_close(z, expected, atol=1e-8, rtol=1e-8)
        for bound in (net.lower, net.upper):  # exactly there, or derivatives take it for inside
            assert torch.equal(z == bound, (expected - bound).abs() < 1e-12)


@given(seed=st.integers(0, 10**6), passes=st.integers(1, 6))
@example(seed=285, passes=1)  # one unit is left to move: a conjugate direction is rounding noise
@example(seed=91, passes=2)
def test_passes_never_raise_the_energy(seed, passes):
    """If it fails, the line search is not exact, or leaves the box."""
    net, x, _ = instance(seed)
    qp, start = net.quadratic(x).detach(), lrrn_toys.normal(torch.Generator().manual_seed(seed), 4,
                                                            sum(net.sizes[1:]))
    before = qp.value(qp.project(start))
    for n in range(1, passes + 1):
        for kind in (lrrn.SpectralDescent, lrrn.CoordinateDescent):
            z, _ = kind(1e-12, max_passes=n)(qp, start)
            assert (z >= qp.lower).all() and (z <= qp.upper).all()
            assert (qp.value(z) <= before + 1e-9 * (1 + before.abs())).all()
    first = lrrn.SpectralDescent(1e-12, max_passes=passes)(qp, start)[0]
    second = lrrn.SpectralDescent(1e-12, max_passes=passes + 1)(qp, start)[0]
    assert (qp.value(second) <= qp.value(first) + 1e-9 * (1 + before.abs())).all()


def test_coordinate_descent_is_unit_by_unit_exact():
    """Each unit to the bottom of its parabola (through three energies), first layer first. If it
    fails, it is another method."""
    net = network([4, 3, 3, 2], lnn.Box(0, 1), seed=3)
    x = lrrn_toys.normal(torch.Generator().manual_seed(3), 1, 4)
    z = torch.zeros(1, 8, dtype=torch.float64)
    for j in range(8):
        energies = []
        for move in (-1.0, 0.0, 1.0):
            moved = z.clone()
            moved[0, j] += move
            energies.append(net.energy(net.split(x, moved)).item())
        left, middle, right = energies
        bottom = z[0, j] + (left - right) / (2 * (left - 2 * middle + right))
        z[0, j] = bottom.clamp(net.lower[j], net.upper[j])
    found, report = lrrn.infer(net, x, solver=lrrn.CoordinateDescent(1e-12, max_passes=1))
    torch.testing.assert_close(flat(found), z)
    assert report.passes == 1


@pytest.mark.parametrize("kind", [lrrn.SpectralDescent, lrrn.CoordinateDescent])
@given(seed=st.integers(0, 10**6), passes=st.integers(1, 4))
def test_certificate_bounds_what_is_left(kind, seed, passes):
    """If it fails, "converged" and the gap say less than they claim."""
    net, x, _ = instance(seed)
    z, report = lrrn.infer(net, x, solver=kind(1e-3, max_passes=passes))
    z, best, H = flat(z), reference(net, x), net.quadratic(x).H.detach()
    left = net.energy(net.split(x, z)) - net.energy(net.split(x, best))
    assert (left <= report.gap + 1e-10).all()
    error = ((z - best) @ H * (z - best)).sum(1).sqrt()
    assert (error <= (2 * report.gap).sqrt() + 1e-7).all()
    size = ((z @ H) * z).sum(1).sqrt()
    assert (error <= 1e-3 * size + 1e-7)[report.converged].all()


@given(seed=st.integers(0, 10**6))
def test_residual_is_zero_only_at_the_minimum(seed):
    """If it fails, the optimality conditions are checked wrongly."""
    net, x, _ = instance(seed, beta="corollary")
    rough = lrrn.infer(net, x, solver=lrrn.CoordinateDescent(1e-12, max_passes=1))
    fine = lrrn.infer(net, x, solver=EXACT)
    qp, best = net.quadratic(x).detach(), reference(net, x)
    assert (fine[1].residual < 1e-9).all()
    off = (flat(rough[0]) - best).norm(dim=1) > 1e-6
    assert (rough[1].residual[off] > 1e-9).all()
    slope = qp.slope(best)
    inward = torch.where(best <= qp.lower, slope >= -1e-7, True)
    assert (inward & torch.where(qp.inside(best), slope.abs() < 1e-7, True)).all()


def test_unconverged_samples_are_reported():
    """If it fails, a cap on passes goes unnoticed. The first sample has nothing to do."""
    net = network([5, 6, 6, 3], lnn.ReLU(), scale=2.0)
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 4, 5)
    start = lrrn.infer(net, x, solver=EXACT)[0]
    start = [part.clone() for part in start]
    for part in start[1:]:
        part[1:] = 5.0
    report = lrrn.infer(net, x, solver=lrrn.SpectralDescent(1e-6, max_passes=1), start=start)[1]
    assert report.converged.tolist() == [True, False, False, False]
    assert "1 of 4 samples converged" in str(report)


@pytest.mark.parametrize("every", [1, 3, 7])
def test_the_certificate_is_looked_at_every_so_many_passes(every):
    """If it fails, looks cost more than ``check_every`` says, or a cap on passes is missed."""
    net = network([5, 12, 12, 3], lnn.ReLU(), scale=1.5)
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 6, 5)
    report = lrrn.infer(net, x, solver=lrrn.SpectralDescent(1e-9, check_every=every))[1]
    assert report.converged.all() and report.passes > 3 and report.passes % every == 0
    capped = lrrn.infer(net, x, solver=lrrn.SpectralDescent(1e-9, 2, check_every=every))[1]
    assert capped.passes == 2 and not capped.converged.all()


def test_targets_at_the_ends_of_the_outputs_set():
    """One-hot targets of a network with outputs in [0, 1]; if it fails, labels are refused."""
    net = network([4, 3, 2], lnn.ReLU(), lnn.Box(0, 1))
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 2, 4)
    z, _ = lrrn.infer(net, x, torch.tensor([0, 1]))
    assert torch.equal(z[-1], torch.eye(2, dtype=torch.float64))


def test_network_without_constraints_needs_no_pass():
    """If it fails, unconstrained units are not eliminated."""
    net = network([6, 5, 4], lnn.Identity(), beta=1.0)
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 3, 6)
    z, report = lrrn.infer(net, x)
    qp = net.quadratic(x)
    assert report.passes == 0
    torch.testing.assert_close(flat(z), torch.linalg.solve(qp.H, qp.g.T).T.detach())


def test_starting_at_the_solution_takes_no_pass():
    """If it fails, warm starts save nothing."""
    net = network([6, 5, 4], lnn.ReLU(), beta=1.0)
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 3, 6)
    z, cold = lrrn.infer(net, x, solver=EXACT)
    assert cold.passes > 0
    assert lrrn.infer(net, x, start=z)[1].passes == 0


@pytest.mark.parametrize("seed", range(5))
def test_passes_are_conjugate_gradients_inside_the_box(seed):
    """Conjugate gradients need as many steps as H has distinct eigenvalues, here three. If it fails, passes
    follow the gradient where a conjugate direction gains more, and inference takes many of them."""
    draw, n = torch.Generator().manual_seed(seed), 16
    vectors = torch.from_numpy(hadamard(n)).double() / n**0.5  # so that H's diagonal is constant
    H = vectors @ (torch.tensor([1.0, 5.0, 60.0, 60.0]).double().repeat(4)[:, None] * vectors.T)
    far = torch.full((n,), 1e3).double()
    qp = lrrn.BoxQP(H, lrrn_toys.normal(draw, 4, n), -far, far)
    z, report = lrrn.SpectralDescent(1e-9, check_every=1)(qp, torch.zeros_like(qp.g))
    assert report.passes == 3 and report.converged.all()
    torch.testing.assert_close(z, torch.linalg.solve(H, qp.g, left=False))


def test_single_precision_is_close_to_double():
    """If it fails, training in float32 infers something else. Gaps are relative to the energy."""
    double = network([50, 20, 20, 5], lnn.ReLU(), scale=1.5)
    single = lrrn.LRRN([50, 20, 20, 5], lnn.ReLU())
    single.load_state_dict(double.state_dict())
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 30, 50)
    solver = lrrn.SpectralDescent(1e-5)
    z, report = lrrn.infer(single, x.float(), solver=solver)
    assert report.converged.all()
    best = reference(double, x)
    assert ((flat(z) - best).norm(dim=1) <= 1e-4 * best.norm(dim=1)).all()


# --------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("assign", [False, True])
def test_a_network_made_on_meta_is_filled_by_its_checkpoint(assign):
    """If it fails, bounds that a checkpoint does not carry stay uninitialised: a wrong output."""
    net = network([4, 3, 2], lnn.Box(-0.1, 0.2))
    x = lrrn_toys.normal(torch.Generator().manual_seed(1), 5, 4)
    empty = lrrn.LRRN([4, 3, 2], lnn.Box(-0.1, 0.2), dtype=torch.float64, device="meta")
    if not assign:
        empty.to_empty(device="cpu")
    keys = empty.load_state_dict(net.state_dict(), assign=assign)
    assert not keys.missing_keys and not keys.unexpected_keys
    assert torch.equal(empty(x), net(x))


def test_bounds_are_those_of_the_sets():
    """If it fails, a unit has another set than its layer's, or bounds of another type."""
    net = lrrn.LRRN([4, 3, 2, 1], [lnn.ReLU(), lnn.Box(-0.5, 2)], dtype=torch.float64)
    inf = float("inf")
    assert net.lower.tolist() == [0, 0, 0, -0.5, -0.5, -inf] and net.lower.dtype == torch.float64
    assert net.float().upper.tolist() == [inf, inf, inf, 2, 2, inf]
    assert net.upper.dtype == torch.float32


def test_the_names_in_a_checkpoint():
    """If it fails, checkpoints of earlier versions do not load."""
    assert set(lrrn.LRRN([4, 3, 2]).state_dict()) == {
        f"{kind}.{k}" for kind in ("weights", "biases", "reconstruction_biases") for k in range(2)}


@pytest.mark.parametrize("thing, text", [
    (lrrn.LRRN([3, 2]), "LRRN(\n  sizes=[3, 2], functions=[Identity()], beta=[0.0]\n"),
    (lrrn.LRRN([3, 2], gamma=0.5, beta=1), "functions=[Identity()], beta=[1.0], gamma=0.5\n"),
    (lrrn.RRLayer(4, 3, 0.5), "RRLayer(4, 3, beta=0.5)"),
    (lrrn.Contrastive(), "Contrastive()"),
    (lrrn.QPReport(3, torch.tensor([2.0, 0.1]), torch.tensor([False, True])),
     "3 passes, energies within 2.0e+00 of the minimum, 1 of 2 samples converged"),
])
def test_what_is_printed(thing, text):
    """If it fails, a printed network hides a setting, or a report a sample."""
    assert text in (str(thing) if isinstance(thing, lrrn.QPReport) else repr(thing))


# --------------------------------------------------------------------------- torch's tools


@pytest.mark.parametrize("tool", ["prune", "removed", "parametrize", "weight_norm"])
def test_tools_on_a_weight_are_seen_everywhere(tool):
    """If it fails, predictions, losses and bounds are those of a stale or another matrix: against
    a network that has the resulting weights as its own, after a step of training."""
    net = network([4, 4, 4, 4], lnn.ReLU())
    if tool in ("prune", "removed"):
        prune.l1_unstructured(net.weights, "1", 0.5)
        if tool == "removed":  # the parameter is put back at the end of the list
            prune.remove(net.weights, "1")
    elif tool == "parametrize":
        parametrizations.orthogonal(net.weights, "1")
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            nn.utils.weight_norm(net.weights, "1")
    x = lrrn_toys.normal(torch.Generator().manual_seed(0), 3, 4)
    torch.optim.SGD(net.parameters(), 0.1).step(
        lambda: lrrn.Contrastive(EXACT)(net, x, x.abs()).backward())
    twin = network([4, 4, 4, 4], lnn.ReLU())
    with torch.no_grad():
        for mine, values in zip(("weights", "biases", "reconstruction_biases"),
                                zip(*net.layers())):
            for parameter, value in zip(getattr(twin, mine), values):
                parameter.copy_(value)
    for i in range(3):
        assert torch.equal(twin.weights[i], net.weights[i])
    if tool == "prune":
        assert (twin.weights[1] == 0).sum() == 8
    assert not torch.equal(twin.weights[1], network([4, 4, 4, 4], lnn.ReLU()).weights[1])
    torch.testing.assert_close(net(x), twin(x))
    for loss in (lrrn.Unsupervised(EXACT), lrrn.Contrastive(EXACT)):
        torch.testing.assert_close(loss(net, x, x), loss(twin, x, x))
    assert lrrn.layer_constants(net) == pytest.approx(lrrn.layer_constants(twin))
    assert lrrn.refined_constants(net) == pytest.approx(lrrn.refined_constants(twin))
