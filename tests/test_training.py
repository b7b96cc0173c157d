"""Training, against hand-written loops and the pairing of seeds that the tables rest on."""

import pytest
import torch

import lnn_core as lnn
from lnn_core.data import Split
from lnn_core.experiments import training
from lnn_core.experiments.training import BestSoFar, History, accuracy, fit, seeded_generator, train_epoch


def blobs(n, seed):
    """Three classes around three corners: easy to learn."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return Split(torch.eye(3)[y] + 0.3 * torch.randn(n, 3, generator=generator), y)


TRAIN, VALIDATION, TEST = blobs(50, 0), blobs(30, 1), blobs(30, 2)


def network(seed=0):
    return lnn.LiftedNetwork([3, 8, 3], generator=seeded_generator(seed, "weights"))


def objectives():
    return [lnn.BackPropagation(), lnn.ROVR(0.25), lnn.AROVR(0.25),
            lnn.TargetedAROVR(0.49, 0.25, lnn.Targeted(seeded_generator(0, "attack")),
                              tilt=lnn.GaussianTilt(1 / 16, generator=seeded_generator(0, "tilt")))]


each_objective = pytest.mark.parametrize("number", range(4), ids=map(repr, objectives()))


def trained(objective, epochs=5, **options):
    net = network()
    history = fit(net, objective, TRAIN, VALIDATION, TEST, epochs=epochs, batch=20,
                  learning_rate=0.01, generator=seeded_generator(0, "batches"), **options)
    return net, history


@each_objective
def test_training_lowers_the_objective(number):
    """If it fails, gradients or the optimizer point elsewhere than down."""
    net, history = trained(objectives()[number], epochs=15)
    assert history.objective[-1] < 0.6 * history.objective[0]
    assert history.test[-1] > 0.8 and history.test[-1] == accuracy(net, TEST)


@each_objective
def test_training_is_deterministic(number):
    """If it fails, a configuration does not determine its record."""
    (one, first), (two, second) = trained(objectives()[number]), trained(objectives()[number])
    assert first == second
    assert all(map(torch.equal, one.parameters(), two.parameters()))


def test_an_epoch_by_hand():
    """Adam on every mini-batch's mean: if it fails, the short last one is lost or weighs too
    much."""
    net, twin = network(), network()
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    order = torch.randperm(50, generator=seeded_generator(7, "batches"))
    total, norms = 0.0, []
    for rows in (order[:20], order[20:40], order[40:]):
        y = torch.nn.functional.one_hot(TRAIN.y[rows], 3).float()
        losses = (twin(TRAIN.x[rows]) - y).square().sum(1) / 2
        optimizer.zero_grad()
        losses.mean().backward()
        norms.append(torch.cat([p.grad.flatten() for p in twin.parameters()]).norm().item())
        optimizer.step()
        total += losses.sum().item()
    done = train_epoch(net, lnn.BackPropagation(), TRAIN,
                       torch.optim.Adam(net.parameters(), lr=0.01), 20, seeded_generator(7, "batches"))
    assert done == (pytest.approx(total / 50, rel=1e-5), 0, 0, 1, 0,
                    *(pytest.approx(norm, rel=1e-4) for norm in (sorted(norms)[1], max(norms))))
    for ours, theirs in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs)


class Scripted(lnn.Objective):
    """½‖z_L − y‖², and a report that calls the samples of class 2 unbounded."""

    def value(self, net, x, target):
        none = torch.zeros(len(x))
        unbounded = target.argmax(1) == 2
        self.report = lnn.Report(3, torch.where(unbounded, torch.inf, 0.25), ~unbounded, unbounded)
        return 0.5 * (net(x) - target).square().sum(1) + none


def updated(train, **options):
    """The parameters after one epoch of plain gradient descent, and the epoch."""
    net = network()
    done = train_epoch(net, Scripted(), train, torch.optim.SGD(net.parameters(), lr=0.1), 25,
                       seeded_generator(7, "batches"), **options)
    return torch.nn.utils.parameters_to_vector(net.parameters()).detach(), done


def test_unbounded_samples_are_counted_and_never_clamped():
    """If it fails, an objective that is infinite looks as if it had been optimised."""
    _, done = updated(TRAIN)
    assert done.unbounded == pytest.approx(float((TRAIN.y == 2).float().mean()))
    assert done.gap == 0.25 and done.converged == pytest.approx(1 - done.unbounded)
    _, none_left = updated(Split(TRAIN.x[TRAIN.y == 2], TRAIN.y[TRAIN.y == 2]))
    assert none_left.gap is None and none_left.unbounded == 1


def test_unbounded_samples_can_be_left_out():
    """If it fails, they still steer the weights, or what is left weighs less than it should."""
    (weights, done), bounded = updated(TRAIN, omit_unbounded=True), TRAIN.y != 2
    net, order = network(), torch.randperm(50, generator=seeded_generator(7, "batches"))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for rows in order.split(25):
        rows = rows[bounded[rows]]
        y = torch.nn.functional.one_hot(TRAIN.y[rows], 3).float()
        optimizer.zero_grad()
        (0.5 * (net(TRAIN.x[rows]) - y).square().sum(1)).mean().backward()
        optimizer.step()
    torch.testing.assert_close(torch.nn.utils.parameters_to_vector(net.parameters()), weights)
    assert not torch.equal(updated(TRAIN)[0], weights)
    only = Split(TRAIN.x[~bounded], TRAIN.y[~bounded])
    before = torch.nn.utils.parameters_to_vector(network().parameters())
    assert torch.equal(updated(only, omit_unbounded=True)[0], before)  # nothing to learn from
    assert done.unbounded > 0


@each_objective
def test_any_objective_may_leave_unbounded_samples_out(number):
    """If it fails, objectives that infer two minima, or none, cannot: here nothing is unbounded,
    so that training is the same but for the order of sums."""
    with_all, without = (trained(objectives()[number], epochs=2, omit_unbounded=omit)[1]
                         for omit in (False, True))
    assert without.objective == pytest.approx(with_all.objective, rel=1e-4)


X, Y = TRAIN
BAD_SPLITS = {
    "width": (Split(X[:, :2], Y), ValueError, r"x has shape \(50, 2\); the network takes \(batch, 3\)"),
    "dtype": (Split(X.double(), Y), ValueError, "x has dtype torch.float64; the network has torch.float32"),
    "nan": (Split(X / 0, Y), ValueError, r"x holds .* at \[0, 0\]; all values must be finite"),
    "nothing": (Split(X[:0], Y[:0]), ValueError, r"x is an empty batch"),
    "fewer labels": (Split(X, Y[:9]), ValueError, r"y has shape \(9,\); x has 50 samples"),
    "label": (Split(X, Y + 1), ValueError, "label 3 is outside 0…2"),
    "mask": (Split(X, Y > 0), TypeError, "y has dtype torch.bool; expected integer labels"),
    "list": (Split(X, Y.tolist()), TypeError, r"y is a list; expected a tensor with one row"),
    "targets": (Split(X, torch.eye(3)[Y]), TypeError, "y has dtype torch.float32; expected integer"),
    "pair": ((X, Y), TypeError, "is a tuple; expected a Split"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_samples_that_do_not_fit(idle, name, case):
    """If it fails, the error names no split, or comes after an epoch of training."""
    split, kind, message = BAD_SPLITS[case]
    splits = {"train": TRAIN, "validation": VALIDATION, "test": TEST} | {name: split}
    net, before = network(), network().state_dict()
    with pytest.raises(kind, match=f"^{name}:? {message}"):
        fit(net, lnn.AROVR(0.25), **splits, epochs=1)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    with pytest.raises(kind, match=f"^split:? {message}"):
        accuracy(net, split)
    if case != "targets":  # an epoch needs no labels
        with pytest.raises(kind, match=f"^train:? {message}"):
            train_epoch(net, lnn.AROVR(0.25), split, torch.optim.SGD(net.parameters(), 0.1), 20)


def test_an_epoch_may_have_targets():
    """If it fails, regression is refused. Oracle: labels are one-hot targets."""
    (with_labels, one), (with_targets, two) = updated(TRAIN), updated(Split(X, torch.eye(3)[Y]))
    assert torch.equal(with_labels, with_targets) and one == two


@pytest.mark.parametrize("wrong, message", [
    ({"objective": torch.nn.CrossEntropyLoss()}, "objective is a CrossEntropyLoss; expected an objective"),
    ({"objective": lnn.AROVR}, "objective is the class AROVR; expected an objective such as"),
    ({"net": torch.nn.Linear(3, 3)}, "net is a Linear; expected a LiftedNetwork"),
    ({"net": torch.nn.DataParallel(network())}, "net is a DataParallel around a LiftedNetwork"),
    ({"epochs": 2.0}, r"epochs is a float \(2.0\); expected an integer"),
    ({"batch": True}, r"batch is a bool \(True\); expected an integer"),
    ({"clip": "1"}, r"clip is a str \('1'\); expected a number"),
    ({"generator": 0}, r"generator is an int \(0\); expected a torch.Generator"),
    ({"on_epoch": []}, r"on_epoch is a list \(\[\]\); expected a function \(epoch, history\)"),
    ({"omit_unbounded": 1}, r"omit_unbounded is an int \(1\); expected True or False"),
], ids=lambda case: next(iter(case)) if isinstance(case, dict) else "")
def test_arguments_of_another_kind(idle, wrong, message):
    """If it fails, the error comes from deep inside, after computing."""
    right = {"net": network(), "objective": lnn.AROVR(0.25), "train": TRAIN,
             "validation": VALIDATION, "test": TEST, "epochs": 1}
    with pytest.raises(TypeError, match=f"^{message}"):
        fit(**right | wrong)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf")])
def test_a_learning_rate_that_is_not_positive_is_refused(idle, rate):
    """If it fails, a run that cannot learn, or runs away, passes for training."""
    with pytest.raises(ValueError, match=f"learning_rate={rate} must be positive and finite"):
        fit(network(), lnn.AROVR(0.25), TRAIN, VALIDATION, TEST, epochs=1, learning_rate=rate)


@pytest.mark.parametrize("clip", [-1.0, 0.0, float("nan")])
def test_a_clip_that_is_not_positive_is_refused(clip):
    """If it fails, a negative one trains uphill."""
    with pytest.raises(ValueError, match="clip=.* must be positive"):
        trained(lnn.AROVR(0.25), clip=clip)


def test_gradients_can_be_clipped():
    """If it fails, one exploding mini-batch still fills the optimizer's memory."""
    (free, done), before = updated(TRAIN), torch.nn.utils.parameters_to_vector(network().parameters())
    clip = 0.1 * done.gradient
    clipped, again = updated(Split(TRAIN.x[:25], TRAIN.y[:25]), clip=clip)
    assert (clipped - before).norm().item() == pytest.approx(0.1 * clip, rel=1e-4)  # rate × norm
    assert again.largest_gradient > clip  # recorded as it was before clipping
    assert torch.equal(updated(TRAIN, clip=2 * done.largest_gradient)[0], free)


def test_methods_see_the_same_batches():
    """If it fails, runs of different methods with equal seeds are not paired."""
    seen = {}
    for objective in objectives():
        batches = seen.setdefault(repr(objective), [])
        step = type(objective)._gradients

        class Spy(type(objective)):
            def _gradients(self, net, x, target, _step=step, _batches=batches):
                _batches.append(x.clone())
                return _step(self, net, x, target)

        objective.__class__ = Spy
        trained(objective, epochs=2)
    first, *others = seen.values()
    assert len(first) == 6
    for other in others:
        assert all(map(torch.equal, first, other))


def test_streams_are_independent_and_repeatable():
    """If it fails, methods that draw attacks change the order of samples, or seeds share draws."""
    state = torch.get_rng_state()
    draws = {(seed, purpose): torch.randn(4, generator=seeded_generator(seed, purpose)).tolist()
             for seed in (0, 1, 11) for purpose in ("weights", "batches", "attack", "1/attack")}
    assert len({tuple(draw) for draw in draws.values()}) == len(draws)
    assert torch.randn(4, generator=seeded_generator(1, "attack")).tolist() == draws[1, "attack"]
    assert torch.equal(state, torch.get_rng_state())


def test_the_caller_seed_decides_nothing():
    """If it fails, a run depends on torch.manual_seed as well as on its configuration."""
    torch.manual_seed(1)
    _, first = trained(objectives()[3])
    torch.manual_seed(2)
    _, second = trained(objectives()[3])
    assert first == second


@pytest.mark.parametrize(("validation", "best"), [
    ([0.5], 1), ([0.1, 0.9, 0.3, 0.9], 2), ([0.9, 0.9], 1), ([0.1, 0.2, 0.3], 3)], ids=str)
def test_best_epoch_is_the_first_maximum(validation, best):
    """If it fails, the tables report the accuracy of another epoch."""
    assert History(validation=validation).best_epoch == best


def test_history_has_an_entry_an_epoch():
    """If it fails, curves and tables are out of step with epochs."""
    seen = []
    _, history = trained(lnn.AROVR(0.25), epochs=4,
                         on_epoch=lambda epoch, h: seen.append((epoch, len(h.test))))
    assert {len(values) for values in vars(history).values()} == {4}
    assert seen == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert all(passes >= 1 for passes in history.passes)
    assert all(0 <= share <= 1 for share in history.converged + history.train + history.validation)


def test_share_of_converged_samples():
    """If it fails, training does not tell that inference was cut short."""
    _, history = trained(lnn.AROVR(0.25, solver=lnn.PaperSweeps(1)), epochs=1)
    assert history.passes == [1] and history.converged[0] < 0.5
    _, history = trained(lnn.AROVR(0.25, solver=lnn.PaperSweeps(40)), epochs=1)
    assert history.passes == [40] and history.converged[0] > 0.9


def test_accuracy_counts_the_largest_output():
    """If it fails, reported accuracies are of something else."""
    net = lnn.LiftedNetwork([3, 3])
    with torch.no_grad():
        net.weight(1).copy_(torch.eye(3))
    assert accuracy(net, Split(torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 2, 0]))) == 0.75


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_best_so_far_is_exact(monkeypatch, block):
    """Against every network's accuracy: if it fails, an epoch is chosen that is not the best, or its
    accuracy is wrong."""
    monkeypatch.setattr(training, "BLOCK", block)
    better, best, found = BestSoFar(VALIDATION), -1.0, []
    for seed in range(40):
        net = network(seed)
        now = accuracy(net, VALIDATION)
        found.append(better(net))
        assert found[-1] == (now if now > best else None)
        assert better(net) is None  # as good as the best is not better
        best = max(best, now)
    assert found.count(None) > 20 and len(found) - found.count(None) > 2


def test_best_so_far_looks_where_mistakes_are(monkeypatch):
    """If it fails, an epoch that is not the best costs as much to see as one that is."""
    monkeypatch.setattr(training, "BLOCK", 5)
    net, worse = network(), network()
    fit(net, lnn.BackPropagation(), TRAIN, VALIDATION, TEST, epochs=3, batch=20, learning_rate=0.01)
    worse.load_state_dict(net.state_dict())
    better, looked = BestSoFar(VALIDATION), []
    assert better(net) == accuracy(net, VALIDATION) < 1
    mistakes = round(len(VALIDATION.y) * (1 - accuracy(net, VALIDATION)))
    worse.register_forward_pre_hook(lambda _, arguments: looked.append(len(arguments[0])))
    assert better(worse) is None
    assert sum(looked) <= mistakes + 5 < len(VALIDATION.y)


@pytest.mark.parametrize("patience", [None, 3])
def test_what_chooses_the_epoch_is_measured(patience):
    """If it fails, records lack what tables need, or have another number there."""
    net, whole = trained(lnn.AROVR(0.25), epochs=40, patience=patience)
    other, history = trained(lnn.AROVR(0.25), epochs=40, patience=patience, curves=False)
    assert all(map(torch.equal, net.parameters(), other.parameters()))
    assert history.best_epoch == whole.best_epoch and history.objective == whole.objective
    last = len(whole.test) - 1
    best = [i for i, value in enumerate(whole.validation) if value > max(whole.validation[:i], default=-1)]
    assert last not in best or patience is None
    for name in ("train", "validation", "test"):
        found = getattr(history, name)
        assert {i for i, value in enumerate(found) if value is not None} == {*best, last}
        assert all(few in (None, value) for few, value in zip(found, getattr(whole, name)))


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"epochs": -1}, {"batch": 0},
                                     {"patience": 0}], ids=str)
def test_bad_settings(idle, setting):
    """If it fails, "no training" passes for a trained network."""
    (name, value), = setting.items()
    with pytest.raises(ValueError, match=f"^{name}={value} must be at least 1$"):
        fit(network(), lnn.BackPropagation(), TRAIN, VALIDATION, TEST,
            **{"epochs": 3, "batch": 10} | setting)


def test_patience_ends_training_with_the_best_epoch_behind():
    """If it fails, runs are cut off while they improve, or their best epoch is the last."""
    _, whole = trained(lnn.AROVR(0.25), epochs=40)
    _, history = trained(lnn.AROVR(0.25), epochs=40, patience=3)
    epochs = len(history.test)
    assert epochs < 40 and epochs - history.best_epoch == 3
    assert all(epoch - History(validation=whole.validation[:epoch]).best_epoch < 3
               for epoch in range(1, epochs))
    assert vars(history) == {name: values[:epochs] for name, values in vars(whole).items()}
