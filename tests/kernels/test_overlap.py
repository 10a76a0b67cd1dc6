"""Launches that overlap (programmatic dependent launch): who may start early waits before all else."""

import ast
import os
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from darts_core.bench.offline import OfflineCase, step_launches
from darts_kernels import cell_run
from darts_kernels._common import launch_options
from darts_kernels._device import begin
from darts_kernels.binary import waits_first
from darts_kernels.standin import compile_variant, recorded
from darts_kernels.tiles import Tiles, can_overlap, default_tiles

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter replaces the compiler"
)
SMALL = {"layers": 3, "batch": 8, "size": 16}
CELLS = tuple(
    OfflineCase(relaxation=name, **SMALL) for name in ("softmax", "partial_channels", "gumbel")
)
STEM = {"_conv_kernel", "_conv_weight_kernel", "_conv_share_kernel", "_normalize_kernel",
        "_normalize_reduce_kernel", "_normalize_coefficient_kernel"}  # fmt: skip


@pytest.fixture
def launches(monkeypatch):
    """Those of a step of each kind of cell, where tiles ask for overlapping launches."""
    usual = cell_run.tiles_for
    monkeypatch.setattr(cell_run, "tiles_for", lambda *a: replace(usual(*a), overlap=1))
    return [x for case in CELLS for part in step_launches(case).values() for x in part]


def first_statement(kernel):
    (function,) = ast.parse(kernel.src).body
    return ast.unparse(function.body[0])


def test_a_cell_s_kernels_wait_before_anything_else(launches):
    early = {x.variant.kernel: x.variant for x in launches if x.variant.options.get("launch_pdl")}
    assert len(early) > 15
    for name, variant in early.items():
        kernel = variant._compiled_from[0].fn
        assert first_statement(kernel) == "begin(OVERLAP)", name
        assert variant.constants["OVERLAP"] is True, name
    # the others keep the order of the stream: they start when all before them has ended
    assert {x.variant.kernel for x in launches if not x.variant.options.get("launch_pdl")} <= STEM


@pytest.mark.full
def test_every_binary_that_may_start_early_waits_first(launches):
    seen = {}
    for launch in launches:
        if launch.variant.options.get("launch_pdl"):
            seen.setdefault(launch.variant.kernel, launch.variant)
    assert [name for name, v in seen.items() if not waits_first(compile_variant(v))] == []


@triton.jit
def _reads_before_it_waits(x_ptr, out_ptr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr = False):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i)
    begin(OVERLAP)
    tl.store(out_ptr + i, x)


@triton.jit
def _waits_before_it_reads(x_ptr, out_ptr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr = False):
    begin(OVERLAP)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i))


@pytest.mark.parametrize(
    ("kernel", "overlap", "right"),
    [
        (_waits_before_it_reads, True, True),
        (_reads_before_it_waits, True, False),
        (_waits_before_it_reads, False, False),
    ],
)
def test_a_binary_shows_whether_it_waits_first(kernel, overlap, right):
    x = torch.empty(4096, device="meta")
    options = launch_options(4, overlap=overlap)
    (launch,) = recorded(lambda: kernel[(4,)](x, x, BLOCK=1024, **options))
    assert waits_first(compile_variant(launch.variant)) is right


def test_launches_overlap_only_where_tiles_ask_for_it_and_the_device_can(monkeypatch):
    assert not Tiles().overlap
    assert not default_tiles(16, 32, 64, 32).overlap
    assert launch_options(4) == {"num_warps": 4}
    assert not can_overlap(torch.device("cpu"))
    for capability, can in (((8, 9), False), ((9, 0), True), ((12, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert can_overlap(torch.device("cuda")) is can
    usual = step_launches(CELLS[0])
    assert not any(x.variant.options.get("launch_pdl") for part in usual.values() for x in part)
