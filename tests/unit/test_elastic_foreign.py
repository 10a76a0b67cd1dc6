"""Networks and loops with ways of their own: what only training shows, and what is given in a wrong form."""

import logging
import random

import numpy as np
import pytest
import torch
from elastic_cases import drawn
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from darts_core.elastic import Sandwich, elastic
from darts_core.errors import ConfigError, PruneError, ResumeError
from darts_core.prune.modes import given_in_training
from darts_core.tasks import Classification

SHAPE = (3, 8, 8)


class Net(nn.Module):
    def __init__(self, drop=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.drop, self.head = nn.BatchNorm2d(16), drop(), nn.Linear(16, 5)

    def features(self, x):
        return self.norm(self.b(self.a(x).relu())).relu()

    def forward(self, x):
        return self.head(self.drop(self.features(x).mean((2, 3))))


class Helped(Net):
    """A head that helps in training reads the first channels."""

    def __init__(self, drop=nn.Identity):
        super().__init__(drop)
        self.aux = nn.Linear(4, 5)

    def forward(self, x):
        y = self.features(x)
        out = self.head(self.drop(y.mean((2, 3))))
        return {"out": out, "aux": self.aux(y[:, :4].mean((2, 3)))} if self.training else out


class Smooth(Net):
    """A penalty on neighbouring channels, which a loss reads beside the outputs."""

    def forward(self, x):
        y = self.features(x)
        self.penalty = (y[:, 1:] - y[:, :-1]).abs().mean() if self.training else 0.0
        return self.head(y.mean((2, 3)))


class Centred(Net):
    """What it keeps, the mean behind a norm, is 0 but for rounding."""

    def __init__(self, drop=nn.Identity):
        super().__init__(drop)
        self.norm = nn.BatchNorm2d(16, affine=False)

    def forward(self, x):
        y = self.norm(self.b(self.a(x).relu()))
        self.centre = y.mean() if self.training else 0.0
        return self.head(self.drop(y.relu().mean((2, 3))))


class Random(Net):
    """Whatever draws in training is no reading by position."""

    def forward(self, x):
        y = self.features(x)
        y = y + 0.1 * torch.rand_like(y) if self.training else y
        return self.head(self.drop(y.mean((2, 3))))


@pytest.mark.parametrize("kind", [Helped, Smooth])
@pytest.mark.parametrize("drop", [nn.Identity, nn.Dropout])
def test_channels_that_are_read_by_position_in_training_alone_stay(kind, drop):
    model, x = kind(drop).double(), drawn(4, *SHAPE, dtype=torch.float64)
    wanted, penalty = _trained(model, x)
    net = elastic(model.eval(), x)
    assert [variable.name for variable in net.variables] == ["a"]
    assert "fixed places" in net.left["b"]
    found, own = _trained(model, x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-10)
    assert own == pytest.approx(penalty, abs=1e-10)


@pytest.mark.parametrize("kind", [Net, Random, Centred])
def test_random_numbers_and_rounding_in_training_leave_all_channels_free(kind):
    net = elastic(kind(nn.Dropout).eval(), drawn(4, *SHAPE))
    assert {variable.name for variable in net.variables} == {"a", "b"}


def _trained(model, x):
    """What the network gives in training without dropout: its outputs, and its penalty."""
    model.train()
    if isinstance(model.drop, nn.Dropout):
        model.drop.eval()
    output = model(x)
    parts = [*output.values()] if isinstance(output, dict) else [output]
    return torch.cat(parts, 1).detach(), float(
        torch.as_tensor(getattr(model, "penalty", 0.0)).detach()
    )


class NumpyNoise(nn.Module):
    def forward(self, x):
        return x + np.random.random()


class Skips(Net):
    """Python's own random numbers skip a part of it in training, seldom."""

    def forward(self, x):
        y = self.features(x)
        y = 2 * y if self.training and random.random() < 0.3 else y
        return self.head(self.drop(y.mean((2, 3))))


def test_numbers_that_python_draws_are_the_same_in_each_pass():
    """Two passes that drew alike showed none, and channels stayed where a later one drew otherwise."""
    for seed in range(8):
        random.seed(seed)
        net = elastic(Skips().eval(), drawn(4, *SHAPE))
        assert {variable.name for variable in net.variables} == {"a", "b"}, seed


def test_a_pass_in_training_leaves_the_numbers_that_python_and_numpy_draw():
    random.seed(3)
    np.random.seed(3)
    wanted = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    for seed in (None, 0):
        assert given_in_training(Skips(NumpyNoise), drawn(4, *SHAPE), seed=seed)
    assert (random.random(), np.random.random()) == wanted


X, Y = drawn(8, *SHAPE), torch.arange(8) % 5
PAIR = r"put it into a list: \[\(x, y\)\]. Batches of inputs alone go as a list"


class Batch:
    """As a collate function of somebody's own gives it."""

    def __init__(self, x, y):
        self.parts = x, y

    def __iter__(self):
        return iter(self.parts)


class Indexed:
    def __init__(self, x, y):
        self.parts = x, y

    def __getitem__(self, index):
        return self.parts[index]


@pytest.mark.parametrize("kind", [Batch, Indexed, lambda x, y: [x, y, "more"]])
def test_a_batch_is_whatever_gives_inputs_and_targets(kind):
    net = elastic(Net().eval(), X, batches=[kind(X, Y)])
    assert net.orders == elastic(Net().eval(), X, batches=[(X, Y)]).orders
    found = net.cut(net.smallest, [kind(X, Y)]).norm.running_mean
    assert torch.equal(found, net.cut(net.smallest, [(X, Y)]).norm.running_mean)
    assert torch.equal(found, net.cut(net.smallest, (X,)).norm.running_mean)
    assert net.cut(net.smallest, None)


class Stream(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


def test_a_loader_of_unknown_length_judges_channels():
    """Whether it holds batches was asked by its length."""
    net = elastic(Net().eval(), X, batches=DataLoader(Stream(), batch_size=4))
    halves = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    assert net.orders == elastic(Net().eval(), X, batches=halves).orders


@pytest.mark.parametrize(
    ("batches", "why"),
    [
        (X, PAIR),
        ((X, Y), PAIR),
        ([{"x": X, "y": Y}], r"one is a dict; give such pairs"),
        ([X.numpy()], "one is a ndarray"),
        ([("a", Y)], "one is a tuple that begins with a str"),
        (3, "must be a list of .inputs, targets., or a loader, not a int"),
    ],
)
def test_data_that_are_no_batches_are_refused(batches, why):
    model = Net().eval()
    net = elastic(model, X)
    with pytest.raises(PruneError, match=why):
        net.cut(net.smallest, batches)
    with pytest.raises(PruneError, match=why):
        elastic(model, X, batches=batches)


@pytest.mark.parametrize(
    ("head", "targets", "why"),
    [
        (5, None, "inputs alone"),
        (5, Y.float(), "has no loss .RuntimeError: .*; give the task .*next_token"),
        (5, drawn(8, 5), "neither numbers of classes nor shares"),
        (1, drawn(8, 1), r"outputs of shape \[8, 1\] are no classes"),
    ],
)
def test_targets_of_another_task_do_not_judge_channels(head, targets, why):
    """Cross entropy of one number, or against other numbers, would be formed and say nothing."""
    model = Net().eval()
    model.head = nn.Linear(16, head)
    with pytest.raises(PruneError, match=why):
        elastic(model, X, batches=[(X, targets)])
    shares = torch.softmax(drawn(8, 5), 1)
    assert elastic(Net().eval(), X, batches=[(X, shares)]).variables


class Binary(Classification):
    """One logit for two classes."""

    def loss(self, output, target, *, label_smoothing=0.0):
        return functional.binary_cross_entropy_with_logits(output[:, 0], target.float())


class Certain(Classification):
    def loss(self, output, target, *, label_smoothing=0.0):
        return -output.log_softmax(1).max(1).values.mean()


class Broken(Classification):
    def loss(self, output, target, *, label_smoothing=0.0):
        return [][0]


@pytest.mark.parametrize(("task", "head", "batch"), [(Binary, 1, (X, Y > 2)), (Certain, 5, X)])
def test_a_loss_of_ones_own_in_the_place_of_cross_entropy_takes_what_it_takes(task, head, batch):
    model = Net().eval()
    model.head = nn.Linear(16, head)
    assert elastic(model, X, batches=[batch], task=task()).variables


def test_an_error_in_a_loss_of_ones_own_can_be_traced():
    with pytest.raises(IndexError):
        elastic(Net().eval(), X, batches=[(X, Y)], task=Broken())
    with pytest.raises(PruneError, match="has no loss") as told:
        elastic(Net().eval(), X, batches=[(X, Y.float())])
    assert isinstance(told.value.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("model", "x", "why"),
    [
        (torch.relu, X, "an nn.Module, and this is of type builtin_function_or_method"),
        (nn.ReLU(), X, "ReLU has no parameters"),
        (Net().to("meta"), X, "meta device"),
        (Net(), X[:0], r"shape \[0, 3, 8, 8\] holds no values"),
        (Net(), X.to_sparse(), "is sparse"),
    ],
)
def test_what_is_no_network_or_no_batch_is_refused(model, x, why):
    with pytest.raises(PruneError, match=why):
        elastic(model, x)


def test_what_is_elastic_already_is_told_from_a_network():
    net = elastic(Net().eval(), X)
    with pytest.raises(PruneError, match=r"of type Elastic\. It holds one: give its `model`"):
        elastic(net, X)
    with pytest.raises(ConfigError, match=r"what elastic\(model, x\) gave, not a Net"):
        Sandwich(net.model)


@pytest.mark.parametrize(
    "wrong", [{"least": 2.0}, {"least": float("nan")}, {"step": -3}, {"step": 1.5}, {"orders": [1]}]
)
def test_numbers_that_are_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        elastic(Net().eval(), X, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"drawn": 1.5}, {"seed": -1}, {"others": float("inf")}, {"share": None}]
)
def test_numbers_of_a_sandwich_that_are_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"{name}={wrong[name]}"):
        Sandwich(elastic(Net().eval(), X), **wrong)


def test_choices_may_be_numbers_of_any_kind_and_must_be_a_mapping():
    net = elastic(Net().eval(), X, step=4)
    for eight in (8.0, np.int64(8), torch.tensor(8)):
        assert net.cut({"a": eight}).a.out_channels == 8
    with pytest.raises(
        ConfigError, match="a mapping from names to values, as `smallest` is, not a list"
    ):
        net.cut([8])


def _loss(output):
    return nn.functional.cross_entropy(output, Y)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (({"x": X}, _loss), "not a dict; targets"),
        (((X, Y), _loss), "not a tuple; targets"),
        ((X[:0], _loss), "not an empty batch"),
        ((X, torch.tensor(1.0)), "loss_of must be a function"),
        ((X, lambda _: None), "loss_of gave None"),
        ((X, lambda output: _loss(output).item()), r"loss_of gave 1\.\d+, and must give a loss"),
        ((X, lambda output: (_loss(output), 0)), r"loss_of gave \(tensor"),
        ((X, lambda output: output), r"a tensor of shape \[8, 5\], and must give"),
        ((X, lambda output: _loss(output.detach())), "loss of the targets has no gradient"),
    ],
)
def test_a_step_that_is_given_no_batch_or_no_loss_is_refused(given, why):
    """A loss without a gradient beside the teacher's: the targets counted for nothing, in silence."""
    net = elastic(Net().eval(), X)
    net.model.train()
    with pytest.raises(ConfigError, match=why):
        Sandwich(net).backward(*given)
    with pytest.raises(ConfigError, match="scale must be a function"):
        Sandwich(net).backward(X, _loss, scale=0.5)


def test_a_batch_without_targets_may_have_a_loss_of_0():
    """As `loss = criterion(...) if labelled.any() else torch.zeros(())` gives: the teacher's part remains."""
    net = elastic(Net().eval(), X)
    net.model.train()
    Sandwich(net).backward(X, lambda _: torch.zeros(()))
    assert net.model.head.weight.grad.any()


def test_a_loss_of_shape_1_counts_as_a_number():
    losses = []
    for shape in ((), (1,)):
        net = elastic(Net().eval(), X)
        net.model.train()
        losses.append(Sandwich(net).backward(X, lambda y, shape=shape: _loss(y).reshape(shape)))
    assert losses[0] == losses[1]
    assert losses[1].shape == ()


def test_something_else_than_a_sandwichs_state_is_refused():
    net = elastic(Net().eval(), X)
    with pytest.raises(ResumeError, match="no state of a Sandwich"):
        Sandwich(net).load_state_dict(net.model.state_dict())


def test_gradients_move_with_their_parameters():
    model = Net().double().eval()
    _loss(model(X.double())).backward()
    wanted = {name: float((p * p.grad).sum().detach()) for name, p in model.named_parameters()}
    rows = (model.a.weight * model.a.weight.grad).detach().flatten(1).sum(1)
    elastic(model, X)
    for name, parameter in model.named_parameters():
        assert float((parameter * parameter.grad).sum().detach()) == pytest.approx(wanted[name])
    moved = (model.a.weight * model.a.weight.grad).detach().flatten(1).sum(1)
    assert not torch.equal(moved, rows)
    assert torch.allclose(moved.sort().values, rows.sort().values)


def test_an_optimizer_that_steps_behind_each_gradient_is_told(caplog):
    """It took a step for each sub-network."""
    caplog.set_level(logging.WARNING, logger="darts_core")
    net = elastic(Net().eval(), X)
    net.model.train()
    sandwich = Sandwich(net)
    sandwich.backward(X, _loss)
    assert not caplog.text
    net.model.a.weight.register_post_accumulate_grad_hook(lambda _: None)
    sandwich = Sandwich(net)
    for _ in range(2):
        sandwich.backward(X, _loss)
    assert caplog.text.count("once for every sub-network") == 1
