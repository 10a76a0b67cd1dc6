"""Choices in networks as people write them: in-place layers, numpy's ranges, layers that keep something."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from darts_core.errors import ConfigError
from darts_core.ops.macs import macs_by_module
from darts_core.supernet.choices import DepthChoice, HeadChoice, LayerChoice, WidthChoice
from darts_core.supernet.module_supernet import ModuleSupernet


class _InTraining(nn.Module):
    """Writes into its input in training alone, as in-place noise does."""

    def forward(self, x):
        return F.relu_(x) if self.training else x


class _Joins(nn.Module):
    """Writes into one of the tensors of a list."""

    def forward(self, states):
        states[1].mul_(3.0)
        return states[0] + states[1]


class _Adds(nn.Module):
    def forward(self, states):
        return states[0] - states[1]


def test_candidates_are_given_the_same_input_whatever_others_write_into_it():
    """An in-place ReLU at the front of one was what all behind it saw, too."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
    choice = LayerChoice([nn.Identity(), first, _InTraining(), nn.Linear(3, 3)])
    x, share_K = torch.randn(4, 3), torch.tensor([0.1, 0.2, 0.3, 0.4], requires_grad=True)
    for training in (True, False):
        choice.train(training)
        relu = torch.relu(x)
        parts = [x, first[1](relu), relu if training else x, choice.candidates[3](x)]
        expected = sum(share * part for share, part in zip(share_K, parts, strict=True))
        given = x.clone()
        choice.bind(share_K)
        found = choice(given)
        torch.testing.assert_close(found, expected)
        assert torch.equal(given, x)
        wanted = torch.autograd.grad(expected.square().sum(), share_K)
        torch.testing.assert_close(torch.autograd.grad(found.square().sum(), share_K), wanted)


def test_candidates_of_several_inputs_are_given_the_same_ones():
    choice = LayerChoice([_Joins(), _Adds()])
    choice.bind(torch.tensor([0.5, 0.5]))
    one, two = torch.ones(2), torch.full((2,), 2.0)
    assert choice([one, two]).tolist() == [0.5 * (1 + 6) + 0.5 * (1 - 2)] * 2
    assert two.tolist() == [2.0, 2.0]
    with torch.inference_mode():
        assert choice([one, two]).tolist() == [3.0, 3.0]


def test_asking_what_writes_draws_no_number_and_moves_nothing():
    calls = []
    dropped = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    dropped.register_forward_hook(lambda *_: calls.append(1))
    choice = LayerChoice([dropped, nn.Identity()])
    choice.bind(torch.tensor([1.0, 0.0]))
    x = torch.randn(4, 3)
    torch.manual_seed(1)
    found = choice(x)
    torch.manual_seed(1)
    assert torch.equal(found, nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))(x))
    assert int(dropped[0].num_batches_tracked) == 1
    assert calls == [1]


def test_products_of_candidates_are_counted_once_by_the_first_look_too():
    """Those of the copies that were asked what they write came on top."""
    net = ModuleSupernet(nn.Sequential(LayerChoice([nn.Linear(3, 3), nn.Identity()])))
    x = torch.randn(2, 3)
    assert [sum(macs_by_module(net, x).values()) for _ in range(2)] == [18, 18]


@pytest.mark.parametrize("kind", [LayerChoice, DepthChoice])
def test_a_choice_that_was_saved_as_a_whole_before_it_kept_what_writes_runs(kind):
    choice = kind([nn.Identity(), nn.ReLU(inplace=True)])
    state = {name: value for name, value in vars(choice).items() if name != "_inputs"}
    found = kind.__new__(kind)
    found.__setstate__(state)
    found.bind(torch.tensor([0.5, 0.5]))
    assert found(torch.tensor([-2.0, 2.0])).tolist() == [-1.0, 2.0]


def test_blocks_that_write_into_their_input_are_searched_for_a_depth():
    """The gradient of a depth's weight ended in an error of autograd."""
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3)) for _ in range(2)]
    net = ModuleSupernet(nn.Sequential(nn.Linear(2, 3), DepthChoice(blocks, [0, 1, 2], "depth")))
    x, share = torch.randn(4, 2), torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    states = [net.module[0](x)]
    states += [blocks[0][1](torch.relu(states[0]))]
    states += [blocks[1][1](torch.relu(states[1]))]
    expected = torch.stack([state.sum() for state in states])
    net(x, {"depth": share}).sum().backward()
    torch.testing.assert_close(share.grad[0], expected)


@pytest.mark.parametrize(
    "of", [np.arange(4, 17, 4), list(np.arange(4, 17, 4)), torch.arange(4, 17, 4)]
)
def test_options_of_an_array_are_plain_numbers(of):
    """numpy's numbers were in no file: a search ended in a TypeError when it named what it had found."""
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), WidthChoice(of, "width"), nn.Linear(16, 2))
    supernet = ModuleSupernet(net, input_shape=(4,))
    assert supernet.space.options("width") == (4, 8, 12, 16)
    assert json.dumps(supernet.discretize().choices)
    assert {type(n) for n in net[2].widths} == {int}
    assert DepthChoice([nn.Identity()] * 2, np.arange(3)).options == (0, 1, 2)
    assert HeadChoice(4, np.array([1, 2])).options == (1, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_alphas_stay_in_fp32_where_the_network_is_cast(dtype):
    """In bf16 Adam's running squares do not move, and its steps grow."""
    net = ModuleSupernet(nn.Sequential(nn.Linear(4, 4), WidthChoice([2, 4], "width")))
    before = net.alphas()[0].detach().clone()
    nn.Sequential(net).to(dtype)
    assert net.module[0].weight.dtype == dtype
    assert net.alphas()[0].dtype == torch.float32
    assert torch.equal(net.alphas()[0], before)
    found = net(torch.randn(2, 4, dtype=dtype))
    assert found.dtype == dtype
    found.sum().backward()
    assert net.alphas()[0].grad.dtype == torch.float32
    assert net.double().alphas()[0].dtype == torch.float64


class _FromFirstBatch(nn.Module):
    """Takes its scale from the first batch that it sees, as an activation norm of a flow does."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.register_buffer("mean", torch.zeros(4))
        self.started, self.seen = False, []

    def forward(self, x):
        if not self.started:
            with torch.no_grad():
                self.scale.copy_(1 / x.std(0))
            self.started = True
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        self.seen.append(len(x))
        return x * self.scale


def test_made_up_inputs_leave_nothing_in_a_network_that_learns_from_its_first_batch():
    """Such layers began, in the supernet and in what it built, with what random numbers had taught them."""
    net = nn.Sequential(
        _FromFirstBatch(), nn.Linear(4, 8), nn.ReLU(), WidthChoice([2, 8]), nn.Linear(8, 2)
    )
    supernet = ModuleSupernet(net, input_shape=(4,))
    for layer in (supernet.build()[0], net[0]):
        assert not layer.started
        assert layer.seen == []
        assert layer.scale.tolist() == [1.0] * 4
        assert layer.mean.tolist() == [0.0] * 4
        assert layer.scale.requires_grad


class _Fixed(OrderedDict):
    """A configuration that refuses to be changed, as those of published networks do."""

    def update(self, *_, **__):
        raise TypeError("a configuration cannot be changed")


def test_a_configuration_that_may_not_be_changed_stays_where_a_network_is_looked_at():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), WidthChoice([2, 8]), nn.Linear(8, 2))
    net.config = _Fixed()
    net.config["width"] = 8
    assert ModuleSupernet(net, input_shape=(4,)).build()[0].out_features in (2, 8)
    assert dict(net.config) == {"width": 8}


class _Residual(nn.Module):
    """A width that meets channels without a mask, in a branch whose last norm begins with zeros."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)
        self.width, self.last, self.norm = (
            WidthChoice([2, 8]),
            nn.Conv2d(8, 4, 1),
            nn.BatchNorm2d(4),
        )
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        inner = torch.relu(self.width(self.one(x)) + self.other(x))
        return x + self.norm(self.last(inner))


def test_a_width_behind_a_norm_of_zeros_is_checked_before_a_search():
    with pytest.raises(ConfigError, match="changes what the model computes"):
        ModuleSupernet(nn.Sequential(nn.Conv2d(1, 4, 1), _Residual()), input_shape=(1, 4, 4))


class _Offset(nn.Module):
    """Adds zeros behind a width: nothing, unless they learn."""

    def __init__(self, learns):
        super().__init__()
        self.inner, self.width, self.head = nn.Linear(4, 8), WidthChoice([2, 8]), nn.Linear(8, 2)
        self.offset = nn.Parameter(torch.zeros(8), requires_grad=learns)

    def forward(self, x):
        return self.head(self.width(torch.relu(self.inner(x))) + self.offset)


def test_zeros_that_are_held_fast_are_no_channels_without_a_mask():
    ModuleSupernet(_Offset(learns=False), input_shape=(4,))
    with pytest.raises(ConfigError, match="Cutting the chosen widths changes"):
        ModuleSupernet(_Offset(learns=True), input_shape=(4,))
