"""Strictly convex quadratic programs over boxes: what inference in an LRRN is.

A batch of problems shares its Hessian H and differs in the linear term g:

    min over z of  ½zᵀHz − gᵀz    subject to    lower ≤ z ≤ upper.

Every solver returns a certificate with its answer. Let s be the smallest subgradient of
objective and constraints at z: the slope Hz − g, without the parts that push against a
bound on which z lies. Then

    value(z) − minimum ≤ ½sᵀH⁻¹s    and    ‖z − z*‖_H ≤ ‖s‖_{H⁻¹},    ‖v‖²_A = vᵀAv.

Proof: s is a subgradient at z of a function that is convex even after ½‖·‖²_H is taken
off, so that minimum ≥ value(z) + sᵀe + ½‖e‖²_H with e = z* − z; the right side is at least
value(z) − ½sᵀH⁻¹s. With the subgradient 0 at z* as well, ‖e‖²_H ≤ −sᵀe ≤ ‖s‖_{H⁻¹}‖e‖_H.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import at_least, finite, positive
from ..kinds import expect, expect_function


@dataclass(frozen=True, eq=False)
class BoxQP:
    """H: (n, n), symmetric, positive definite; g: (batch, n); bounds: (n,) or (batch, n).

    Raises:
        TypeError: an entry of another kind.
        ValueError: other shapes; for values see :meth:`check_values`, when a solver starts.
    """

    H: Tensor
    g: Tensor
    lower: Tensor
    upper: Tensor

    def __post_init__(self) -> None:
        for name in ("H", "g", "lower", "upper"):
            expect(name, getattr(self, name), Tensor, "a tensor")
        if self.g.ndim != 2:
            raise ValueError(f"g has shape {tuple(self.g.shape)}; expected (batch, n)")
        n = self.g.shape[1]
        for name, shapes in (("H", [(n, n)]), *((side, [(n,), tuple(self.g.shape)])
                                                for side in ("lower", "upper"))):
            value = getattr(self, name)
            if tuple(value.shape) not in shapes:
                raise ValueError(f"{name} has shape {tuple(value.shape)}; expected "
                                 + " or ".join(map(str, shapes)))
            if value.dtype != self.g.dtype:
                raise ValueError(f"{name} has dtype {value.dtype}; g has {self.g.dtype}")

    def check_values(self) -> None:
        """ValueError unless values are finite, H is symmetric and the box is not empty."""
        finite("H", self.H)
        finite("g", self.g)
        if (self.H - self.H.T).norm() > torch.finfo(self.H.dtype).eps ** 0.5 * self.H.norm():
            i, j = divmod(int((self.H - self.H.T).abs().argmax()), len(self.H))
            raise ValueError(f"H must be symmetric; H[{i}, {j}] is {self.H[i, j].item():g}, "
                             f"H[{j}, {i}] is {self.H[j, i].item():g}")
        lower, upper = torch.broadcast_tensors(self.lower, self.upper)
        empty = ~((lower <= upper) & (lower < torch.inf) & (upper > -torch.inf))
        if empty.any():
            raise ValueError(f"no number lies between lower={lower[empty][0].item():g} and "
                             f"upper={upper[empty][0].item():g}")

    def value(self, z: Tensor) -> Tensor:
        """½zᵀHz − gᵀz, shape (batch,)."""
        return (z * (0.5 * z @ self.H - self.g)).sum(1)

    def slope(self, z: Tensor) -> Tensor:
        """Hz − g, shape (batch, n)."""
        return torch.addmm(self.g, z, self.H, beta=-1)

    def project(self, z: Tensor) -> Tensor:
        """The nearest point in the box."""
        return z.clamp(self.lower, self.upper)

    def subgradient(self, z: Tensor, slope: Tensor) -> Tensor:
        """s of the module's docstring, shape (batch, n); zero exactly at the minimum."""
        slope = torch.where(z <= self.lower, slope.clamp_max(0), slope)
        return torch.where(z >= self.upper, slope.clamp_min(0), slope)

    def room(self, z: Tensor, d: Tensor) -> Tensor:
        """The largest t for which z + t·d is in the box, shape (batch, 1)."""
        tiny = torch.finfo(z.dtype).tiny  # for 0/0: a unit that stays on its bound
        speed = torch.maximum(d / (self.upper - z + tiny), -d / (z - self.lower + tiny))
        return 1 / speed.amax(1, keepdim=True).clamp_min(0)

    def inside(self, z: Tensor) -> Tensor:
        """Which entries are off their bounds, shape (batch, n)."""
        return (z > self.lower) & (z < self.upper)

    def rescaled(self, scale: Tensor) -> BoxQP:
        """The same problem in scale·z, with the Hessian H_ij / (scale_i scale_j)."""
        return BoxQP(self.H / scale / scale[:, None], self.g / scale, self.lower * scale,
                     self.upper * scale)

    def detach(self) -> BoxQP:
        """The problem without autograd history."""
        return BoxQP(self.H.detach(), self.g.detach(), self.lower, self.upper)


@dataclass(frozen=True)
class QPReport:
    """What a solver did; one entry per sample.

    Attributes:
        passes: products with H, or sweeps over all units.
        residual: ‖s‖_{H⁻¹}, zero exactly at the minimum, and at least ‖z − z*‖_H.
        converged: whether the residual is at most ``tolerance``·‖z‖_H.
    """

    passes: int
    residual: Tensor
    converged: Tensor

    @property
    def gap(self) -> Tensor:
        """½sᵀH⁻¹s, at least the energy that is left to gain, shape (batch,)."""
        return 0.5 * self.residual.square()

    def __str__(self) -> str:
        return (f"{self.passes} passes, energies within {float(self.gap.max()):.1e} of the "
                f"minimum, {int(self.converged.sum())} of {len(self.converged)} samples converged")


Solver = Callable[..., tuple[Tensor, QPReport]]


@dataclass(frozen=True)
class CoordinateDescent:
    """The paper's solver: one unit at a time, first layer first, each to its exact minimum.

        z_j ← projection of (g_j − Σ_{i≠j} H_ij z_i) / H_jj  onto [lower_j, upper_j]

    Every update has a closed form and none can raise the energy. It is sequential in the
    units and parallel in the samples only, hence slow; kept as the reference.
    """

    tolerance: float = 1e-3
    max_passes: int = 1000

    def __post_init__(self) -> None:
        _check(self.tolerance, self.max_passes)

    def __call__(self, qp: BoxQP, start: Tensor | None = None) -> tuple[Tensor, QPReport]:
        """z of shape (batch, n) from ``start`` (default: 0, projected), and a report."""
        _check_problem(qp, start)
        inverse = _inverse(qp.H, qp)
        z = qp.project(torch.zeros_like(qp.g) if start is None else start)
        lower, upper = (bound.expand_as(z) for bound in (qp.lower, qp.upper))
        passes, report = 0, _report(qp, inverse, z, qp.slope(z), 0, self.tolerance)
        while passes < self.max_passes and not report.converged.all():
            for j, row in enumerate(qp.H):
                wanted = z[:, j] + (qp.g[:, j] - z @ row) / row[j]
                z[:, j] = wanted.clamp(lower[:, j], upper[:, j])
            passes += 1
            report = _report(qp, inverse, z, qp.slope(z), passes, self.tolerance)
        return z, report


@dataclass(frozen=True)
class SpectralDescent:
    """All units at once: a projected gradient or a conjugate step, whichever gains more.

    One pass is one product with H, and no pass can raise the energy. In units that give H
    ones on its diagonal, with the slope s = Hz − g (carried along) and the last pass's move
    m, a pass weighs

        p = projection(z − αs) − z    against    d = p − (pᵀHm / mᵀHm)·m,

    each with an exact line search that stops at the box. p is a descent direction for
    every α > 0, hence the method converges from any start; it can meet many bounds at once.
    Once they are the right ones, d makes the passes conjugate gradients on the units
    inside. α, one per sample, is a Barzilai–Borwein quotient of the last move: twice the
    short one mᵀHm / ‖Hm‖², then the long one ‖m‖² / mᵀHm.

    Units without bounds are eliminated first, with one factorisation for the batch: what
    is left is better conditioned, and a network without constraints is solved at once.
    """

    tolerance: float = 1e-3
    max_passes: int = 1000
    #: Passes between two checks of the certificate, each of which takes two products as large as a pass's.
    check_every: int = 4

    def __post_init__(self) -> None:
        _check(self.tolerance, self.max_passes)
        at_least("check_every", self.check_every, 1)

    def __call__(self, qp: BoxQP, start: Tensor | None = None) -> tuple[Tensor, QPReport]:
        """z of shape (batch, n) from ``start``, and a report.

        The default start is the minimum without constraints, projected.
        """
        _check_problem(qp, start)
        keep = ~_unbounded(qp)
        reduced, complete, norm = _eliminate(qp, keep)
        scale = reduced.H.diagonal().sqrt()
        inner = reduced.rescaled(scale)
        z, report = self._descend(inner, _inverse(inner.H, qp),
                                  None if start is None else start[:, keep] * scale, norm)
        # What is on a bound goes exactly to that bound: (b·scale)/scale need not be b.
        back = torch.where(z >= inner.upper, reduced.upper, z / scale)
        return complete(torch.where(z <= inner.lower, reduced.lower, back)), report

    def _descend(self, qp: BoxQP, inverse: Tensor, z: Tensor | None,
                 norm: Tensor) -> tuple[Tensor, QPReport]:
        z = qp.project(qp.g @ inverse if z is None else z)
        tiny, noise = torch.finfo(z.dtype).tiny, torch.finfo(z.dtype).eps ** 0.5
        m = Hm = torch.zeros_like(z)
        mHm = step = z.new_full((len(z), 1), 0.5)
        for passes in range(self.max_passes + 1):
            if passes % self.check_every == 0 or passes == self.max_passes:
                slope = qp.slope(z)  # afresh: updates collect rounding errors
                report = _report(qp, inverse, z, slope, passes, self.tolerance, norm)
                if report.converged.all():
                    break
            target = qp.project(torch.addcmul(z, step, slope, value=-1))
            p = target - z
            Hp = p @ qp.H
            descent, pHp, pHm = -_dot(slope, p), _dot(p, Hp) + tiny, _dot(p, Hm)
            mix = -pHm / mHm
            # Of d only what the line search needs; where p continues m, d is rounding noise.
            descent_d, dHd = descent - mix * _dot(slope, m), pHp + mix * pHm
            t_d = torch.minimum(descent_d / dHd, qp.room(z, torch.addcmul(p, mix, m)))
            t_p = (descent / pHp).clamp(0, 1)
            gain = t_d * (descent_d - 0.5 * t_d * dHd) - t_p * (descent - 0.5 * t_p * pHp)
            conjugate = (gain > 0) & (t_d > 0) & (dHd > noise * pHp)
            t, mix = torch.where(conjugate, t_d, t_p), torch.where(conjugate, t_d * mix, 0.0)
            m, Hm = torch.addcmul(t * p, mix, m), torch.addcmul(t * Hp, mix, Hm)
            # A lerp ends exactly on the target, z + m may end a hair off a bound.
            z = torch.lerp(torch.lerp(z, target, t_p), qp.project(z + m), conjugate.to(z.dtype))
            slope, mHm = slope + Hm, _dot(m, Hm) + tiny
            step = _dot(m, m) / mHm if passes % 3 == 2 else mHm / (_dot(Hm, Hm) + tiny)
            # 1/n is below every quotient, as the eigenvalues of H sum to n; m = 0 gives 0.
            step = step.clamp_min(1 / z.shape[1])
        return z, report


def _check_problem(qp: BoxQP, start: Tensor | None) -> None:
    """TypeError or ValueError for what no solver can solve, or start from."""
    expect("qp", qp, BoxQP, "a BoxQP")
    qp.check_values()
    if start is not None:
        expect("start", start, Tensor, "a tensor")
        if start.shape != qp.g.shape:
            raise ValueError(f"start has shape {tuple(start.shape)}; expected {tuple(qp.g.shape)}")
        finite("start", start)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """aᵀb of each sample, shape (batch, 1)."""
    return (a * b).sum(1, keepdim=True)


def _report(qp: BoxQP, inverse: Tensor, z: Tensor, slope: Tensor, passes: int,
            tolerance: float, norm: Tensor | float = 0.0) -> QPReport:
    """``norm`` is the part of zᵀHz that belongs to eliminated units."""
    s = qp.subgradient(z, slope)
    residual = ((s @ inverse) * s).sum(1).clamp_min(0).sqrt()
    size = (norm + (z * (slope + qp.g)).sum(1)).sqrt()  # ‖z‖_H, without another product
    return QPReport(passes, residual, residual <= tolerance * size)


def _cholesky(part: Tensor, qp: BoxQP) -> Tensor:
    """The factor of a part of the program's H; ValueError where H is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(part)
    # What rounding leaves of a pivot that is 0 may be positive on one processor and not on another.
    least = 4 * torch.finfo(part.dtype).eps * part.diagonal()
    if failed or not (factor.diagonal().square() > least).all():
        eigenvalues = torch.linalg.eigvalsh(qp.H.double()).tolist()
        raise ValueError(f"H must be positive definite in {qp.H.dtype}; its smallest eigenvalue is "
                         f"{eigenvalues[0]:.3g}, its largest {eigenvalues[-1]:.3g}")
    return factor


def _inverse(part: Tensor, qp: BoxQP) -> Tensor:
    return torch.cholesky_inverse(_cholesky(part, qp))


def _unbounded(qp: BoxQP) -> Tensor:
    """Which units have no finite bound for any sample, shape (n,)."""
    unbounded = torch.isinf(qp.lower) & torch.isinf(qp.upper)
    return unbounded if unbounded.ndim == 1 else unbounded.all(0)


def _eliminate(qp: BoxQP, keep: Tensor) -> tuple[BoxQP, Callable[[Tensor], Tensor], Tensor]:
    """The problem in the units ``keep`` after minimising over the others, and the way back.

    With u the others: z_u = H_uu⁻¹(g_u − H_uk z_k), which leaves the Schur complement
    S = H_kk − H_ku H_uu⁻¹ H_uk and g_k − H_ku H_uu⁻¹ g_u. The certificate of the reduced
    problem is that of the whole one. Third, g_uᵀH_uu⁻¹g_u = zᵀHz − z_kᵀSz_k, shape (batch,).
    """
    factor = _cholesky(qp.H[~keep][:, ~keep], qp)
    across = qp.H[~keep][:, keep]
    gain = torch.cholesky_solve(across, factor)
    free = torch.cholesky_solve(qp.g[:, ~keep].T, factor).T

    def complete(z_k: Tensor) -> Tensor:
        z = torch.empty_like(qp.g)
        z[:, keep], z[:, ~keep] = z_k, free - z_k @ gain.T
        return z

    reduced = BoxQP(qp.H[keep][:, keep] - across.T @ gain, qp.g[:, keep] - qp.g[:, ~keep] @ gain,
                    qp.lower[..., keep], qp.upper[..., keep])
    return reduced, complete, (free * qp.g[:, ~keep]).sum(1)


def _check(tolerance: float, max_passes: int) -> None:
    positive("tolerance", tolerance)
    at_least("max_passes", max_passes, 1)


def chosen(solver: Solver | None, default: Solver = SpectralDescent()) -> Solver:
    """The solver, or the default for None; TypeError for what cannot be called."""
    if solver is not None:
        expect_function("solver", solver, "a solver such as SpectralDescent()")
    return default if solver is None else solver
