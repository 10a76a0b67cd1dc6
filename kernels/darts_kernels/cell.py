"""A whole mixed cell, forward and backward, as waves of edge-batched kernels.

The order of a wave (all edges that leave the sources which are complete):

    forward   depthwise -> pointwise + moments -> (pools, reductions) -> moments -> depthwise of the
              second stage with norm and relu on load -> pointwise + moments -> moments -> node sum
    backward  reductions (which are also the mixing weights' gradients) -> coefficients -> pointwise,
              depthwise of the second stage -> pointwise, pools, reductions -> depthwise into the state

Where the tiles say so, depthwise and pointwise of a stage are one kernel (`stage`).

Stored for the backward: states, convolution outputs before their norm, pools, argmax, moments. Depthwise
outputs are recomputed, and only where weight gradients are wanted. Nothing is summed atomically: every
reduction goes through partial buffers, so a replay is bit-equal.

`cell_forward` and `cell_backward.cell_backward` are the launch sequences. darts_core wraps them into
autograd and knows where parameters and running statistics live. The reference is the module path.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from darts_kernels import depthwise, node_sum, norm, partial, point_stats, pointwise, pool, stage
from darts_kernels._common import next_power_of_2
from darts_kernels.cell_run import CellRun, CellShape, Saved, launch_options
from darts_kernels.drawn import drawn_flags

__all__ = ["cell_forward"]


def _finalize(
    run: CellRun,
    sums: Tensor,
    moments: Tensor,
    ranges: list[tuple[int, int]],
    parts: int,
    chunk: int,
    pixels: int,
    live: Tensor | None = None,
) -> None:
    """Turn the partials of up to three row ranges into moments and running statistics."""
    ranges = [r for r in ranges if r[1]]
    if not ranges:
        return
    ranges = ranges + [(0, 0)] * (3 - len(ranges))
    padded = next_power_of_2(parts)
    block = max(1, min(16, 4096 // padded))
    rows = sum(count for _, count in ranges)
    norm._finalize_kernel[(triton.cdiv(rows, block),)](
        sums, moments, run.running_mean, run.running_var, moments if live is None else live,
        *ranges[0], *ranges[1], *ranges[2], parts, chunk, pixels, run.momentum,
        PARTS=padded, BLOCK=block, TRAIN=run.train, C=run.layout.channels,
        SPARSE=run.sparse and live is not None, num_warps=4,
    )  # fmt: skip


def cell_forward(
    run: CellRun, inputs: list[Tensor], mix_EK: Tensor, flat: Tensor
) -> tuple[Tensor, Saved]:
    """The cell's nodes [B, nodes * C, H, W] and what its backward needs.

    Args:
        run: layout, precision, running statistics.
        inputs: with preprocessing the outputs of the cells before, else the input states.
        mix_EK: mixing weights of the edges in the layout's order, fp32.
        flat: the packed parameters, fp32.
    """
    layout, storage = run.layout, run.precision.storage
    height, width = inputs[-1].shape[-2:]
    batch, device = inputs[0].shape[0], inputs[0].device
    s = CellShape(run, batch, height, width, device)
    edges, sources = len(layout.edges), layout.states - 1

    def empty(*shape: int, dtype: torch.dtype = storage) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    state = empty(layout.inputs * s.input_size + layout.nodes * s.node_size)
    partial_channels = layout.groups > 1
    full = state
    if partial_channels:
        full = empty(
            (layout.inputs * s.full_input_size) + layout.nodes * s.node_size * layout.groups
        )
    passing = (
        layout.inputs if partial_channels and layout.stride == 2 else 0,
        batch,
        s.CF - s.C,
        s.HW,
    )
    flags = (s.tables.slot_ops, s.tables.slot_ops)
    if run.sparse:
        flags = drawn_flags(layout, s.tables, mix_EK)
    saved = Saved(
        state=state,
        first=empty(edges, len(layout.first), s.node_size),
        second=empty(edges, len(layout.second), s.node_size),
        pools=empty(sources, layout.pools, s.node_size),
        argmax=empty(sources, len(layout.max_pools), s.node_size, dtype=torch.int8),
        reduced=empty(layout.reduced_edges, s.node_size),
        moments=empty(layout.rows["end"], 2, dtype=torch.float32),
        full=full,
        passing=empty(*passing),
        passing_argmax=empty(*passing, dtype=torch.int8),
        drawn=flags[0],
        live=flags[1],
    )
    if layout.pools and not layout.pool_norm:
        start = layout.rows["pool"]
        plain = saved.moments[start : layout.rows["reduction"]]
        plain[:, 0].zero_()
        plain[:, 1].fill_(1.0)
    _load_inputs(run, s, inputs, flat, saved)
    if partial_channels:
        partial.cut_inputs(layout, s, saved)
        edge_weights = mix_EK.sum(1)
    sums = empty(layout.rows["input"], s.parts, 2, dtype=torch.float32)
    widest = max(last - begin for _, _, begin, last in layout.waves)
    scratch = empty(widest, max(1, len(layout.first)), s.node_size, dtype=run.precision.scratch)
    for index, wave in enumerate(layout.waves):
        _forward_wave(run, s, wave, index, mix_EK, flat, saved, sums, scratch)
        if partial_channels:
            partial.join_node(layout, s, saved, edge_weights, index)
    nodes = full[layout.inputs * s.full_input_size :]
    return nodes.view(batch, layout.nodes * s.CF, s.H, s.W), saved


def _load_inputs(
    run: CellRun, s: CellShape, inputs: list[Tensor], flat: Tensor, saved: Saved
) -> None:
    """Fill the input states: by preprocessing, or by a copy."""
    layout = run.layout
    for index, x in enumerate(inputs):
        place = saved.full[index * s.full_input_size : (index + 1) * s.full_input_size]
        if not layout.input_channels:
            place.view(x.shape).copy_(x)
            continue
        width, reduces = layout.input_channels[index], layout.input_reduces[index]
        block = 128 if s.CFP <= 32 else 64
        parts = triton.cdiv(s.input_pixels, block)
        # rows of this input alone, so that the partials start at row 0
        row = layout.rows["input"] + index * s.CF
        sums = torch.empty(s.CF, parts, 2, dtype=torch.float32, device=x.device)
        point_stats._point_kernel[(parts, 1)](
            x, s.tables.one, layout.sections[f"input{index}"].of(flat), place, sums, saved.drawn,
            s.batch, s.input_pixels, parts, 0,
            CI=width, CIB=min(64, max(16, next_power_of_2(width))), CO=s.CF, COP=s.CFP,
            HI=x.shape[2], WI=x.shape[3], H=s.HI, W=s.WI, REDUCE=reduces, BLOCK=block,
            DOT=run.precision.dot, SLOTS=1, SPARSE=False, num_warps=4, num_stages=2,
        )  # fmt: skip
        own = CellRun(
            layout, run.precision, run.running_mean[row : row + s.CF],
            run.running_var[row : row + s.CF], run.momentum, run.train,
        )  # fmt: skip
        moments = saved.moments[row : row + s.CF]
        _finalize(own, sums, moments, [(0, s.CF)], parts, block, s.input_pixels)
        point_stats._normalize_kernel[(s.CF, triton.cdiv(s.input_pixels, s.tiles.plain_block))](
            place, place, moments, moments, moments, s.input_pixels, 0, C=s.CF, HW=s.HI * s.WI,
            BLOCK=s.tiles.plain_block, AFFINE=False, num_warps=s.tiles.plain_warps,
        )  # fmt: skip


def _first_depthwise(
    run: CellRun,
    s: CellShape,
    wave: tuple[int, int, int, int],
    flat: Tensor,
    saved: Saved,
    out: Tensor,
) -> None:
    layout, t = run.layout, s.tiles
    source0, _, edge0, edge1 = wave
    stride, height, width = s.source_sizes(run, source0)
    code, offsets, taps, halo = layout.code1
    rows = min(t.rows, s.H)
    lanes = s.lanes(rows)
    depthwise._depthwise_kernel[(s.C, triton.cdiv(lanes, t.lanes), edge1 - edge0)](
        saved.state, s.tables.places, s.tables.source, layout.sections["depthwise1"].of(flat), out,
        saved.drawn, edge0, s.batch, lanes,
        CODE=code, OFFSETS=offsets, COUNT=len(layout.first), TAPS=taps, HALO=halo, C=s.C,
        HI=height, WI=width, H=s.H, W=s.W, STRIDE=stride, ROWS=rows, LANES=t.lanes,
        SLOTS=len(layout.slots), SPARSE=run.sparse,
        **launch_options(1, t.regs),
    )  # fmt: skip


def _second_depthwise(
    run: CellRun,
    s: CellShape,
    wave: tuple[int, int, int, int],
    flat: Tensor,
    saved: Saved,
    out: Tensor,
) -> None:
    layout, t = run.layout, s.tiles
    _, _, edge0, edge1 = wave
    code, offsets, taps, _ = layout.code2
    rows = min(t.inner_rows, s.H)
    lanes = s.lanes(rows)
    count = len(layout.second)
    depthwise._inner_kernel[(s.C, triton.cdiv(lanes, t.inner_lanes), (edge1 - edge0) * count)](
        saved.first, saved.moments, layout.sections["depthwise2"].of(flat), out, saved.drawn,
        edge0, s.batch, lanes,
        CODE=code, OFFSETS=offsets, COUNT=count, FIRST=len(layout.first), TAPS=taps, C=s.C,
        H=s.H, W=s.W, ROWS=rows, LANES=t.inner_lanes, SLOTS=len(layout.slots), SPARSE=run.sparse,
        **launch_options(1, t.inner_regs),
    )  # fmt: skip


def _pointwise(
    run: CellRun, s: CellShape, wave: tuple[int, int, int, int], stage: str, flat: Tensor,
    d: Tensor, y: Tensor, sums: Tensor, drawn: Tensor,
) -> None:  # fmt: skip
    layout, t = run.layout, s.tiles
    _, _, edge0, edge1 = wave
    count = len(layout.first if stage == "first" else layout.second)
    section = layout.sections["pointwise1" if stage == "first" else "pointwise2"]
    block = min(t.point_block, t.chunk)
    pointwise._pointwise_kernel[(s.parts, count, edge1 - edge0)](
        d, section.of(flat), y, sums, drawn, edge0, s.batch, s.pixels, s.parts, layout.rows[stage],
        F=count, FY=count, C=s.C, CP=s.CP, HW=s.HW, BLOCK=block, STEPS=t.chunk // block,
        DOT=run.precision.dot, SLOTS=len(layout.slots), SPARSE=run.sparse,
        **launch_options(t.point_warps, 0, t.point_stages),
    )  # fmt: skip


def _forward_wave(
    run: CellRun,
    s: CellShape,
    wave: tuple[int, int, int, int],
    index: int,
    mix_EK: Tensor,
    flat: Tensor,
    saved: Saved,
    sums: Tensor,
    scratch: Tensor,
) -> None:
    layout, t = run.layout, s.tiles
    source0, source1, edge0, edge1 = wave
    count1, count2 = len(layout.first), len(layout.second)
    narrow = s.C <= stage.LARGEST_CHANNELS
    if edge1 > edge0 and count1:
        if t.fuse_first and narrow:
            stage.stage_forward(run, s, wave, "first", flat, saved, sums)
        else:
            _first_depthwise(run, s, wave, flat, saved, scratch)
            _pointwise(run, s, wave, "first", flat, scratch, saved.first, sums, saved.drawn)
    ranges = [(layout.rows["first"] + edge0 * count1 * s.C, (edge1 - edge0) * count1 * s.C)]
    if layout.pools:
        _pools(run, s, source0, source1, saved, sums)
        if layout.pool_norm:
            first = layout.rows["pool"] + source0 * layout.pools * s.C
            ranges.append((first, (source1 - source0) * layout.pools * s.C))
    if index == 0 and layout.reduced_edges:
        _reduce_inputs(run, s, flat, saved, sums)
        ranges.append((layout.rows["reduction"], layout.reduced_edges * s.C))
    _finalize(run, sums, saved.moments, ranges, s.parts, t.chunk, s.pixels, saved.live)
    if edge1 > edge0 and count2:
        if t.fuse_second and narrow:
            stage.stage_forward(run, s, wave, "second", flat, saved, sums)
        else:
            _second_depthwise(run, s, wave, flat, saved, scratch)
            _pointwise(run, s, wave, "second", flat, scratch, saved.second, sums, saved.drawn)
        rows = (layout.rows["second"] + edge0 * count2 * s.C, (edge1 - edge0) * count2 * s.C)
        _finalize(run, sums, saved.moments, [rows], s.parts, t.chunk, s.pixels, saved.live)
    node_sum._node_sum_kernel[(s.C, triton.cdiv(s.pixels, t.plain_block))](
        saved.state, s.tables.places, s.tables.source, s.tables.entering, saved.first,
        saved.second, saved.pools, saved.reduced, saved.state, saved.moments, mix_EK,
        s.tables.slot_ops, index, layout.inputs, s.batch, s.pixels, layout.rows["second"],
        layout.rows["pool"], layout.rows["reduction"], 0,
        F1=count1, F2=count2, NPOOL=layout.pools, FR=layout.reduction, SKIP=layout.skip,
        EXTRA=False, K_OPS=layout.operations, DEGREE=s.tables.degree, C=s.C, HW=s.HW,
        BLOCK=t.plain_block, ALIGNED=s.aligned, SPARSE=run.sparse, num_warps=t.plain_warps,
    )  # fmt: skip


def _pools(
    run: CellRun, s: CellShape, source0: int, source1: int, saved: Saved, sums: Tensor
) -> None:
    layout, t = run.layout, s.tiles
    stride, height, width = s.source_sizes(run, source0)
    pool._pool_kernel[(s.C, s.parts, source1 - source0)](
        saved.state, s.tables.places, saved.pools, saved.argmax, sums, saved.live, source0, s.batch,
        s.pixels, s.parts, layout.rows["pool"],
        POOLS=layout.code_pools, NPOOL=layout.pools, NMAX=len(layout.max_pools), C=s.C,
        HI=height, WI=width, H=s.H, W=s.W, STRIDE=stride, BLOCK=t.chunk, ALIGNED=s.aligned,
        SPARSE=run.sparse,
        num_warps=t.pool_warps,
    )  # fmt: skip


def _reduce_inputs(run: CellRun, s: CellShape, flat: Tensor, saved: Saved, sums: Tensor) -> None:
    layout, t = run.layout, s.tiles
    point_stats._point_kernel[(s.parts, layout.reduced_edges)](
        saved.state, s.tables.source, layout.sections["reduction"].of(flat), saved.reduced, sums,
        saved.drawn, s.batch, s.pixels, s.parts, layout.rows["reduction"],
        CI=s.C, CIB=min(64, s.CP), CO=s.C, COP=s.CP, HI=s.HI, WI=s.WI, H=s.H, W=s.W, REDUCE=True,
        BLOCK=t.chunk, DOT=run.precision.dot, SLOTS=len(layout.slots), SPARSE=run.sparse,
        num_warps=8, num_stages=1,
    )  # fmt: skip
