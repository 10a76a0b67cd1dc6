"""Node sum and the reductions of its backward."""

import pytest
import torch
from torch import nn

from darts_kernels.node_sum import node_sum_reference
from darts_kernels.norm import norm_backward_reference, norm_reference

from .cells import check_cell, make_cell


def test_reference_is_the_modules(rng):
    branches = [torch.randn(3, 4, 5, 5, dtype=torch.float64) for _ in range(3)]
    skip = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    weights = torch.rand(4, dtype=torch.float64)
    norm = nn.BatchNorm2d(4, affine=False).double()
    right = sum(w * norm(b) for w, b in zip(weights[:3], branches, strict=True)) + weights[3] * skip
    found = node_sum_reference(branches, weights[:3], [skip], weights[3:])
    assert torch.allclose(found, right, atol=1e-12)
    with pytest.raises(ValueError, match="at least one"):
        node_sum_reference([], weights[:0], [], weights[:0])


def test_norm_backward_is_autograd(rng):
    y = torch.randn(3, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    g = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    (right,) = torch.autograd.grad(norm_reference(y)[0], y, g)
    found, product = norm_backward_reference(g, y.detach())
    assert torch.allclose(found, right, atol=1e-12)
    assert torch.allclose(product, (g * norm_reference(y)[0]).sum((0, 2, 3)), atol=1e-10)


def test_two_nodes_with_every_kind_of_branch(device, rng, poison, monkeypatch):
    ops = ["none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]
    check_cell(
        make_cell(ops, nodes=2), rng, device=device, height=4, width=4, monkeypatch=monkeypatch
    )


def test_columns_in_another_order(device, rng, poison, monkeypatch):
    ops = ["skip_connect", "dil_conv_3x3", "none", "max_pool_3x3"]
    check_cell(make_cell(ops), rng, device=device, height=4, width=3, monkeypatch=monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("reduces", [False, True])
def test_the_darts_cell_on_the_gpu(rng, poison, precision, reduces):
    from darts_core.spaces import get_space

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    cell = make_cell(get_space("darts").ops, channels=16, inputs=2, nodes=4, reduces=reduces,
                     preprocess=True)  # fmt: skip
    floor = {"fp32": 5e-4, "tf32": 5e-3, "bf16": 2e-2}[precision]
    check_cell(cell, rng, batch=16, height=32, width=32, device="cuda", precision=precision,
               floor=floor)  # fmt: skip
