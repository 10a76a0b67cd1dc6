"""Batch-norm bookkeeping of a wave: statistics forward, reductions backward.

Maths. Forward, from the per-program partials (mean_i, second_i) of a row (one channel of one branch),

    mean = sum n_i mean_i / M,   var = (sum second_i + n_i (mean_i - mean)^2) / M,   inv = (var + eps)^-1/2

and the running statistics as torch keeps them (momentum 0.1, unbiased variance). Backward, with g the
gradient of the node an edge leads to, for every branch k that ends at the node,

    s_e = sum_p g,      s_ek = sum_p g yhat_k        (yhat the normalised branch; the state for a skip)

which are the batch norm's reductions and, summed over channels, the gradient of the mixing weight w_ek.
Whoever forms dy = A (g - u) + B (y - mean), with A = w inv, u = s_e / M, B = -A inv s_ek / M, adds up the
partials of its channels itself (`norm_gradient`): a launch in between would take longer than the sums.

Shapes: partials [rows, parts, 2]; moments [rows, 2] (mean, inv); sums [E, 1 + slots, C, parts]. All fp32.
Bytes: the reduction reads every final branch of an edge and its g once, a state and its pools once, and
writes partials.

Source: Ioffe and Szegedy (arXiv:1502.03167); merging of moments: Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import begin, larger, place_of

__all__ = ["norm_backward_reference", "norm_reference", "row_warps"]

EPSILON = tl.constexpr(1e-5)


def row_warps(parts: int) -> int:
    """Warps of a program of `_finalize_kernel`, which merges a row of so many partials."""
    return 1 if parts <= 512 else 4


def norm_reference(y_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(normalised y, mean [C], biased variance [C]) of training-mode batch norm without affine part."""
    mean = y_NCHW.mean((0, 2, 3))
    centred = y_NCHW - mean[None, :, None, None]
    var = centred.square().mean((0, 2, 3))
    return centred * torch.rsqrt(var + 1e-5)[None, :, None, None], mean, var


def norm_backward_reference(g_NCHW: Tensor, y_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient of y, sum of g * normalised y per channel) of `norm_reference`, by its formula."""
    normed, _, var = norm_reference(y_NCHW)
    product_C = (g_NCHW * normed).sum((0, 2, 3))
    count = y_NCHW.numel() // y_NCHW.shape[1]
    inner = (
        g_NCHW
        - g_NCHW.mean((0, 2, 3))[None, :, None, None]
        - normed * (product_C / count)[None, :, None, None]
    )
    return inner * torch.rsqrt(var + 1e-5)[None, :, None, None], product_C


@triton.jit
def row_moments(sum_ptr, row, parts, chunk, pixels, PARTS: tl.constexpr):
    """(mean, centred second moment, count) of a row, from the partials of programs of `chunk` pixels."""
    k = tl.arange(0, PARTS)
    there = k < parts
    spot = sum_ptr + (row.to(tl.int64) * parts + k) * 2
    means = tl.load(spot, mask=there, other=0.0)
    seconds = tl.load(spot + 1, mask=there, other=0.0)
    counts = tl.minimum(tl.maximum(pixels - k * chunk, 0), chunk).to(tl.float32)
    total = tl.sum(counts)
    mean = tl.sum(means * counts) / total
    delta = tl.where(there, means - mean, 0.0)
    return mean, tl.sum(seconds + delta * delta * counts), total


@triton.jit
def inverse_deviation(variance):
    """(variance + eps)^-1/2."""
    return 1.0 / tl.sqrt(variance + EPSILON)


@triton.jit
def keep_moments(
    moment_ptr, mean_ptr, var_ptr, row, mean, second, total, momentum, used, SPARSE: tl.constexpr
):  # fmt: skip
    """Store a row's (mean, inv) and move its running statistics, those of a row that is not used excepted."""
    if SPARSE:
        # others get mean and variance 0: whatever is multiplied with them stays finite
        mean = tl.where(used, mean, 0.0)
        second = tl.where(used, second, 0.0)
    old_mean = tl.load(mean_ptr + row)
    old_var = tl.load(var_ptr + row)
    unbiased = second / larger(total - 1.0, 1.0)
    tl.store(mean_ptr + row, old_mean + (mean - old_mean) * momentum, mask=used)
    tl.store(var_ptr + row, old_var + (unbiased - old_var) * momentum, mask=used)
    tl.store(moment_ptr + row * 2, mean)
    tl.store(moment_ptr + row * 2 + 1, inverse_deviation(second / total))


@triton.jit(
    do_not_specialize=[
        "start0", "count0", "start1", "count1", "start2", "count2", "start3", "parts", "chunk", "pixels"
    ]
)  # fmt: skip
def _finalize_kernel(
    sum_ptr, moment_ptr, mean_ptr, var_ptr, live_ptr, start0, count0, start1, count1, start2, count2,
    start3, parts, chunk, pixels, momentum,
    PARTS: tl.constexpr, TRAIN: tl.constexpr, C: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    i = tl.program_id(0)
    row = tl.where(i < count0, start0 + i, start1 + i - count0)
    row = tl.where(i < count0 + count1, row, start2 + i - count0 - count1)
    row = tl.where(i < count0 + count1 + count2, row, start3 + i - count0 - count1 - count2)
    if TRAIN:
        used = i >= 0
        if SPARSE:
            used = tl.load(live_ptr + row // C) != 0
        mean, second, total = row_moments(sum_ptr, row, parts, chunk, pixels, PARTS)
        keep_moments(
            moment_ptr, mean_ptr, var_ptr, row, mean, second, total, momentum, used, SPARSE
        )
    else:
        tl.store(moment_ptr + row * 2, tl.load(mean_ptr + row))
        tl.store(moment_ptr + row * 2 + 1, inverse_deviation(tl.load(var_ptr + row)))


@triton.jit
def norm_gradient(
    edge_sums, slot_sums, parts, moments, mix, pixels, c, mask_c,
    CP: tl.constexpr, PARTS: tl.constexpr, NORMED: tl.constexpr,
):  # fmt: skip
    """(A, u, B, mean) of dy = A (g - u) + B (y - mean) for the channels c, each [CP].

    Sums [C, parts] of g and of g times the normalised branch lie at `edge_sums` and `slot_sums`, the moments
    of the branch's first channel at `moments`. NORMED: the branch is stored normalised, its mean is then 0.
    """
    s_edge = tl.zeros([CP], tl.float32)
    s_slot = tl.zeros([CP], tl.float32)
    for start in range(0, parts, PARTS):
        k = start + tl.arange(0, PARTS)
        mask = mask_c[:, None] & (k < parts)[None, :]
        spot = c[:, None] * parts + k[None, :]
        s_edge += tl.sum(tl.load(edge_sums + spot, mask=mask, other=0.0), 1)
        s_slot += tl.sum(tl.load(slot_sums + spot, mask=mask, other=0.0), 1)
    mean = tl.load(moments + c * 2, mask=mask_c, other=0.0)
    inv = tl.load(moments + c * 2 + 1, mask=mask_c, other=0.0)
    scale = mix * inv
    slope = -scale * s_slot / pixels
    if NORMED:
        mean = tl.zeros([CP], tl.float32)
    else:
        slope = slope * inv
    return scale, s_edge / pixels, slope, mean


@triton.jit
def _project(g, ptr, spot, mask, moment_ptr, row, drawn_ptr, SPARSE: tl.constexpr):
    """Sum over the block of g times the normalised values at `ptr + spot`; 0 if not drawn."""
    mean = tl.load(moment_ptr + row * 2)
    inv = tl.load(moment_ptr + row * 2 + 1)
    if SPARSE:
        mask = mask & (tl.load(drawn_ptr) != 0)
    value = tl.load(ptr + spot, mask=mask, other=0.0).to(tl.float32)
    return _drawn(tl.sum(g * (value - mean)) * inv, drawn_ptr, SPARSE)


@triton.jit
def _drawn(total, drawn_ptr, SPARSE: tl.constexpr):
    """`total`, or 0 where the branch was not drawn."""
    if SPARSE:
        total = tl.where(tl.load(drawn_ptr) != 0, total, 0.0)
    return total


@triton.jit(do_not_specialize=["source0", "batch", "parts", "row2", "rowp", "rowf", "live0"])
def _reduce_kernel(
    state_ptr, dstate_ptr, layout_ptr, first_ptr, target_ptr, y1_ptr, y2_ptr, pool_ptr, yf_ptr,
    moment_ptr, sum_ptr, drawn_ptr, live_ptr, live0, source0, batch, pixels, parts, row2, rowp, rowf,
    F1: tl.constexpr, F2: tl.constexpr, NPOOL: tl.constexpr,
    FR: tl.constexpr, SKIP: tl.constexpr, C: tl.constexpr, HW: tl.constexpr, BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    part = tl.program_id(1)
    source = (source0 + tl.program_id(2)).to(tl.int64)
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    inside = c * HW + j % HW
    step = batch.to(tl.int64) * (C * HW)
    place = n * (C * HW) + inside
    SLOTS: tl.constexpr = 2 + F1 + NPOOL
    # what all edges of the source share is read once
    shared = ()
    for k in tl.static_range(NPOOL):
        there = mask
        if SPARSE:
            there = mask & (tl.load(live_ptr + live0 + source * NPOOL + k) != 0)
        moments = moment_ptr + (rowp + (source * NPOOL + k) * C + c) * 2
        pooled = tl.load(pool_ptr + (source * NPOOL + k) * step + place, mask=there, other=0.0)
        shared = shared + ((pooled.to(tl.float32) - tl.load(moments)) * tl.load(moments + 1),)
    if SKIP:
        start, sample = place_of(layout_ptr, source, ALIGNED)
        own = tl.load(state_ptr + start + n * sample + inside, mask=mask, other=0.0).to(tl.float32)
    for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
        edge = source * 0 + e
        start, sample = place_of(layout_ptr, tl.load(target_ptr + e), ALIGNED)
        g = tl.load(dstate_ptr + start + n * sample + inside, mask=mask, other=0.0).to(tl.float32)
        out = sum_ptr + (edge * SLOTS * C + c) * parts + part
        flag = drawn_ptr + edge * (SLOTS - 1)
        tl.store(out, tl.sum(g))
        for k in tl.static_range(F2):
            value = _project(g, y2_ptr + (edge * F2 + k) * step, place, mask, moment_ptr,
                             row2 + (edge * F2 + k) * C + c, flag + k, SPARSE)  # fmt: skip
            tl.store(out + (1 + k) * C * parts, value)
        for k in tl.static_range(F2, F1):
            value = _project(g, y1_ptr + (edge * F1 + k) * step, place, mask, moment_ptr,
                             (edge * F1 + k) * C + c, flag + k, SPARSE)  # fmt: skip
            tl.store(out + (1 + k) * C * parts, value)
        for k in tl.static_range(NPOOL):
            value = _drawn(tl.sum(g * shared[k]), flag + F1 + k, SPARSE)
            tl.store(out + (1 + F1 + k) * C * parts, value)
        last = out + (1 + F1 + NPOOL) * C * parts
        if FR:
            value = _project(g, yf_ptr + edge * step, place, mask, moment_ptr,
                             rowf + edge * C + c, flag + F1 + NPOOL, SPARSE)  # fmt: skip
            tl.store(last, value)
        elif SKIP:
            tl.store(last, _drawn(tl.sum(g * own), flag + F1 + NPOOL, SPARSE))
        else:
            tl.store(last, 0.0)
