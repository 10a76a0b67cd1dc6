"""Partial channels: what passes a cell beside its mixed operations, and the shuffled node.

A state x has K c channels. Operations see x[:c]; the others pass, max-pooled 2 x 2 (last row and column
alone where the size is odd) on edges of stride 2. With b_e the weight of an edge,

    joined = cat(M, sum_e b_e p_e),     node[i K + g] = joined[g c + i],     p_e = x_e[c:] or its pool,

M being the node sum of the mixed operations. Backward, with g the gradient of joined (a permutation of
the node's),

    dM = g[:c],     dp_e = b_e g[c:]  (to the first maximum of a window),     db_e = sum g[c:] p_e.

The kernels of the cell run on compact buffers of c channels, as if the rest did not exist; here their
inputs are cut out of the whole states and their node sums joined with the rest. A pool is taken once a
state, not once an edge. The reference is in `join.py`: a CPU, where there may be no Triton, runs it.

Shapes: whole states [N, K c, H*s, W*s] and nodes [N, nodes K c, H, W] in one buffer; pooled
[inputs, N, (K-1) c, H, W] and its argmax, int8; partial sums [E, (K-1) c, programs]. fp32 accumulation.
Bytes: forward reads p once an edge and writes a node; backward reads g and p once an edge, writes dx.

Source: PC-DARTS (arXiv:1907.05737), Eq. 2 and 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import begin, place_of

if TYPE_CHECKING:
    from darts_kernels.cell_run import CellShape, Saved
    from darts_kernels.layout import CellLayout

__all__ = [
    "close_source",
    "cut_inputs",
    "join_node",
    "open_gradients",
    "return_inputs",
]


@triton.jit(do_not_specialize=["batch"])
def _halve_kernel(
    full_ptr, pooled_ptr, argmax_ptr, batch, pixels,
    C: tl.constexpr, GROUPS: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    source = tl.program_id(2).to(tl.int64)
    HW: tl.constexpr = H * W
    REST: tl.constexpr = C * (GROUPS - 1)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    y = j % HW // W * 2
    x = j % W * 2
    base = full_ptr + source * batch * (C * GROUPS * HI * WI) + (C + c) * (HI * WI)
    base += n * (C * GROUPS * HI * WI) + y * WI + x
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    winner = tl.zeros([BLOCK], tl.int32)
    for t in tl.static_range(4):
        inside = mask & (y + t // 2 < HI) & (x + t % 2 < WI)
        value = tl.load(base + (t // 2 * WI + t % 2), mask=inside, other=float("-inf")).to(
            tl.float32
        )
        better = (value > best) | (value != value)  # NaN wins, as in torch
        winner = tl.where(better, t, winner)
        best = tl.where(better, value, best)
    spot = source * batch * (REST * HW) + n * (REST * HW) + c * HW + j % HW
    tl.store(pooled_ptr + spot, best.to(pooled_ptr.dtype.element_ty), mask=mask)
    tl.store(argmax_ptr + spot, winner.to(tl.int8), mask=mask)


@triton.jit
def _passing(
    full_ptr, place_ptr, pooled_ptr, source, inputs, batch, c, n, inside, mask,
    POOLED: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr, HW: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    """Channel c of what passes from a state."""
    REST: tl.constexpr = C * (GROUPS - 1)
    start, sample = place_of(place_ptr, source, ALIGNED)
    base = full_ptr + start + (C + c) * HW
    if POOLED:  # noqa: SIM102 - a compile-time and a run-time condition
        if source < inputs:
            base = pooled_ptr + (source.to(tl.int64) * batch * REST + c) * HW
            sample = REST * HW
    return tl.load(base + n * sample + inside, mask=mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["node", "inputs", "batch"])
def _join_kernel(
    state_ptr, layout_ptr, full_ptr, place_ptr, pooled_ptr, source_ptr, entering_ptr, weight_ptr,
    node, inputs, batch, pixels,
    POOLED: tl.constexpr, DEGREE: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr,
    HW: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    q = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    inside = j % HW
    target = inputs + node
    out = tl.zeros([BLOCK], tl.float32)
    if q < C:
        start, sample = place_of(layout_ptr, target, ALIGNED)
        spot = start + q * HW + n * sample + inside
        out = tl.load(state_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    else:
        for i in range(tl.load(entering_ptr + node * (DEGREE + 1))):
            edge = tl.load(entering_ptr + node * (DEGREE + 1) + 1 + i)
            value = _passing(full_ptr, place_ptr, pooled_ptr, tl.load(source_ptr + edge), inputs,
                             batch, q - C, n, inside, mask, POOLED, C, GROUPS, HW, ALIGNED)  # fmt: skip
            out += tl.load(weight_ptr + edge) * value
    channel = q % C * GROUPS + q // C
    start, sample = place_of(place_ptr, target, ALIGNED)
    spot = start + channel * HW + n * sample + inside
    tl.store(full_ptr + spot, out.to(full_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["source0", "inputs", "batch", "parts"])
def _split_kernel(
    full_ptr, dfull_ptr, place_ptr, pooled_ptr, argmax_ptr, first_ptr, target_ptr, weight_ptr,
    sum_ptr, source0, inputs, batch, pixels, parts,
    POOLED: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    part = tl.program_id(1)
    source = source0 + tl.program_id(2)
    HW: tl.constexpr = H * W
    REST: tl.constexpr = C * (GROUPS - 1)
    q = C + c
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    inside = j % HW
    own = _passing(full_ptr, place_ptr, pooled_ptr, source, inputs, batch, c, n, inside, mask,
                   POOLED, C, GROUPS, HW, ALIGNED)  # fmt: skip
    total = tl.zeros([BLOCK], tl.float32)
    for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
        target = tl.load(target_ptr + e)
        start, sample = place_of(place_ptr, target, ALIGNED)
        spot = start + (q % C * GROUPS + q // C) * HW + n * sample + inside
        g = tl.load(dfull_ptr + spot, mask=mask, other=0.0).to(tl.float32)
        total += tl.load(weight_ptr + e) * g
        tl.store(sum_ptr + (e * REST + c) * parts + part, tl.sum(g * own))
    if POOLED:
        winner = tl.load(
            argmax_ptr + source.to(tl.int64) * batch * (REST * HW)
            + n * (REST * HW) + c * HW + inside, mask=mask, other=0,
        )  # fmt: skip
        start, sample = place_of(place_ptr, source, ALIGNED)
        # a row of windows is two rows of gradients, each written whole: left and right ones side by side
        k = part * (2 * BLOCK) + tl.arange(0, 2 * BLOCK)
        y = k // (2 * W) % H * 2
        x = k % (2 * W)
        spot = start + q * (HI * WI) + k // (2 * HW) * sample + y * WI + x
        for row in tl.static_range(2):
            left = tl.where(winner == 2 * row, total, 0.0)
            right = tl.where(winner == 2 * row + 1, total, 0.0)
            grad = tl.interleave(left, right).to(dfull_ptr.dtype.element_ty)
            there = (k < 2 * pixels) & (y + row < HI) & (x < WI)
            tl.store(dfull_ptr + spot + row * WI, grad, mask=there)
    else:
        start, sample = place_of(place_ptr, source, ALIGNED)
        spot = start + q * HW + n * sample + inside
        if source >= inputs:
            total += tl.load(dfull_ptr + spot, mask=mask, other=0.0).to(tl.float32)
        tl.store(dfull_ptr + spot, total.to(dfull_ptr.dtype.element_ty), mask=mask)


def _inputs_of(layout: CellLayout, s: CellShape, buffer: Tensor, channels: int) -> Tensor:
    """[inputs, N, channels, HI, WI] view of the input states in a state buffer."""
    size = layout.inputs * s.batch * channels * s.HI * s.WI
    return buffer[:size].view(layout.inputs, s.batch, channels, s.HI, s.WI)


def _node_of(layout: CellLayout, s: CellShape, buffer: Tensor, channels: int, node: int) -> Tensor:
    """[N, channels, H, W] view of a node in a state buffer."""
    size = layout.inputs * s.batch * channels * s.HI * s.WI
    return buffer[size:].view(s.batch, layout.nodes, channels, s.H, s.W)[:, node]


def cut_inputs(layout: CellLayout, s: CellShape, saved: Saved) -> None:
    """Fill the compact input states from the whole ones, and pool what passes edges of stride 2."""
    _inputs_of(layout, s, saved.state, s.C).copy_(
        _inputs_of(layout, s, saved.full, s.CF)[:, :, : s.C]
    )
    if layout.stride == 2:
        grid = (s.CF - s.C, triton.cdiv(s.pixels, s.tiles.plain_block), layout.inputs)
        _halve_kernel[grid](
            saved.full, saved.passing, saved.passing_argmax, s.batch, s.pixels,
            C=s.C, GROUPS=layout.groups, HI=s.HI, WI=s.WI, H=s.H, W=s.W,
            BLOCK=s.tiles.plain_block, **s.options(s.tiles.plain_warps),
        )  # fmt: skip


def join_node(
    layout: CellLayout, s: CellShape, saved: Saved, edge_weights: Tensor, node: int
) -> None:
    """Write the whole node from its compact node sum, and cut its mixed channels for later waves."""
    t = s.tables
    _join_kernel[(s.CF, triton.cdiv(s.pixels, s.tiles.plain_block))](
        saved.state, t.places, saved.full, s.full_tables.places, saved.passing, t.source, t.entering,
        edge_weights, node, layout.inputs, s.batch, s.pixels,
        POOLED=layout.stride == 2, DEGREE=t.degree, C=s.C, GROUPS=layout.groups, HW=s.HW,
        BLOCK=s.tiles.plain_block, ALIGNED=s.aligned, **s.options(s.tiles.plain_warps),
    )  # fmt: skip
    if node + 1 < layout.nodes:
        whole = _node_of(layout, s, saved.full, s.CF, node)
        _node_of(layout, s, saved.state, s.C, node).copy_(whole[:, : s.C])


def open_gradients(
    layout: CellLayout, s: CellShape, dstate: Tensor, grad_nodes: Tensor
) -> tuple[Tensor, Tensor]:
    """(gradients of the whole states, partial sums of the edge weights' gradients) to begin with.

    `dstate` gets the last node's mixed channels; the other nodes' wait for what reads them.
    """
    size = layout.inputs * s.full_input_size
    dfull = torch.empty(size + grad_nodes.numel(), dtype=dstate.dtype, device=dstate.device)
    dfull[size:].view(grad_nodes.shape).copy_(grad_nodes)
    dstate[layout.inputs * s.input_size :].zero_()
    last = layout.nodes - 1
    whole = _node_of(layout, s, dfull, s.CF, last)
    _node_of(layout, s, dstate, s.C, last).copy_(whole[:, :: layout.groups])
    parts = triton.cdiv(s.pixels, s.tiles.plain_block)
    sums = torch.empty(len(layout.edges), s.CF - s.C, parts, device=dstate.device)
    return dfull, sums


def close_source(
    layout: CellLayout, s: CellShape, saved: Saved, wave: tuple[int, int, int, int],
    edge_weights: Tensor, dstate: Tensor, dfull: Tensor, sums: Tensor,
) -> None:  # fmt: skip
    """After a wave's backward: what passes its sources; a node's gradient is then whole, and cut."""
    source0, source1, _, _ = wave
    stride, height, width = (
        (layout.stride, s.HI, s.WI) if source0 < layout.inputs else (1, s.H, s.W)
    )
    parts = triton.cdiv(s.pixels, s.tiles.plain_block)
    _split_kernel[(s.CF - s.C, parts, source1 - source0)](
        saved.full, dfull, s.full_tables.places, saved.passing, saved.passing_argmax,
        s.tables.first_edge, s.tables.target, edge_weights, sums, source0, layout.inputs, s.batch,
        s.pixels, parts,
        POOLED=stride == 2, C=s.C, GROUPS=layout.groups, HI=height, WI=width, H=s.H, W=s.W,
        BLOCK=s.tiles.plain_block, ALIGNED=s.aligned, **s.options(s.tiles.plain_warps),
    )  # fmt: skip
    if source0 >= layout.inputs:
        node = source0 - layout.inputs
        whole = _node_of(layout, s, dfull, s.CF, node)
        mixed = _node_of(layout, s, dstate, s.C, node)
        whole[:, : s.C].add_(mixed)
        mixed.copy_(whole[:, :: layout.groups])


def return_inputs(layout: CellLayout, s: CellShape, dstate: Tensor, dfull: Tensor) -> None:
    """Put the mixed channels' gradients of the inputs into the whole ones."""
    _inputs_of(layout, s, dfull, s.CF)[:, :, : s.C].copy_(_inputs_of(layout, s, dstate, s.C))
