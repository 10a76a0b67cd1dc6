"""Pool kernels."""

import pytest
import torch
from torch import nn

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
