"""The backward launch sequence of a fused cell; see `cell` for the order and what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from darts_kernels import depthwise_backward, norm, partial, point_stats, pointwise, pool
from darts_kernels._common import next_power_of_2
from darts_kernels.cell import _first_depthwise, _second_depthwise
from darts_kernels.cell_run import CellRun, CellShape, Saved, launch_options

__all__ = ["cell_backward"]

Wave = tuple[int, int, int, int]


@dataclass
class _Work:
    """Buffers of one backward pass; those named scratch hold the edges of one wave."""

    dstate: Tensor
    dfull: Tensor
    scratch_d: Tensor
    scratch_inner: Tensor
    scratch_first: Tensor
    scratch_second: Tensor
    scratch_pool: Tensor
    sums: Tensor
    totals: Tensor
    coefficients: Tensor
    inner_coefficients: Tensor
    partials: dict[str, Tensor]


def cell_backward(
    run: CellRun,
    inputs: list[Tensor],
    mix_EK: Tensor,
    flat: Tensor,
    saved: Saved,
    grad_nodes: Tensor,
    *,
    input_grads: list[bool],
    params_grad: bool,
) -> tuple[list[Tensor | None], Tensor, Tensor | None]:
    """(gradients of the inputs, of the mixing weights [E, K], of the packed parameters).

    Without `params_grad` nothing is computed that only weight gradients need; without any of
    `input_grads` the first wave stops at the mixing weights' gradients.
    """
    layout = run.layout
    if layout.input_channels:
        x = inputs[-1]
        height, width = x.shape[-2:]
    else:
        height, width = inputs[0].shape[-2:]
    s = CellShape(run, grad_nodes.shape[0], height, width, grad_nodes.device)
    work = _allocate(run, s, grad_nodes, params_grad)
    need_states = any(input_grads) or (params_grad and bool(layout.input_channels))
    if layout.groups > 1:
        edge_weights = mix_EK.sum(1)
        work.dfull, edge_sums = partial.open_gradients(layout, s, work.dstate, grad_nodes)
    for index in reversed(range(len(layout.waves))):
        wave = layout.waves[index]
        _reduce(run, s, wave, mix_EK, saved, work)
        if params_grad or need_states or index > 0:
            _backward_wave(run, s, wave, index, mix_EK, flat, saved, work, params_grad, need_states)
        if layout.groups > 1:
            partial.close_source(
                layout, s, saved, wave, edge_weights, work.dstate, work.dfull, edge_sums
            )
    if layout.groups > 1 and need_states:
        partial.return_inputs(layout, s, work.dstate, work.dfull)
    grads: list[Tensor | None] = [None] * len(inputs)
    grad_flat = torch.empty_like(flat) if params_grad else None
    if need_states:
        for i, x in enumerate(inputs):
            grads[i] = _input_backward(run, s, i, x, flat, saved, work, input_grads[i], grad_flat)
    if grad_flat is not None:
        for name, shares in work.partials.items():
            torch.sum(shares, 0, out=layout.sections[name].of(grad_flat))
    grad_mix = torch.zeros_like(mix_EK)
    columns = [i for i, column in enumerate(layout.slots) if column >= 0]
    used = work.totals if len(columns) == len(layout.slots) else work.totals[:, columns]
    ordered = [layout.slots[i] for i in columns]
    first = ordered[0]
    if ordered == list(range(first, first + len(ordered))):
        grad_mix[:, first : first + len(ordered)] = used
    else:
        grad_mix.index_copy_(1, s.tables.slot_index, used)
    if layout.groups > 1:
        edge_grads = edge_sums.sum((1, 2))[:, None]
        grad_mix += edge_grads * (mix_EK != 0) if run.sparse else edge_grads
    return grads, grad_mix, grad_flat


def _allocate(run: CellRun, s: CellShape, grad_nodes: Tensor, params_grad: bool) -> _Work:
    layout, t, device = run.layout, s.tiles, grad_nodes.device
    storage, edges = run.precision.storage, len(layout.edges)
    count1, count2, slots = len(layout.first), len(layout.second), len(layout.slots)
    widest = max(last - begin for _, _, begin, last in layout.waves)
    sources = max(end - begin for begin, end, _, _ in layout.waves)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    dstate = empty(layout.inputs * s.input_size + layout.nodes * s.node_size, dtype=storage)
    if layout.groups == 1:
        dstate[layout.inputs * s.input_size :].view(grad_nodes.shape).copy_(grad_nodes)
    parts = triton.cdiv(s.pixels, t.plain_block)
    inner_parts = triton.cdiv(s.lanes(min(t.inner_back_rows, s.H)), t.inner_back_lanes)
    back_parts = triton.cdiv(s.lanes(min(t.back_rows, s.H)), t.back_lanes)
    point_parts = triton.cdiv(s.pixels, t.back_block * t.back_steps)
    programs = {
        "depthwise1": back_parts,
        "pointwise1": point_parts,
        "depthwise2": inner_parts,
        "pointwise2": point_parts,
        "reduction": point_parts,
    }
    # branches that are not drawn write no share of a weight gradient
    shares = torch.zeros if run.sparse else torch.empty
    partials = {}
    if params_grad:
        partials = {
            name: shares(count, layout.sections[name].size, device=device)
            for name, count in programs.items()
            if layout.sections[name].size
        }
    recompute = max(1, count1) if params_grad else 0
    return _Work(
        dstate=dstate,
        dfull=dstate,
        scratch_d=empty(widest, recompute, s.node_size, dtype=run.precision.scratch),
        scratch_inner=empty(widest, count2, s.node_size, dtype=storage),
        scratch_first=empty(widest, count1, s.node_size, dtype=storage),
        scratch_second=empty(widest, count2, s.node_size, dtype=storage),
        scratch_pool=empty(sources, layout.pools, s.node_size, dtype=storage),
        sums=empty(edges, slots + 1, s.C, parts),
        totals=empty(edges, slots),
        coefficients=empty(edges, slots, s.C, 4),
        inner_coefficients=empty(edges, count2, s.C, 4),
        partials=partials,
    )


def _reduce(
    run: CellRun, s: CellShape, wave: Wave, mix_EK: Tensor, saved: Saved, work: _Work
) -> None:
    """Sums over each edge's branches, the mixing weights' gradients, and the coefficients."""
    layout, t = run.layout, s.tiles
    source0, _, edge0, edge1 = wave
    if edge1 == edge0:
        return
    rows, tables = layout.rows, s.tables
    halved = layout.reduction and source0 < layout.inputs
    skip = layout.skip and not (source0 < layout.inputs and layout.stride == 2)
    parts = triton.cdiv(s.pixels, t.plain_block)
    norm._reduce_kernel[(s.C, parts, edge1 - edge0)](
        saved.state, work.dstate, tables.places, tables.source, tables.target, saved.first,
        saved.second, saved.pools, saved.reduced, saved.moments, work.sums, saved.drawn, edge0, s.batch,
        s.pixels, parts, rows["second"], rows["pool"], rows["reduction"], 0,
        F1=len(layout.first), F2=len(layout.second), NPOOL=layout.pools, FR=halved, SKIP=skip,
        C=s.C, HW=s.HW, BLOCK=t.plain_block, ALIGNED=s.aligned, SPARSE=run.sparse, num_warps=t.plain_warps,
    )  # fmt: skip
    norm._coefficient_kernel[(len(layout.slots), edge1 - edge0)](
        work.sums, saved.moments, mix_EK, tables.source, work.totals, work.coefficients, edge0,
        parts, s.pixels, rows["second"], rows["pool"], rows["reduction"], 0, tables.slot_ops,
        F1=len(layout.first), F2=len(layout.second), NPOOL=layout.pools,
        POOL_NORM=layout.pool_norm, FR=halved, K_OPS=layout.operations, C=s.C,
        CP=next_power_of_2(s.C), PARTS=next_power_of_2(parts), num_warps=4,
    )  # fmt: skip


def _backward_wave(
    run: CellRun,
    s: CellShape,
    wave: Wave,
    index: int,
    mix_EK: Tensor,
    flat: Tensor,
    saved: Saved,
    work: _Work,
    params_grad: bool,
    need_states: bool,
) -> None:
    layout = run.layout
    count1, count2 = len(layout.first), len(layout.second)
    has_edges = wave[3] > wave[2]
    if has_edges and count2:
        if params_grad:
            _second_depthwise(run, s, wave, flat, saved, work.scratch_d)
        _pointwise_backward(run, s, wave, "second", flat, saved, work, params_grad)
        _inner_backward(run, s, wave, flat, saved, work, params_grad)
    if has_edges and count1:
        if params_grad:
            _first_depthwise(run, s, wave, flat, saved, work.scratch_d)
        _pointwise_backward(run, s, wave, "first", flat, saved, work, params_grad)
    reduces = index == 0 and layout.reduced_edges > 0
    if reduces:
        _reduction_backward(run, s, flat, saved, work, params_grad)
    _state_backward(run, s, wave, reduces, mix_EK, flat, saved, work, params_grad)


def _pointwise_backward(
    run: CellRun,
    s: CellShape,
    wave: Wave,
    stage: str,
    flat: Tensor,
    saved: Saved,
    work: _Work,
    params_grad: bool,
) -> None:
    layout, t = run.layout, s.tiles
    _, _, edge0, edge1 = wave
    first = stage == "first"
    count = len(layout.first if first else layout.second)
    name = "pointwise1" if first else "pointwise2"
    parts = triton.cdiv(s.pixels, t.back_block * t.back_steps)
    out = work.scratch_first if first else work.scratch_second
    pointwise._pointwise_backward_kernel[(parts, count, edge1 - edge0)](
        work.dstate, s.tables.places, s.tables.target, work.scratch_inner,
        saved.first if first else saved.second, work.scratch_d, layout.sections[name].of(flat),
        work.coefficients, work.inner_coefficients, out, work.partials.get(name, work.totals),
        saved.drawn, edge0, s.batch, s.pixels, len(layout.edges) * count, 0,
        F=count, FY=count, INNER=len(layout.second) if first else 0, SLOTS=len(layout.slots),
        C=s.C, CP=s.CP, HW=s.HW, BLOCK=t.back_block, STEPS=t.back_steps, WGRAD=params_grad,
        DOT=run.precision.dot, LOW=run.precision.storage != torch.float32,
        ALIGNED=s.aligned, SPARSE=run.sparse,
        **launch_options(t.back_warps, 0, t.back_stages),
    )  # fmt: skip


def _inner_backward(
    run: CellRun,
    s: CellShape,
    wave: Wave,
    flat: Tensor,
    saved: Saved,
    work: _Work,
    params_grad: bool,
) -> None:
    layout, t = run.layout, s.tiles
    _, _, edge0, edge1 = wave
    code, offsets, taps, _ = layout.code2
    count, edges = len(layout.second), len(layout.edges)
    rows = min(t.inner_back_rows, s.H)
    lanes = s.lanes(rows)
    parts = triton.cdiv(lanes, t.inner_back_lanes)
    make = torch.zeros if run.sparse else torch.empty
    sums = make(2, edges * count * s.C, parts, device=flat.device)
    depthwise_backward._inner_backward_kernel[(s.C, parts, (edge1 - edge0) * count)](
        saved.first, saved.moments, work.scratch_second, layout.sections["depthwise2"].of(flat),
        work.scratch_inner, work.partials.get("depthwise2", work.totals), sums, saved.drawn,
        edge0, s.batch, lanes, parts, edges,
        CODE=code, OFFSETS=offsets, COUNT=count, FIRST=len(layout.first), TAPS=taps, C=s.C, H=s.H,
        W=s.W, ROWS=rows, LANES=t.inner_back_lanes, WGRAD=params_grad, SLOTS=len(layout.slots),
        SPARSE=run.sparse,
        **launch_options(1, t.inner_back_regs),
    )  # fmt: skip
    padded = next_power_of_2(parts)
    block = max(1, min(16, 4096 // padded))
    number = (edge1 - edge0) * count * s.C
    norm._inner_coefficient_kernel[(triton.cdiv(number, block),)](
        sums, saved.moments, work.inner_coefficients, edge0 * count * s.C, edges * count * s.C,
        parts, s.pixels, 0, number,
        F=count, FIRST=len(layout.first), C=s.C, ROWS=block, PARTS=padded, num_warps=4,
    )  # fmt: skip


def _reduction_backward(
    run: CellRun, s: CellShape, flat: Tensor, saved: Saved, work: _Work, params_grad: bool
) -> None:
    """Gradient of the input states through the factorised reductions, written into `dstate`."""
    layout, t = run.layout, s.tiles
    slots = len(layout.slots)
    coefficients = work.coefficients[:, slots - 1]
    low = run.precision.storage != torch.float32
    block = min(64, s.tiles.chunk)
    shape = dict(  # noqa: C408 - reads like the call it is part of
        CI=s.C, CO=s.C, COP=s.CP, HI=s.HI, WI=s.WI, H=s.H, W=s.W, REDUCE=True, STRIDED=True,
        COEF_STEP=slots * s.C * 4, DOT=run.precision.dot, LOW=low, SLOTS=slots, ALIGNED=s.aligned,
        SPARSE=run.sparse,
        num_warps=4, num_stages=1,
    )  # fmt: skip
    weights = layout.sections["reduction"].of(flat)
    point_stats._point_backward_kernel[(triton.cdiv(s.pixels, block), 1, layout.inputs)](
        saved.state, work.dstate, s.tables.first_edge, work.dstate, s.tables.places,
        s.tables.target, saved.reduced, coefficients, weights, saved.drawn, s.batch, s.pixels,
        CIB=s.CP, BLOCK=block, **shape,
    )  # fmt: skip
    if params_grad:
        parts = triton.cdiv(s.pixels, t.back_block * t.back_steps)
        point_stats._point_weight_kernel[(parts, 1, layout.reduced_edges)](
            saved.state, s.tables.source, work.dstate, s.tables.places, s.tables.target,
            saved.reduced, coefficients, work.partials["reduction"], saved.drawn, s.batch, s.pixels,
            layout.reduced_edges,
            CIB=s.CP, BLOCK=t.back_block, STEPS=t.back_steps, **shape,
        )  # fmt: skip


def _state_backward(
    run: CellRun,
    s: CellShape,
    wave: Wave,
    reduces: bool,
    mix_EK: Tensor,
    flat: Tensor,
    saved: Saved,
    work: _Work,
    params_grad: bool,
) -> None:
    """Gradient of the wave's source states from everything that reads them."""
    layout, t = run.layout, s.tiles
    source0, source1, edge0, _ = wave
    stride, height, width = s.source_sizes(run, source0)
    live0 = layout.rows["pool"] // layout.channels
    if layout.pools:
        grid = (s.C, triton.cdiv(s.pixels, t.plain_block), source1 - source0)
        pool._pool_backward_kernel[grid](
            work.dstate, s.tables.places, s.tables.first_edge, s.tables.target, saved.pools,
            work.coefficients, work.scratch_pool, saved.live, live0, source0, s.batch, s.pixels,
            POOLS=layout.code_pools, NPOOL=layout.pools, NMAX=len(layout.max_pools),
            SLOT0=len(layout.first), SLOTS=len(layout.slots), C=s.C, HI=height, WI=width, H=s.H,
            W=s.W, STRIDE=stride, BLOCK=t.plain_block, ALIGNED=s.aligned, SPARSE=run.sparse,
            num_warps=t.plain_warps,
        )  # fmt: skip
    code, offsets, taps, _ = layout.code1
    rows = min(t.back_rows, s.H)
    lanes = s.lanes(rows)
    skip = layout.slots[-1] if layout.skip and stride == 1 else -1
    depthwise_backward._depthwise_backward_kernel[(s.C, triton.cdiv(lanes, t.back_lanes), source1 - source0)](
        saved.state, work.dstate, s.tables.places, s.tables.first_edge, s.tables.target,
        work.scratch_first, layout.sections["depthwise1"].of(flat),
        work.partials.get("depthwise1", work.totals), work.scratch_pool, saved.argmax, mix_EK,
        saved.drawn, saved.live, live0, source0, edge0, s.batch, lanes, len(layout.edges), layout.inputs,
        CODE=code, OFFSETS=offsets, COUNT=len(layout.first), TAPS=taps, C=s.C, HI=height, WI=width,
        H=s.H, W=s.W, STRIDE=stride, ROWS=rows, LANES=t.back_lanes, WGRAD=params_grad,
        POOLS=layout.code_pools, NPOOL=layout.pools, NMAX=len(layout.max_pools), SKIP=skip,
        K_OPS=layout.operations, ADD=reduces, SLOTS=len(layout.slots), SPARSE=run.sparse,
        **launch_options(1, t.back_regs),
    )  # fmt: skip


def _input_backward(
    run: CellRun,
    s: CellShape,
    index: int,
    x: Tensor,
    flat: Tensor,
    saved: Saved,
    work: _Work,
    wanted: bool,
    grad_flat: Tensor | None,
) -> Tensor | None:
    """Gradient of one of the cell's inputs, and of its preprocessing weights into `grad_flat`."""
    layout, t = run.layout, s.tiles
    span = slice(index * s.full_input_size, (index + 1) * s.full_input_size)
    grad = work.dfull[span]
    if not layout.input_channels:
        return grad.view(x.shape) if wanted else None
    state = saved.full[span]
    channels, reduces = layout.input_channels[index], layout.input_reduces[index]
    parts = triton.cdiv(s.input_pixels, t.plain_block)
    sums = torch.empty(2, s.CF, parts, device=x.device)
    point_stats._normalize_reduce_kernel[(s.CF, parts)](
        grad, state, sums, sums, s.input_pixels, parts, C=s.CF, HW=s.HI * s.WI,
        BLOCK=t.plain_block, AFFINE=False, num_warps=t.plain_warps,
    )  # fmt: skip
    coefficients = torch.empty(s.CF, 4, device=x.device)
    moments = saved.moments[layout.rows["input"] :]
    point_stats._normalize_coefficient_kernel[(s.CF,)](
        sums, moments, moments, sums, coefficients, parts, s.input_pixels, index * s.CF,
        C=s.CF, PARTS=next_power_of_2(parts), AFFINE=False, TRAIN=True, num_warps=4,
    )  # fmt: skip
    low = run.precision.storage != torch.float32
    tables = s.tables
    shape = dict(  # noqa: C408 - reads like the call it is part of
        CI=channels, CO=s.CF, COP=s.CFP, HI=x.shape[2], WI=x.shape[3], H=s.HI, W=s.WI,
        REDUCE=reduces, STRIDED=False, COEF_STEP=0, DOT=run.precision.dot, LOW=low, SLOTS=1,
        ALIGNED=s.aligned, SPARSE=False, num_warps=4, num_stages=2,
    )  # fmt: skip
    section = layout.sections[f"input{index}"]
    dx = None
    # two products a tile where it is halved: wider blocks spill registers
    block = 128 if s.CFP <= (16 if reduces else 32) else 64
    chunk = min(64, max(16, next_power_of_2(channels)))
    if wanted:
        dx = torch.empty_like(x)
        grid = (triton.cdiv(s.input_pixels, block), triton.cdiv(channels, chunk), 1)
        point_stats._point_backward_kernel[grid](
            x, dx, tables.one, grad, tables.places, tables.target, state, coefficients,
            section.of(flat), saved.drawn, s.batch, s.input_pixels, CIB=chunk, BLOCK=block, **shape,
        )  # fmt: skip
    if grad_flat is not None:
        steps = max(1, min(16, s.input_pixels // block // 64))
        count = triton.cdiv(s.input_pixels, block * steps)
        partial = torch.empty(count, section.size, device=x.device)
        point_stats._point_weight_kernel[(count, triton.cdiv(channels, chunk), 1)](
            x, tables.one, grad, tables.places, tables.target, state, coefficients, partial,
            saved.drawn, s.batch, s.input_pixels, 1, CIB=chunk, BLOCK=block, STEPS=steps, **shape,
        )  # fmt: skip
        torch.sum(partial, 0, out=section.of(grad_flat))
    return dx
