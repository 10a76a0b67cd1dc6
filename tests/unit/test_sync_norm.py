"""Norms over all processes: which of them are, and their running statistics, as torch takes them."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from darts_core.distributed import sync_norm
from darts_core.distributed.sync_norm import SynchronizedNorm, restore_norms, synchronize_norms


class NormAct(nn.BatchNorm2d):
    """As timm's: a norm with an activation of its own."""

    def forward(self, x):
        return torch.relu(super().forward(x))


def test_a_norm_that_cannot_be_synchronized_is_named_once(caplog):
    sync_norm._say_left.cache_clear()
    network = nn.Sequential(nn.BatchNorm2d(3), NormAct(3), nn.Sequential(NormAct(3)))
    with caplog.at_level(logging.WARNING, logger="darts_core"):
        for _ in range(3):  # as around each evaluation
            replaced = synchronize_norms(network)
            assert [type(m) for m in network.modules()].count(SynchronizedNorm) == 1
            restore_norms(replaced)
    said = [r.message for r in caplog.records]
    assert len(said) == 1
    assert "2 norms are of a class of their own (NormAct)" in said[0]
    assert type(network[1]) is NormAct


def test_where_all_norms_are_synchronized_nothing_is_said(caplog):
    sync_norm._say_left.cache_clear()
    with caplog.at_level(logging.WARNING, logger="darts_core"):
        synchronize_norms(nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm3d(3), nn.LayerNorm(3)))
    assert not caplog.records


@pytest.mark.parametrize("momentum", [0.1, 0.3, None])
def test_running_statistics_follow_the_momentum_as_torch_s_do(momentum):
    torch.manual_seed(0)
    batches = torch.randn(4, 8, 3, 2, 2)
    plain, ours = nn.BatchNorm2d(3, momentum=momentum), SynchronizedNorm(3, momentum=momentum)
    for x in batches:
        plain(x)
        ours._track(x.mean((0, 2, 3)), x.var((0, 2, 3)))
    torch.testing.assert_close(ours.running_mean, plain.running_mean)
    torch.testing.assert_close(ours.running_var, plain.running_var)
    assert ours.num_batches_tracked == 4
