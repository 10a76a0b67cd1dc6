"""Channels that something reads by position are not pruned; all others are."""

import copy
import logging

import pytest
import torch
from prune_cases import SHAPE, Data, by_macs, count_costs
from torch import nn

from darts_core.prune import prune_to_budget
from darts_core.prune.groups import find_groups
from darts_core.prune.proof import movable

READ = {
    "straight": lambda x: x,
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(1, 1),
    "reversed slices": lambda x: torch.cat([x[:, 8:], x[:, :8]], 1),
}


class Net(nn.Module):
    """Half of the channels of `a` and of `c` are dead; those of `a` are read in another order."""

    def __init__(self, read):
        super().__init__()
        torch.manual_seed(0)
        self.read = read
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.c, self.d = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)
        with torch.no_grad():
            for layer in (self.a, self.c):
                layer.weight[8:], layer.bias[8:] = 0, 0

    def forward(self, x):
        x = self.b(READ[self.read](self.a(x).relu())).relu()
        return self.head(self.d(self.c(x).relu()).mean((2, 3)))


@pytest.fixture(autouse=True)
def counted_costs(monkeypatch):
    count_costs(monkeypatch)


@pytest.mark.parametrize("read", READ)
def test_what_is_read_by_position_stays_and_dead_channels_elsewhere_go(read):
    model, data = Net(read).eval(), Data()
    result = prune_to_budget(
        model, data, budget="80%", batch=2, rounds=1, structure=False, round_to=1, timer=by_macs,
        tune=lambda network, part, parts: None,
    )  # fmt: skip
    assert result.speedup > 1.2
    assert (result.model.a.out_channels < 16) == (read == "straight")
    assert result.model.c.out_channels < 16
    with torch.no_grad():
        torch.testing.assert_close(result.model(data.x), model(data.x))


def test_each_group_is_tried_once(monkeypatch):
    tried = []

    def noting(model, shape, groups, **known):
        tried.extend(group.root for group in groups)
        return movable(model, shape, groups, **known)

    monkeypatch.setattr("darts_core.prune.rounds.movable", noting)
    prune_to_budget(
        Net("flip").eval(), Data(), budget="60%", batch=2, rounds=2, structure=False, round_to=1,
        timer=by_macs, tune=lambda network, part, parts: None,
    )  # fmt: skip
    assert sorted(tried) == sorted(set(tried))
    assert {"a", "c"} <= set(tried)


class Helped(Net):
    """In training alone, a head reads the first channels of `a`."""

    def __init__(self):
        super().__init__("straight")
        self.aux = nn.Linear(4, 3)

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        return super().forward(x), self.aux(self.a(x)[:, :4].mean((2, 3)))


def test_channels_that_training_alone_reads_by_position_stay(caplog):
    """They were cut, and the head read others in the fine-tuning; asked for alone they are known to stay."""
    model = Helped().eval()
    groups = find_groups(model, SHAPE)
    assert movable(model, SHAPE, groups) == {g.root: g.root != "a" for g in groups}
    assert movable(model, SHAPE, [g for g in groups if g.root == "a"]) == {"a": False}
    assert "is not known" not in caplog.text


class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + 0.1 * torch.randn(len(x), 3)


def test_a_network_that_cannot_be_tried_is_believed_and_that_is_said(caplog):
    caplog.set_level(logging.INFO, logger="darts_core")
    model = Net("flip").eval()
    groups = find_groups(model, SHAPE)
    assert movable(copy.deepcopy(model), SHAPE, groups)["a"] is False
    assert "the channels of a stay" in caplog.text
    (alone,) = (group for group in groups if group.root == "a")
    assert movable(model, SHAPE, [alone], moved=True) == {"a": False}
    believed = {group.root: True for group in groups}
    assert movable(Noisy("flip").eval(), SHAPE, groups) == believed
    assert "in Noisy reads channels by position" in caplog.text
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    assert movable(model, SHAPE, groups) == believed
    assert "in Net reads channels by position" in caplog.text
    assert movable(model, SHAPE, []) == {}
