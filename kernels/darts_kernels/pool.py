"""Max and average pools of a state with their batch-norm statistics, once per state and not per edge.

Maths. For every pool p of a state x (same padding; average: padding not counted),

    max: out[y] = max over the window, the first maximum in row order wins;   avg: mean over the window.

Every edge that leaves a state sees the same pool and, the batch norm being without affine part, the same
normalised pool, so both are shared. Backward, with g_e the gradient of the node that edge e leads to, s_e and
s_ep its reductions (`norm`) and w_ep the mixing weights,

    dpool = inv sum_e w_ep (g_e - s_e / M) - inv (pool - mean) inv sum_e w_ep s_ep / M

(divided by the window's size for an average; inv sum_e w_ep g_e where no norm follows). The sums over edges
are taken before those over the partials of s_e and s_ep. `depthwise_backward` gathers the result.

Plan. The strips of `depthwise`: a lane owns a column and slides along rows. What a row gives to a window is
found once, from as many pixels as the window is wide, and serves every window that the row lies in.

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
from darts_kernels.depthwise import _lanes

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
def _better(value, place, now, now_place):
    """The larger of two values and its place; the second where they are equal."""
    wins = (value > now) | (value != value)  # NaN wins, as in torch
    return tl.where(wins, value, now), tl.where(wins, place, now_place)


@triton.jit
def _with_pixel(
    now, place, value, inside, DX: tl.constexpr, IS_MAX: tl.constexpr, R: tl.constexpr
):  # fmt: skip
    """Maximum (or sum) of a pool's row with the pixel at DX, if that lies in it."""
    if (DX <= R) and (-DX <= R):
        if IS_MAX:
            now, place = _better(value, DX + R, now, place)
        else:
            now += tl.where(inside, value, 0.0)
    return now, place


@triton.jit
def _row_of_windows(
    base, inside, column,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, LARGEST: tl.constexpr, WI: tl.constexpr,
):  # fmt: skip
    """Of the row at `base`: each pool's maximum or sum about `column`, and the maximum's column.

    A pixel is loaded once for all pools.
    """
    found = ()
    places = ()
    for p in tl.static_range(NPOOL):
        start = tl.zeros_like(column).to(tl.float32)
        if p < NMAX:
            start = start - float("inf")
        found = found + (start,)
        places = places + (tl.zeros_like(column),)
    for dx in tl.static_range(-(LARGEST // 2), LARGEST // 2 + 1):
        there = inside & (column + dx >= 0) & (column + dx < WI)
        value = tl.load(base + dx, mask=there, other=float("-inf")).to(tl.float32)
        new = ()
        new_places = ()
        for p in tl.static_range(NPOOL):
            now, place = _with_pixel(
                found[p], places[p], value, there, dx, p < NMAX, ((POOLS >> (4 * p)) & 15) // 2
            )
            new = new + (now,)
            new_places = new_places + (place,)
        found = new
        places = new_places
    return found, places


@triton.jit
def _rows_of_windows(
    base, top, column, mask_l,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, LARGEST: tl.constexpr,
    COUNT: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
):  # fmt: skip
    """`_row_of_windows` of COUNT rows, the first half a largest window above `top`."""
    found = ()
    places = ()
    for row in tl.static_range(COUNT):
        inside = mask_l & (top + (row - LARGEST // 2) >= 0) & (top + (row - LARGEST // 2) < HI)
        now, place = _row_of_windows(
            base + (row - LARGEST // 2) * WI, inside, column, POOLS, NPOOL, NMAX, LARGEST, WI
        )
        found = found + (now,)
        places = places + (place,)
    return found, places


@triton.jit
def _window(
    found, places, FIRST: tl.constexpr, P: tl.constexpr, IS_MAX: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """(maximum or sum, the maximum's place) of pool P's window, whose rows are `found` from FIRST on.

    The first maximum in row order wins: the first column of a row, then the first row.
    """
    out = found[FIRST][P]
    place = places[FIRST][P]
    for dy in tl.static_range(1, SIZE):
        value = found[FIRST + dy][P]
        if IS_MAX:
            out, place = _better(value, places[FIRST + dy][P] + dy * SIZE, out, place)
        else:
            out += value
    return out, place


@triton.jit
def _store_pool(
    found, places, top, x, mask, count, pool_ptr, argmax_ptr, sum_ptr,
    P: tl.constexpr, IS_MAX: tl.constexpr, SIZE: tl.constexpr, LARGEST: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Pool P of a strip, and its moments."""
    outs = ()
    total = tl.zeros_like(x).to(tl.float32)
    for row in tl.static_range(ROWS):
        out, place = _window(
            found, places, STRIDE * row + LARGEST // 2 - SIZE // 2, P, IS_MAX, SIZE
        )
        if IS_MAX:
            tl.store(argmax_ptr + row * W, place.to(tl.int8), mask=mask)
        else:
            out = out / _window_count((top + row) * STRIDE, x * STRIDE, SIZE, HI, WI)
        out = tl.where(mask, out, 0.0)
        tl.store(pool_ptr + row * W, out.to(pool_ptr.dtype.element_ty), mask=mask)
        outs = outs + (out,)
        total += out
    mean = tl.sum(total) / larger(count, 1.0)
    second = tl.zeros_like(x).to(tl.float32)
    for row in tl.static_range(ROWS):
        centred = tl.where(mask, outs[row] - mean, 0.0)
        second += centred * centred
    tl.store(sum_ptr, mean)
    tl.store(sum_ptr + 1, tl.sum(second))


@triton.jit(do_not_specialize=["source0", "batch", "lanes", "parts", "row0"])
def _pool_kernel(
    state_ptr, layout_ptr, pool_ptr, argmax_ptr, sum_ptr, live_ptr, source0, batch, lanes, parts, row0,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, LARGEST: tl.constexpr,
    C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    STRIDE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, SPARSE: tl.constexpr,
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
    mask, n, top, x = _lanes(lanes, H, W, ROWS, LANES)
    base = state_ptr + tl.load(layout_ptr + 2 * source) + c * (HI * WI)
    sample = tl.load(layout_ptr + 2 * source + 1).to(tl.int32)
    base += n * sample + top * (STRIDE * WI) + x * STRIDE
    step = batch.to(tl.int64) * (C * H * W)
    place = n * (C * H * W) + c * (H * W) + top * W + x
    count = (tl.minimum(tl.maximum(lanes - part * LANES, 0), LANES) * ROWS).to(tl.float32)
    found, places = _rows_of_windows(
        base, top * STRIDE, x * STRIDE, mask, POOLS, NPOOL, NMAX, LARGEST,
        STRIDE * (ROWS - 1) + LARGEST, HI, WI,
    )  # fmt: skip
    for p in tl.static_range(NPOOL):
        there = mask
        if SPARSE:
            there = mask & (tl.load(live_ptr + row0 // C + source * NPOOL + p) != 0)
        _store_pool(
            found, places, top, x, there, count, pool_ptr + (source * NPOOL + p) * step + place,
            argmax_ptr + (source * NMAX + p) * step + place,
            sum_ptr + ((row0 + (source * NPOOL + p) * C + c) * parts + part) * 2,
            p, p < NMAX, (POOLS >> (4 * p)) & 15, LARGEST, HI, WI, W, STRIDE, ROWS,
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
