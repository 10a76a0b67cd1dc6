"""Pruning of grouped convolutions: each of their groups loses the same channels; saved, built again."""

import copy

import numpy as np
import pytest
import torch
from prune_cases import Data, by_macs, count_costs
from torch import nn

from darts_core.prune import prune_to_budget
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import (
    channels_to_remove,
    find_groups,
    least_width,
    remove_channels,
)
from darts_core.train.save import reshape_like

SHAPE = (3, 8, 8)


class Grouped(nn.Module):
    """As in ResNeXt: 1x1, grouped 3x3, 1x1; with a norm over groups of channels where asked for."""

    def __init__(self, norm=False):
        super().__init__()
        self.narrow = nn.Conv2d(3, 8, 1)
        self.norm = nn.GroupNorm(4, 8) if norm else nn.Identity()
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(12, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = self.norm(self.narrow(x)).relu()
        return self.head(self.wide(self.grouped(x).relu()).mean((2, 3)))


@pytest.mark.parametrize("root", ["narrow", "grouped"])
def test_every_group_of_a_grouped_convolution_loses_the_same_channels(root):
    torch.manual_seed(0)
    model = Grouped().eval()
    (group,) = [g for g in find_groups(model, SHAPE) if g.root == root]
    assert group.blocks == 2
    scores = np.random.default_rng(0).random(group.channels)
    removed = channels_to_remove(group, scores, group.channels // 2)
    per = group.channels // 2
    assert len(removed) == group.channels // 2
    assert {c % per for c in removed if c < per} == {c % per for c in removed if c >= per}
    # the best of both blocks together stay
    together = scores.reshape(2, per).sum(0)
    assert int(together.argmax()) not in removed
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent.get_submodule(root).weight[removed] = 0.0
        silent.get_submodule(root).bias[removed] = 0.0
    cut = remove_channels(copy.deepcopy(model), SHAPE, {root: removed})
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-4, atol=1e-5)
    again = reshape_like(Grouped(), cut.state_dict())
    again.load_state_dict(cut.state_dict())
    torch.testing.assert_close(again.eval()(x), cut(x))


def test_a_width_between_goes_down_to_what_the_blocks_can_share():
    (group,) = [g for g in find_groups(Grouped().eval(), SHAPE) if g.root == "grouped"]
    scores = np.arange(12.0)
    assert len(channels_to_remove(group, scores, 7)) == 12 - 6
    assert least_width(group) == 2
    assert len(channels_to_remove(group, scores, 1)) == 12 - 2


def test_norms_over_groups_of_channels_keep_as_many_in_each():
    torch.manual_seed(0)
    model = Grouped(norm=True).eval()
    (group,) = [g for g in find_groups(model, SHAPE) if g.root == "narrow"]
    assert group.blocks == 4
    removed = channels_to_remove(group, np.arange(8.0), 4)
    cut = remove_channels(copy.deepcopy(model), SHAPE, {"narrow": removed})
    assert removed == [0, 2, 4, 6]
    x = torch.randn(2, *SHAPE)
    again = reshape_like(Grouped(norm=True), cut.state_dict())
    again.load_state_dict(cut.state_dict())
    torch.testing.assert_close(again.eval()(x), cut(x))


class Scaled(nn.Conv2d):
    """As timm's weight-standardised convolutions: a gain for each output channel, beside the weight."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight * self.gain, self.bias)


def test_what_a_layer_holds_for_each_output_channel_is_cut_with_it():
    torch.manual_seed(0)

    def make():
        return nn.Sequential(Scaled(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 8), nn.Flatten()).eval()

    model = make()
    (group,) = [g for g in find_groups(model, SHAPE) if g.root == "0"]
    silent = copy.deepcopy(model)
    with torch.no_grad():
        silent[2].weight[:, [1, 4]] = 0.0
    cut = remove_channels(copy.deepcopy(model), SHAPE, {group.root: [1, 4]})
    assert cut[0].gain.shape == (6, 1, 1, 1)
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(cut(x), silent(x), rtol=1e-4, atol=1e-5)
    again = reshape_like(make(), cut.state_dict())
    again.load_state_dict(cut.state_dict())
    torch.testing.assert_close(again.eval()(x), cut(x))


def test_channels_of_which_each_block_has_one_stay():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=4), nn.ReLU(), nn.Conv2d(8, 2, 1),
        nn.Flatten(), nn.Linear(2 * 36, 3),
    ).eval()  # fmt: skip
    assert "0" not in {group.root for group in find_groups(model, SHAPE)}


def test_several_outputs_a_channel_are_built_again_when_one_was_left_and_channels_went():
    torch.manual_seed(0)

    def make():
        return nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.Conv2d(8, 16, 3, groups=8), nn.ReLU(), nn.Conv2d(16, 2, 6),
            nn.Flatten(),
        ).eval()  # fmt: skip

    cut = remove_channels(make(), SHAPE, {"1": list(range(1, 16, 2))})
    assert (cut[1].groups, cut[1].out_channels) == (8, 8)
    # as it is, then as a depthwise one that a later round cuts
    for removed in ({}, {"0": [1, 2, 3]}):
        cut = remove_channels(cut, SHAPE, removed)
        again = reshape_like(make(), cut.state_dict())
        again.load_state_dict(cut.state_dict())
        x = torch.randn(2, *SHAPE)
        torch.testing.assert_close(again(x), cut(x))
    assert again[1].groups == 5


class Shared(nn.Module):
    """A view shares its channels out among two layers, as heads of convolutions do."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 1)
        self.last = nn.Conv2d(6, 5, 8)

    def forward(self, x):
        parts = self.first(x).view(-1, 2, 4, 8, 8)
        return self.last(self.second(parts[:, 0]) + self.second(parts[:, 1])).flatten(1)


def test_channels_that_a_view_shares_out_among_convolutions_stay():
    model = Shared().eval()
    assert [group.root for group in find_groups(model, SHAPE)] == ["second"]
    cut = remove_channels(copy.deepcopy(model), SHAPE, {"second": [1]})
    assert cut(torch.randn(2, *SHAPE)).shape == (2, 5)


class Keeping(nn.Module):
    """Keeps a product of its parameters for the next time, as attentions do with their biases."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale = nn.Conv2d(3, 4, 1), nn.Parameter(torch.ones(1))
        self.last = nn.Linear(4, 2)
        self.kept = {}

    def forward(self, x):
        if "scale" not in self.kept:
            self.kept["scale"] = 2 * self.scale
        return self.last((self.conv(x) * self.kept["scale"]).mean((2, 3)))


def test_a_network_that_keeps_what_it_computed_can_still_be_copied():
    model = Keeping().eval()
    assert [group.root for group in find_groups(model, SHAPE)] == ["conv"]
    copy.deepcopy(model)


class Gated(nn.Module):
    """A gated linear unit: one half of a layer's channels times the other."""

    def __init__(self):
        super().__init__()
        self.both, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        value, gate = self.both(x).chunk(2, 1)
        return self.head(self.last(value * gate.sigmoid()).relu().mean((2, 3)))


def test_the_halves_of_a_gate_lose_the_same_channels():
    torch.manual_seed(0)
    model = Gated().eval()
    group = next(g for g in find_groups(model, SHAPE) if g.root == "both")
    assert (group.channels, group.blocks) == (16, 2)
    scores = np.arange(16.0)
    scores[8:] = 0.0  # the best values have the least gates
    removed = channels_to_remove(group, scores, 6)
    assert removed == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    cut = remove_channels(copy.deepcopy(model), SHAPE, {"both": removed})
    assert (cut.both.out_channels, cut.last.in_channels) == (6, 3)
    torch.testing.assert_close(cut.both.weight, model.both.weight[[5, 6, 7, 13, 14, 15]])


def test_a_gated_network_is_pruned_to_its_budget_with_the_widths_that_it_tells(monkeypatch):
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = Gated().eval()
    found = prune_to_budget(
        model, Data(), budget="60%", batch=2, timer=by_macs, round_to=1, tune=lambda *_: None
    )
    assert found.after.median_ms <= 1.05 * 0.6 * by_macs(model).median_ms
    widths = {root: pair for row in found.rounds for root, pair in row["widths"].items()}
    assert widths["both"][1] == found.model.both.out_channels == 2 * found.model.last.in_channels


def test_a_reader_of_both_halves_is_expected_to_lose_as_much_as_it_does():
    torch.manual_seed(0)
    model = Gated().eval()
    group = next(g for g in find_groups(model, SHAPE) if g.root == "both")
    costs = LayerCosts(torch.device("cpu"), analytic=True)
    costs.observe(model, SHAPE, 2)
    now = costs.layer_ms("both") + costs.layer_ms("last")
    then = costs.layer_ms("both", 3, 8) + costs.layer_ms("last", 4, 6)
    assert costs.saving_ms(group, 8) == pytest.approx(now - then)
