"""The backward launches of a fused cell, one function each; `cell` has their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from darts_kernels import depthwise_backward, norm, point_stats, pointwise, pool, state_norm
from darts_kernels._common import next_power_of_2
from darts_kernels.cell_run import CellCall, Wave

__all__ = [
    "Work",
    "allocate",
    "inner_gradients",
    "input_gradients",
    "mixing_gradients",
    "pointwise_gradients",
    "reduce_branches",
    "reduction_gradients",
    "state_gradients",
]


@dataclass
class Work:
    """Buffers of one backward pass; those named scratch hold the edges of one wave.

    Attributes:
        dstate: gradients of the states.
        dfull: of the whole states, with partial channels; else `dstate`.
        scratch_inner: of what lies between the two stages.
        scratch_first: of the first depthwise outputs.
        scratch_second: of the second depthwise outputs.
        scratch_pool: of the pools.
        sums: [E, slots + 1, C, parts]: of each node's gradient, and of it times each branch.
        inner_sums: [2, E * F2 * C, parts]: likewise for what lies between the two stages.
        norm_sums: the sums that gradients of norms are formed from: zeros where statistics are the running
            ones, which no batch moves.
        norm_inner_sums: likewise.
        partials: shares of the weight gradients by section; empty where none is wanted.
    """

    dstate: Tensor
    dfull: Tensor
    scratch_inner: Tensor
    scratch_first: Tensor
    scratch_second: Tensor
    scratch_pool: Tensor
    sums: Tensor
    inner_sums: Tensor
    norm_sums: Tensor
    norm_inner_sums: Tensor
    partials: dict[str, Tensor]


def allocate(call: CellCall, grad_nodes: Tensor) -> Work:
    """The buffers, with the gradients of the nodes in place."""
    run, s, layout, t, device = call.run, call.s, call.layout, call.s.tiles, grad_nodes.device
    storage, edges = run.precision.storage, len(layout.edges)
    count1, count2 = len(layout.first), len(layout.second)
    widest = max(last - begin for _, _, begin, last in layout.waves)
    sources = max(end - begin for begin, end, _, _ in layout.waves)
    # branches that are not drawn write no share of a weight gradient and no sums
    make = torch.zeros if run.sparse else torch.empty

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=storage, device=device)

    dstate = empty(layout.inputs * s.input_size + layout.nodes * s.node_size)
    if layout.groups == 1:
        dstate[layout.inputs * s.input_size :].view(grad_nodes.shape).copy_(grad_nodes)
    inner_parts = triton.cdiv(s.lanes(min(t.inner_back_rows, s.H)), t.inner_back_lanes)
    point_parts = triton.cdiv(s.pixels, t.back_block * t.back_steps)
    programs = {
        "depthwise1": triton.cdiv(s.lanes(min(t.back_rows, s.H)), t.back_lanes),
        "pointwise1": point_parts,
        "depthwise2": inner_parts,
        "pointwise2": point_parts,
        "reduction": point_parts,
    }
    sections = {name: layout.sections[name].size for name in programs} if run.keep else {}
    parts = triton.cdiv(s.pixels, t.plain_block)
    sums = torch.empty(edges, len(layout.slots) + 1, s.C, parts, device=device)
    inner_sums = make(2, edges * count2 * s.C, inner_parts, device=device)
    return Work(
        dstate=dstate,
        dfull=dstate,
        scratch_inner=empty(widest, count2, s.node_size),
        scratch_first=empty(widest, count1, s.node_size),
        scratch_second=empty(widest, count2, s.node_size),
        scratch_pool=empty(sources, layout.pools, s.node_size),
        sums=sums,
        inner_sums=inner_sums,
        norm_sums=sums if run.train else torch.zeros_like(sums),
        norm_inner_sums=inner_sums if run.train else torch.zeros_like(inner_sums),
        partials={
            name: make(programs[name], size, device=device)
            for name, size in sections.items()
            if size
        },
    )


def reduce_branches(call: CellCall, wave: Wave, work: Work) -> None:
    """What the norms of a wave's branches need, which are the mixing weights' gradients too."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    source0, source1, _, _ = wave
    rows, tables = layout.rows, s.tables
    halved = layout.reduction and source0 < layout.inputs
    parts = work.sums.shape[-1]
    norm._reduce_kernel[(s.C, parts, source1 - source0)](
        saved.state, work.dstate, tables.places, tables.first_edge, tables.target, saved.first,
        saved.second, saved.pools, saved.reduced, saved.moments, work.sums, saved.drawn, saved.live,
        rows["pool"] // layout.channels, source0, s.batch, s.pixels, parts, rows["second"], rows["pool"],
        rows["reduction"],
        F1=len(layout.first), F2=len(layout.second), NPOOL=layout.pools, FR=halved,
        SKIP=layout.skip and not (source0 < layout.inputs and layout.stride == 2),
        C=s.C, HW=s.HW, BLOCK=t.plain_block, ALIGNED=s.aligned, SPARSE=run.sparse,
        **s.options(t.plain_warps),
    )  # fmt: skip


def mixing_gradients(call: CellCall, work: Work) -> Tensor:
    """[E, K]: the branches' sums over channels and programs, in the columns of the mixing weights."""
    layout, totals = call.layout, work.sums[:, 1:].sum((2, 3))
    grad_mix = torch.zeros_like(call.mix_EK)
    # the last slot alone may be no operation; a list of the others would be an index from the host, for
    # which a captured step would wait
    ordered = [column for column in layout.slots if column >= 0]
    used, first = totals[:, : len(ordered)], ordered[0]
    if ordered == list(range(first, first + len(ordered))):
        grad_mix[:, first : first + len(ordered)] = used
    else:
        grad_mix.index_copy_(1, call.s.tables.slot_index, used)
    return grad_mix


def pointwise_gradients(call: CellCall, wave: Wave, stage: str, work: Work) -> None:
    """Gradients of a stage's depthwise outputs and pointwise weights."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    _, _, edge0, edge1 = wave
    first = stage == "first"
    count, number = call.filters(stage)
    parts, inner_parts = work.sums.shape[-1], work.inner_sums.shape[-1]
    inner = len(layout.second) if first else 0
    grid = (triton.cdiv(s.pixels, t.back_block * t.back_steps), count, edge1 - edge0)
    pointwise._pointwise_backward_kernel[grid](
        work.dstate, s.tables.places, s.tables.target, work.scratch_inner,
        saved.first if first else saved.second, call.kept(stage, wave), call.params(f"pointwise{number}"),
        saved.moments, call.mix_EK, s.tables.slot_ops, work.norm_sums, work.norm_inner_sums,
        work.scratch_first if first else work.scratch_second,
        work.partials.get(f"pointwise{number}", work.sums),
        saved.drawn, edge0, s.batch, s.pixels, len(layout.edges) * count, parts, inner_parts,
        work.inner_sums.shape[1], layout.rows[stage],
        F=count, INNER=inner, SLOTS=len(layout.slots), K_OPS=layout.operations, C=s.C, CP=s.CP,
        PARTS=_tile(parts, inner_parts if inner else 1), HW=s.HW, BLOCK=t.back_block, STEPS=t.back_steps,
        WGRAD=run.keep, DOT=run.precision.dot, LOW=run.precision.storage != torch.float32,
        ALIGNED=s.aligned, SPARSE=run.sparse,
        **s.options(t.back_warps, 0, t.back_stages),
    )  # fmt: skip


def _tile(*parts: int) -> int:
    """How many partials of each channel a program adds up at a time."""
    return min(32, next_power_of_2(max(parts)))


def inner_gradients(call: CellCall, wave: Wave, work: Work) -> None:
    """Gradients between the two stages, with the sums that their norm needs, and of the second filters."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    _, _, edge0, edge1 = wave
    code, offsets, taps, _ = layout.code2
    count, edges = len(layout.second), len(layout.edges)
    rows = min(t.inner_back_rows, s.H)
    parts = work.inner_sums.shape[-1]
    depthwise_backward._inner_backward_kernel[(s.C, parts, (edge1 - edge0) * count)](
        saved.first, saved.moments, work.scratch_second, call.params("depthwise2"),
        work.scratch_inner, work.partials.get("depthwise2", work.sums), work.inner_sums, saved.drawn,
        edge0, s.batch, s.lanes(rows), parts, edges,
        CODE=code, OFFSETS=offsets, COUNT=count, FIRST=len(layout.first), TAPS=taps, C=s.C, H=s.H,
        W=s.W, ROWS=rows, LANES=t.inner_back_lanes, WGRAD=run.keep, SLOTS=len(layout.slots),
        SPARSE=run.sparse,
        **s.options(1, t.inner_back_regs),
    )  # fmt: skip


def reduction_gradients(call: CellCall, work: Work) -> None:
    """Gradient of the input states through the factorised reductions, written into `dstate`."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    block, parts = min(64, t.chunk), work.sums.shape[-1]
    shape = dict(
        HI=s.HI, WI=s.WI, H=s.H, W=s.W, PARTS=_tile(parts), DOT=run.precision.dot,
        LOW=run.precision.storage != torch.float32, SLOTS=len(layout.slots), K_OPS=layout.operations,
        ALIGNED=s.aligned, SPARSE=run.sparse, **s.options(4, 0, 1),
    )  # fmt: skip
    places = (work.dstate, s.tables.places, s.tables.target)
    of_norm = (saved.reduced, saved.moments, call.mix_EK, s.tables.slot_ops, work.norm_sums)
    weights = call.params("reduction")
    point_stats._reduction_backward_kernel[(triton.cdiv(s.pixels, block), 1, layout.inputs)](
        saved.state, work.dstate, s.tables.first_edge, *places, *of_norm, weights, saved.drawn, 0,
        s.batch, s.pixels, layout.rows["reduction"], parts,
        C=s.C, CP=s.CP, BLOCK=block, **shape,
    )  # fmt: skip
    if run.keep:
        halves = 2 if run.precision.splits else 1
        programs = triton.cdiv(s.pixels, t.back_block * t.back_steps)
        point_stats._point_backward_kernel[(programs, 1, layout.reduced_edges)](
            saved.state, work.dstate, s.tables.source, *places, *of_norm, weights,
            work.partials["reduction"], saved.drawn, s.batch, s.pixels, layout.reduced_edges,
            layout.rows["reduction"], parts,
            CI=s.C, CIB=s.CP, CO=s.C, COP=s.CP, REDUCE=True, STRIDED=True,
            BLOCK=t.back_block // halves, STEPS=t.back_steps * halves, DX=False, WGRAD=True, **shape,
        )  # fmt: skip


def state_gradients(call: CellCall, wave: Wave, work: Work) -> None:
    """Gradient of the wave's source states from everything that reads them, and of the first filters."""
    run, s, layout, saved, t = call.run, call.s, call.layout, call.saved, call.s.tiles
    source0, source1, edge0, _ = wave
    stride, height, width = s.source_sizes(run, source0)
    live0 = layout.rows["pool"] // layout.channels
    if layout.pools:
        grid = (s.C, triton.cdiv(s.pixels, t.plain_block), source1 - source0)
        parts = work.sums.shape[-1]
        pool._pool_backward_kernel[grid](
            work.dstate, s.tables.places, s.tables.first_edge, s.tables.target, saved.pools,
            saved.moments, call.mix_EK, s.tables.slot_ops, work.norm_sums, work.scratch_pool, saved.live,
            live0, source0, s.batch, s.pixels, parts, layout.rows["pool"],
            POOLS=layout.code_pools, NPOOL=layout.pools, NMAX=len(layout.max_pools),
            NORM=layout.pool_norm, SLOT0=len(layout.first), SLOTS=len(layout.slots),
            K_OPS=layout.operations, C=s.C, HI=height, WI=width, H=s.H, W=s.W, STRIDE=stride,
            BLOCK=t.plain_block, PARTS=next_power_of_2(parts), ALIGNED=s.aligned, SPARSE=run.sparse,
            # left to itself, Triton 3.6's assembler spills to have 40
            **s.options(t.plain_warps, 48 if layout.pools <= 2 else 0),
        )  # fmt: skip
    code, offsets, taps, _ = layout.code1
    rows = min(t.back_rows, s.H)
    lanes = s.lanes(rows)
    skip = layout.slots[-1] if layout.skip and stride == 1 else -1
    grid = (s.C, triton.cdiv(lanes, t.back_lanes), source1 - source0)
    depthwise_backward._depthwise_backward_kernel[grid](
        saved.state, work.dstate, s.tables.places, s.tables.first_edge, s.tables.target,
        work.scratch_first, call.params("depthwise1"), work.partials.get("depthwise1", work.sums),
        work.scratch_pool, saved.argmax, call.mix_EK, saved.drawn, saved.live, live0, source0, edge0,
        s.batch, lanes, len(layout.edges), layout.inputs,
        CODE=code, OFFSETS=offsets, COUNT=len(layout.first), TAPS=taps, C=s.C, HI=height, WI=width,
        H=s.H, W=s.W, STRIDE=stride, ROWS=rows, LANES=t.back_lanes, WGRAD=run.keep,
        POOLS=layout.code_pools, NPOOL=layout.pools, NMAX=len(layout.max_pools), SKIP=skip,
        K_OPS=layout.operations, ADD=source0 == 0 and layout.reduced_edges > 0,
        SLOTS=len(layout.slots), SPARSE=run.sparse,
        **s.options(1, t.back_regs),
    )  # fmt: skip


def input_gradients(
    call: CellCall,
    inputs: list[Tensor],
    work: Work,
    wanted: Sequence[bool],
    grad_flat: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of the cell's inputs, and of the weights of their preprocessing into `grad_flat`."""
    s, layout, saved, t = call.s, call.layout, call.saved, call.s.tiles
    spans = [
        slice(i * s.full_input_size, (i + 1) * s.full_input_size) for i in range(layout.inputs)
    ]
    if not layout.input_channels:
        grads = zip(inputs, spans, wanted, strict=True)
        return [work.dfull[span].view(x.shape) if want else None for x, span, want in grads]
    needed = [i for i, want in enumerate(wanted) if want or grad_flat is not None]
    parts = triton.cdiv(s.input_pixels, t.plain_block)
    make = torch.empty if call.run.train else torch.zeros
    sums = make(layout.inputs, 2, s.CF, parts, device=work.sums.device)
    if call.run.train:
        state_norm._normalize_reduce_kernel[(s.CF, parts, needed[-1] + 1 - needed[0])](
            work.dfull, saved.full, sums, sums, s.input_pixels, parts, needed[0], C=s.CF,
            HW=s.HI * s.WI, BLOCK=t.plain_block, AFFINE=False, **s.options(t.plain_warps),
        )  # fmt: skip
    found: list[Tensor | None] = [None] * layout.inputs
    for index in needed:
        span = spans[index]
        dx = torch.empty_like(inputs[index]) if wanted[index] else None
        _input_gradient(
            call, index, inputs[index], work.dfull[span], saved.full[span], sums[index], dx,
            grad_flat,
        )  # fmt: skip
        found[index] = dx
    return found


def _input_gradient(
    call: CellCall,
    index: int,
    x: Tensor,
    grad: Tensor,
    state: Tensor,
    sums: Tensor,
    dx: Tensor | None,
    grad_flat: Tensor | None,
) -> None:
    """Gradient of one of the cell's inputs into `dx`, of its preprocessing's weights into `grad_flat`."""
    run, s, layout, saved, tables = call.run, call.s, call.layout, call.saved, call.s.tables
    channels, reduces = layout.input_channels[index], layout.input_reduces[index]
    parts, row0 = sums.shape[-1], layout.rows["input"] + index * s.CF
    section, shares = layout.sections[f"input{index}"], call.flat
    # two products a tile where it is halved, two parts of each operand where products are split: wider
    # blocks spill registers; both at once leave none for the next tile's operands
    splits = run.precision.splits
    block = 128 if s.CFP <= (16 if reduces or splits else 32) else 64
    chunk = min(32 if reduces and splits else 64, max(16, next_power_of_2(channels)))
    stages = 1 if reduces and splits else 2
    steps = max(1, min(8, s.input_pixels // block // 256))
    programs = triton.cdiv(s.input_pixels, block * steps)
    if grad_flat is not None:
        shares = torch.empty(programs, section.size, device=x.device)
    point_stats._point_backward_kernel[(programs, triton.cdiv(channels, chunk), 1)](
        x, x if dx is None else dx, tables.one, grad, tables.places, tables.target, state, saved.moments,
        call.mix_EK, tables.slot_ops, sums, section.of(call.flat), shares, saved.drawn, s.batch,
        s.input_pixels, 1, row0, parts,
        CI=channels, CIB=chunk, CO=s.CF, COP=s.CFP, HI=x.shape[2], WI=x.shape[3], H=s.HI, W=s.WI,
        REDUCE=reduces, STRIDED=False, PARTS=_tile(parts), BLOCK=block, STEPS=steps, DX=dx is not None,
        WGRAD=grad_flat is not None, DOT=run.precision.dot,
        LOW=run.precision.storage != torch.float32, SLOTS=1, K_OPS=1, ALIGNED=s.aligned, SPARSE=False,
        **s.options(8, 0, stages),
    )  # fmt: skip
    if grad_flat is not None:
        torch.sum(shares, 0, out=section.of(grad_flat))
