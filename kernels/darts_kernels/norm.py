"""Batch-norm bookkeeping of a wave: statistics forward, reductions and coefficients backward.

Maths. Forward, from the per-program partials (mean_i, second_i) of a row (one channel of one branch),

    mean = sum n_i mean_i / M,   var = (sum second_i + n_i (mean_i - mean)^2) / M,   inv = (var + eps)^-1/2

and the running statistics as torch keeps them (momentum 0.1, unbiased variance). Backward, with g the
gradient of the node an edge leads to, for every branch k that ends at the node,

    s_e = sum_p g,      s_ek = sum_p g yhat_k        (yhat the normalised branch; the state for a skip)

which are the batch norm's reductions and, summed over channels, the gradient of the mixing weight w_ek.
The coefficients of dy = A (g - u) + B (y - mean) are A = w inv, u = s_e / M, B = -A inv s_ek / M.

Shapes: partials [rows, parts, 2]; moments [rows, 2] (mean, inv); sums [E, 1 + slots, C]; coefficients
[E, slots, C, 4]. All fp32. Bytes: the reduction reads g and every final branch once, and writes partials.

Source: Ioffe and Szegedy (arXiv:1502.03167); merging of moments: Chan, Golub and LeVeque (1979).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import larger, place_of

__all__ = ["norm_backward_reference", "norm_reference"]

EPSILON = tl.constexpr(1e-5)


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


@triton.jit(
    do_not_specialize=[
        "start0", "count0", "start1", "count1", "start2", "count2", "parts", "chunk", "pixels"
    ]
)  # fmt: skip
def _finalize_kernel(
    sum_ptr, moment_ptr, mean_ptr, var_ptr, live_ptr, start0, count0, start1, count1, start2, count2,
    parts, chunk, pixels, momentum,
    PARTS: tl.constexpr, BLOCK: tl.constexpr, TRAIN: tl.constexpr, C: tl.constexpr,
    SPARSE: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count0 + count1 + count2
    row = tl.where(i < count0, start0 + i, start1 + i - count0)
    row = tl.where(i < count0 + count1, row, start2 + i - count0 - count1)
    if TRAIN:
        k = tl.arange(0, PARTS)
        live = mask
        if SPARSE:
            # others get mean and variance 0: whatever is multiplied with them stays finite
            live = mask & (tl.load(live_ptr + row // C, mask=mask, other=0) != 0)
        both = live[:, None] & (k < parts)[None, :]
        spot = sum_ptr + (row.to(tl.int64)[:, None] * parts + k[None, :]) * 2
        means = tl.load(spot, mask=both, other=0.0)
        seconds = tl.load(spot + 1, mask=both, other=0.0)
        counts = tl.minimum(tl.maximum(pixels - k * chunk, 0), chunk).to(tl.float32)
        total = pixels.to(tl.float32)
        mean = tl.sum(means * counts[None, :], 1) / total
        delta = tl.where(both, means - mean[:, None], 0.0)
        second = tl.sum(seconds + delta * delta * counts[None, :], 1)
        var = second / total
        old_mean = tl.load(mean_ptr + row, mask=mask, other=0.0)
        old_var = tl.load(var_ptr + row, mask=mask, other=0.0)
        unbiased = second / larger(total - 1.0, 1.0)
        tl.store(mean_ptr + row, old_mean + (mean - old_mean) * momentum, mask=live)
        tl.store(var_ptr + row, old_var + (unbiased - old_var) * momentum, mask=live)
    else:
        mean = tl.load(mean_ptr + row, mask=mask, other=0.0)
        var = tl.load(var_ptr + row, mask=mask, other=1.0)
    tl.store(moment_ptr + row * 2, mean, mask=mask)
    tl.store(moment_ptr + row * 2 + 1, 1.0 / tl.sqrt(var + EPSILON), mask=mask)


@triton.jit
def _project(g, ptr, spot, mask, moment_ptr, row, drawn_ptr, SPARSE: tl.constexpr):
    """Sum over the block of g times the normalised values at `ptr + spot`; 0 if not drawn."""
    mean = tl.load(moment_ptr + row * 2)
    inv = tl.load(moment_ptr + row * 2 + 1)
    if SPARSE:
        mask = mask & (tl.load(drawn_ptr) != 0)
    value = tl.load(ptr + spot, mask=mask, other=0.0).to(tl.float32)
    total = tl.sum(g * (value - mean)) * inv
    if SPARSE:
        total = tl.where(tl.load(drawn_ptr) != 0, total, 0.0)
    return total


@triton.jit(do_not_specialize=["edge0", "batch", "parts", "row2", "rowp", "rowf", "edgef"])
def _reduce_kernel(
    state_ptr, dstate_ptr, layout_ptr, source_ptr, target_ptr, y1_ptr, y2_ptr, pool_ptr, yf_ptr,
    moment_ptr, sum_ptr, drawn_ptr, edge0, batch, pixels, parts, row2, rowp, rowf, edgef,
    F1: tl.constexpr, F2: tl.constexpr, NPOOL: tl.constexpr,
    FR: tl.constexpr, SKIP: tl.constexpr, C: tl.constexpr, HW: tl.constexpr, BLOCK: tl.constexpr,
    ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    part = tl.program_id(1)
    edge = (edge0 + tl.program_id(2)).to(tl.int64)
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    n = j // HW
    inside = c * HW + j % HW
    step = batch.to(tl.int64) * (C * HW)
    place = n * (C * HW) + inside
    source = tl.load(source_ptr + edge).to(tl.int64)
    target = tl.load(target_ptr + edge)
    start, sample = place_of(layout_ptr, target, ALIGNED)
    g = tl.load(dstate_ptr + start + n * sample + inside, mask=mask, other=0.0).to(tl.float32)
    SLOTS: tl.constexpr = 2 + F1 + NPOOL
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
        value = _project(g, pool_ptr + (source * NPOOL + k) * step, place, mask, moment_ptr,
                         rowp + (source * NPOOL + k) * C + c, flag + F1 + k, SPARSE)  # fmt: skip
        tl.store(out + (1 + F1 + k) * C * parts, value)
    last = out + (1 + F1 + NPOOL) * C * parts
    if FR:
        value = _project(g, yf_ptr + (edge - edgef) * step, place, mask, moment_ptr,
                         rowf + (edge - edgef) * C + c, flag + F1 + NPOOL, SPARSE)  # fmt: skip
        tl.store(last, value)
    elif SKIP:
        start, sample = place_of(layout_ptr, source, ALIGNED)
        if SPARSE:
            mask = mask & (tl.load(flag + F1 + NPOOL) != 0)
        value = tl.load(state_ptr + start + n * sample + inside, mask=mask, other=0.0).to(
            tl.float32
        )
        tl.store(last, tl.sum(g * value))
    else:
        tl.store(last, 0.0)


@triton.jit(do_not_specialize=["edge0", "parts", "pixels", "row2", "rowp", "rowf", "edgef"])
def _coefficient_kernel(
    sum_ptr, moment_ptr, mix_ptr, source_ptr, total_ptr, coef_ptr, edge0, parts, pixels,
    row2, rowp, rowf, edgef, slot_op_ptr,
    F1: tl.constexpr, F2: tl.constexpr, NPOOL: tl.constexpr, POOL_NORM: tl.constexpr,
    FR: tl.constexpr, K_OPS: tl.constexpr, C: tl.constexpr,
    CP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0)
    edge = (edge0 + tl.program_id(1)).to(tl.int64)
    SLOTS: tl.constexpr = 1 + F1 + NPOOL
    c = tl.arange(0, CP)
    k = tl.arange(0, PARTS)
    mask_c = c < C
    mask = mask_c[:, None] & (k < parts)[None, :]
    spot = sum_ptr + (edge * (SLOTS + 1) * C + c)[:, None] * parts + k[None, :]
    s_edge = tl.sum(tl.load(spot, mask=mask, other=0.0), 1)
    s_slot = tl.sum(tl.load(spot + (1 + slot) * C * parts, mask=mask, other=0.0), 1)
    tl.store(total_ptr + (edge * SLOTS + slot), tl.sum(tl.where(mask_c, s_slot, 0.0)))
    source = tl.load(source_ptr + edge).to(tl.int64)
    row = (edge * F1 + slot) * C + c
    if slot < F2:
        row = row2 + (edge * F2 + slot) * C + c
    if slot >= F1:
        row = rowp + (source * NPOOL + slot - F1) * C + c
    if slot == F1 + NPOOL:
        row = rowf + (edge - edgef) * C + c
    normed = (slot < F1) or ((slot < F1 + NPOOL) and POOL_NORM) or FR
    if (slot < F1 + NPOOL) or FR:
        mix = tl.load(mix_ptr + edge * K_OPS + tl.load(slot_op_ptr + slot))
        mean = tl.load(moment_ptr + row * 2, mask=mask_c, other=0.0)
        inv = tl.load(moment_ptr + row * 2 + 1, mask=mask_c, other=0.0)
        scale = mix * inv
        out = coef_ptr + ((edge * SLOTS + slot) * C + c) * 4
        live = 1.0
        if not normed:
            live = 0.0
        tl.store(out, scale, mask=mask_c)
        tl.store(out + 1, live * s_edge / pixels, mask=mask_c)
        tl.store(out + 2, -live * scale * inv * s_slot / pixels, mask=mask_c)
        tl.store(out + 3, mean, mask=mask_c)


@triton.jit(do_not_specialize=["row0", "half", "parts", "pixels", "moment0", "rows"])
def _inner_coefficient_kernel(
    sum_ptr, moment_ptr, coef_ptr, row0, half, parts, pixels, moment0, rows,
    F: tl.constexpr, FIRST: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    mask_r = i < rows
    row = (row0 + i).to(tl.int64)
    k = tl.arange(0, PARTS)
    mask = mask_r[:, None] & (k < parts)[None, :]
    spot = sum_ptr + row[:, None] * parts + k[None, :]
    total = tl.sum(tl.load(spot, mask=mask, other=0.0), 1)
    moment1 = tl.sum(tl.load(spot + half.to(tl.int64) * parts, mask=mask, other=0.0), 1)
    # rows of the inner tensors [E, F, C] inside [E, FIRST, C]
    source = moment0 + (row // (F * C) * FIRST + row // C % F) * C + row % C
    mean = tl.load(moment_ptr + source * 2, mask=mask_r, other=0.0)
    inv = tl.load(moment_ptr + source * 2 + 1, mask=mask_r, other=0.0)
    out = coef_ptr + row * 4
    tl.store(out, inv, mask=mask_r)
    tl.store(out + 1, total / pixels, mask=mask_r)
    tl.store(out + 2, -inv * inv * moment1 / pixels, mask=mask_r)
    tl.store(out + 3, mean, mask=mask_r)
