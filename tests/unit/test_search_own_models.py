"""A search of a user's own model: params that she holds fast, masks of infinities, dropout."""

import copy

import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import NonFiniteLossError
from darts_core.search import SearchConfig, search
from darts_core.search.guards import GradientSimilarity
from darts_core.strategies import (
    FirstOrder,
    OperationEarlyStopping,
    RandomSearch,
    SingleLevel,
    Unrolled,
)
from darts_core.supernet import (
    LayerChoice,
    ModuleSupernet,
    WidthChoice,
    under_batch_statistics,
)
from darts_core.testing import tiny_bundle

CONFIG = SearchConfig(epochs=1, batch_size=8)
TRUNK = {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"}


class Mean(nn.Module):
    def forward(self, x_BCHW):
        return x_BCHW.mean((2, 3))


class Masked(nn.Module):
    """Channels that see themselves and those before them only, by a mask as of causal attention."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.full((4, 4), float("-inf")), 1))

    def forward(self, x_BCHW):
        return torch.einsum("dc,bchw->bdhw", self.mask.softmax(-1), x_BCHW)


def model(*inside):
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    layers = LayerChoice([nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)], label="layer")
    return nn.Sequential(trunk, layers, *inside, Mean(), nn.Linear(4, 3))


def held():
    net = ModuleSupernet(model())
    net.module[0].requires_grad_(False)
    return net


@pytest.mark.parametrize("make", [FirstOrder, Unrolled, SingleLevel, OperationEarlyStopping])
def test_what_is_held_fast_stays_and_the_rest_is_trained(make, tmp_path):
    net, path = held(), tmp_path / "checkpoint.pt"
    before = copy.deepcopy(net.module.state_dict())
    guards = [GradientSimilarity()]
    found = search(net, make(), tiny_bundle(), CONFIG, checkpoint=path, guards=guards)
    after = net.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in TRUNK)
    assert not torch.equal(after["3.weight"], before["3.weight"])
    assert "guard/gradient_similarity" in found.history[0]
    again = search(held(), make(), tiny_bundle(), CONFIG, checkpoint=path)
    assert again.architecture == found.architecture


def test_a_network_that_is_trained_alone_keeps_what_is_held_fast():
    net, strategy = held(), RandomSearch(candidates=1)
    before = copy.deepcopy(net.module.state_dict())
    search(net, strategy, tiny_bundle(), CONFIG)
    trained = strategy.network.state_dict()
    assert all(torch.equal(trained[name], before[name]) for name in TRUNK)
    assert not torch.equal(trained["3.weight"], before["3.weight"])


def test_a_network_with_a_cut_width_holds_fast_what_the_model_did():
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)).requires_grad_(False)
    layers = [nn.Conv2d(4, 6, 1), nn.ReLU(), WidthChoice([3, 6], label="width")]
    net = ModuleSupernet(
        nn.Sequential(trunk, *layers, Mean(), nn.Linear(6, 3)), input_shape=(3, 8, 8)
    )
    plain = net.build(Architecture("module", choices=(("width", 3),)))
    assert plain[1].out_channels == 3
    assert {name for name, p in plain.named_parameters() if not p.requires_grad} == TRUNK


def test_a_mask_of_infinities_is_no_divergence(tmp_path):
    net = ModuleSupernet(model(Masked()))
    path = tmp_path / "checkpoint.pt"
    found = search(net, FirstOrder(), tiny_bundle(), CONFIG, checkpoint=path)
    assert len(found.history) == 1
    assert torch.isinf(net.module[2].mask).any()


def test_infinite_statistics_are_one():
    class Astray(FirstOrder):
        def step(self, params_batch, alpha_batch):
            stats = super().step(params_batch, alpha_batch)
            self.supernet.module[0][1].running_var.fill_(float("inf"))
            return stats

    with pytest.raises(NonFiniteLossError, match="params or alphas"):
        search(ModuleSupernet(model()), Astray(), tiny_bundle(), CONFIG)


def test_dropout_does_not_judge_architectures():
    net = ModuleSupernet(model(nn.Dropout(0.5))).train()
    picked = net.one_hot(net.discretize())
    x = torch.randn(6, 3, 8, 8)
    reference = copy.deepcopy(net)
    reference.module[2].eval()
    expected = reference(x, picked).detach()
    torch.testing.assert_close(under_batch_statistics(net, picked)(x), expected)
    assert all(module.training for module in net.modules())


def test_layers_that_are_built_by_their_first_input_are_searched_with_widths():
    model = nn.Sequential(
        nn.LazyLinear(4), nn.ReLU(), WidthChoice([2, 4], "width"),
        LayerChoice([nn.LazyLinear(3), nn.LazyLinear(3)], "head"),
    )  # fmt: skip
    net = ModuleSupernet(model, input_shape=(5,))
    plain = net.build(Architecture("module", choices=(("width", 2), ("head", "1"))))
    assert (plain[0].out_features, plain[3].in_features) == (2, 2)
    assert net.training
