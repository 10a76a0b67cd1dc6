"""Triton launches on the current device, so every forward pass makes that of its tensors the current one."""

from types import SimpleNamespace

import pytest
import torch

from darts_kernels import cell, infer_stage, source, stem
from darts_kernels._common import PRECISIONS, on_device_of
from darts_kernels.source_run import SourceRun
from darts_kernels.stem import StemRun

from .cells import away_from_zero, make_cell
from .test_cell import fused_of


class Launched(Exception):
    """In place of a launch; says what the current devices were."""


@pytest.fixture
def launch(monkeypatch):
    """What is called instead of kernels, where all tensors are said to be on the second GPU."""
    current = []

    class Device:
        def __init__(self, index):
            self.index = index

        def __enter__(self):
            current.append(self.index)

        def __exit__(self, *_):
            current.pop()

    def called(*_, **__):
        raise Launched(list(current))

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.Tensor, "get_device", lambda _: 1)
    return called


def test_a_cell(rng, launch, monkeypatch):
    ops = ["max_pool_3x3", "sep_conv_3x3"]
    fused = fused_of(make_cell(ops), "fp32", "cpu", monkeypatch)
    monkeypatch.setattr(cell, "cell_forward", launch)
    with pytest.raises(Launched, match=r"\[1\]"):
        fused([away_from_zero((2, 2, 4, 4), rng)], torch.rand(1, 2))


def test_a_stem(launch, monkeypatch):
    monkeypatch.setattr(stem, "_ConvNorm", SimpleNamespace(apply=launch))
    run = StemRun(PRECISIONS["fp32"], torch.zeros(2), torch.ones(2))
    with pytest.raises(Launched, match=r"\[1\]"):
        stem.conv_norm(
            run, torch.rand(1, 3, 4, 4), torch.rand(2, 3, 3, 3), torch.ones(2), torch.zeros(2)
        )


def test_a_source(launch, monkeypatch):
    monkeypatch.setattr(source, "_Source", SimpleNamespace(apply=launch))
    run = SourceRun(torch.zeros(2), torch.ones(2), dilations=(1,))
    with pytest.raises(Launched, match=r"\[1\]"):
        source.source(
            run, torch.rand(1, 1), torch.rand(1, 2, 4, 4), [torch.rand(2, 2, 1, 1)], [None]
        )


def test_an_exported_stage(launch, monkeypatch):
    class Kernel:
        def __getitem__(self, grid):
            return launch

    monkeypatch.setattr(infer_stage, "_infer_stage_kernel", Kernel())
    x, weight = torch.empty(1, 2, 4, 4, device="meta"), torch.empty(2, 2, device="meta")
    with pytest.raises(Launched, match=r"\[1\]"):
        infer_stage.infer_stage(x, None, weight, None)


def test_tensors_outside_of_gpus_change_no_device():
    with on_device_of(torch.zeros(1)), on_device_of(torch.zeros(1, device="meta")):
        pass
