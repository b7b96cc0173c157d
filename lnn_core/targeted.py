"""Targeted perturbations: the objectives with an attack ℓ⁻ of weight ᾱ = 1 − α, Zach (2025), section 4."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from .checks import number
from .difference import Difference
from .inference.iterate import Solver
from .kinds import expect, expect_function
from .losses import Euclidean, Loss, LossFamily, Targeted, loss_of
from .objectives import DifferenceObjective, above_rounding
from .potentials import Potential
from .tilts import Tilt

Attack = Callable[[LossFamily, Tensor], Loss]


class _TargetedObjective(DifferenceObjective):
    """α, the attack ℓ⁻ and the tilt g that the two targeted objectives share.

    Arguments as for :class:`~lnn_core.TargetedAROVR`.
    """

    def __init__(self, alpha: float, beta: float, attack: Attack | None = None, *,
                 tilt: Tilt | None = None, per_alpha: bool = True,
                 loss: LossFamily = Euclidean, potential: Potential | None = None,
                 solver: Solver | None = None):
        super().__init__(beta, loss, potential, solver)
        if not 0 < number("alpha", alpha) <= 1:
            raise ValueError(f"alpha={alpha} must be in (0, 1]")
        self.alpha = float(alpha)
        above_rounding("alpha*beta", self.alpha * self.beta)
        self.attack = Targeted() if attack is None else expect_function(
            "attack", attack, "a function (loss, target) that returns a Loss, such as Targeted()",
            but=(type, Loss))
        self.tilt = tilt if tilt is None else expect_function(
            "tilt", tilt, "a tilt such as GaussianTilt(1/16)")
        self.scale = self.beta * (self.alpha if per_alpha else 1.0)

    def subproblem(self, net, target):
        """The potential of this call, and the losses βᾱℓ⁻ and βαℓ."""
        U = self.potential if self.tilt is None else self.tilt(net, self.potential)
        expect("tilt(net, potential)", U, Potential, "a Potential")
        attack = self.attack(partial(loss_of, self.loss), target)
        expect("attack(loss, target)", attack, Loss, "a Loss")
        return (U, self.beta * (1 - self.alpha) * attack,
                self.beta * self.alpha * loss_of(self.loss, target))

    @property
    def strength(self):
        return self.alpha * self.beta

    def __repr__(self):
        tilt = "" if self.tilt is None else f", tilt={self.tilt}"
        return f"{type(self).__name__}(alpha={self.alpha:g}, beta={self.beta:g}{tilt})"


class TargetedROVR(_TargetedObjective):
    """ROVR_{α,β} = (m(β(ᾱℓ⁻ + αℓ)) − m(βᾱℓ⁻))/β ≤ αℓ(z̃), Zach (2025), eq. (25).

    z̃ = argmin_z U(z; x) + βᾱℓ⁻(z_L) is where the attack alone leads. Divided by α unless
    ``per_alpha=False``. Arguments as for :class:`~lnn_core.TargetedAROVR`.
    """

    def difference(self, net, target):
        U, attack, loss = self.subproblem(net, target)
        return Difference(U, attack, loss, 1 / self.scale)  # eq. (25)


class TargetedAROVR(_TargetedObjective):
    """AROVR_{α,β} = (m(βᾱℓ⁻) − m(β(ᾱℓ⁻ − αℓ)))/β ≥ αℓ(z̃), Zach (2025), eq. (26).

    z̃ = argmin_z U(z; x) + βᾱℓ⁻(z_L) is where the attack alone leads. Divided by α unless
    ``per_alpha=False``. With α < ½ and a Euclidean attack both minima are finite for every
    β > 0. With a ``tilt`` this is AROVR^g_{α,β} of eq. (31).

    Args:
        alpha: 0 < α ≤ 1; α = 1 gives ROVR and AROVR. ᾱ = 1 − α weighs the attack.
        beta: β > 0, and αβ ≥ 1e-12.
        attack: ℓ⁻, as a function (loss, target) → Loss; default ``Targeted()``, a random wrong
            label. ``untargeted`` is −ℓ.
        tilt: draws g for U^g = U + gᵀz once per call, such as ``GaussianTilt(1/16)``.
        per_alpha: divide by α, so that the gradient tends to back-propagation's as β → 0 and one
            learning rate serves all methods (Zach 2025, after eq. 32). False gives the objective
            itself.
        loss: as for :class:`~lnn_core.AROVR`, like the next two.
        potential: U, before it is tilted.
        solver: what infers.

    Raises:
        ValueError: α outside (0, 1], or αβ below 1e-12.
        TypeError: an argument of another kind.
    """

    def difference(self, net, target):
        U, attack, loss = self.subproblem(net, target)
        self.check_beta(net, (1 / self.beta) * (loss - attack))
        return Difference(U, attack, -loss, -1 / self.scale)  # eq. (26)
