"""Pool kernels."""

import pytest
import torch
from torch import nn

from darts_core.supernet.paths import fused_class
from darts_core.supernet.plan import plan_cell
from darts_kernels.pool import pool_reference

from .cells import check_cell, make_cell


@pytest.mark.parametrize("stride", [1, 2])
def test_reference_is_the_modules(rng, stride):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    out = pool_reference(x, [3], [3, 5], stride)
    assert torch.equal(out[0], nn.MaxPool2d(3, stride, 1)(x))
    assert torch.allclose(out[1], nn.AvgPool2d(3, stride, 1, count_include_pad=False)(x))
    assert torch.allclose(out[2], nn.AvgPool2d(5, stride, 2, count_include_pad=False)(x))


@pytest.mark.parametrize("reduces", [False, True])
def test_bodies(device, rng, poison, monkeypatch, reduces):
    ops = ["max_pool_3x3", "avg_pool_3x3", "dil_conv_3x3"]
    cell = make_cell(ops, reduces=reduces)
    check_cell(
        cell, rng, device=device, height=7 if reduces else 5, width=6, monkeypatch=monkeypatch
    )


def test_ties_go_to_the_first_maximum(device, rng, poison, monkeypatch):
    cell = make_cell(["max_pool_3x3", "dil_conv_3x3"])
    check_cell(cell, rng, device=device, height=4, width=6, ties=True, monkeypatch=monkeypatch)


def test_pools_without_norm(device, rng, poison, monkeypatch):
    cell = make_cell(["avg_pool_3x3", "dil_conv_3x3"], norm_after_pool=False)
    check_cell(cell, rng, device=device, height=4, width=5, monkeypatch=monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("reduces", [False, True])
def test_on_the_gpu(rng, poison, precision, reduces):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    cell = make_cell(["max_pool_3x3", "avg_pool_3x3", "dil_conv_3x3"], channels=16, nodes=2,
                     reduces=reduces)  # fmt: skip
    floor = {"fp32": 3e-4, "tf32": 2e-3, "bf16": 1e-2}[precision]
    check_cell(cell, rng, batch=8, height=17, width=15, device="cuda", precision=precision,
               floor=floor)  # fmt: skip


def test_a_nan_wins_its_windows(device, poison):
    """As in torch: what diverged shows in everything that saw it, and in nothing else."""
    from darts_kernels.source_pool import source_pool, source_pool_reference

    x = torch.randn(1, 2, 5, 6)
    x[0, 1, 2, 3] = float("nan")
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    live = torch.ones(1, dtype=torch.int32, device=device)
    found, _ = source_pool(x, 3, 1, live, maximum=True)
    right, _ = source_pool_reference(x, 3, 1, maximum=True)
    assert torch.equal(found.isnan(), right.isnan())
    assert int(found.isnan().sum()) == 9
    assert torch.equal(found.nan_to_num(), right.nan_to_num())


def test_a_nan_in_a_state_shows_in_the_node(device, poison, monkeypatch):
    """Through relu, pools and what passes by partial channels."""
    cell = make_cell(["max_pool_3x3", "dil_conv_3x3"], channels=4, groups=2, reduces=True).to(
        device
    )
    plan = plan_cell(cell, cell.channels)
    fused = fused_class(plan, on_gpu=True).adopt(cell, plan, "fp32")
    x = torch.randn(2, 4, 6, 6, device=device)
    weights = torch.ones(1, 2, device=device)
    for channel, shown in ((0, slice(0, None, 2)), (3, slice(3, None, 2))):
        spoiled = x.clone()
        spoiled[1, channel, 3, 3] = float("nan")
        out = fused([spoiled], weights)
        # the shuffled node: mixed channels at even places, passing ones at odd places
        assert bool(out[:, shown].isnan().any()), channel
    assert not fused([x], weights).isnan().any()
