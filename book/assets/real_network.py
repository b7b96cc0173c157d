"""Make the network that infers in the page "An adversary inside a trained network".

``python book/assets/real_network.py`` trains it (two minutes; needs MNIST), rounds it, chooses
images, and writes two files that are committed: the packed network into ``lnn_core/widgets``, and
what rounding changes into ``book/records/real_network``.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from lnn_core import __version__, data
from lnn_core.bounds import margin
from lnn_core.experiments import Run
from lnn_core.experiments.records import save
from lnn_core.experiments.training import History, accuracy, fit, seeded_generator
from lnn_core.network import LiftedNetwork
from lnn_core.widgets.packed import pack, to_script, unpack

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "lnn_core" / "widgets" / "real_network.data.js"
RECORD = ROOT / "book" / "records" / "real_network" / "rounding.json"
RUN = Run(dataset="mnist", samples=5000, method="arovr", beta=0.25, seed=0)
#: A test image that is read rightly is clear from this margin on, and doubtful up to that one.
CLEAR, DOUBTFUL = 0.75, 0.3
#: A clear image is not far above its target, 1, either: AROVR punishes that, too.
CONFIDENT, OVERCONFIDENT = 0.95, 1.1


def train(run: Run, dataset: data.Dataset) -> tuple[LiftedNetwork, History]:
    """The network at its best epoch, trained as ``Run.execute`` does."""
    samples, net, best = dataset.subset(run.samples, run.seed), run.network(dataset.dim), {}

    def keep(epoch: int, history: History) -> None:
        if history.best_epoch == epoch:
            best.update({name: value.clone() for name, value in net.state_dict().items()})

    history = fit(net, run.objective(), samples, dataset.validation, dataset.test,
                  epochs=run.epochs, batch=run.batch, learning_rate=run.learning_rate,
                  generator=seeded_generator(run.seed, "batches"), on_epoch=keep)
    net.load_state_dict(best)
    return net, history


@torch.no_grad()
def pruned(net: LiftedNetwork, samples: data.Split) -> LiftedNetwork:
    """A copy without the weights of pixels that no training image inks.

    Those are still as they were drawn: noise, wherever a reader's own digit touches them.
    """
    copy = deepcopy(net)
    copy.weights[0][:, samples.x.amax(0) == 0] = 0
    return copy


@torch.no_grad()
def choose(net: LiftedNetwork, test: data.Split) -> dict[str, int]:
    """Test images by name, each the first of its kind: of each digit one that is clear and one that
    is doubtful; then one whose own output is far above 1, and one that is misread."""
    output = net(test.x)
    largest, between, right = output.amax(1), margin(output), output.argmax(1) == test.y
    kinds = {"clear": right & (between >= CLEAR) & (largest <= CONFIDENT),
             "doubtful": right & (between <= DOUBTFUL)}
    chosen = {f"{digit} {kind}": _first(which & (test.y == digit))
              for digit in range(10) for kind, which in kinds.items()}
    return chosen | {"overconfident": _first(right & (largest >= OVERCONFIDENT)),
                     "misread": _first(~right)}


def _first(which: Tensor) -> int:
    """The index of the first True; IndexError where there is none."""
    return int(which.nonzero()[0])


@torch.no_grad()
def compare(net: LiftedNetwork, rounded: LiftedNetwork, test: data.Split) -> dict[str, float]:
    """What pruning and rounding change on the test images: accuracy, predictions, outputs."""
    before, after = net(test.x).double(), rounded(test.x.double())
    return {"accuracy": accuracy(net, test),
            "accuracy_rounded": int((after.argmax(1) == test.y).sum()) / len(test.y),
            "predictions_changed": int((before.argmax(1) != after.argmax(1)).sum()),
            "mean_change": (before - after).abs().mean().item(),
            "largest_change": (before - after).abs().max().item(),
            "test_images": len(test.y)}


def make(run: Run, dataset: data.Dataset) -> tuple[bytes, dict]:
    """The packed network and its record."""
    net, history = train(run, dataset)
    chosen, samples = choose(net, dataset.test), dataset.subset(run.samples, run.seed)
    rows = list(chosen.values())
    packed = pack(pruned(net, samples), dataset.test.x[rows], list(chosen),
                  dataset.test.y[rows].tolist())
    return packed, {
        "config": run.config,
        "best_epoch": history.best_epoch,
        "rounding": compare(net, unpack(packed).net, dataset.test),
        "images": chosen,
        "bytes": len(to_script(packed)),
        "sha256": hashlib.sha256(packed).hexdigest(),
        "versions": {"lnn_core": __version__, "torch": torch.__version__},
    }


def main() -> None:
    """Train the network and write its script and its record."""
    torch.set_num_threads(1)  # another number of threads sums in another order
    packed, record = make(RUN, data.load(RUN.dataset))
    SCRIPT.write_text(to_script(packed), encoding="ascii")
    save(record, RECORD)
    print(f"{SCRIPT.name}: {record['bytes']:,} bytes\n{record['rounding']}")


if __name__ == "__main__":
    main()
