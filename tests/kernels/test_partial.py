"""Partial channels: the reference against mixed operations, the bodies against the modules."""

import pytest
import torch

from darts_core.supernet.mixed_op import MixedOp
from darts_kernels.join import join_reference

from .cells import check_cell, make_cell

# a max pool of a small plane has few different values, which no norm can be taken of to full precision
OPS = ["none", "avg_pool_3x3", "skip_connect", "dil_conv_3x3"]


@pytest.mark.parametrize("groups", [2, 3])
def test_reference_is_the_mixed_operations(rng, groups):
    channels = 2 * groups
    states = [torch.randn(2, channels, size, size, dtype=torch.float64) for size in (5, 5, 3)]
    weights = torch.rand(3, 2, dtype=torch.float64)
    edges = [
        MixedOp(("skip_connect", "dil_conv_3x3"), channels, stride, norm_after_pool=True,
                channel_fraction=groups).double()
        for stride in (2, 2, 1)
    ]  # fmt: skip
    right = sum(e(x, w) for e, x, w in zip(edges, states, weights, strict=True))
    mixed = sum(
        w[k] * e.ops[k](x[:, :2])
        for e, x, w in zip(edges, states, weights, strict=True)
        for k in range(2)
    )
    found = join_reference(mixed, states, (2, 2, 1), weights.sum(1), groups)
    assert torch.allclose(found, right, atol=1e-12)
    with pytest.raises(ValueError, match="at least one"):
        join_reference(mixed, [], [], weights[:0].sum(1), groups)


@pytest.mark.parametrize("reduces", [False, True])
def test_bodies(device, rng, poison, monkeypatch, reduces):
    cell = make_cell(OPS, channels=4, nodes=2, inputs=2, groups=2, reduces=reduces)
    check_cell(cell, rng, device=device, height=7 if reduces else 4, width=5 if reduces else 3,
               monkeypatch=monkeypatch)  # fmt: skip


def test_ties_go_to_the_first_maximum(device, rng, poison, monkeypatch):
    cell = make_cell(["skip_connect", "dil_conv_3x3"], channels=4, groups=2, reduces=True)
    check_cell(cell, rng, device=device, height=4, width=4, ties=True, monkeypatch=monkeypatch)


def test_three_groups_behind_preprocessing(device, rng, poison, monkeypatch):
    cell = make_cell(OPS, channels=6, inputs=2, groups=3, preprocess=True, last_reduced=True)
    check_cell(cell, rng, device=device, height=3, width=3, monkeypatch=monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize(("channels", "reduces"), [(16, False), (32, True)])
def test_the_pc_darts_cell_on_the_gpu(rng, poison, precision, channels, reduces):
    from darts_core.spaces import get_space

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    cell = make_cell(get_space("darts").ops, channels=channels, inputs=2, nodes=4, groups=4,
                     reduces=reduces, preprocess=True)  # fmt: skip
    floor = {"fp32": 5e-4, "tf32": 5e-3, "bf16": 2e-2}[precision]
    check_cell(cell, rng, batch=16, height=32, width=32, device="cuda", precision=precision,
               floor=floor)  # fmt: skip
