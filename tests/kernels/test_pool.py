"""Pool kernels."""

import pytest
import torch
import triton
from torch import nn

from darts_core.supernet.paths import fused_class
from darts_core.supernet.plan import plan_cell
from darts_kernels import pool
from darts_kernels._common import pool_code
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
    # the shuffled node: mixed channels at even places, passing ones at odd places. No window of the dilated
    # convolution has odd pixels, and no pool brings a value into the other mixed channel
    for channel, pixel, shown in ((0, 3, 0), (0, 2, 2), (3, 3, 3)):
        spoiled = x.clone()
        spoiled[1, channel, pixel, pixel] = float("nan")
        out = fused([spoiled], weights)
        assert bool(out[:, shown].isnan().any()), (channel, shown)
    assert not fused([x], weights).isnan().any()


@pytest.mark.parametrize(("stride", "height"), [(1, 8), (2, 16), (2, 15), (1, 3)])
def test_strips_of_windows_of_two_sizes(device, rng, poison, stride, height):
    """Maxima, their places, means and moments of 3x3 and 5x5 windows, row by row of a strip."""
    batch, channels, width, rows, lanes = 2, 2, 7, 4 if height > 3 else 1, 16
    x = torch.randn(batch, channels, height, width, generator=rng).to(device)
    outs = pool_reference(x, [3], [3, 5], stride)
    size = outs.shape[-2:]
    count = batch * size.numel()
    parts = triton.cdiv(count // rows, lanes)
    pools, sums = torch.empty_like(outs), torch.empty(3 * channels, parts, 2, device=device)
    places = torch.empty(outs.shape[1:], dtype=torch.int8, device=device)
    layout = torch.tensor([[0, channels * height * width]], device=device)
    pool._pool_kernel[(channels, parts, 1)](
        x, layout, pools, places, sums, layout, 0, batch, count // rows, parts, 0,
        POOLS=pool_code((3, 3, 5)), NPOOL=3, NMAX=1, LARGEST=5, C=channels, HI=height, WI=width,
        H=size[0], W=size[1], STRIDE=stride, ROWS=rows, LANES=lanes, SPARSE=False, num_warps=1,
    )  # fmt: skip
    assert torch.equal(pools[0], outs[0])
    assert torch.allclose(pools, outs, atol=1e-6)
    _, flat = nn.functional.max_pool2d(x, 3, stride, 1, return_indices=True)
    y, column = (torch.arange(n, device=device) * stride - 1 for n in size)
    inside = (flat // width - y[:, None]) * 3 + flat % width - column
    assert torch.equal(places.long(), inside)
    each = (count - torch.arange(parts, device=device) * lanes * rows).clamp(max=lanes * rows)
    means, seconds = sums.double().view(3, channels, parts, 2).unbind(-1)
    mean = (means * each).sum(-1) / count
    second = (seconds + (means - mean[..., None]).square() * each).sum(-1)
    assert torch.allclose(mean, outs.double().mean((1, 3, 4)), atol=1e-6)
    assert torch.allclose(second / count, outs.double().var((1, 3, 4), correction=0), atol=1e-6)
