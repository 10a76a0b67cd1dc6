"""Max and average pools of a state with their batch-norm statistics, once per state and not per edge.

Maths. For every pool p of a state x (same padding; average: padding not counted),

    max: out[y] = max over the window, the first maximum in row order wins;   avg: mean over the window.

Every edge that leaves a state sees the same pool and, the batch norm being without affine part, the same
normalised pool, so both are shared. Backward, with g_e the gradient of the node that edge e leads to, s_e and
s_ep its reductions (`norm`) and w_ep the mixing weights,

    dpool = inv sum_e w_ep (g_e - s_e / M) - inv (pool - mean) inv sum_e w_ep s_ep / M

(divided by the window's size for an average; inv sum_e w_ep g_e where no norm follows). The sums over edges
are taken before those over the partials of s_e and s_ep. `depthwise_backward` gathers the result.

Shapes: state [N, C, H*s, W*s]; pools [S, P, N, C, H, W]; argmax int8 [S, Pmax, N, C, H, W]; partials
[rows, parts, 2]. Max pools come first. fp32 accumulation. Bytes: reads a state, writes its pools.

Source: the operations are those of DARTS (arXiv:1806.09055), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import begin, larger, place_of

__all__ = ["pool_reference"]


def pool_reference(
    x_NCHW: Tensor, max_sizes: Sequence[int], avg_sizes: Sequence[int], stride: int
) -> Tensor:
    """[P, N, C, H', W']: every pool of x, max pools first; differentiable, any floating dtype."""
    outs = [F.max_pool2d(x_NCHW, size, stride, size // 2) for size in max_sizes]
    outs += [
        F.avg_pool2d(x_NCHW, size, stride, size // 2, count_include_pad=False) for size in avg_sizes
    ]
    return torch.stack(outs)


@triton.jit
def _window_count(y, x, K: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr):
    """How many positions of the K x K window around (y, x) lie inside the plane."""
    R: tl.constexpr = K // 2
    rows = tl.minimum(y + R, HI - 1) - tl.maximum(y - R, 0) + 1
    columns = tl.minimum(x + R, WI - 1) - tl.maximum(x - R, 0) + 1
    return (rows * columns).to(tl.float32)


@triton.jit
def _with_tap(
    now, place, value, inside,
    DY: tl.constexpr, DX: tl.constexpr, IS_MAX: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Maximum (or sum) and place of a pool with one pixel more, if that lies in its window."""
    R: tl.constexpr = SIZE // 2
    if (DY <= R) and (-DY <= R) and (DX <= R) and (-DX <= R):
        if IS_MAX:
            better = (value > now) | (value != value)  # NaN wins, as in torch
            place = tl.where(better, (DY + R) * SIZE + DX + R, place)
            now = tl.where(better, value, now)
        else:
            now += tl.where(inside, value, 0.0)
    return now, place


@triton.jit
def _windows(
    base, y, x, mask,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, LARGEST: tl.constexpr,
    HI: tl.constexpr, WI: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(maxima and sums of all pools' windows, places of the maxima); each pixel is loaded once for all."""
    found = ()
    places = ()
    for p in tl.static_range(NPOOL):
        start = tl.zeros([BLOCK], tl.float32)
        if p < NMAX:
            start = start - float("inf")
        found = found + (start,)
        places = places + (tl.zeros([BLOCK], tl.int32),)
    for t in tl.static_range(LARGEST * LARGEST):
        dy = t // LARGEST - LARGEST // 2
        dx = t % LARGEST - LARGEST // 2
        inside = mask & (y + dy >= 0) & (y + dy < HI) & (x + dx >= 0) & (x + dx < WI)
        value = tl.load(base + (dy * WI + dx), mask=inside, other=float("-inf")).to(tl.float32)
        new_found = ()
        new_places = ()
        for p in tl.static_range(NPOOL):
            now, place = _with_tap(
                found[p], places[p], value, inside, dy, dx, p < NMAX, (POOLS >> (4 * p)) & 15
            )
            new_found = new_found + (now,)
            new_places = new_places + (place,)
        found = new_found
        places = new_places
    return found, places


@triton.jit
def _store_pool(out, pool_ptr, sum_ptr, mask, count):
    """One pool of a block of pixels, and its moments."""
    out = tl.where(mask, out, 0.0)
    tl.store(pool_ptr, out.to(pool_ptr.dtype.element_ty), mask=mask)
    mean = tl.sum(out) / larger(count, 1.0)
    centred = tl.where(mask, out - mean, 0.0)
    tl.store(sum_ptr, mean)
    tl.store(sum_ptr + 1, tl.sum(centred * centred))


@triton.jit(do_not_specialize=["source0", "batch", "parts", "row0"])
def _pool_kernel(
    state_ptr, layout_ptr, pool_ptr, argmax_ptr, sum_ptr, live_ptr, source0, batch, pixels, parts,
    row0,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, LARGEST: tl.constexpr,
    C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    STRIDE: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    part = tl.program_id(1)
    source = (source0 + tl.program_id(2)).to(tl.int64)
    if SPARSE:
        drawn = 0
        for p in tl.static_range(NPOOL):
            drawn += tl.load(live_ptr + row0 // C + source * NPOOL + p)
        if drawn == 0:
            return
    HW: tl.constexpr = H * W
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    y = j % HW // W * STRIDE
    x = j % W * STRIDE
    start, sample = place_of(layout_ptr, source, ALIGNED)
    base = state_ptr + start + c * (HI * WI) + n * sample + y * WI + x
    place = n * (C * HW) + c * HW + j % HW
    step = batch.to(tl.int64) * (C * HW)
    count = tl.minimum(tl.maximum(pixels - part * BLOCK, 0), BLOCK).to(tl.float32)
    found, places = _windows(base, y, x, mask, POOLS, NPOOL, NMAX, LARGEST, HI, WI, BLOCK)
    for p in tl.static_range(NPOOL):
        there = mask
        if SPARSE:
            there = mask & (tl.load(live_ptr + row0 // C + source * NPOOL + p) != 0)
        out = found[p]
        if p < NMAX:
            spot = argmax_ptr + (source * NMAX + p) * step + place
            tl.store(spot, places[p].to(tl.int8), mask=there)
        else:
            out = out / _window_count(y, x, (POOLS >> (4 * p)) & 15, HI, WI)
        _store_pool(
            out, pool_ptr + (source * NPOOL + p) * step + place,
            sum_ptr + ((row0 + (source * NPOOL + p) * C + c) * parts + part) * 2, there, count,
        )  # fmt: skip


@triton.jit(do_not_specialize=["source0", "batch", "live0", "rowp"])
def _pool_backward_kernel(
    dstate_ptr, layout_ptr, first_ptr, target_ptr, pool_ptr, moment_ptr, mix_ptr, slot_op_ptr, sum_ptr,
    out_ptr, live_ptr, live0, source0, batch, pixels, parts, rowp,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, NORM: tl.constexpr,
    SLOT0: tl.constexpr, SLOTS: tl.constexpr, K_OPS: tl.constexpr, C: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
    PARTS: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    source = (source0 + tl.program_id(2)).to(tl.int64)
    HW: tl.constexpr = H * W
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    place = n * (C * HW) + c * HW + j % HW
    step = batch.to(tl.int64) * (C * HW)
    k = tl.arange(0, PARTS)
    ups = ()
    plain = ()
    normed = ()
    for _ in tl.static_range(NPOOL):
        ups = ups + (tl.zeros([BLOCK], tl.float32),)
        plain = plain + (tl.zeros([PARTS], tl.float32),)
        normed = normed + (tl.zeros([PARTS], tl.float32),)
    for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
        start, sample = place_of(layout_ptr, tl.load(target_ptr + e), ALIGNED)
        spot = dstate_ptr + start + c * HW + n * sample + j % HW
        g = tl.load(spot, mask=mask, other=0.0).to(tl.float32)
        # sums of the edge: of g, then of g times each of its branches
        sums = sum_ptr + ((step * 0 + e) * ((SLOTS + 1) * C) + c) * parts + k
        if NORM:
            edge_sum = tl.load(sums, mask=k < parts, other=0.0)
        new_ups = ()
        new_plain = ()
        new_normed = ()
        for p in tl.static_range(NPOOL):
            mix = tl.load(mix_ptr + e * K_OPS + tl.load(slot_op_ptr + SLOT0 + p))
            new_ups = new_ups + (ups[p] + mix * g,)
            if NORM:
                slot_sum = tl.load(sums + (1 + SLOT0 + p) * C * parts, mask=k < parts, other=0.0)
                new_plain = new_plain + (plain[p] + mix * edge_sum,)
                new_normed = new_normed + (normed[p] + mix * slot_sum,)
            else:
                new_plain = new_plain + (plain[p],)
                new_normed = new_normed + (normed[p],)
        ups = new_ups
        plain = new_plain
        normed = new_normed
    y = j % HW // W * STRIDE
    x = j % W * STRIDE
    for p in tl.static_range(NPOOL):
        grad = ups[p]  # type: ignore[var-annotated]
        if NORM:
            there = mask
            if SPARSE:
                there = mask & (tl.load(live_ptr + live0 + source * NPOOL + p) != 0)
            moments = moment_ptr + (rowp + (source * NPOOL + p) * C + c) * 2
            inv = tl.load(moments + 1)
            spot = pool_ptr + (source * NPOOL + p) * step + place
            value = tl.load(spot, mask=there, other=0.0).to(tl.float32)
            value = (value - tl.load(moments)) * inv
            grad = inv * (grad - tl.sum(plain[p]) / pixels - value * (tl.sum(normed[p]) / pixels))
        if p >= NMAX:
            grad = grad / _window_count(y, x, (POOLS >> (4 * p)) & 15, HI, WI)
        spot = out_ptr + (tl.program_id(2).to(tl.int64) * NPOOL + p) * step + place
        tl.store(spot, grad.to(out_ptr.dtype.element_ty), mask=mask)
