"""relu and pointwise convolution to another width, at stride 1 or as factorised reduction, with statistics.

Maths. Stride 1 (preprocessing):   y = W relu(x).   Factorised reduction (stride 2): with x00 the pixels at
even and x11 those at odd rows and columns (zero beyond an odd edge),

    y[:h] = W[:h] relu(x00),    y[h:] = W[h:] relu(x11),    h = half of the output channels.

Per-program partials of mean and centred second moment come with y. Backward, dy = A (g - u) + B (y - mean):

    dx = 1[x > 0] * W^T dy  (scattered to the pixels it came from),      dW = dy relu(x)^T.

Shapes: x [N, Ci, H*s, W*s]; W [Z, Co, Ci] for Z edges (one for preprocessing); y [Z, N, Co, H, W];
dW partials [programs, Z, Co, Ci]. fp32 accumulation. Bytes: reads x for each edge (cached), writes y.
Flops: 2 Ci an element of y forward, twice that backward.

Source: preprocessing and factorised reduction of DARTS (arXiv:1806.09055), its released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import larger, place_of, relu

__all__ = ["point_reference"]


def point_reference(x_NCHW: Tensor, weight_OI: Tensor, *, reduce: bool) -> Tensor:
    """The convolution of relu(x) alone; differentiable, any floating dtype."""
    z = F.relu(x_NCHW)
    weight = weight_OI.to(z.dtype)[:, :, None, None]
    if not reduce:
        return F.conv2d(z, weight)
    height, width = z.shape[-2:]
    z = F.pad(z, (0, width % 2, 0, height % 2))
    half = weight.shape[0] // 2
    return torch.cat(
        [F.conv2d(z, weight[:half], stride=2), F.conv2d(z[:, :, 1:, 1:], weight[half:], stride=2)],
        dim=1,
    )


@triton.jit(do_not_specialize=["batch", "parts", "row0"])
def _point_kernel(
    x_ptr, source_ptr, weight_ptr, y_ptr, sum_ptr, drawn_ptr, batch, pixels, parts, row0,
    CI: tl.constexpr, CIB: tl.constexpr, CO: tl.constexpr, COP: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, REDUCE: tl.constexpr,
    BLOCK: tl.constexpr, DOT: tl.constexpr, SLOTS: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    z = tl.program_id(1).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + z * SLOTS + (SLOTS - 1)) == 0:
            return
    HW: tl.constexpr = H * W
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask_p = j < pixels
    n = j // HW
    co = tl.arange(0, COP)
    mask_o = co < CO
    base = x_ptr + tl.load(source_ptr + z).to(tl.int64) * batch * (CI * HI * WI)
    if REDUCE:
        y = j % HW // W * 2
        x = j % W * 2
        place = n * (CI * HI * WI) + y * WI + x
        odd = mask_p & (y + 1 < HI) & (x + 1 < WI)
    else:
        place = n * (CI * HW) + j % HW
    acc = tl.zeros([COP, BLOCK], tl.float32)
    for start in tl.static_range(0, CI, CIB):
        ci = start + tl.arange(0, CIB)
        mask_i = ci < CI
        spot = base + (ci[:, None] * (HI * WI) + place[None, :])
        weights = weight_ptr + z * (CO * CI) + (co[:, None] * CI + ci[None, :])
        mask_w = mask_o[:, None] & mask_i[None, :]
        value = tl.load(spot, mask=mask_i[:, None] & mask_p[None, :], other=0.0)
        value = relu(value)
        if REDUCE:
            weight = tl.load(weights, mask=mask_w & (co < CO // 2)[:, None], other=0.0)
            acc = tl.dot(weight.to(value.dtype), value, acc, input_precision=DOT)
            value = tl.load(spot + (WI + 1), mask=mask_i[:, None] & odd[None, :], other=0.0)
            value = relu(value)
            weight = tl.load(weights, mask=mask_w & (co >= CO // 2)[:, None], other=0.0)
            acc = tl.dot(weight.to(value.dtype), value, acc, input_precision=DOT)
        else:
            weight = tl.load(weights, mask=mask_w, other=0.0)
            acc = tl.dot(weight.to(value.dtype), value, acc, input_precision=DOT)
    mask = mask_o[:, None] & mask_p[None, :]
    out = y_ptr + z * batch * (CO * HW) + (co[:, None] * HW + (n * (CO * HW) + j % HW)[None, :])
    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=mask)
    count = tl.minimum(tl.maximum(pixels - part * BLOCK, 0), BLOCK).to(tl.float32)
    mean = tl.sum(acc, 1) / larger(count, 1.0)
    centred = tl.where(mask, acc - mean[:, None], 0.0)
    row = sum_ptr + ((row0 + z * CO + co) * parts + part) * 2
    tl.store(row, mean, mask=mask_o)
    tl.store(row + 1, tl.sum(centred * centred, 1), mask=mask_o)


@triton.jit(do_not_specialize=["row0"])
def _normalize_kernel(
    y_ptr, out_ptr, moment_ptr, scale_ptr, shift_ptr, pixels, row0,
    C: tl.constexpr, HW: tl.constexpr, BLOCK: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    spot = (j // HW).to(tl.int64) * (C * HW) + c * HW + j % HW
    mean = tl.load(moment_ptr + (row0 + c) * 2)
    inv = tl.load(moment_ptr + (row0 + c) * 2 + 1)
    value = (tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32) - mean) * inv
    if AFFINE:
        value = value * tl.load(scale_ptr + c) + tl.load(shift_ptr + c)
    tl.store(out_ptr + spot, value.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["parts"])
def _normalize_reduce_kernel(
    g_ptr, y_ptr, moment_ptr, sum_ptr, pixels, parts,
    C: tl.constexpr, HW: tl.constexpr, BLOCK: tl.constexpr, AFFINE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    part = tl.program_id(1)
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    spot = (j // HW).to(tl.int64) * (C * HW) + c * HW + j % HW
    g = tl.load(g_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    if AFFINE:
        # the stored tensor is the convolution's; without an affine part it is normalised in place
        y = (y - tl.load(moment_ptr + c * 2)) * tl.load(moment_ptr + c * 2 + 1)
    tl.store(sum_ptr + c * parts + part, tl.sum(g))
    tl.store(sum_ptr + (C + c) * parts + part, tl.sum(g * y))


@triton.jit(do_not_specialize=["parts", "pixels", "row0"])
def _normalize_coefficient_kernel(
    sum_ptr, moment_ptr, scale_ptr, total_ptr, coef_ptr, parts, pixels, row0,
    C: tl.constexpr, PARTS: tl.constexpr, AFFINE: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    k = tl.arange(0, PARTS)
    total = tl.sum(tl.load(sum_ptr + c * parts + k, mask=k < parts, other=0.0))
    moment1 = tl.sum(tl.load(sum_ptr + (C + c) * parts + k, mask=k < parts, other=0.0))
    inv = tl.load(moment_ptr + (row0 + c) * 2 + 1)
    # a tensor that is stored normalised has mean 0, and B multiplies it directly
    scale = inv
    slope = -inv * moment1 / pixels
    mean = 0.0
    if AFFINE:
        # sums over the norm's output are the gradients of its scale and shift
        tl.store(total_ptr + c, moment1)
        tl.store(total_ptr + C + c, total)
        scale = inv * tl.load(scale_ptr + c)
        slope = -scale * inv * moment1 / pixels
        mean = tl.load(moment_ptr + (row0 + c) * 2)
    if not TRAIN:
        slope = 0.0
        total = 0.0
    tl.store(coef_ptr + c * 4, scale)
    tl.store(coef_ptr + c * 4 + 1, total / pixels)
    tl.store(coef_ptr + c * 4 + 2, slope)
    tl.store(coef_ptr + c * 4 + 3, mean)


@triton.jit
def _upstream(
    g_ptr, layout_ptr, target_ptr, y_ptr, coef_ptr, z, n, inside, co, mask, batch,
    STRIDED: tl.constexpr, COEF_STEP: tl.constexpr, CO: tl.constexpr, HW: tl.constexpr,
    ALIGNED: tl.constexpr,
):  # fmt: skip
    """dy [CO, pixels] of edge z, zero where masked."""
    g = g_ptr
    sample = CO * HW
    if STRIDED:
        start, sample = place_of(layout_ptr, tl.load(target_ptr + z), ALIGNED)
        g = g_ptr + start
    coef = coef_ptr + z * COEF_STEP + co * 4
    up = tl.load(g + (co[:, None] * HW + (n * sample + inside)[None, :]), mask=mask, other=0.0)
    spot = z * batch * (CO * HW) + (co[:, None] * HW + (n * (CO * HW) + inside)[None, :])
    y = tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    inside_c = co < CO
    dy = tl.load(coef, mask=inside_c, other=0.0)[:, None] * (
        up.to(tl.float32) - tl.load(coef + 1, mask=inside_c, other=0.0)[:, None]
    )
    dy += tl.load(coef + 2, mask=inside_c, other=0.0)[:, None] * (
        y - tl.load(coef + 3, mask=inside_c, other=0.0)[:, None]
    )
    return tl.where(mask, dy, 0.0)


@triton.jit(do_not_specialize=["batch"])
def _point_backward_kernel(
    x_ptr, dx_ptr, first_ptr, g_ptr, layout_ptr, target_ptr, y_ptr, coef_ptr, weight_ptr, drawn_ptr,
    batch, pixels,
    CI: tl.constexpr, CIB: tl.constexpr, CO: tl.constexpr, COP: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, REDUCE: tl.constexpr,
    STRIDED: tl.constexpr, COEF_STEP: tl.constexpr, BLOCK: tl.constexpr, DOT: tl.constexpr,
    LOW: tl.constexpr, SLOTS: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    source = tl.program_id(2).to(tl.int64)
    HW: tl.constexpr = H * W
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask_p = j < pixels
    n = j // HW
    co = tl.arange(0, COP)
    ci = tl.program_id(1) * CIB + tl.arange(0, CIB)
    mask_i = ci < CI
    mask = (co < CO)[:, None] & mask_p[None, :]
    even = tl.zeros([CIB, BLOCK], tl.float32)
    odd = tl.zeros([CIB, BLOCK], tl.float32)
    for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
        z = source * 0 + e
        used = mask
        if SPARSE:
            # coefficients of a branch that was not drawn are zero, and masked values are not read
            used = mask & (tl.load(drawn_ptr + z * SLOTS + (SLOTS - 1)) != 0)
        dy = _upstream(g_ptr, layout_ptr, target_ptr, y_ptr, coef_ptr, z, n, j % HW, co, used, batch,
                       STRIDED, COEF_STEP, CO, HW, ALIGNED)  # fmt: skip
        weights = weight_ptr + z * (CO * CI) + (co[None, :] * CI + ci[:, None])
        mask_w = mask_i[:, None] & (co < CO)[None, :]
        if LOW:
            dy = dy.to(x_ptr.dtype.element_ty)
        if REDUCE:
            weight = tl.load(weights, mask=mask_w & (co < CO // 2)[None, :], other=0.0).to(dy.dtype)
            even = tl.dot(weight, dy, even, input_precision=DOT)
            weight = tl.load(weights, mask=mask_w & (co >= CO // 2)[None, :], other=0.0).to(
                dy.dtype
            )
            odd = tl.dot(weight, dy, odd, input_precision=DOT)
        else:
            weight = tl.load(weights, mask=mask_w, other=0.0).to(dy.dtype)
            even = tl.dot(weight, dy, even, input_precision=DOT)
    base = source * batch * (CI * HI * WI)
    if REDUCE:
        y = j % HW // W * 2
        x = j % W * 2
        spot = base + (ci[:, None] * (HI * WI) + (n * (CI * HI * WI) + y * WI + x)[None, :])
        mask_0 = mask_i[:, None] & mask_p[None, :]
        right = mask_0 & (x + 1 < WI)[None, :]
        below = mask_0 & (y + 1 < HI)[None, :]
        corner = right & below
        value = tl.load(x_ptr + spot, mask=mask_0, other=0.0).to(tl.float32)
        grad = tl.where(value > 0.0, even, 0.0).to(dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + spot, grad, mask=mask_0)
        nothing = tl.zeros_like(grad)
        tl.store(dx_ptr + spot + 1, nothing, mask=right)
        tl.store(dx_ptr + spot + WI, nothing, mask=below)
        value = tl.load(x_ptr + spot + (WI + 1), mask=corner, other=0.0).to(tl.float32)
        grad = tl.where(value > 0.0, odd, 0.0).to(dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + spot + (WI + 1), grad, mask=corner)
    else:
        spot = base + (ci[:, None] * HW + (n * (CI * HW) + j % HW)[None, :])
        mask_0 = mask_i[:, None] & mask_p[None, :]
        value = tl.load(x_ptr + spot, mask=mask_0, other=0.0).to(tl.float32)
        grad = tl.where(value > 0.0, even, 0.0).to(dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + spot, grad, mask=mask_0)


@triton.jit(do_not_specialize=["batch", "edges"])
def _point_weight_kernel(
    x_ptr, source_ptr, g_ptr, layout_ptr, target_ptr, y_ptr, coef_ptr, grad_ptr, drawn_ptr,
    batch, pixels, edges,
    CI: tl.constexpr, CIB: tl.constexpr, CO: tl.constexpr, COP: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, REDUCE: tl.constexpr,
    STRIDED: tl.constexpr, COEF_STEP: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
    DOT: tl.constexpr, LOW: tl.constexpr, SLOTS: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    z = tl.program_id(2).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + z * SLOTS + (SLOTS - 1)) == 0:
            return
    HW: tl.constexpr = H * W
    co = tl.arange(0, COP)
    ci = tl.program_id(1) * CIB + tl.arange(0, CIB)
    mask_i = ci < CI
    base = x_ptr + tl.load(source_ptr + z).to(tl.int64) * batch * (CI * HI * WI)
    grad = tl.zeros([COP, CIB], tl.float32)
    for step in range(STEPS):
        j = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask_p = j < pixels
        n = j // HW
        mask = (co < CO)[:, None] & mask_p[None, :]
        dy = _upstream(g_ptr, layout_ptr, target_ptr, y_ptr, coef_ptr, z, n, j % HW, co, mask, batch,
                       STRIDED, COEF_STEP, CO, HW, ALIGNED)  # fmt: skip
        if LOW:
            dy = dy.to(x_ptr.dtype.element_ty)
        if REDUCE:
            y = j % HW // W * 2
            x = j % W * 2
            spot = base + (ci[:, None] * (HI * WI) + (n * (CI * HI * WI) + y * WI + x)[None, :])
            first = (co < CO // 2)[:, None]
            value = tl.load(spot, mask=mask_i[:, None] & mask_p[None, :], other=0.0)
            value = relu(value).to(dy.dtype)
            half = tl.where(first, dy, 0.0).to(dy.dtype)
            grad = tl.dot(half, tl.trans(value), grad, input_precision=DOT)
            inside = mask_p & (y + 1 < HI) & (x + 1 < WI)
            value = tl.load(spot + (WI + 1), mask=mask_i[:, None] & inside[None, :], other=0.0)
            value = relu(value).to(dy.dtype)
            half = tl.where(first, 0.0, dy).to(dy.dtype)
            grad = tl.dot(half, tl.trans(value), grad, input_precision=DOT)
        else:
            spot = base + (ci[:, None] * HW + (n * (CI * HW) + j % HW)[None, :])
            value = tl.load(spot, mask=mask_i[:, None] & mask_p[None, :], other=0.0)
            value = relu(value).to(dy.dtype)
            grad = tl.dot(dy, tl.trans(value), grad, input_precision=DOT)
    out = grad_ptr + (part.to(tl.int64) * edges + z) * (CO * CI)
    tl.store(
        out + (co[:, None] * CI + ci[None, :]), grad, mask=(co < CO)[:, None] & mask_i[None, :]
    )
