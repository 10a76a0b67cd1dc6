"""A search of a user's own model: params that she holds fast, masks of infinities, dropout."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError, NonFiniteLossError
from darts_core.models.chosen import chosen
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
    DepthChoice,
    LayerChoice,
    ModuleSupernet,
    WidthChoice,
    under_batch_statistics,
)
from darts_core.testing import tiny_bundle
from darts_core.train import TrainConfig, fit

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
    # as `search model=` and `train` make it
    width = WidthChoice([2, 4], "width", dim=-1)
    lazy = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), width, nn.LazyLinear(3))
    assert chosen(lazy, {"width": 2}, (6, 5))[3].weight.shape == (3, 2)


class Heads(nn.Module):
    """A convolution of a searched width and what people's networks have behind it."""

    def __init__(self, kind=""):
        super().__init__()
        self.kind, self.width = kind, WidthChoice([4, 8], "width")
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), self.width)
        self.head, self.rnn = nn.Linear(8, 2), nn.GRU(8, 8)
        # as attentions call their causal mask
        self.register_buffer("bias", torch.ones(4, 4, dtype=torch.bool).tril())

    def forward(self, x_BCHW):
        if self.kind == "checkpoint":
            found = checkpoint(self.conv, x_BCHW, use_reentrant=False)
        else:
            found = self.conv(x_BCHW)
        if self.kind == "view":
            found = found.view(-1, 8, x_BCHW[0, 0].numel())[..., None]
        if self.kind == "rnn":
            found = self.rnn(found.mean(3).permute(2, 0, 1))[0].permute(1, 2, 0)[..., None]
        if self.kind == "constant":
            found = found + 1
        y_BK = self.head(found.mean((2, 3)))
        return {"y": y_BK, "mask": y_BK > 0, "closed": torch.full((2,), float("-inf"))}


def test_widths_are_cut_out_of_a_network_that_holds_and_gives_truth_values_and_infinities():
    net = ModuleSupernet(Heads(), input_shape=(3, 4, 4))
    plain = net.build(Architecture("module", choices=(("width", 4),)))
    assert (plain.head.in_features, plain.bias.dtype) == (4, torch.bool)
    assert torch.equal(plain.bias, torch.ones(4, 4, dtype=torch.bool).tril())


@pytest.mark.filterwarnings("ignore:Unwrapped parameters")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("view", r"cannot be cut out .*full number of channels"),
        ("rnn", r"cannot be cut out .*full number of channels"),
        # an output's infinities do not hide it
        ("constant", "changes what the model computes"),
    ],
)
def test_a_width_that_cannot_be_cut_out_is_refused_in_a_sentence(kind, words):
    with pytest.raises(ConfigError, match=words):
        ModuleSupernet(Heads(kind), input_shape=(3, 4, 4))


@pytest.mark.parametrize("seed", range(3))
def test_a_sum_without_a_mask_is_refused_before_the_search_in_a_deeper_network_too(seed):
    """Its last ReLU gave zeros alone under the values that are drawn for the check, whatever came before."""

    def layers(channels):
        return nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()

    class Sum(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)  # of channels that are masked and others that are not

    def width():
        return WidthChoice([2, 4], "width")

    torch.manual_seed(seed)
    blocks = [*layers(3), width(), Sum(*layers(4)), Sum(*layers(4)), width()]
    deeper = [*layers(4), width(), *layers(4), width()]
    net = nn.Sequential(*blocks, *deeper, Mean(), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="changes what the model computes"):
        ModuleSupernet(net, input_shape=(3, 4, 4))


def test_a_layer_that_is_computed_again_in_the_backward_pass_says_what_to_turn_off():
    net = ModuleSupernet(Heads("checkpoint"), input_shape=(3, 4, 4))
    with pytest.raises(ConfigError, match=r"utils\.checkpoint"):
        net(torch.randn(2, 3, 4, 4))["y"].sum().backward()


def test_a_check_of_widths_moves_no_random_numbers_of_a_gpu(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    ModuleSupernet(Heads(), input_shape=(3, 4, 4))
    assert seeded == []


def test_a_choice_without_a_label_may_stand_in_several_layers_of_a_choice():
    width = WidthChoice([2, 4])
    layers = [nn.Sequential(nn.Conv2d(3, 4, k, padding=k // 2), nn.ReLU(), width) for k in (1, 3)]
    net = ModuleSupernet(
        nn.Sequential(LayerChoice(layers, "layer"), Mean(), nn.Linear(4, 3)), input_shape=(3, 8, 8)
    )
    label = "0.candidates.0.2"
    plain = net.build(Architecture("module", choices=(("layer", "1"), (label, 2))))
    assert (plain[0][0].kernel_size, plain[0][0].out_channels) == ((3, 3), 2)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (LayerChoice([nn.Linear(4, 4), nn.GRU(4, 4)], "rnn"), "rnn: '1' gives a tuple; .*nn.LSTM"),
        (LayerChoice([nn.Linear(4, 4), nn.Linear(4, 3)]), r"'0': \(2, 4\), '1': \(2, 3\)"),
        # which torch would add by repeating the one column
        (DepthChoice([nn.Linear(4, 4), nn.Linear(4, 1)]), r"block 2 of 2 gives the shape \(2, 1\)"),
    ],
)
def test_what_cannot_be_mixed_is_named(choice, words):
    with pytest.raises(ConfigError, match=words):
        ModuleSupernet(nn.Sequential(choice))(torch.randn(2, 4))


def test_several_devices_by_threads_are_refused_in_a_sentence():
    with pytest.raises(ConfigError, match=r"nn\.DataParallel cannot run"):
        ModuleSupernet(model())._replicate_for_data_parallel()


class Writing(nn.Module):
    """Centres its input in place, as scripts do with what they own."""

    def __init__(self, in_place):
        super().__init__()
        self.in_place, self.net = in_place, model()

    def forward(self, x):
        if self.in_place:
            x -= 0.5
        return self.net(x if self.in_place else x - 0.5)


@pytest.mark.parametrize("strategy", [FirstOrder, Unrolled])
def test_a_network_that_writes_into_its_input_is_searched_on_what_it_is_given(strategy):
    """A second-order step asks of one batch four times: each time it was shifted further."""
    found = []
    for in_place in (True, False):
        torch.manual_seed(0)
        net = ModuleSupernet(Writing(in_place))
        search(net, strategy(), tiny_bundle(), CONFIG)
        found.append(torch.cat([alpha.detach().flatten() for alpha in net.alphas()]))
    assert torch.equal(*found)


def test_an_auxiliary_head_in_a_search_is_refused_in_a_sentence():
    """It was an AttributeError of a tuple."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model()

        def forward(self, x):
            return (self.net(x), self.net(x)) if self.training else self.net(x)

    with pytest.raises(
        ConfigError, match="gives a tuple; one that is searched gives its outputs alone"
    ):
        search(ModuleSupernet(Two()), FirstOrder(), tiny_bundle(), CONFIG)


class Words(nn.Module):
    """An embedding whose gradients are of the rows that a batch has."""

    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(8, 4, sparse=sparse)
        self.layer = LayerChoice([nn.Linear(4, 4), nn.Identity()], label="layer")
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        words = (x.mean((2, 3)).abs() * 9).long().clamp(0, 7)
        return self.head(self.layer(self.table(words).mean(1)))


@pytest.mark.parametrize("strategy", [FirstOrder, SingleLevel, Unrolled, None])
def test_sparse_gradients_of_an_embedding_move_it_as_dense_ones(strategy):
    """Clipping them ended in a NotImplementedError, in the search and in the training."""
    found = []
    for sparse in (True, False):
        net = ModuleSupernet(Words(sparse))
        if strategy is not None:
            search(net, strategy(), tiny_bundle(), CONFIG)
        else:
            net = net.build()
            fit(net, tiny_bundle(), TrainConfig(epochs=1, batch_size=8), verbose=False)
        found.append(torch.cat([param.detach().flatten() for param in net.parameters()]))
    assert torch.equal(*found)


def test_a_network_that_is_held_fast_as_a_whole_is_refused_in_a_sentence():
    """An optimizer told of an empty list, and autograd of a tensor without a function."""
    net = ModuleSupernet(Words(sparse=False).requires_grad_(False))
    with pytest.raises(ConfigError, match="no params that learn"):
        search(net, FirstOrder(), tiny_bundle(), CONFIG)
    with pytest.raises(ConfigError, match="no params that learn"):
        fit(net.build(), tiny_bundle(), TrainConfig(epochs=1, batch_size=8), verbose=False)
