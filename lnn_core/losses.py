"""Losses on the output activations, and the arithmetic that objectives do with them.

Every loss here is a weighted sum of Euclidean losses, a linear one, and log-sum-exp,

    ℓ(z_L) = Σ_i w_i·½‖z_L − y_i‖² + gᵀz_L + s·lse(z_L),    lse(z) = log Σ_c exp(z_c),

which is closed under what the objectives need: ``beta * loss``, ``-loss`` and
``attack + loss``. Cross-entropy with the distribution y is lse(z_L) − yᵀz_L. What inference asks
of a loss is its gradient, ``curvature · z_L − pull + s·softmax(z_L)``, and between which bounds
its second derivatives lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from .convex import Identity
from .kinds import described, expect, expect_function, expect_generator, number
from .network import LiftedNetwork


@dataclass(frozen=True)
class Loss:
    """ℓ(z) = Σ_i w_i·½‖z − y_i‖² + gᵀz + s·lse(z) for z of shape (batch, d_L); one value per sample.

    A weight, like the factor of ``factor * loss``, is a number, or a tensor that broadcasts
    to (batch, d_L): shape (batch, 1) gives every sample a weight of its own, (d_L,) every
    output. Targets have shape (batch, d_L), or (1, d_L) to share one.

    Args:
        terms: the pairs (w_i, y_i).
        slope: g, which broadcasts to (batch, d_L); None for zero.
        lse: s, a number or a tensor that broadcasts to (batch, 1): the weight of log-sum-exp.
    """

    terms: tuple[tuple[float | Tensor, Tensor], ...] = ()
    slope: Tensor | None = None
    lse: float | Tensor = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        """ℓ(z), shape (batch,)."""
        parts, linear = [], z
        if not self.is_quadratic:
            # Outputs count from the largest one, and lse is log(1 + a sum over the others): else the
            # loss of a confident sample, 1e-6 say, would be a difference of rounding errors.
            index = z.argmax(-1, keepdim=True)
            top = z.gather(-1, index)
            linear = z - top
            rest = linear.scatter(-1, index, -math.inf).exp().sum(-1, keepdim=True).log1p()
            common = self.lse if self.slope is None else (
                self.lse + self.slope.expand_as(z).sum(-1, keepdim=True))
            parts.append((self.lse * rest + common * top)[..., 0])
        if self.slope is not None:
            parts.append((self.slope * linear).sum(-1))
        for weight, target in self.terms:
            gap = z - target
            if isinstance(weight, Tensor):
                parts.append(0.5 * (weight * gap.square()).sum(-1))
            else:
                parts.append(0.5 * weight * torch.linalg.vecdot(gap, gap))
        return _sum(parts) if parts else z.new_zeros(len(z))

    @property
    def is_quadratic(self) -> bool:
        """Whether s = 0."""
        return isinstance(self.lse, (int, float)) and self.lse == 0

    @property
    def curvature(self) -> float | Tensor:
        """q = Σ_i w_i, the second derivative of the Euclidean part."""
        return _sum([weight for weight, _ in self.terms])

    @property
    def curvature_bounds(self) -> tuple[float, float]:
        """The least and the greatest curvature that any output of any sample can have."""
        least, greatest = self.curvatures
        return smallest(least), largest(greatest)

    @property
    def curvatures(self) -> tuple[float | Tensor, float | Tensor]:
        """q + min(0, s/2) and q + max(0, s/2), which broadcast to (batch, d_L).

        The Hessian of lse is diag(p) − ppᵀ with p = softmax(z): between 0 and ½ (Böhning 1992).
        """
        q, half = self.curvature, 0.5 * self.lse
        if isinstance(half, Tensor):
            return q + half.clamp_max(0.0), q + half.clamp_min(0.0)
        return q + min(half, 0.0), q + max(half, 0.0)

    @property
    def lipschitz(self) -> Tensor | float:
        """max_z ‖∇ℓ(z)‖, shape (batch,); infinite with a Euclidean part.

        ∇ℓ = g + s·p is longest where p is a corner of the simplex, as norms are convex: √2 for
        cross-entropy and labels.
        """
        if self.terms:
            return math.inf
        if self.slope is None:
            return abs(self.lse)
        g, s = self.slope, self.lse
        squares = g.square().sum(-1, keepdim=True) + s**2 + 2 * (s * g).amax(-1, keepdim=True)
        return squares.clamp_min(0.0).sqrt()[..., 0]

    def curvature_along(self, z: Tensor, d: Tensor) -> float | Tensor:
        """dᵀ∇²ℓ(z)d/‖d‖², shape (batch, 1); plain q for a quadratic loss."""
        if self.is_quadratic:
            return self.curvature
        p, squares = z.softmax(-1), d.square()
        size = squares.sum(-1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)
        spread = (p * squares).sum(-1, keepdim=True) - (p * d).sum(-1, keepdim=True).square()
        return ((self.curvature * squares).sum(-1, keepdim=True) + self.lse * spread) / size

    def gradient(self, z: Tensor) -> Tensor:
        """∇ℓ(z) = q·z − c + s·softmax(z), shape (batch, d_L)."""
        slope = self.curvature * z - self.pull
        return slope if self.is_quadratic else slope + self.lse * z.softmax(-1)

    @property
    def pull(self) -> Tensor | float:
        """c = Σ_i w_i·y_i − g: the Euclidean and the linear part have the gradient q·z − c."""
        parts = [weight * target for weight, target in self.terms]
        return _sum(parts if self.slope is None else [*parts, -self.slope])

    def check(self, net: LiftedNetwork, samples: int | None) -> None:
        """ValueError unless weights, targets and slope fit the outputs of this many samples."""
        width, dtype, G = net.sizes[-1], net.dtype, net.function(net.depth)
        for weight, target in self.terms:
            expect("a target", target, Tensor, "a tensor of shape (batch, d_L)")
            if target.ndim != 2 or target.shape[1] != width:
                raise ValueError(f"a target has shape {tuple(target.shape)}; expected "
                                 f"({'batch' if samples is None else samples}, {width})")
            check_entry("a target", target, samples, width, dtype)
            check_entry("a weight", weight, samples, width, dtype)
        check_entry("the slope", self.slope, samples, width, dtype)
        check_entry("the factor of a cross-entropy", self.lse, samples, 1, dtype)
        if not (self.is_quadratic or isinstance(G, Identity)):
            raise ValueError(f"cross-entropy takes logits; the network's output is {G!r}: leave it out, "
                             "output=Identity()")

    def tensors(self) -> list[Tensor]:
        """All tensors that the loss holds."""
        return [entry for pair in (*self.terms, (self.slope, self.lse)) for entry in pair
                if isinstance(entry, Tensor)]

    def take(self, rows: Tensor) -> Loss:
        """The loss of these samples of the batch, which may repeat."""
        return Loss(tuple((take_rows(weight, rows), take_rows(target, rows))
                          for weight, target in self.terms),
                    take_rows(self.slope, rows), take_rows(self.lse, rows))

    def __add__(self, other: Loss) -> Loss:
        if not isinstance(other, Loss):
            return NotImplemented
        slopes = [slope for slope in (self.slope, other.slope) if slope is not None]
        return Loss(self.terms + other.terms, _sum(slopes) if slopes else None, self.lse + other.lse)

    def __mul__(self, factor: float | Tensor) -> Loss:
        return self.times(factor) if isinstance(factor, (Real, Tensor)) else NotImplemented

    def times(self, factor: float | Tensor) -> Loss:
        """``factor * loss``, which ``torch.compile`` cannot read where the factor is a tensor."""
        if not self.is_quadratic and isinstance(factor, Tensor) and factor.ndim and factor.shape[-1] != 1:
            raise ValueError(f"a cross-entropy is multiplied by a tensor of shape {tuple(factor.shape)}; "
                             "expected a number or shape (batch, 1), one per sample: w[:, None] * "
                             "CrossEntropy(y). Weights of classes are an option, CrossEntropy(y, weight=w)")
        return Loss(tuple((factor * weight, target) for weight, target in self.terms),
                    None if self.slope is None else factor * self.slope,
                    self.lse if self.is_quadratic else factor * self.lse)

    __rmul__ = __mul__

    def __neg__(self) -> Loss:
        return -1.0 * self

    def __sub__(self, other: Loss) -> Loss:
        return self + (-other) if isinstance(other, Loss) else NotImplemented


def _sum(parts: list) -> Tensor | float:
    return sum(parts[1:], start=parts[0]) if parts else 0.0


def take_rows(value: float | Tensor | None, rows: Tensor) -> float | Tensor | None:
    """The rows of a tensor that has one per sample; anything else as it is."""
    return value[rows] if isinstance(value, Tensor) and value.ndim == 2 and len(value) > 1 else value


def smallest(entry: float | Tensor) -> float:
    """The least entry; NaN if one is."""
    return float(entry.detach().min()) if isinstance(entry, Tensor) else float(entry)


def largest(entry: float | Tensor) -> float:
    """The greatest entry; NaN if one is."""
    return float(entry.detach().max()) if isinstance(entry, Tensor) else float(entry)


def check_dtype(name: str, entry: float | Tensor | None, dtype: torch.dtype) -> None:
    """ValueError where the entry would turn activations of this dtype into another one."""
    if not isinstance(entry, Tensor) or entry.dtype == dtype or (
            entry.ndim == 0 and entry.is_floating_point()):
        return
    if not entry.is_floating_point() or torch.promote_types(entry.dtype, dtype) != dtype:
        raise ValueError(f"{name} has dtype {entry.dtype}; the network has {dtype}")


def check_entry(name: str, entry: float | Tensor | None, samples: int | None, width: int,
                dtype: torch.dtype) -> None:
    """ValueError unless the entry broadcasts to (samples, width); None: any number of samples."""
    check_dtype(name, entry, dtype)
    shape = tuple(entry.shape) if isinstance(entry, Tensor) else ()
    rows, columns = (1, 1, *shape)[-2:]
    if len(shape) > 2 or columns not in (1, width) or (
            samples is not None and rows not in (1, samples)):
        raise ValueError(f"{name} has shape {shape}, which does not broadcast to "
                         f"({'batch' if samples is None else samples}, {width})")


#: A loss for every target, such as ``Euclidean``.
LossFamily = Callable[[Tensor], Loss]


def loss_of(family: LossFamily, target: Tensor) -> Loss:
    """The loss for these targets; TypeError where the family returns something else, or fails."""
    try:
        loss = family(target)
    except TypeError as error:  # such as torch's own losses, which take two arguments
        raise TypeError(f"loss(targets) fails: {error}; expected a Loss, as Euclidean(targets) "
                        "is") from error
    expect("loss(targets)", loss, Loss, "a Loss, as Euclidean(targets) is")
    return loss


def checked_family(family: LossFamily) -> LossFamily:
    """The family, anything that can be called; TypeError for the rest, for a Loss and for torch's losses.

    A Loss takes outputs, not targets. Whether a call returns one only :func:`loss_of` can tell.
    """
    if isinstance(family, torch.nn.Module) and type(family).__module__ == torch.nn.modules.loss.__name__:
        ours = {"CrossEntropyLoss": "loss=lnn_core.CrossEntropy",
                "MSELoss": "loss=lnn_core.Euclidean, half the sum of squares"}.get(
                    type(family).__name__, "a function of the targets that returns an lnn_core.Loss")
        raise TypeError(f"loss is {described(family)}, which takes outputs too: write {ours}")
    return expect_function("loss", family, "a function of the targets that returns a Loss, such as "
                           "Euclidean", but=(Loss,))


def Euclidean(target: Tensor) -> Loss:  # a function that reads as the name of a loss
    """ℓ(z) = ½‖z − y‖², the target loss of Zach (2025), section 5.

    Args:
        target: y, shape (batch, d_L).
    """
    expect("target", target, Tensor, "a tensor of shape (batch, d_L)")
    return Loss(terms=((1.0, target),))


def CrossEntropy(target: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None) -> Loss:
    """ℓ(z) = −Σ_c w_c·y_c·log softmax(z)_c, as ``torch.nn.functional.cross_entropy`` for each sample.

    z are logits: the output layer must be linear (``Identity``). Convex, ½-smooth and √2-Lipschitz for
    distributions y and w = 1, so that AROVR with it is finite for every β. Options are set with
    ``functools.partial(CrossEntropy, label_smoothing=0.1)``; one weight per sample, w of shape (batch, 1),
    with ``lambda y: w * CrossEntropy(y)``. A mean over the batch does not divide by the weights' mean, as
    torch's does.

    Args:
        target: y, shape (batch, d_L): probabilities, one row per sample. Integer labels become such
            rows in an objective.
        label_smoothing: ε in [0, 1]: y counts as (1 − ε)·y + ε/d_L.
        weight: w, one number per class, shape (d_L,), not negative.

    Raises:
        ValueError: a probability or a weight that is negative or not finite, weights of another shape, or
            ε outside [0, 1].
    """
    expect("target", target, Tensor, "a tensor of shape (batch, d_L)")
    if not target.is_floating_point() or target.ndim != 2:
        raise ValueError(f"target has dtype {target.dtype} and shape {tuple(target.shape)}; expected "
                         "probabilities of shape (batch, d_L), such as one_hot(labels, classes).float()")
    if not 0 <= number("label_smoothing", label_smoothing) <= 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be in [0, 1]")
    if weight is not None and not isinstance(weight, Tensor):
        raise ValueError(f"weight is {described(weight)}; expected a tensor of shape ({target.shape[1]},)")
    if weight is not None and weight.shape != target.shape[1:]:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; expected ({target.shape[1]},), one per "
                         "class")
    for name, entry in (("target", target), ("weight", weight)):
        if entry is not None and not 0 <= smallest(entry) <= largest(entry) < math.inf:
            worst = smallest(entry) if not smallest(entry) >= 0 else largest(entry)
            raise ValueError(f"{name} holds {worst:g}; it must be finite and not negative")
    if label_smoothing:
        target = (1 - label_smoothing) * target + label_smoothing / target.shape[1]
    if weight is not None:
        target = weight.to(target) * target
    return Loss(slope=-target, lse=target.sum(1, keepdim=True))


def Linear(slope: Tensor) -> Loss:
    """ℓ(z) = gᵀz, the linear(ised) loss of Zach (2025), Remark 3.2 and Proposition 3.3.

    Args:
        slope: g, which broadcasts to (batch, d_L).
    """
    expect("slope", slope, Tensor, "a tensor that broadcasts to (batch, d_L)")
    return Loss(slope=slope)


def wrong_labels(labels: Tensor, classes: int, generator: torch.Generator | None = None) -> Tensor:
    """One label per sample, uniform among the ``classes`` − 1 that are not its own."""
    if classes < 2:
        raise ValueError(f"classes={classes}: a wrong label needs at least two")
    shift = torch.randint(1, classes, labels.shape, generator=generator, device=home(generator))
    return (labels + shift.to(labels.device)) % classes


def home(generator: torch.Generator | None) -> torch.device:
    """Where a generator draws: torch's default device need not be the same."""
    return torch.device("cpu") if generator is None else generator.device


class Targeted:
    """ℓ⁻(z) = ℓ(z; y⁻) for a wrong label y⁻, drawn afresh at every call.

    The attack of Zach (2025), section 5: y⁻ is uniform among the other labels. The
    target of a sample must be one-hot (its label is where it is largest).

    Args:
        generator: draws the wrong labels (default: torch's global one).
    """

    def __init__(self, generator: torch.Generator | None = None):
        self.generator = expect_generator("generator", generator)

    def __call__(self, loss, target: Tensor) -> Loss:
        classes = target.shape[1]
        other = wrong_labels(target.argmax(1), classes, self.generator)
        return loss(torch.nn.functional.one_hot(other, classes).to(target.dtype))


def untargeted(loss, target: Tensor) -> Loss:
    """ℓ⁻ = −ℓ: by eq. (26) AROVR_{α,β} then is AROVR_β − ᾱ·AROVR_{ᾱβ}."""
    return -loss(target)
