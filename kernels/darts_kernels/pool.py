"""Max and average pools of a state with their batch-norm statistics, once per state and not per edge.

Maths. For every pool p of a state x (same padding; average: padding not counted),

    max: out[y] = max over the window, the first maximum in row order wins;   avg: mean over the window.

Every edge that leaves a state sees the same pool and, the batch norm being without affine part, the same
normalised pool, so both are shared. Backward, with (A, u, B) of each edge's coefficients,

    dpool = sum_e A_e (g_e - u_e) + B_e (pool - mean)      (divided by the window's size for an average)

which `depthwise_backward` then gathers into the gradient of the state.

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

from darts_kernels._device import larger, place_of

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
def _one_pool(
    base, pool_ptr, argmax_ptr, sum_ptr, y, x, mask, count,
    IS_MAX: tl.constexpr, SIZE: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """One pool of a block of pixels, and its moments."""
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    winner = tl.zeros([BLOCK], tl.int32)
    total = tl.zeros([BLOCK], tl.float32)
    for t in tl.static_range(SIZE * SIZE):
        dy = t // SIZE - SIZE // 2
        dx = t % SIZE - SIZE // 2
        inside = mask & (y + dy >= 0) & (y + dy < HI) & (x + dx >= 0) & (x + dx < WI)
        value = tl.load(base + (dy * WI + dx), mask=inside, other=float("-inf")).to(tl.float32)
        if IS_MAX:
            better = (value > best) | (value != value)  # NaN wins, as in torch
            winner = tl.where(better, t, winner)
            best = tl.where(better, value, best)
        else:
            total += tl.where(inside, value, 0.0)
    if IS_MAX:
        out = tl.where(mask, best, 0.0)
        tl.store(argmax_ptr, winner.to(tl.int8), mask=mask)
    else:
        out = total / _window_count(y, x, SIZE, HI, WI)
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
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, C: tl.constexpr,
    HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr,
    BLOCK: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    part = tl.program_id(1)
    source = (source0 + tl.program_id(2)).to(tl.int64)
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
    for p in tl.static_range(NPOOL):
        if SPARSE:
            if tl.load(live_ptr + row0 // C + source * NPOOL + p) != 0:
                _one_pool(
                    base, pool_ptr + (source * NPOOL + p) * step + place,
                    argmax_ptr + (source * NMAX + p) * step + place,
                    sum_ptr + ((row0 + (source * NPOOL + p) * C + c) * parts + part) * 2, y, x, mask,
                    count, p < NMAX, (POOLS >> (4 * p)) & 15, HI, WI, BLOCK,
                )  # fmt: skip
        else:
            _one_pool(
                base, pool_ptr + (source * NPOOL + p) * step + place,
                argmax_ptr + (source * NMAX + p) * step + place,
                sum_ptr + ((row0 + (source * NPOOL + p) * C + c) * parts + part) * 2, y, x, mask,
                count, p < NMAX, (POOLS >> (4 * p)) & 15, HI, WI, BLOCK,
            )  # fmt: skip


@triton.jit(do_not_specialize=["source0", "batch", "live0"])
def _pool_backward_kernel(
    dstate_ptr, layout_ptr, first_ptr, target_ptr, pool_ptr, coef_ptr, out_ptr, live_ptr,
    live0, source0, batch, pixels,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, SLOT0: tl.constexpr,
    SLOTS: tl.constexpr, C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr,
    SPARSE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    source = (source0 + tl.program_id(2)).to(tl.int64)
    HW: tl.constexpr = H * W
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    place = n * (C * HW) + c * HW + j % HW
    step = batch.to(tl.int64) * (C * HW)
    grads = ()
    pools = ()
    for p in tl.static_range(NPOOL):
        spot = pool_ptr + (source * NPOOL + p) * step + place
        there = mask
        if SPARSE:
            there = mask & (tl.load(live_ptr + live0 + source * NPOOL + p) != 0)
        pools = pools + (tl.load(spot, mask=there, other=0.0).to(tl.float32),)
        grads = grads + (tl.zeros([BLOCK], tl.float32),)
    for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
        target = tl.load(target_ptr + e)
        start, sample = place_of(layout_ptr, target, ALIGNED)
        spot = dstate_ptr + start + c * HW + n * sample + j % HW
        g = tl.load(spot, mask=mask, other=0.0).to(tl.float32)
        new = ()
        for p in tl.static_range(NPOOL):
            coef = coef_ptr + (((step * 0 + e) * SLOTS + SLOT0 + p) * C + c) * 4
            grad = tl.load(coef) * (g - tl.load(coef + 1))
            grad += tl.load(coef + 2) * (pools[p] - tl.load(coef + 3))
            new = new + (grads[p] + grad,)
        grads = new
    y = j % HW // W * STRIDE
    x = j % W * STRIDE
    for p in tl.static_range(NPOOL):
        grad = grads[p]
        if p >= NMAX:
            grad = grad / _window_count(y, x, (POOLS >> (4 * p)) & 15, HI, WI)
        spot = out_ptr + (tl.program_id(2).to(tl.int64) * NPOOL + p) * step + place
        tl.store(spot, grad.to(out_ptr.dtype.element_ty), mask=mask)
