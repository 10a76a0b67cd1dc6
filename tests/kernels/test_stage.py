"""Depthwise, pointwise and statistics in one kernel: the reference, and cells whose tiles ask for it."""

import pytest
import torch
from torch import nn

from darts_kernels import stage
from darts_kernels.stage import stage_reference

from .cells import check_cell, make_cell

FILTERS = [(3, 1), (5, 2)]
FUSED = {"fuse_first": 1, "fuse_second": 1, "stage_block": 16}


@pytest.mark.parametrize("stride", [1, 2])
def test_reference_is_the_modules(rng, stride):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    pairs = [
        nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(3, 3, k, stride, d * (k // 2), d, groups=3, bias=False),
            nn.Conv2d(3, 3, 1, bias=False),
        ).double()
        for k, d in FILTERS
    ]
    out = stage_reference(
        x,
        [pair[1].weight for pair in pairs],
        torch.stack([pair[2].weight.view(3, 3) for pair in pairs]),
        FILTERS,
        stride,
    )
    right = torch.stack([pair(x) for pair in pairs])
    assert torch.allclose(out, right, atol=1e-12)
    grad = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, x, grad)
    (wanted,) = torch.autograd.grad(right, x, grad)
    assert torch.allclose(found, wanted, atol=1e-12)


@pytest.fixture
def launches(monkeypatch):
    """Which stages were launched as one kernel."""
    seen, real = [], stage.stage_forward

    def note(run, s, wave, name, *args):
        seen.append(name)
        real(run, s, wave, name, *args)

    monkeypatch.setattr(stage, "stage_forward", note)
    return seen


@pytest.mark.parametrize("reduces", [False, True])
def test_bodies(device, rng, poison, monkeypatch, launches, reduces):
    cell = make_cell(["sep_conv_3x3", "dil_conv_5x5"], channels=3, reduces=reduces)
    check_cell(cell, rng, device=device, height=7 if reduces else 5, width=5, tiles=FUSED,
               monkeypatch=monkeypatch)  # fmt: skip
    assert launches == ["first", "second"] * 2  # a second pass has the same bits


def test_drawn_branches_alone(device, rng, poison, monkeypatch, launches):
    cell = make_cell(["none", "sep_conv_3x3", "dil_conv_3x3"], nodes=2)
    check_cell(cell, rng, device=device, height=4, width=4, drawn=(2, 1, 0), tiles=FUSED,
               monkeypatch=monkeypatch)  # fmt: skip
    assert launches


def test_wide_cells_keep_two_kernels(device, rng, monkeypatch, launches):
    monkeypatch.setattr(stage, "LARGEST_CHANNELS", 2)
    cell = make_cell(["sep_conv_3x3", "dil_conv_3x3"], channels=3)
    check_cell(cell, rng, device=device, tiles=FUSED, monkeypatch=monkeypatch)
    assert not launches


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(("channels", "size"), [(16, 32), (20, 13), (64, 8)])
def test_on_the_gpu(rng, poison, monkeypatch, precision, channels, size):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    ops = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"]
    cell = make_cell(ops, channels=channels, nodes=2)
    floor = {"fp32": 3e-4, "tf32": 2e-3, "bf16": 1e-2}[precision]
    check_cell(cell, rng, batch=8, height=size, width=size, device="cuda", precision=precision,
               floor=floor, tiles=FUSED, monkeypatch=monkeypatch)  # fmt: skip
