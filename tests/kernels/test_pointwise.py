"""Pointwise kernels, their moments and the merging of moments."""

import pytest
import torch
from torch import nn

from darts_kernels.pointwise import pointwise_reference

from .cells import check_cell, make_cell


def test_reference_is_the_modules(rng):
    d = torch.randn(3, 2, 5, 4, 6, dtype=torch.float64)
    weight = torch.randn(3, 5, 5, dtype=torch.float64)
    out = pointwise_reference(d, weight)
    for f in range(3):
        right = nn.functional.conv2d(d[f], weight[f][:, :, None, None])
        assert torch.allclose(out[f], right, atol=1e-12)


@pytest.mark.interpret
def test_moments_of_large_means(rng, poison, monkeypatch):
    """Partials are merged about their own means: a large mean does not eat the variance."""
    from darts_kernels import norm

    rows, parts, chunk, pixels = 3, 4, 8, 27
    values = 1000.0 + torch.randn(rows, pixels, dtype=torch.float64)
    sums = torch.zeros(rows, parts, 2)
    for part in range(parts):
        piece = values[:, part * chunk : (part + 1) * chunk].float()
        sums[:, part, 0] = piece.mean(1)
        sums[:, part, 1] = (piece - piece.mean(1, keepdim=True)).square().sum(1)
    moments, mean, var = torch.zeros(rows, 2), torch.zeros(rows), torch.ones(rows)
    norm._finalize_kernel[(3,)](
        sums, moments, mean, var, moments, 0, 2, 2, 1, 0, 0, 0, parts, chunk, pixels, 0.1,
        PARTS=4, TRAIN=True, C=1, SPARSE=False,
    )  # fmt: skip
    right = torch.rsqrt(values.var(1, correction=0) + 1e-5)
    assert torch.allclose(moments[:, 1].double(), right, rtol=1e-4)
    assert torch.allclose(var.double(), 0.9 + 0.1 * values.var(1), rtol=1e-4)
    assert torch.allclose(mean.double(), 0.1 * values.mean(1), rtol=1e-5)


@pytest.mark.parametrize("channels", [3, 5])
def test_bodies_at_odd_widths(device, rng, poison, monkeypatch, channels):
    cell = make_cell(["dil_conv_3x3"], channels=channels)
    check_cell(cell, rng, device=device, batch=3, height=3, width=5, monkeypatch=monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [4, 16, 48, 64])
def test_on_the_gpu(rng, poison, channels):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    cell = make_cell(["dil_conv_3x3", "sep_conv_3x3"], channels=channels)
    check_cell(cell, rng, batch=5, height=9, width=9, device="cuda", floor=3e-4)
