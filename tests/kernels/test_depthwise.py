"""Depthwise kernels: the reference against modules, the bodies against the reference."""

import pytest
import torch
from torch import nn

from darts_kernels.depthwise import depthwise_reference

from .cells import check_cell, make_cell

FILTERS = [(3, 1), (5, 1), (3, 2), (5, 2), (7, 1)]


@pytest.mark.parametrize("stride", [1, 2])
def test_reference_is_the_modules(rng, stride):
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True, generator=None)
    modules = [
        nn.Conv2d(3, 3, k, stride, d * (k // 2), d, groups=3, bias=False).double()
        for k, d in FILTERS
    ]
    out = depthwise_reference(x, [m.weight for m in modules], FILTERS, stride)
    right = torch.stack([m(torch.relu(x)) for m in modules])
    assert torch.allclose(out, right, atol=1e-12)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, [x, modules[3].weight], grad, retain_graph=True)
    wanted = torch.autograd.grad(right, [x, modules[3].weight], grad)
    assert all(torch.allclose(f, w, atol=1e-12) for f, w in zip(found, wanted, strict=True))


@pytest.mark.parametrize("reduces", [False, True])
def test_single_stage_bodies(device, rng, poison, monkeypatch, reduces):
    size = 4 if reduces else 5
    cell = make_cell(["none", "dil_conv_3x3", "dil_conv_5x5"], reduces=reduces)
    check_cell(cell, rng, device=device, height=2 * size - 1 if reduces else size, width=size + 2,
               monkeypatch=monkeypatch)  # fmt: skip


def test_two_stage_bodies(device, rng, poison, monkeypatch):
    check_cell(
        make_cell(["sep_conv_3x3", "sep_conv_5x5"]), rng, device=device, monkeypatch=monkeypatch
    )


def test_a_users_operation(device, rng, poison, monkeypatch):
    cell = make_cell(["test_dw_conv_7x7", "sep_conv_3x3"], channels=3)
    check_cell(cell, rng, device=device, height=4, width=4, monkeypatch=monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(
    ("channels", "size", "reduces"), [(16, 32, False), (20, 13, False), (32, 16, True)]
)
def test_on_the_gpu(rng, poison, precision, channels, size, reduces):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    ops = ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5", "test_dw_conv_7x7"]
    cell = make_cell(ops, channels=channels, nodes=2, reduces=reduces)
    floor = {"fp32": 3e-4, "tf32": 2e-3, "bf16": 1e-2}[precision]
    check_cell(cell, rng, batch=8, height=size, width=size, device="cuda", precision=precision,
               floor=floor)  # fmt: skip
