"""Blocks that are really cut, frozen parameters, and weights that a hook or a parametrization computes."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from elastic_cases import SHAPE, Vit
from prune_cases import settled
from torch import nn

from darts_core.elastic import Sandwich, elastic
from darts_core.elastic.depths import find_depths
from darts_core.errors import PruneError
from darts_core.prune.groups import find_groups, remove_channels
from darts_core.prune.importance import channel_importance, taylor_products
from darts_core.prune.slices import Plan, cut, running
from darts_core.prune.trial import Trial
from darts_core.train.save import fit_to

DERIVED = "its weight is derived, as by weight_norm"


def _batch(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, *SHAPE, generator=generator).to(dtype), torch.arange(4)


def _check_sub_networks(net, x):
    generator = np.random.default_rng(0)
    for choices in (net.smallest, net.largest, *(net.draw(generator) for _ in range(4))):
        with torch.no_grad():
            with net.running(choices) as network:
                sliced = network(x)
            torch.testing.assert_close(net.cut(choices)(x), sliced, rtol=0, atol=1e-10)


class Tokens(nn.Module):
    """torch's encoder asks its first layer for its attention."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Words(nn.Module):
    """A language model whose embedding is also the weight of its output."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(7, 16), nn.Linear(16, 8), nn.Linear(8, 16)
        self.head = nn.Linear(16, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids_BT):
        x_BTC = self.embed(ids_BT)
        return self.head(x_BTC + self.down(self.up(x_BTC).relu()))


def test_the_stream_between_tied_weights_varies_and_they_stay_one():
    """They were moved twice: "its channels have fixed places"."""
    torch.manual_seed(0)
    model, ids = Words().double().eval(), torch.arange(10).view(2, 5) % 7
    wanted, before = model(ids), model.embed.weight.clone()
    net = elastic(model, ids)
    torch.testing.assert_close(model(ids), wanted, rtol=0, atol=1e-12)
    assert not torch.equal(model.embed.weight, before)
    assert {variable.name for variable in net.variables} == {"down", "up"}
    _check_sub_networks(net, ids)
    smallest = net.cut(net.smallest)
    assert smallest.head.weight is smallest.embed.weight
    assert smallest.embed.weight.shape == (7, net.smallest["down"])


class Stream(nn.Module):
    """Tokens through blocks that are given more than these."""

    def __init__(self, norm):
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        self.blocks = nn.ModuleList(Gated(norm) for _ in range(3))
        self.gate = SimpleNamespace(scale=0.5)

    def forward(self, x):
        x_BTC = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x_BTC = block(x_BTC, self.gate)
        return self.head(x_BTC.mean(1))


class Gated(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm, self.up, self.down = norm(16), nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x_BTC, gate=None):
        return x_BTC + self.down(self.up(self.norm(x_BTC)).relu() * gate.scale)


def _varies(model, x):
    """What may vary in the network, whose sub-networks are checked."""
    net = elastic(model, x)
    _check_sub_networks(net, x)
    return {variable.name for variable in net.variables}


STREAM = {"blocks.2.down", "blocks.0.up", "blocks.1.up", "blocks.2.up", "blocks.0..2.depth"}


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_the_stream_through_norms_varies_and_blocks_of_several_inputs_go(norm, bare):
    """Norms without weights did "not run with fewer", root mean squares not at all; such blocks raised."""
    torch.manual_seed(0)

    def made():
        return Stream(lambda width: norm(width, elementwise_affine=not bare)).double().eval()

    x = _batch(torch.float64)[0]
    net = elastic(made(), x)
    _check_sub_networks(net, x)
    assert {variable.name for variable in net.variables} == STREAM
    # as a trial of AutoSearch gets it, whose norms without weights had their former size
    plain = net.cut(net.smallest)
    again = fit_to(made(), plain.state_dict(), **net.described(net.smallest))
    torch.testing.assert_close(again(x), plain(x), rtol=0, atol=0)


class Single(nn.LayerNorm):
    """Normalises in single precision, whatever it is given, as those of language models do."""

    def forward(self, x):
        return super().forward(x.float()).type_as(x)


class Placed(Single):
    """Reads its channels by position besides."""

    def forward(self, x):
        return super().forward(x) * torch.linspace(1, 2, x.shape[-1])


@pytest.mark.parametrize(("norm", "stays"), [(Single, set()), (Placed, {"blocks.2.down"})])
def test_the_stream_through_norms_in_single_precision_varies(norm, stays):
    """Their rounding was taken for channels that are read by position."""
    torch.manual_seed(0)
    model = Stream(lambda width: norm(width, elementwise_affine=False)).double().eval()
    assert _varies(model, _batch(torch.float64)[0]) == STREAM - stays


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.gain = 0.5

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


class Asking(nn.Module):
    """Reads a number of its first block."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 1), nn.ModuleList(Block(8) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def scaled(self, x, block):
        return x

    def forward(self, x):
        x = self.stem(x) * self.blocks[0].gain
        for block in self.blocks:
            x = self.scaled(block(x), block)
        return self.head(x.mean((2, 3)))


class Telling(Asking):
    """Another sum behind each of its blocks than behind what stands in one's place."""

    def scaled(self, x, block):
        return 0.5 * x if isinstance(block, Block) else x


def test_the_first_layer_of_torch_s_encoder_always_runs():
    torch.manual_seed(0)
    model = Tokens().eval()
    x = torch.randn(2, *SHAPE)
    (depth,), left = find_depths(Trial(model, x))
    assert depth.blocks == ("encoder.layers.1", "encoder.layers.2")
    assert depth.options == (0, 1, 2)
    assert "does not run without it" in left["encoder.layers.0"]
    for option in depth.options:
        assert cut(model, Plan(skipped=depth.skipped(option)))(x).shape == (2, 5)


def test_a_block_that_the_network_reads_is_never_left_out():
    torch.manual_seed(0)
    model, batch = settled(Asking()).double(), _batch(torch.float64)
    net = elastic(model, batch[0], batches=iter([batch, batch]))  # gives its batches once
    (depth,) = [variable for variable in net.variables if variable.kind == "blocks"]
    assert depth.blocks == ("blocks.1", "blocks.2")
    assert "does not run without it" in net.left["blocks.0"]
    _check_sub_networks(net, batch[0])


def test_blocks_whose_cut_computes_something_else_than_the_slices_are_left():
    torch.manual_seed(0)
    trial = Trial(settled(Telling()), _batch()[0])
    blocks = dict(trial.model.named_modules())
    depths, left = find_depths(trial)
    assert not depths
    assert set(left) == {"blocks.0", "blocks.1", "blocks.2"}
    # what was tried is undone
    assert all(trial.model.get_submodule(path) is blocks[path] for path in left)


def _plain():
    torch.manual_seed(0)
    return settled(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
        )
    )  # fmt: skip


@pytest.mark.parametrize("frozen", ["norms", "all"])
def test_frozen_parameters_are_as_important_as_free_ones(frozen):
    model, batch = _plain(), _batch()
    groups = find_groups(model, SHAPE)
    wanted = channel_importance(model, groups, "taylor", [batch])
    for module in model.modules():
        if frozen == "all" or isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    found = channel_importance(model, groups, "taylor", [batch])
    assert set(found) == {"0", "3"}
    for root, scores in found.items():
        assert scores.max() > 0
        np.testing.assert_allclose(scores, wanted[root], rtol=1e-6)
    assert [parameter.requires_grad for parameter in model.parameters()] == before


def test_frozen_parameters_stay_so_when_the_loss_raises():
    model, batch = _plain().requires_grad_(False), _batch()

    def loss(output, target):
        assert output.requires_grad
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        taylor_products(model, [batch], SimpleNamespace(loss=loss))
    assert not any(parameter.requires_grad for parameter in model.parameters())


NORMED = {
    "old weight": nn.utils.weight_norm,
    "new weight": nn.utils.parametrizations.weight_norm,
    "old spectral": nn.utils.spectral_norm,
    "new spectral": nn.utils.parametrizations.spectral_norm,
}


def _normed(name):
    """Four convolutions, of which the second one's weight is derived, and a linear layer."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Conv2d(8, 6, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    ).double()  # fmt: skip
    NORMED[name](model[2])
    # what a training leaves behind: of the old kind a weight with a history
    model.train()(_batch(torch.float64)[0])
    return model


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NORMED)
def test_channels_of_a_derived_weight_are_left_and_the_others_vary(name):
    model, batch = _normed(name), _batch(torch.float64)
    wanted = model.eval()(batch[0]).detach()
    net = elastic(model, batch[0], batches=[batch])
    assert {variable.name for variable in net.variables} == {"4", "6"}
    assert net.left["2"] == DERIVED
    assert f"2: left ({DERIVED})" in str(net)
    assert "a weight that holds its channels is derived" in net.left["0"]
    torch.testing.assert_close(net.model(batch[0]), wanted, rtol=0, atol=1e-10)
    net.model.eval()(batch[0])
    assert net.cut(net.smallest)[4].out_channels < 8
    _check_sub_networks(net, batch[0])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", NORMED)
def test_channels_of_a_derived_weight_are_not_pruned(name):
    model = _normed(name)
    assert {group.root for group in find_groups(model, SHAPE)} == {"4", "6"}
    assert remove_channels(model, SHAPE, {"4": [1, 2]})[4].out_channels == 6
    for root in ("0", "2"):
        with pytest.raises(PruneError, match="a weight that holds them is derived"):
            remove_channels(model, SHAPE, {root: [0]})
    plan = Plan(tensors={"2": {"weight": {0: slice(0, 4)}}})
    with pytest.raises(PruneError, match="weight of '2' is derived"), running(model, plan):
        pass
    with pytest.raises(PruneError, match="weight of '2' is derived"):
        cut(model, plan)


def test_a_network_of_derived_weights_alone_is_refused_with_the_reason():
    normed = nn.utils.parametrizations.weight_norm
    model = nn.Sequential(
        normed(nn.Conv2d(3, 8, 1)), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), normed(nn.Linear(8, 5))
    )  # fmt: skip
    model[1].eval()  # a part that is held in another mode stays in it
    with pytest.raises(PruneError, match=rf"may vary \(0: {DERIVED}; 4: {DERIVED}"):
        elastic(model, _batch()[0])
    assert [module.training for module in model] == [True, False, True, True, True]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_one_gain_for_a_whole_weight_has_no_share_of_a_channel():
    conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 8), dim=None)
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(4, 5))
    (products,) = taylor_products(model, [_batch()])
    assert set(products) == {"2"}


def test_heads_of_a_derived_weight_are_left():
    torch.manual_seed(0)
    model = Vit().double().eval()
    nn.utils.parametrizations.weight_norm(model.blocks[1].attention.qkv)
    x = _batch(torch.float64)[0]
    net = elastic(model, x)
    heads = {variable.name for variable in net.variables if variable.kind == "heads"}
    assert heads == {"blocks.0.attention.heads", "blocks.2.attention.heads"}
    assert net.left["blocks.1.attention.qkv"] == DERIVED
    assert "blocks.1.attention" in net.left
    _check_sub_networks(net, x)


class Held(nn.Sequential):
    """Holds its norm fast, and gives nothing where torch's own `train` gives the network."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()


def test_a_network_whose_train_returns_nothing_is_followed_as_any_other():
    """ "'NoneType' object has no attribute 'state_dict'"."""
    model, batch = Held(*_plain()).double(), _batch(torch.float64)
    model.train()
    net = elastic(model, batch[0], batches=[batch])
    assert {variable.name for variable in net.variables} == {"0", "3"}
    assert [module.training for module in model][:5] == [True, False, True, True, True]
    assert net.cut(net.smallest, [batch])[0].out_channels < 8
    loss = Sandwich(net).backward(batch[0], lambda z: nn.functional.cross_entropy(z, batch[1]))
    assert loss.isfinite()
    model.eval()
    _check_sub_networks(net, batch[0])


class Spectral(nn.Module):
    """Divides by the root of a small variance, and weighs frequencies with complex numbers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("variance", torch.full((3, 1, 1), 0.001))
        self.first, self.inner = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 32, 1)
        self.weight = nn.Parameter(torch.randn(16, 1, 1, dtype=torch.complex64))
        self.last, self.head = nn.Conv2d(32, 16, 1), nn.Linear(16, 5)

    def forward(self, x):
        x = self.first(x / self.variance.sqrt())
        y = torch.fft.irfft2(torch.fft.rfft2(x) * self.weight, s=x.shape[-2:])
        return self.head(self.last(self.inner(y).relu()).mean((2, 3)))


def test_variances_stay_above_0_and_complex_numbers_become_double_ones_in_the_trial():
    """ "NaN or infinite outputs", and "give one batch as the network takes it", it was said."""
    torch.manual_seed(0)
    model, x = Spectral().eval(), _batch()[0]
    wanted = model(x)
    net = elastic(model, x)
    assert {"inner", "last"} <= {variable.name for variable in net.variables}
    torch.testing.assert_close(net.model(x), wanted, rtol=1e-4, atol=1e-5)
    assert net.model.weight.dtype == torch.complex64


def test_a_network_whose_run_torch_lets_nobody_watch_runs_in_the_trial(monkeypatch):
    """ "There was no rule registered for HigherOrderOperator flex_attention"."""

    def refuse(*_, **__):
        raise NotImplementedError("There was no rule registered")

    monkeypatch.setattr("darts_core.prune.trial._Rounds.__torch_dispatch__", refuse)
    trial = Trial(nn.Linear(16, 16), torch.randn(2, 4, 16))
    assert trial.whole.shape == (2, 4, 16)
    assert trial.same(trial.run())


class Locked(nn.Sequential):
    def __init__(self, *layers):
        super().__init__(*layers)
        self.lock = threading.Lock()


def test_a_network_that_cannot_be_copied_is_refused_in_a_sentence():
    model = Locked(nn.Conv2d(3, 8, 8), nn.Flatten(), nn.Linear(8, 5)).eval()
    words = r"Locked cannot be copied \(TypeError.*remove_weight_norm or .*remove_parametrizations"
    with pytest.raises(PruneError, match=words):
        elastic(model, _batch()[0])
    with pytest.raises(PruneError, match=words):
        find_groups(model, SHAPE)
    with pytest.raises(PruneError, match=words):
        cut(model, Plan())


def test_an_activation_of_one_number_for_all_channels_is_no_share_of_a_width():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.PReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    ).double().eval()  # fmt: skip
    x, _ = _batch(torch.float64)
    net = elastic(model, x, step=4)
    assert {variable.name for variable in net.variables} == {"0", "2"}
    _check_sub_networks(net, x)
    assert net.cut(net.smallest)[1].num_parameters == 1
