"""The forward launches of a fused cell, one function each; `cell` has their order."""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from darts_kernels import depthwise, node_sum, norm, point_stats, pointwise, pool, state_norm
from darts_kernels._common import next_power_of_2
from darts_kernels.cell_run import CellCall, Wave

__all__ = [
    "combine",
    "convolve_first",
    "convolve_second",
    "finish_moments",
    "load_inputs",
    "pool_states",
    "reduce_inputs",
]

_MOST_PARTS = 128
"""Partials of a row that its readers merge themselves; more than that are merged once, by a launch."""


def load_inputs(call: CellCall, inputs: list[Tensor]) -> None:
    """Fill the input states: by preprocessing, or by a copy."""
    run, s, layout, saved = call.run, call.s, call.layout, call.saved
    if not layout.input_channels:
        for index, x in enumerate(inputs):
            place = saved.full[index * s.full_input_size : (index + 1) * s.full_input_size]
            place.view(x.shape).copy_(x)
        return
    block = 128 if s.CFP <= 32 else 64
    steps = 2 if run.precision.splits else 1
    parts = triton.cdiv(s.input_pixels, block)
    sums = torch.empty(layout.inputs * s.CF, parts, 2, device=saved.moments.device)
    for index, x in enumerate(inputs):
        width, reduces = layout.input_channels[index], layout.input_reduces[index]
        place = saved.full[index * s.full_input_size : (index + 1) * s.full_input_size]
        point_stats._point_kernel[(parts, 1)](
            x, s.tables.one, call.params(f"input{index}"), place, sums, saved.drawn,
            s.batch, s.input_pixels, parts, index * s.CF,
            CI=width, CIB=min(64, max(16, next_power_of_2(width))), CO=s.CF, COP=s.CFP,
            HI=x.shape[2], WI=x.shape[3], H=s.HI, W=s.WI, REDUCE=reduces,
            BLOCK=block // steps, STEPS=steps, DOT=run.precision.dot, SLOTS=1, SPARSE=False,
            **s.options(4, 0, 2),
        )  # fmt: skip
    state_norm.normalize(
        saved.full, saved.full, sums, saved.moments, run.running_mean, run.running_var, None,
        tensors=layout.inputs, channels=s.CF, plane=s.HI * s.WI, pixels=s.input_pixels,
        block=s.tiles.plain_block, row0=layout.rows["input"],
        chunk=block, momentum=run.momentum, train=run.train, options=s.options(s.tiles.plain_warps),
    )  # fmt: skip


def convolve_first(call: CellCall, wave: Wave, sums: Tensor) -> None:
    """The first depthwise and pointwise convolutions of a wave's edges, with partial moments."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    source0, _, edge0, edge1 = wave
    stride, height, width = s.source_sizes(run, source0)
    code, offsets, taps, halo = layout.code1
    rows = min(t.rows, s.H)
    lanes = s.lanes(rows)
    depthwise._depthwise_kernel[(s.C, triton.cdiv(lanes, t.lanes), edge1 - edge0)](
        saved.state, s.tables.places, s.tables.source, call.params("depthwise1"),
        call.kept("first", wave), saved.drawn, edge0, s.batch, lanes,
        CODE=code, OFFSETS=offsets, COUNT=len(layout.first), TAPS=taps, HALO=halo, C=s.C,
        HI=height, WI=width, H=s.H, W=s.W, STRIDE=stride, ROWS=rows, LANES=t.lanes,
        SLOTS=len(layout.slots), SPARSE=run.sparse,
        **s.options(1, t.regs),
    )  # fmt: skip
    _pointwise(call, wave, "first", sums)


def convolve_second(call: CellCall, wave: Wave, sums: Tensor) -> None:
    """The second convolutions of a wave's separable branches, norm and relu on load, with partial moments."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    _, _, edge0, edge1 = wave
    count1, count2 = len(layout.first), len(layout.second)
    merges = run.train and not _first_alone(call)
    if run.train and not merges:
        _finalize(call, [(edge0 * count1 * s.C, (edge1 - edge0) * count1 * s.C)], sums)
    code, offsets, taps, _ = layout.code2
    rows = min(t.inner_rows, s.H)
    lanes = s.lanes(rows)
    depthwise._inner_kernel[(s.C, triton.cdiv(lanes, t.inner_lanes), (edge1 - edge0) * count2)](
        saved.first, saved.moments, sums, call.params("depthwise2"), call.kept("second", wave),
        saved.drawn, edge0, s.batch, lanes, s.parts, t.chunk, s.pixels,
        CODE=code, OFFSETS=offsets, COUNT=count2, FIRST=count1, TAPS=taps, C=s.C,
        H=s.H, W=s.W, ROWS=rows, LANES=t.inner_lanes,
        PARTS=next_power_of_2(s.parts) if merges else 0, SLOTS=len(layout.slots), SPARSE=run.sparse,
        **s.options(1, t.inner_regs),
    )  # fmt: skip
    _pointwise(call, wave, "second", sums)


def _first_alone(call: CellCall) -> bool:
    """Whether the moments between the two stages are merged by a launch of their own."""
    return bool(call.layout.second) and call.s.parts > _MOST_PARTS


def _pointwise(call: CellCall, wave: Wave, stage: str, sums: Tensor) -> None:
    run, s, layout, t = call.run, call.s, call.layout, call.s.tiles
    _, _, edge0, edge1 = wave
    count, number = call.filters(stage)
    block = min(t.point_block, t.chunk)
    pointwise._pointwise_kernel[(s.parts, count, edge1 - edge0)](
        call.kept(stage, wave), call.params(f"pointwise{number}"),
        call.saved.first if stage == "first" else call.saved.second, sums, call.saved.drawn, edge0,
        s.batch, s.pixels, s.parts, layout.rows[stage],
        F=count, C=s.C, CP=s.CP, HW=s.HW, BLOCK=block, STEPS=t.chunk // block,
        DOT=run.precision.dot, SLOTS=len(layout.slots), SPARSE=run.sparse,
        **s.options(t.point_warps, 0, t.point_stages),
    )  # fmt: skip


def pool_states(call: CellCall, wave: Wave, sums: Tensor) -> None:
    """The pools of a wave's sources, with partial moments."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    source0, source1, _, _ = wave
    stride, height, width = s.source_sizes(run, source0)
    # strips of whole rows, and as many pixels a program as every kernel with partial moments has
    rows = math.gcd(t.pool_rows, s.H, t.chunk)
    lanes = t.chunk // rows
    pool._pool_kernel[(s.C, s.parts, source1 - source0)](
        saved.state, s.tables.places, saved.pools, saved.argmax, sums, saved.live, source0, s.batch,
        s.lanes(rows), s.parts, layout.rows["pool"],
        POOLS=layout.code_pools, NPOOL=layout.pools, NMAX=len(layout.max_pools),
        LARGEST=max((*layout.max_pools, *layout.avg_pools)), C=s.C, HI=height, WI=width, H=s.H, W=s.W,
        STRIDE=stride, ROWS=rows, LANES=lanes, SPARSE=run.sparse, **s.options(max(1, lanes // 32)),
    )  # fmt: skip


def reduce_inputs(call: CellCall, sums: Tensor) -> None:
    """The factorised reductions of all edges that leave an input, with partial moments."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    steps = 4 if run.precision.splits else 1
    point_stats._point_kernel[(s.parts, layout.reduced_edges)](
        saved.state, s.tables.source, call.params("reduction"), saved.reduced, sums,
        saved.drawn, s.batch, s.pixels, s.parts, layout.rows["reduction"],
        CI=s.C, CIB=min(64, s.CP), CO=s.C, COP=s.CP, HI=s.HI, WI=s.WI, H=s.H, W=s.W, REDUCE=True,
        BLOCK=t.chunk // steps, STEPS=steps, DOT=run.precision.dot, SLOTS=len(layout.slots),
        SPARSE=run.sparse, **s.options(8, 0, 1),
    )  # fmt: skip


def finish_moments(call: CellCall, wave: Wave | None, sums: Tensor) -> None:
    """Moments and running statistics of all that a wave has made; None: of all waves, in evaluation."""
    layout, rows, channels = call.layout, call.layout.rows, call.s.C
    if wave is None:
        # without a norm after them, pools keep the moments that they were given
        pools = rows["reduction"] if layout.pool_norm else rows["pool"]
        ranges = [(0, pools), (rows["reduction"], rows["input"] - rows["reduction"])]
    else:
        source0, source1, edge0, edge1 = wave
        ranges = [
            (rows[stage] + edge0 * count * channels, (edge1 - edge0) * count * channels)
            for stage, count in (("first", len(layout.first)), ("second", len(layout.second)))
            if stage == "second" or not _first_alone(call)
        ]
        if layout.pool_norm:
            each = layout.pools * channels
            ranges.append((rows["pool"] + source0 * each, (source1 - source0) * each))
        if source0 == 0:
            ranges.append((rows["reduction"], layout.reduced_edges * channels))
    _finalize(call, ranges, sums)


def _finalize(call: CellCall, ranges: list[tuple[int, int]], sums: Tensor) -> None:
    """Turn the partials of up to four row ranges into moments and running statistics."""
    run, s, saved = call.run, call.s, call.saved
    ranges = [r for r in ranges if r[1]]
    if not ranges:
        return
    count = sum(number for _, number in ranges)
    ranges = ranges + [(0, 0)] * (4 - len(ranges))
    padded = next_power_of_2(s.parts)
    norm._finalize_kernel[(count,)](
        sums, saved.moments, run.running_mean, run.running_var, saved.live,
        *ranges[0], *ranges[1], *ranges[2], ranges[3][0], s.parts, s.tiles.chunk, s.pixels,
        run.momentum,
        PARTS=padded, TRAIN=run.train, C=s.C, SPARSE=run.sparse, **s.options(norm.row_warps(padded)),
    )  # fmt: skip


def combine(call: CellCall, node: int) -> None:
    """A node: the weighted sum of all that enters it."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    node_sum._node_sum_kernel[(s.C, triton.cdiv(s.pixels, t.plain_block))](
        saved.state, s.tables.places, s.tables.source, s.tables.entering, saved.first,
        saved.second, saved.pools, saved.reduced, saved.moments, call.mix_EK, s.tables.slot_ops,
        node, layout.inputs, s.batch, s.pixels, layout.rows["second"], layout.rows["pool"],
        layout.rows["reduction"],
        F1=len(layout.first), F2=len(layout.second), NPOOL=layout.pools, FR=layout.reduction,
        SKIP=layout.skip, K_OPS=layout.operations, DEGREE=s.tables.degree, C=s.C, HW=s.HW,
        BLOCK=t.plain_block, ALIGNED=s.aligned, SPARSE=run.sparse, **s.options(t.plain_warps),
    )  # fmt: skip
