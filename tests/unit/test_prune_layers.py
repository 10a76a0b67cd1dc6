"""Pruning beyond 2-D convolutions: series, volumes, MLPs and transformers; saved and built again."""

import copy

import pytest
import torch
from torch import nn

from darts_core.prune import graph
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import find_groups, remove_channels
from darts_core.prune.importance import channel_importance
from darts_core.prune.structure import find_cuts
from darts_core.supernet.attention import SelfAttention
from darts_core.supernet.replace import replace_modules
from darts_core.train.save import reshape_like


class Encoder(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(channels), SelfAttention(channels, 2)
        self.norm2 = nn.RMSNorm(channels)  # the other kind that streams have
        self.up, self.down = nn.Linear(channels, 12), nn.Linear(12, channels)

    def forward(self, x_BTC):
        x_BTC = x_BTC + self.attention(self.norm1(x_BTC))
        return x_BTC + self.down(nn.functional.gelu(self.up(self.norm2(x_BTC))))


class Transformer(nn.Module):
    """Patches, positions as a free parameter, two blocks, a head."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 4, 8))
        self.blocks = nn.Sequential(Encoder(8), Encoder(8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x):
        x_BTC = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(x_BTC)).mean(1))


def series():
    return nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 6, 3),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def volume():
    return nn.Sequential(
        nn.Conv3d(1, 8, 3), nn.BatchNorm3d(8), nn.ReLU(), nn.Conv3d(8, 6, 1),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def perceptron():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)
    )


CASES = [(series, (3, 9)), (volume, (1, 4, 4, 4)), (perceptron, (3, 1)), (Transformer, (3, 8, 8))]


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_cut_channels_equal_silenced_channels_in_layers_of_every_kind(make, shape):
    torch.manual_seed(0)
    model = make().eval()
    groups = [g for g in find_groups(model, shape) if len(g.members) < 8]
    assert groups
    silent = copy.deepcopy(model)
    removed = {group.root: [0, 2] for group in groups}
    with torch.no_grad():
        for group in groups:
            # what reads the channels reads zeros
            for member in group.members:
                if member.side == "in":
                    layer = silent.get_submodule(member.name)
                    at = [
                        i for p, i in zip(member.positions, member.indices, strict=True)
                        if p in (0, 2)
                    ]  # fmt: skip
                    layer.weight[:, at] = 0.0
    cut = remove_channels(copy.deepcopy(model), shape, removed)
    x = torch.randn(2, *shape)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in model.parameters())
    # a fresh network takes the cut widths from the saved state
    again = reshape_like(make(), cut.state_dict())
    again.load_state_dict(cut.state_dict())
    torch.testing.assert_close(again.eval()(x), cut(x))


def test_a_transformer_s_mlps_and_stream_are_groups_and_its_heads_are_not():
    model = Transformer().eval()
    groups = {group.root: group for group in find_groups(model, (3, 8, 8))}
    assert {"blocks.0.up", "blocks.1.up"} <= set(groups)
    outs = {m.name for g in groups.values() for m in g.members if m.side == "out"}
    assert not outs & {"blocks.0.attention.query", "blocks.1.attention.value", "head"}
    (stream,) = [g for g in groups.values() if g.channels == 8]
    cut = remove_channels(copy.deepcopy(model), (3, 8, 8), {stream.root: [1, 5, 6]})
    assert cut.positions.shape == (1, 4, 5)
    assert cut(torch.randn(2, 3, 8, 8)).shape == (2, 5)
    fresh = reshape_like(Transformer(), cut.state_dict())
    fresh.load_state_dict(cut.state_dict())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(fresh.eval()(x), cut.eval()(x))


def test_a_transformer_s_blocks_may_go_whole():
    cuts = {(cut.path, cut.by) for cut in find_cuts(Transformer().eval(), (3, 8, 8))}
    assert cuts == {("blocks.0", "skip_connect"), ("blocks.1", "skip_connect")}


class Told(Transformer):
    """Its blocks are called with a mask beside the tokens."""

    def forward(self, x):
        x_BTC = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x_BTC = block(x_BTC, mask=None)
        return self.head(self.norm(x_BTC).mean(1))


class Masked(Encoder):
    def forward(self, x_BTC, mask):
        assert mask is None
        return super().forward(x_BTC)


def test_a_block_that_is_called_with_more_than_the_tokens_may_go():
    model = Told().eval()
    model.blocks = nn.Sequential(Masked(8), Masked(8))
    assert [cut.path for cut in find_cuts(model, (3, 8, 8))] == ["blocks.0", "blocks.1"]
    replace_modules(model, {"blocks.0": "skip_connect"})
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 5)


@pytest.mark.parametrize("kind", ["taylor", "magnitude", "bn_scale"])
@pytest.mark.parametrize(("make", "shape"), CASES)
def test_an_idle_channel_is_the_least_important(make, shape, kind):
    torch.manual_seed(0)
    model = make().eval()
    groups = [g for g in find_groups(model, shape) if len(g.members) < 8]
    group = groups[0]
    with torch.no_grad():
        for member in group.members:
            layer = model.get_submodule(member.name)
            if member.side == "out":
                layer.weight[3] = 0.0
                if layer.bias is not None:
                    layer.bias[3] = 0.0
    batch = (torch.randn(4, *shape), torch.tensor([0, 1, 2, 3]))
    scores = channel_importance(model, groups, kind, [batch])[group.root]
    assert scores[3] == scores.min() == 0
    assert scores.max() > 0


@pytest.mark.parametrize(("make", "shape"), CASES)
def test_narrower_layers_of_every_kind_are_expected_to_cost_less(make, shape):
    model = make().eval()
    costs = LayerCosts(torch.device("cpu"), analytic=True)
    costs.observe(model, shape, 2)
    groups = find_groups(model, shape)
    assert groups
    for group in groups:
        assert costs.saving_ms(group, group.channels // 2) > costs.saving_ms(group, group.channels)
        assert costs.saving_ms(group, group.channels) == 0


def test_channels_spread_over_more_entries_than_can_be_are_left(monkeypatch):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 5),
        nn.ReLU(), nn.Linear(5, 2),
    ).eval()  # fmt: skip
    assert {g.root for g in find_groups(model, (3, 8, 8))} == {"0", "2", "4"}
    monkeypatch.setattr(graph, "_MOST_ENTRIES", 100)
    # 4 channels at 36 places each
    assert {g.root for g in find_groups(model, (3, 8, 8))} == {"0", "4"}
    monkeypatch.undo()
    # of the first convolution: itself, an activation and what reads it
    monkeypatch.setattr(graph, "_MOST_STEPS", 2)
    assert {g.root for g in find_groups(model, (3, 8, 8))} == set()
