"""How little changes a prediction: attacks in the Euclidean norm, from foolbox (Rauber et al.).

An attack's result is an upper bound of the smallest change that turns the prediction: a
better attack may need less. A certificate is a lower bound. Where they meet, both are tight.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..extras import extra

with extra("experiments"), warnings.catch_warnings():
    # foolbox 3.3.4 imports one filter from a name that SciPy keeps until its version 2.
    warnings.filterwarnings("ignore", "Please import `gaussian_filter`", DeprecationWarning)
    import foolbox

from ..checks import at_least
from ..data import Split
from ..kinds import expect, expect_sequence
from ..losses import Loss

if TYPE_CHECKING:
    from foolbox.attacks.base import Attack

#: DeepFool (Moosavi-Dezfooli et al., 2016), fast minimum-norm (Pintor et al., 2021) and Carlini
#: and Wagner (2017), with steps small and many enough that all three end close together.
ATTACKS: dict[str, Attack] = {
    "deepfool": foolbox.attacks.L2DeepFoolAttack(steps=50),
    "fast_minimum_norm": foolbox.attacks.L2FMNAttack(steps=100, gamma=0.2),
    "carlini_wagner": foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=4, steps=300, stepsize=0.01, initial_const=1.0),
}


def minimal_perturbations(net: nn.Module, x: Tensor, attacks: Sequence[str] | None = None, *,
                          bounds: tuple[float, float] = (0.0, 1.0), bisections: int = 10,
                          judge: nn.Module | None = None) -> Tensor:
    """‖x′ − x‖₂ of the changed images x′ that each attack finds, shape (attacks, batch).

    x′ stays within ``bounds`` and has another prediction (largest output) than x, whether or
    not that of x is right. An attack's x′ is then moved back towards x for as long as that is
    so: ``bisections`` halvings of the segment. Infinite where an attack finds nothing. Of
    the type of the judge's parameters.

    Args:
        net: any classifier that is differentiable in x; it is copied, not touched.
        x: images, shape (batch, d).
        attacks: names from ``ATTACKS``; None takes all.
        bounds: the least and the greatest value of a pixel.
        bisections: halvings of the segment from x to x′.
        judge: the network whose predictions count, such as a more exact copy (default: net).

    Raises:
        ValueError: an unknown attack, or x outside the bounds.
        TypeError: an argument of another kind.
    """
    judge = net if judge is None else judge
    for name, value in (("net", net), ("judge", judge)):
        expect(name, value, nn.Module, "a torch.nn.Module")
    expect("x", x, Tensor, "a tensor")
    at_least("bisections", bisections, 0)
    attacks = list(ATTACKS) if attacks is None else expect_sequence("attacks", attacks, "names")
    unknown = [name for name in attacks if name not in ATTACKS]
    if unknown:
        raise ValueError(f"unknown attack {unknown[0]!r}: choose from {[*ATTACKS]}")
    low, high = map(float, torch.aminmax(x))
    if not bounds[0] <= low <= high <= bounds[1]:
        raise ValueError(f"x lies in [{low:g}, {high:g}], not within {bounds}")
    exact = x.to(next(judge.parameters()).dtype)
    with torch.no_grad():
        predicted = judge(exact).argmax(1)
    # foolbox differentiates by backward(), which would fill the parameters' gradients.
    model = foolbox.PyTorchModel(copy.deepcopy(net).eval().requires_grad_(False), bounds,
                                 device=x.device)
    found = [ATTACKS[name](model, x, predicted, epsilons=None)[1] for name in attacks]
    return torch.stack([_shortened(judge, exact, predicted, one.to(exact), bisections)
                        for one in found])


class _GreatestLoss(foolbox.attacks.L2ProjectedGradientDescentAttack):
    """foolbox's, of another loss than cross-entropy."""

    def __init__(self, loss: Loss, steps: int, step: float):
        super().__init__(rel_stepsize=step, steps=steps, random_start=False)
        self.loss = loss

    def get_loss_fn(self, model, labels):
        return lambda inputs: type(inputs)(self.loss(model(inputs).raw).sum())


def greatest_loss(net: nn.Module, loss: Loss, x: Tensor, radius: float, *,
                  bounds: tuple[float, float] = (0.0, 1.0), steps: int = 7, step: float = 0.4) -> Tensor:
    """x′ with a large ℓ, ‖x′ − x‖₂ ≤ radius and pixels within ``bounds``: projected gradient ascent.

    Args:
        net: any network that is differentiable in x; it is copied, not touched.
        loss: ℓ of the outputs of these images.
        x: images, shape (batch, d).
        radius: how far an image may move.
        bounds: the least and the greatest value of a pixel.
        steps: how many.
        step: the length of each, as a share of the radius.
    """
    # foolbox differentiates by backward(), which would fill the parameters' gradients.
    model = foolbox.PyTorchModel(copy.deepcopy(net).eval().requires_grad_(False), bounds, device=x.device)
    labels = torch.zeros(len(x), dtype=torch.long, device=x.device)  # which it asks for: ours is the loss
    with torch.enable_grad():
        return _GreatestLoss(loss, steps, step).run(model, x.detach(), labels, epsilon=radius).detach()


def evaluate_attacks(net: nn.Module, judge: nn.Module, split: Split, radius: Tensor) -> dict:
    """Certified radii beside the smallest changes that attacks found, as records keep them.

    Args:
        net: the network that attacks see.
        judge: the network whose predictions count, as in :func:`minimal_perturbations`.
        split: the images and their labels.
        radius: shape (batch,): changes of the split's images that are shorter are certified.

    Returns ``radius`` and ``correct`` (whether the judge classifies the image correctly), one
    value per image; ``distance``, for each attack a list of lengths, None where it failed; and a
    ``summary``: ``attack``, the median length of the smallest change found, and ``closest``,
    the smallest quotient of such a length and its radius, which a right certificate keeps
    above 1. (None where not enough attacks succeed.)
    """
    distance = minimal_perturbations(net, split.x, judge=judge)
    best = distance.min(0).values
    with torch.no_grad():
        correct = judge(split.x.to(best.dtype)).argmax(1) == split.y
    return {"radius": radius.tolist(), "correct": correct.tolist(),
            "distance": {name: [_finite(d) for d in row]
                         for name, row in zip(ATTACKS, distance)},
            "summary": {"attack": _finite(best.median()),
                        "closest": _finite((best / radius).min())}}


def _finite(value: Tensor) -> float | None:
    """JSON has no infinity."""
    return float(value) if value.isfinite() else None


@torch.no_grad()
def _shortened(judge: nn.Module, x: Tensor, predicted: Tensor, changed: Tensor,
               bisections: int) -> Tensor:
    """The length of each change, scaled down as far as the prediction stays another one."""
    move = (changed - x).nan_to_num(0.0, 0.0, 0.0)

    def succeeds(share: Tensor) -> Tensor:
        return judge(x + share[:, None] * move).argmax(1) != predicted

    fails, works = x.new_zeros(len(x)), x.new_ones(len(x))
    works[~succeeds(works)] = torch.inf
    found = works.isfinite()
    for _ in range(bisections):
        middle = torch.where(found, (fails + works) / 2, 0.0)
        turned = succeeds(middle)
        works, fails = works.where(~turned, middle), fails.where(turned, middle)
    return torch.where(found, works * move.norm(dim=1), torch.inf)
