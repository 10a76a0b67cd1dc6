"""Depthwise, pointwise and statistics in one kernel: the depthwise output never reaches memory (C <= 64).

Maths. For every branch f of an edge, with z = relu(x), or z = relu((x - mean) * inv) in a second stage,

    y_f = W_f (w_f * z),      and the mean and centred second moment of every channel of y_f as partials,

w_f being its depthwise filter and W_f its [C, C] matrix: `depthwise` and `pointwise` after one another. The
depthwise output is rounded as the two kernels round it on their way through memory. The backward is theirs:
where weight gradients are wanted, the depthwise output is made again by `depthwise`.

Shapes: as in `depthwise` and `pointwise`. A program owns all channels of a block of pixels, so that the
matrix product has its operand in registers; that is why C is bounded. Each tap of a filter is loaded for
itself, and filters share no loads: fewer bytes to memory against more loads from the caches. Which wins
depends on the device and shape; tiles say (`fuse_first`, `fuse_second`), and the default is two kernels.

Bytes: reads the state (or inner tensor) once a branch, through the caches, and writes y. Flops: those of
`depthwise` and `pointwise`. fp32 accumulation.

Source: the operations are those of DARTS (arXiv:1806.09055), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import larger, merge_moments, relu
from darts_kernels.depthwise import depthwise_reference
from darts_kernels.pointwise import pointwise_reference

if TYPE_CHECKING:
    from darts_kernels.cell_run import CellRun, CellShape, Saved

__all__ = ["LARGEST_CHANNELS", "stage_forward", "stage_reference"]

LARGEST_CHANNELS = 64
_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def stage_reference(
    x_NCHW: Tensor,
    depthwise: Sequence[Tensor],
    pointwise_FCC: Tensor,
    filters: Sequence[tuple[int, int]],
    stride: int,
) -> Tensor:
    """[F, N, C, H', W']: each branch's depthwise and pointwise convolution of relu(x); any floating dtype."""
    return pointwise_reference(
        depthwise_reference(x_NCHW, depthwise, filters, stride), pointwise_FCC
    )


@triton.jit
def _filtered(
    x, weight_ptr, y, column, co, mask_c, mask_p, mean, inv,
    K: tl.constexpr, DIL: tl.constexpr, C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
    NORM: tl.constexpr, CP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """[CP, BLOCK]: one depthwise filter at the pixels whose centres are `x`, at rows y and columns."""
    total = tl.zeros([CP, BLOCK], tl.float32)
    for i in tl.static_range(K):
        for j in tl.static_range(K):
            row = y + (i - K // 2) * DIL
            place = column + (j - K // 2) * DIL
            inside = mask_p & (row >= 0) & (row < HI) & (place >= 0) & (place < WI)
            mask = mask_c[:, None] & inside[None, :]
            value = tl.load(
                x + ((i - K // 2) * DIL * WI + (j - K // 2) * DIL), mask=mask, other=0.0
            ).to(tl.float32)
            if NORM:
                value = (value - mean[:, None]) * inv[:, None]
            # the padding of a normalised input is zero after the norm
            value = tl.where(mask, relu(value), 0.0)
            weight = tl.load(weight_ptr + (co * (K * K) + i * K + j), mask=mask_c, other=0.0)
            total += weight[:, None] * value
    return total


@triton.jit(do_not_specialize=["edge0", "batch", "parts", "row0"])
def _stage_kernel(
    x_ptr, layout_ptr, source_ptr, moment_ptr, weight_ptr, point_ptr, y_ptr, sum_ptr, drawn_ptr,
    edge0, batch, pixels, parts, row0,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, FIRST: tl.constexpr,
    TAPS: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr, NORM: tl.constexpr,
    KIND: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr, DOT: tl.constexpr,
    SLOTS: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    which = tl.program_id(1)
    edge = (edge0 + tl.program_id(2)).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + edge * SLOTS + which) == 0:
            return
    HW: tl.constexpr = H * W
    co = tl.arange(0, CP)
    mask_c = co < C
    branch = edge * COUNT + which
    square = mask_c[:, None] & mask_c[None, :]
    matrix = tl.load(
        point_ptr + branch * (C * C) + (co[:, None] * C + co[None, :]), mask=square, other=0.0
    )
    mean = tl.zeros([CP], tl.float32)
    inv = tl.zeros([CP], tl.float32)
    if NORM:
        base = x_ptr + (edge * FIRST + which) * batch * (C * HI * WI)
        sample = C * HI * WI
        moments = moment_ptr + ((edge * FIRST + which) * C + co) * 2
        mean = tl.load(moments, mask=mask_c, other=0.0)
        inv = tl.load(moments + 1, mask=mask_c, other=0.0)
    else:
        source = tl.load(source_ptr + edge)
        base = x_ptr + tl.load(layout_ptr + 2 * source)
        sample = tl.load(layout_ptr + 2 * source + 1).to(tl.int32)
    above = branch * batch * (C * HW)
    count = 0.0
    sum_mean = tl.zeros([CP], tl.float32)
    second = tl.zeros([CP], tl.float32)
    for step in range(STEPS):
        p = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask_p = p < pixels
        n = p // HW
        y = p % HW // W * STRIDE
        column = p % W * STRIDE
        x = base + (co[:, None] * (HI * WI) + (n * sample + y * WI + column)[None, :])
        d = tl.zeros([CP, BLOCK], tl.float32)
        for f in tl.static_range(COUNT):
            if which == f:
                d = _filtered(
                    x, weight_ptr + edge * (C * TAPS) + (C * ((OFFSETS >> (16 * f)) & 65535)), y,
                    column, co, mask_c, mask_p, mean, inv, (CODE >> (8 * f)) & 15,
                    (CODE >> (8 * f + 4)) & 15, C, HI, WI, NORM, CP, BLOCK,
                )  # fmt: skip
        if KIND == 1:
            out = tl.dot(matrix.to(tl.float16), d.to(tl.float16), input_precision=DOT)
        elif KIND == 2:
            out = tl.dot(matrix.to(tl.bfloat16), d.to(tl.bfloat16), input_precision=DOT)
        else:
            out = tl.dot(matrix, d, input_precision=DOT)
        mask = mask_c[:, None] & mask_p[None, :]
        spot = co[:, None] * HW + (n * (C * HW) + p % HW)[None, :]
        tl.store(y_ptr + above + spot, out.to(y_ptr.dtype.element_ty), mask=mask)
        tile_count = tl.minimum(tl.maximum(pixels - (part * STEPS + step) * BLOCK, 0), BLOCK).to(
            tl.float32
        )
        tile_mean = tl.sum(out, 1) / larger(tile_count, 1.0)
        centred = tl.where(mask, out - tile_mean[:, None], 0.0)
        count, sum_mean, second = merge_moments(
            count, sum_mean, second, tile_count, tile_mean, tl.sum(centred * centred, 1)
        )
    row = sum_ptr + ((row0 + branch * C + co) * parts + part) * 2
    tl.store(row, sum_mean, mask=mask_c)
    tl.store(row + 1, second, mask=mask_c)


def stage_forward(
    run: CellRun,
    s: CellShape,
    wave: tuple[int, int, int, int],
    stage: str,
    flat: Tensor,
    saved: Saved,
    sums: Tensor,
) -> None:
    """A whole stage ("first" or "second") of a wave: fills its branches and their partial moments.

    Args:
        run: the cell.
        s: sizes of the call.
        wave: first and end source, first and end edge.
        stage: which of the two.
        flat: the packed parameters.
        saved: what is kept; moments of the first stage are read by the second.
        sums: partials.
    """
    layout, t, number = run.layout, s.tiles, "1" if stage == "first" else "2"
    source0, _, edge0, edge1 = wave
    filters = layout.first if stage == "first" else layout.second
    code, offsets, taps, _ = layout.code1 if stage == "first" else layout.code2
    stride, height, width = s.source_sizes(run, source0) if stage == "first" else (1, s.H, s.W)
    block = min(t.stage_block, t.chunk)
    _stage_kernel[(s.parts, len(filters), edge1 - edge0)](
        saved.state if stage == "first" else saved.first, s.tables.places, s.tables.source,
        saved.moments, layout.sections[f"depthwise{number}"].of(flat),
        layout.sections[f"pointwise{number}"].of(flat),
        saved.first if stage == "first" else saved.second, sums, saved.drawn, edge0, s.batch,
        s.pixels, s.parts, layout.rows[stage],
        CODE=code, OFFSETS=offsets, COUNT=len(filters), FIRST=len(layout.first), TAPS=taps, C=s.C,
        CP=s.CP, HI=height, WI=width, H=s.H, W=s.W, STRIDE=stride, NORM=stage == "second",
        KIND=_KINDS[run.precision.scratch], BLOCK=block, STEPS=t.chunk // block,
        DOT=run.precision.dot, SLOTS=len(layout.slots), SPARSE=run.sparse,
        num_warps=t.stage_warps, num_stages=1,
    )  # fmt: skip
