"""Preprocessing and factorised reduction."""

import pytest
import torch

from darts_core.ops.simple import FactorizedReduce
from darts_kernels.point_stats import point_reference

from .cells import check_cell, make_cell


def test_reference_is_the_modules(rng):
    x = torch.randn(2, 6, 7, 5, dtype=torch.float64)
    module = FactorizedReduce(6, 4, affine=False).double()
    weight = torch.cat([module.conv_even.weight, module.conv_odd.weight]).flatten(1)
    found = module.norm(point_reference(x, weight, reduce=True))
    assert torch.allclose(found, module(x), atol=1e-12)
    plain = torch.nn.functional.conv2d(torch.relu(x), weight[:, :, None, None])
    assert torch.allclose(point_reference(x, weight, reduce=False), plain, atol=1e-12)


def test_preprocessing_bodies(device, rng, poison, monkeypatch):
    cell = make_cell(["dil_conv_3x3", "skip_connect"], inputs=2, preprocess=True)
    check_cell(cell, rng, device=device, height=4, width=4, monkeypatch=monkeypatch)


def test_reduction_bodies(device, rng, poison, monkeypatch):
    cell = make_cell(["dil_conv_3x3", "skip_connect"], channels=4, inputs=2, reduces=True,
                     preprocess=True, last_reduced=True)  # fmt: skip
    check_cell(cell, rng, device=device, batch=1, height=4, width=4, monkeypatch=monkeypatch)


def test_reduction_of_odd_sizes(device, rng, poison, monkeypatch):
    cell = make_cell(["dil_conv_3x3", "skip_connect"], channels=4, reduces=True)
    check_cell(cell, rng, device=device, height=5, width=7, monkeypatch=monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("size", [16, 14])
def test_on_the_gpu(rng, poison, precision, size):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    cell = make_cell(["dil_conv_3x3", "skip_connect"], channels=32, inputs=2, nodes=2,
                     reduces=True, preprocess=True, last_reduced=True)  # fmt: skip
    floor = {"fp32": 3e-4, "tf32": 2e-3, "bf16": 1e-2}[precision]
    check_cell(cell, rng, batch=8, height=size, width=size, device="cuda", precision=precision,
               floor=floor)  # fmt: skip
