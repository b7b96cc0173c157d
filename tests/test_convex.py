"""Convex functions, against brute force over a fine grid and float64 autograd."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FUNCTIONS, SMOOTH_OR_LEAKY
from torch import nn

import lnn_core as lnn
from lnn_core.architecture import ACTIVATIONS, function_of

each_function = pytest.mark.parametrize("G", [*FUNCTIONS, *SMOOTH_OR_LEAKY], ids=repr)

#: G as the docstrings define it, for those that are not half a square.
DEFINITIONS = {
    "Tanh()": lambda z: z * torch.atanh(z) + 0.5 * torch.log(1 - z.square()),
    "Sigmoid()": lambda z: z * z.log() + (1 - z) * (1 - z).log(),
    "Softplus()": lambda z: torch.tensor(
        [float(mpmath.quad(lambda t: mpmath.log(mpmath.expm1(t)), [0, z_i])) for z_i in z.tolist()],
        dtype=torch.float64),
    "LeakyReLU(0.2)": lambda z: torch.where(z < 0, 5 * z.square() / 2, z.square() / 2),
}


def grid(G, reach):
    """20,001 evenly spaced activations over the domain of G, its ends included; their distance."""
    z = torch.linspace(max(G.lower, -reach), min(G.upper, reach), 20_001, dtype=torch.float64)
    return z, (z[1] - z[0]).item()


def interior(G, n=50, seed=0):
    """n activations strictly inside the domain of G."""
    low, high = max(G.lower, -3.0), min(G.upper, 3.0)
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    return low + (high - low) * (0.02 + 0.96 * u)


def preactivations(n=41, reach=4.0):
    """Evenly spaced and off every kink."""
    return torch.linspace(-reach, reach, n, dtype=torch.float64) + 0.0123


@each_function
def test_activation_is_the_argmin_of_the_divergence(G):
    """If it fails, the forward pass does not minimise the potential: U(z*) > min U."""
    (z, step), a = grid(G, reach=6), preactivations()
    best = z[G.divergence(z, a[:, None]).argmin(1)]
    torch.testing.assert_close(G.activation(a), best, atol=step, rtol=0)


@each_function
def test_conjugate_is_the_supremum(G):
    """If it fails, G* is wrong and potentials are not zero on the forward pass."""
    (z, _), a = grid(G, reach=6), preactivations()
    supremum = (a[:, None] * z - G.value(z)).amax(1)
    assert (G.conjugate(a) >= supremum - 1e-12).all()
    torch.testing.assert_close(G.conjugate(a), supremum, atol=2e-6, rtol=0)


@each_function
def test_value_is_the_definition(G):
    """If it fails, G is another function than the docstring's."""
    z = interior(G)
    expected = DEFINITIONS.get(repr(G), lambda z: z.square() / 2)(z)
    torch.testing.assert_close(G.value(z), expected)


TORCH = {"ReLU()": torch.nn.ReLU(), "Tanh()": torch.nn.Tanh(), "Sigmoid()": torch.nn.Sigmoid(),
         "Softplus()": torch.nn.Softplus(), "LeakyReLU(0.2)": torch.nn.LeakyReLU(0.2),
         "Box(-0.5, 2)": torch.nn.Hardtanh(-0.5, 2), "Identity()": torch.nn.Identity()}


@each_function
def test_activation_is_torchs(G):
    """If it fails, a lifted network does not predict what the network did that it was made of."""
    a = torch.linspace(-30, 30, 999, dtype=torch.float64)
    theirs = TORCH.get(repr(G), torch.nn.Hardtanh(0, 1))(a)
    torch.testing.assert_close(G.activation(a), theirs, atol=1e-8, rtol=0)  # torch cuts softplus off at 20


def test_the_function_of_every_module_is_known():
    """f(a) as torch computes it, far beyond all kinks, for every module that is lifted. If it fails, the
    lifted network is another one where activations are large."""
    modules = [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-3, 7), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.3),
               nn.Softplus()]
    assert set(map(type, modules)) == set(ACTIVATIONS)
    a = torch.linspace(-30, 30, 999, dtype=torch.float64)
    for module in modules:
        f = function_of(module).activation(a)
        torch.testing.assert_close(f, module(a), atol=1e-8, rtol=0)  # torch cuts softplus off at 20


@each_function
@pytest.mark.parametrize("end", ["lower", "upper"])
def test_ends_belong_to_the_domain(G, end):
    """G and D go on to a finite end and are infinite beyond it. If it fails, a saturated unit is
    forbidden, or more than that is allowed."""
    last = getattr(G, end)
    if math.isinf(last):
        return
    z = torch.tensor([last * (1 - 1e-12), last], dtype=torch.float64)
    a = torch.full_like(z, 0.7)
    beyond = torch.nextafter(z[1:], 10 * (z[1:] - interior(G).mean()))
    for f in (G.value, lambda z: G.divergence(z, a[: len(z)])):
        near, there = f(z).tolist()
        assert there == pytest.approx(near, abs=1e-9) and f(beyond).item() == math.inf


@each_function
def test_divergence_is_equation_2(G):
    """If it fails, a shortcut for D(z‖a) is not G(z) − z·a + G*(a)."""
    z, a = interior(G)[:, None], preactivations()
    torch.testing.assert_close(G.divergence(z, a), G.value(z) - z * a + G.conjugate(a))


@each_function
@given(a=st.floats(-20, 20), share=st.floats(0.001, 0.999))
def test_divergence_outweighs_half_the_squared_distance(G, a, share):
    """D(z‖a) ≥ ½(z − f(a))² ≥ 0: if it fails, the bounds built on 1-strong convexity do."""
    low, high = max(G.lower, -25.0), min(G.upper, 25.0)
    z, a = torch.tensor([low + share * (high - low), a], dtype=torch.float64)
    distance = z - G.activation(a)
    assert G.divergence(z, a) >= distance.square() / 2 - 1e-12


@each_function
@given(a=st.floats(-15, 15))
def test_divergence_is_zero_at_the_activation(G, a):
    """If it fails, interpolating samples have an energy."""
    a = torch.tensor(a, dtype=torch.float64)
    assert abs(G.divergence(G.activation(a), a)) < 1e-12


@each_function
@pytest.mark.parametrize("beyond", [0.1, 5.0])
def test_infinite_outside_the_domain(G, beyond):
    """If it fails, activations outside the range of f have a finite energy."""
    outside = [end for end in (G.lower - beyond, G.upper + beyond) if math.isfinite(end)]
    for z in torch.tensor(outside, dtype=torch.float64):
        assert G.value(z) == math.inf
        assert G.divergence(z, torch.tensor(0.3, dtype=torch.float64)) == math.inf


@each_function
def test_gradients_of_the_divergence(G):
    """Autograd against finite differences in z and a: if it fails, training gradients are wrong."""
    z, a = interior(G, 7).requires_grad_(), preactivations(7).requires_grad_()
    assert torch.autograd.gradcheck(G.divergence, (z, a), raise_exception=False)


@each_function
def test_divergence_slopes_are_the_two_residuals(G):
    """∂D/∂a = f(a) − z: if it fails, the error that layers send down is not D's slope."""
    z, a = interior(G, 41), preactivations().requires_grad_()
    slope, = torch.autograd.grad(G.divergence(z, a).sum(), a)
    torch.testing.assert_close(slope, G.activation(a.detach()) - z)


@each_function
def test_derivative_is_the_one_of_autograd(G):
    """Kinks included: if it fails, least-squares inference and autograd disagree."""
    kinks = [end for end in (G.lower, G.upper) if math.isfinite(end)]
    a = torch.cat([preactivations(), torch.tensor(kinks, dtype=torch.float64)]).requires_grad_()
    expected, = torch.autograd.grad(G.activation(a).sum(), a)
    torch.testing.assert_close(G.derivative(a.detach()), expected)


@each_function
@pytest.mark.parametrize("q", [-0.9, -0.4, 0.0, 0.7, 3.0])
def test_prox_is_an_argmin(G, q):
    """If it fails, a layer's answer in eq. (17) is not the minimiser of its energy."""
    (z, step), b = grid(G, reach=40), preactivations(13, reach=3.5)
    best = z[(G.value(z) + 0.5 * q * z.square() - b[:, None] * z).argmin(1)]
    torch.testing.assert_close(G.prox(b, q), best, atol=step, rtol=0)


@each_function
def test_prox_takes_one_curvature_a_unit(G):
    """If it fails, per-unit gamma breaks inference."""
    b, q = preactivations(12).reshape(3, 4), torch.tensor([0.0, -0.5, 1.0, 2.0]).double()
    expected = torch.stack([G.prox(b[:, i], float(q[i])) for i in range(4)], 1)
    torch.testing.assert_close(G.prox(b, q), expected)


@each_function
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_methods_keep_the_dtype(G, dtype):
    """If it fails, a float32 network computes in float64, or the reverse."""
    z, a = interior(G, 5).to(dtype), preactivations(5).to(dtype)
    results = [G.value(z), G.conjugate(a), G.activation(a), G.derivative(a), G.prox(a, 0.5),
               G.divergence(z, a)]
    assert {result.dtype for result in results} == {dtype}


@pytest.mark.parametrize(("lower", "upper"), [(1, 0), (1, 1), (0, math.nan)])
def test_empty_box_is_refused(lower, upper):
    """If it fails, a box without points gives NaN much later."""
    with pytest.raises(ValueError, match=f"lower={lower}, upper={upper}"):
        lnn.Box(lower, upper)


def test_softplus_is_right_where_its_series_end():
    """B(u) changes from one series to another at u = 1, G and D with it. If it fails, they jump there."""
    z = torch.tensor([0.5, 1 - 1e-12, 1.0, 1 + 1e-12, 1.5], dtype=torch.float64)
    G = lnn.Softplus()
    torch.testing.assert_close(G.value(z), DEFINITIONS["Softplus()"](z), rtol=1e-12, atol=1e-13)
    a = torch.tensor([-3.0], dtype=torch.float64)
    expected = G.value(z) - z * a + G.conjugate(a)
    torch.testing.assert_close(G.divergence(z, a), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("G", [lnn.Identity(), lnn.ReLU(), lnn.Box(-0.5, 2), lnn.LeakyReLU(0.25)], ids=repr)
@pytest.mark.parametrize("a", [-1.7, -0.3, 0.1, 0.7, 1.3])
def test_divergence_close_to_the_activation(G, a):
    """½(z − f(a))²·G″ where z and a are in one quadratic piece, to the last digits of single precision. If it
    fails, D is the difference of three numbers that almost cancel, and its error exceeds it."""
    f = G.activation(torch.tensor(a))
    z = f + torch.tensor([-(2.0**-12), 2.0**-12])
    inside = (z >= G.lower) & (z <= G.upper) & (f == (a if a > 0 else a * getattr(G, "slope", 1)))
    curvature = 1 / G.slope if isinstance(G, lnn.LeakyReLU) and a < 0 else 1.0
    e = z - f  # exact: z and f are close
    torch.testing.assert_close(G.divergence(z, torch.tensor(a))[inside],
                               (0.5 * curvature * e.square())[inside], rtol=4e-7, atol=0)


# --- tanh where it saturates ------------------------------------------------------------------------


def divergence_of_tanh(z, a):
    """½Σ_± (1 ± z)·log((1 ± z)/(1 ± tanh a)) in 400 digits."""
    with mpmath.workdps(400):
        z, a = mpmath.mpf(z), mpmath.mpf(a)
        f = mpmath.tanh(a)
        return sum((1 + s * z) * mpmath.log((1 + s * z) / (1 + s * f)) for s in (1, -1)
                   if 1 + s * z) / 2, z - f


@st.composite
def saturated(draw, dtype):
    """(z, a) as they occur: anywhere, at an end, close to f(a), or close to an end."""
    a = torch.tensor(draw(st.floats(-100, 100) | st.floats(-1e-6, 1e-6)), dtype=dtype)
    relative = st.floats(1e-16, 1).map(lambda share: draw(st.sampled_from([-1, 1])) * share)
    z = draw(st.one_of(st.floats(-1, 1), st.sampled_from([-1.0, 1.0]),
                       relative.map(lambda d: float(a.double().tanh()) * (1 + d)),
                       relative.map(lambda d: math.copysign(1 - abs(d), d))))
    return torch.tensor(z, dtype=dtype).clamp(-1, 1), a


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@settings(max_examples=300)
@given(data=st.data())
def test_divergence_of_saturated_units(dtype, data):
    """If it fails, a saturated unit's energy is NaN or infinite, and the objective that of plain ℓ.

    The error may be what rounding z and f(a) changes D by: eps·(D + |z − f(a)|).
    """
    z, a = data.draw(saturated(dtype))
    exact, distance = divergence_of_tanh(z.item(), a.item())
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    found = lnn.Tanh().divergence(z, a).item()
    assert abs(found - exact) <= 16 * eps * (exact + abs(distance)) + 2 * tiny


@pytest.mark.parametrize("a", [9.9, 10.01, 10.8, 18.0, 30.0])
def test_tails_are_not_cut_off(a):
    """If it fails, log(1 − tanh a) is −2a + log 2 from some a on, too soon for double precision."""
    z = torch.tensor([-0.9, 0.0, 0.6, 1 - 1e-6], dtype=torch.float64)
    for one, found in zip(z, lnn.Tanh().divergence(z, torch.full_like(z, a))):
        assert found.item() == pytest.approx(float(divergence_of_tanh(one.item(), a)[0]), rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@settings(max_examples=100)
@given(data=st.data())
def test_slopes_of_saturated_units(dtype, data):
    """If it fails, gradients of saturated units are NaN. ∂D/∂z = artanh z − a, ∂D/∂a = tanh a − z.

    At z = ±1, which f(a) may round to, the slope in z is zero there and infinite elsewhere.
    """
    z, a = (v.requires_grad_() for v in data.draw(saturated(dtype)))
    in_z, in_a = torch.autograd.grad(lnn.Tanh().divergence(z, a), (z, a))
    _, distance = divergence_of_tanh(z.item(), a.item())
    eps = torch.finfo(dtype).eps
    assert in_a.item() == pytest.approx(float(-distance), abs=2 * eps)
    if abs(z.item()) == 1:
        assert in_z.item() == (0 if a.tanh() == z else math.copysign(math.inf, z.item()))
    else:
        expected = float(mpmath.atanh(mpmath.mpf(z.item())) - mpmath.mpf(a.item()))
        assert in_z.item() == pytest.approx(expected, abs=64 * eps * (1 + abs(a.item())))


@settings(max_examples=100)
@given(a=st.floats(-40, 40))
def test_derivative_of_saturated_units(a):
    """1/cosh²: if it fails, least squares takes a saturated unit for one with no slope."""
    found = lnn.Tanh().derivative(torch.tensor(a, dtype=torch.float64)).item()
    assert found == pytest.approx(float(mpmath.sech(a) ** 2), rel=1e-14)


def test_curvature_of_the_divergence_of_tanh():
    """Second derivatives 1/(1 − z²) and 1 − tanh² a: Hessians of U are taken from autograd. If it
    fails, they are wrong."""
    z, a = interior(lnn.Tanh(), 9), preactivations(9)
    H = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(lnn.Tanh().divergence, (0, 1)), (0, 1)))
    (zz, za), (az, aa) = H(z, a)
    torch.testing.assert_close(zz, 1 / (1 - z.square()))
    torch.testing.assert_close(aa, 1 - a.tanh().square())
    assert (za == -1).all() and (az == -1).all()


def test_box_is_the_unit_interval_by_default():
    """If it fails, Box() is not the hard sigmoid that the documentation names."""
    a = torch.tensor([-0.5, 0.25, 1.5])
    assert lnn.Box().activation(a).tolist() == [0.0, 0.25, 1.0]
    assert (lnn.Box().lower, lnn.Box().upper) == (0.0, 1.0)


# --- sigmoid and softplus in their tails ------------------------------------------------------------


def divergence_of_sigmoid(z, a):
    """The relative entropy of two coins in 400 digits."""
    with mpmath.workdps(400):
        z, a = mpmath.mpf(z), mpmath.mpf(a)
        f = 1 / (1 + mpmath.exp(-a))
        return sum(p * mpmath.log(p / q) for p, q in ((z, f), (1 - z, 1 - f)) if p), z - f


def divergence_of_softplus(z, a):
    """G(z) − za + G*(a) with dilogarithms, in 200 digits."""
    with mpmath.workdps(200):
        z, a = mpmath.mpf(z), mpmath.mpf(a)
        G = z**2 / 2 + mpmath.polylog(2, mpmath.exp(-z)) - mpmath.zeta(2)
        return mpmath.re(G - z * a - mpmath.polylog(2, -mpmath.exp(a))), z - mpmath.log1p(mpmath.exp(a))


#: Activations next to f(a), far from it, and at the ends of the domain.
TAILS = [(G, exact, z, a) for G, exact, ends in (
    (lnn.Sigmoid(), divergence_of_sigmoid, (0.0, 1e-9, 0.5, 1.0)),
    (lnn.Softplus(), divergence_of_softplus, (0.0, 1e-9, 0.7, 30.0)))
    for a in (-40.0, -9.0, -0.3, 0.0, 1e-8, 0.9, 25.0)
    for z in (*ends, *(float(G.activation(torch.tensor(a).double())) * (1 + d) for d in (1e-9, -1e-5, -0.2)))
    if G.lower <= z <= G.upper]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("G", "exact", "z", "a"), TAILS)
def test_divergence_in_the_tails(G, exact, z, a, dtype):
    """If it fails, energies of saturated units are lost in rounding errors.

    The error may be what rounding z and f(a) changes D by: eps·(D + |z − f(a)|).
    """
    z, a = torch.tensor(z, dtype=dtype), torch.tensor(a, dtype=dtype)
    expected, distance = (float(v) for v in exact(z.item(), a.item()))
    eps = torch.finfo(dtype).eps
    found = G.divergence(z, a).item()
    assert abs(found - expected) <= 16 * eps * (expected + abs(distance)) + 2 * torch.finfo(dtype).tiny


@pytest.mark.parametrize("G", [lnn.Sigmoid(), lnn.Softplus()], ids=repr)
def test_slopes_at_the_end_of_the_domain(G):
    """f(a) may round to an end. If it fails, gradients of saturated units are NaN."""
    z, a = torch.zeros(2, requires_grad=True), torch.tensor([-200.0, 1.0], requires_grad=True)
    in_z, in_a = torch.autograd.grad(G.divergence(z, a).sum(), (z, a))
    assert in_z.tolist() == [0.0, -math.inf]
    torch.testing.assert_close(in_a, G.activation(a.detach()))


@pytest.mark.parametrize("slope", [0, 1.5, -0.1, math.nan])
def test_leaky_slopes_are_checked(slope):
    """If it fails, G is not 1-strongly convex, or not finite, and every bound is wrong."""
    with pytest.raises(ValueError, match="slope=.* must be in"):
        lnn.LeakyReLU(slope)
