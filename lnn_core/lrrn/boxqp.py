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


@dataclass(frozen=True, eq=False)
class BoxQP:
    """H: (n, n), symmetric, positive definite; g: (batch, n); the bounds broadcast to g."""

    H: Tensor
    g: Tensor
    lower: Tensor
    upper: Tensor

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

    def inside(self, z: Tensor) -> Tensor:
        """Which entries are off their bounds, shape (batch, n)."""
        return (z > self.lower) & (z < self.upper)

    def detach(self) -> BoxQP:
        """The problem without autograd history."""
        return BoxQP(self.H.detach(), self.g.detach(), self.lower, self.upper)


@dataclass(frozen=True)
class Report:
    """What a solver did; one entry a sample.

    passes : products with H, or sweeps over all units.
    residual : Euclidean norm of the smallest subgradient; zero exactly at the minimum.
    gap : ½sᵀH⁻¹s, at least the energy that is left to gain.
    converged : whether ‖z − z*‖_H is certified to be at most ``tolerance``·‖z‖_H.
    """

    passes: int
    residual: Tensor
    gap: Tensor
    converged: Tensor

    def __str__(self) -> str:
        return (f"{self.passes} passes, energies within {float(self.gap.max()):.1e} of the "
                f"minimum, {int(self.converged.sum())} of {len(self.converged)} samples converged")


Solver = Callable[..., tuple[Tensor, Report]]


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

    def __call__(self, qp: BoxQP, start: Tensor | None = None) -> tuple[Tensor, Report]:
        """z of shape (batch, n) from ``start`` (default: 0, projected), and a report."""
        inverse = _inverse(qp.H)
        z = qp.project(torch.zeros_like(qp.g) if start is None else start)
        z = z.expand_as(qp.g).clone()
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
    """All units at once: projected gradient, spectral step lengths, exact line search.

    One pass is one product with H, and no pass can raise the energy:

        p = projection(z − α·D⁻¹s) − z,    z ← z + t·p,    t = −sᵀp / pᵀHp cut to [0, 1],

    with s the slope Hz − g (carried along: s ← s + t·Hp) and D the diagonal of H. The step
    length α of each sample is a Barzilai–Borwein quotient of its last pass, twice the
    short one pᵀHp / ‖D^-½Hp‖², then the long one ‖D^½p‖² / pᵀHp: a pattern that converges
    like conjugate gradients here, at a third of the code. p is a descent direction for
    every α > 0, so the method converges from any start.

    Units without bounds are eliminated first, with one factorisation for the batch: what
    is left is better conditioned, and a network without constraints is solved at once.
    """

    tolerance: float = 1e-3
    max_passes: int = 1000
    #: Passes between two looks at the certificate (which costs a pass).
    check_every: int = 4

    def __post_init__(self) -> None:
        _check(self.tolerance, self.max_passes)
        if self.check_every < 1:
            raise ValueError(f"check_every={self.check_every} must be at least 1")

    def __call__(self, qp: BoxQP, start: Tensor | None = None) -> tuple[Tensor, Report]:
        """z of shape (batch, n) from ``start``, and a report.

        The default start is the minimum without constraints, projected.
        """
        constrained = ~_unbounded(qp)
        if constrained.all():
            return self._descend(qp, start)
        reduced, complete, norm = _eliminate(qp, constrained)
        z, report = self._descend(reduced, None if start is None else start[:, constrained], norm)
        return complete(z), report

    def _descend(self, qp: BoxQP, z: Tensor | None,
                 norm: Tensor | float = 0.0) -> tuple[Tensor, Report]:
        inverse, diagonal = _inverse(qp.H), qp.H.diagonal()
        z = qp.project(qp.g @ inverse if z is None else z).expand_as(qp.g)
        rate, tiny = 1 / diagonal, torch.finfo(z.dtype).tiny
        step: Tensor | float = 0.5
        for passes in range(self.max_passes + 1):
            if passes % self.check_every == 0 or passes == self.max_passes:
                slope = qp.slope(z)  # afresh: updates collect rounding errors
                report = _report(qp, inverse, z, slope, passes, self.tolerance, norm)
                if report.converged.all():
                    break
            target = qp.project(z - step * (rate * slope))
            p = target - z
            Hp = p @ qp.H
            curvature = (p * Hp).sum(1, keepdim=True) + tiny
            t = (-(slope * p).sum(1, keepdim=True) / curvature).clamp(0, 1)
            # lerp and not z + t·p, which rounding may leave a hair off a bound.
            z, slope = torch.lerp(z, target, t), torch.addcmul(slope, t, Hp)
            if passes % 3 == 2:
                step = (p * p * diagonal).sum(1, keepdim=True) / curvature
            else:
                step = curvature / ((Hp * Hp * rate).sum(1, keepdim=True) + tiny)
            # 1/n is below every such quotient (the eigenvalues of D⁻¹H sum to n), except for p = 0.
            step = step.clamp_min(1 / len(diagonal))
        return z, report


def _report(qp: BoxQP, inverse: Tensor, z: Tensor, slope: Tensor, passes: int,
            tolerance: float, norm: Tensor | float = 0.0) -> Report:
    """``norm`` is the part of zᵀHz that belongs to eliminated units."""
    s = qp.subgradient(z, slope)
    gap = 0.5 * ((s @ inverse) * s).sum(1)
    energy_norm = norm + (z * (slope + qp.g)).sum(1)  # zᵀHz, without another product
    return Report(passes, s.norm(dim=1), gap, 2 * gap <= tolerance**2 * energy_norm)


def _cholesky(H: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(H)
    if failed or not torch.isfinite(factor).all():
        raise ValueError(f"H is not positive definite in {H.dtype}: the weights are not finite, or "
                         f"too large (largest entry of H: {float(H.abs().max()):.1e})")
    return factor


def _inverse(H: Tensor) -> Tensor:
    return torch.cholesky_inverse(_cholesky(H))


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
    factor = _cholesky(qp.H[~keep][:, ~keep])
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
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance} must be positive")
    if max_passes < 1:
        raise ValueError(f"max_passes={max_passes} must be at least 1")
