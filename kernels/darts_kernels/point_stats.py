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

from darts_kernels._device import begin, larger, merge_moments, place_of, relu
from darts_kernels.norm import norm_gradient

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
    BLOCK: tl.constexpr, STEPS: tl.constexpr, DOT: tl.constexpr, SLOTS: tl.constexpr,
    SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    part = tl.program_id(0)
    z = tl.program_id(1).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + z * SLOTS + (SLOTS - 1)) == 0:
            return
    HW: tl.constexpr = H * W
    co = tl.arange(0, COP)
    mask_o = co < CO
    base = x_ptr + tl.load(source_ptr + z).to(tl.int64) * batch * (CI * HI * WI)
    count = 0.0
    mean = tl.zeros([COP], tl.float32)
    second = tl.zeros([COP], tl.float32)
    for step in range(STEPS):
        first = (part * STEPS + step) * BLOCK
        j = first + tl.arange(0, BLOCK)
        mask_p = j < pixels
        n = j // HW
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
        tile_count = tl.minimum(tl.maximum(pixels - first, 0), BLOCK).to(tl.float32)
        tile_mean = tl.sum(acc, 1) / larger(tile_count, 1.0)
        centred = tl.where(mask, acc - tile_mean[:, None], 0.0)
        tile_second = tl.sum(centred * centred, 1)
        if STEPS == 1:
            mean = tile_mean
            second = tile_second
        else:
            count, mean, second = merge_moments(
                count, mean, second, tile_count, tile_mean, tile_second
            )
    row = sum_ptr + ((row0 + z * CO + co) * parts + part) * 2
    tl.store(row, mean, mask=mask_o)
    tl.store(row + 1, second, mask=mask_o)


@triton.jit
def _norm_of(
    moment_ptr, mix_ptr, slot_op_ptr, sum_ptr, z, row0, parts, pixels, co,
    STRIDED: tl.constexpr, SLOTS: tl.constexpr, K_OPS: tl.constexpr, CO: tl.constexpr,
    COP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The coefficients of dy of edge z (`norm_gradient`); an input, no edge, is stored normalised."""
    mix = 1.0
    edge_sums = sum_ptr
    slot_sums = sum_ptr + CO * parts
    if STRIDED:
        mix = tl.load(mix_ptr + z * K_OPS + tl.load(slot_op_ptr + (SLOTS - 1)))
        edge_sums = sum_ptr + z * ((SLOTS + 1) * CO) * parts
        slot_sums = edge_sums + SLOTS * CO * parts
    return norm_gradient(
        edge_sums, slot_sums, parts, moment_ptr + (row0 + z * CO) * 2, mix, pixels, co, co < CO, COP,
        PARTS, not STRIDED,
    )  # fmt: skip


@triton.jit
def _upstream(
    g_ptr, layout_ptr, target_ptr, y_ptr, coefficients, z, n, inside, co, mask, batch,
    STRIDED: tl.constexpr, CO: tl.constexpr, HW: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """dy [CO, pixels] of edge z, zero where masked."""
    scale, shift, slope, mean = coefficients
    g = g_ptr
    sample = CO * HW
    if STRIDED:
        start, sample = place_of(layout_ptr, tl.load(target_ptr + z), ALIGNED)
        g = g_ptr + start
    up = tl.load(g + (co[:, None] * HW + (n * sample + inside)[None, :]), mask=mask, other=0.0)
    spot = z * batch * (CO * HW) + (co[:, None] * HW + (n * (CO * HW) + inside)[None, :])
    y = tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    dy = scale[:, None] * (up.to(tl.float32) - shift[:, None])
    dy += slope[:, None] * (y - mean[:, None])
    return tl.where(mask, dy, 0.0)


@triton.jit
def _store_gradient(
    dx_ptr, spot, own, corner, even, odd, y, x, mask,
    REDUCE: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
):  # fmt: skip
    """`even` where the pixels `own` at `spot` are positive; halved, `odd` at their neighbours `corner` too.

    The other two of four pixels are not read forward: their gradient is zero.
    """
    grad = tl.where(own.to(tl.float32) > 0.0, even, 0.0).to(dx_ptr.dtype.element_ty)
    tl.store(dx_ptr + spot, grad, mask=mask)
    if REDUCE:
        right = mask & (x + 1 < WI)[None, :]
        below = mask & (y + 1 < HI)[None, :]
        nothing = tl.zeros_like(grad)
        tl.store(dx_ptr + spot + 1, nothing, mask=right)
        tl.store(dx_ptr + spot + WI, nothing, mask=below)
        grad = tl.where(corner.to(tl.float32) > 0.0, odd, 0.0).to(dx_ptr.dtype.element_ty)
        tl.store(dx_ptr + spot + (WI + 1), grad, mask=right & below)


@triton.jit(do_not_specialize=["source0", "batch", "row0"])
def _reduction_backward_kernel(
    x_ptr, dx_ptr, first_ptr, g_ptr, layout_ptr, target_ptr, y_ptr, moment_ptr, mix_ptr, slot_op_ptr,
    sum_ptr, weight_ptr, drawn_ptr, source0, batch, pixels, row0, parts,
    C: tl.constexpr, CP: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, DOT: tl.constexpr, LOW: tl.constexpr,
    SLOTS: tl.constexpr, K_OPS: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    source = (source0 + tl.program_id(2)).to(tl.int64)
    HW: tl.constexpr = H * W
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask_p = j < pixels
    n = j // HW
    c = tl.arange(0, CP)
    mask = (c < C)[:, None] & mask_p[None, :]
    even = tl.zeros([CP, BLOCK], tl.float32)
    odd = tl.zeros([CP, BLOCK], tl.float32)
    for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
        z = source * 0 + e
        used = mask
        if SPARSE:
            # the weight of a branch that was not drawn is zero, and masked values are not read
            used = mask & (tl.load(drawn_ptr + z * SLOTS + (SLOTS - 1)) != 0)
        coefficients = _norm_of(moment_ptr, mix_ptr, slot_op_ptr, sum_ptr, z, row0, parts, pixels, c,
                                True, SLOTS, K_OPS, C, CP, PARTS)  # fmt: skip
        dy = _upstream(g_ptr, layout_ptr, target_ptr, y_ptr, coefficients, z, n, j % HW, c, used, batch,
                       True, C, HW, ALIGNED)  # fmt: skip
        if LOW:
            dy = dy.to(x_ptr.dtype.element_ty)
        even, odd = _transposed(even, odd, weight_ptr + z * (C * C), dy, c, c, True, C, C, DOT)
    y = j % HW // W * 2
    x = j % W * 2
    spot = source * batch * (C * HI * WI)
    spot += c[:, None] * (HI * WI) + (n * (C * HI * WI) + y * WI + x)[None, :]
    inside = mask & ((y + 1 < HI) & (x + 1 < WI))[None, :]
    own = tl.load(x_ptr + spot, mask=mask, other=0.0)
    corner = tl.load(x_ptr + spot + (WI + 1), mask=inside, other=0.0)
    _store_gradient(dx_ptr, spot, own, corner, even, odd, y, x, mask, True, HI, WI)


@triton.jit
def _transposed(
    even, odd, weights, dy, ci, co,
    REDUCE: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, DOT: tl.constexpr,
):  # fmt: skip
    """(even, odd) with W^T dy added: halved, to each what its half of the output channels gives."""
    spot = weights + (co[None, :] * CI + ci[:, None])
    mask = (ci < CI)[:, None] & (co < CO)[None, :]
    if REDUCE:
        weight = tl.load(spot, mask=mask & (co < CO // 2)[None, :], other=0.0).to(dy.dtype)
        even = tl.dot(weight, dy, even, input_precision=DOT)
        weight = tl.load(spot, mask=mask & (co >= CO // 2)[None, :], other=0.0).to(dy.dtype)
        odd = tl.dot(weight, dy, odd, input_precision=DOT)
    else:
        weight = tl.load(spot, mask=mask, other=0.0).to(dy.dtype)
        even = tl.dot(weight, dy, even, input_precision=DOT)
    return even, odd


@triton.jit(do_not_specialize=["batch", "edges", "row0"])
def _point_backward_kernel(
    x_ptr, dx_ptr, source_ptr, g_ptr, layout_ptr, target_ptr, y_ptr, moment_ptr, mix_ptr, slot_op_ptr,
    sum_ptr, weight_ptr, grad_ptr, drawn_ptr, batch, pixels, edges, row0, parts,
    CI: tl.constexpr, CIB: tl.constexpr, CO: tl.constexpr, COP: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, REDUCE: tl.constexpr,
    STRIDED: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr,
    DX: tl.constexpr, WGRAD: tl.constexpr, DOT: tl.constexpr, LOW: tl.constexpr, SLOTS: tl.constexpr,
    K_OPS: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    part = tl.program_id(0)
    z = tl.program_id(2).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + z * SLOTS + (SLOTS - 1)) == 0:
            return
    HW: tl.constexpr = H * W
    co = tl.arange(0, COP)
    ci = tl.program_id(1) * CIB + tl.arange(0, CIB)
    mask_i = ci < CI
    base = tl.load(source_ptr + z).to(tl.int64) * batch * (CI * HI * WI)
    grad = tl.zeros([COP, CIB], tl.float32)
    coefficients = _norm_of(moment_ptr, mix_ptr, slot_op_ptr, sum_ptr, z, row0, parts, pixels, co,
                            STRIDED, SLOTS, K_OPS, CO, COP, PARTS)  # fmt: skip
    for step in range(STEPS):
        j = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask_p = j < pixels
        n = j // HW
        mask = (co < CO)[:, None] & mask_p[None, :]
        dy = _upstream(g_ptr, layout_ptr, target_ptr, y_ptr, coefficients, z, n, j % HW, co, mask,
                       batch, STRIDED, CO, HW, ALIGNED)  # fmt: skip
        if LOW:
            dy = dy.to(x_ptr.dtype.element_ty)
        mask = mask_i[:, None] & mask_p[None, :]
        y = j % HW // W
        x = j % W
        if REDUCE:
            y = y * 2
            x = x * 2
            spot = base + (ci[:, None] * (HI * WI) + (n * (CI * HI * WI) + y * WI + x)[None, :])
            inside = mask & ((y + 1 < HI) & (x + 1 < WI))[None, :]
            corner = tl.load(x_ptr + spot + (WI + 1), mask=inside, other=0.0)
        else:
            spot = base + (ci[:, None] * HW + (n * (CI * HW) + j % HW)[None, :])
        own = tl.load(x_ptr + spot, mask=mask, other=0.0)
        if not REDUCE:
            corner = own
        if WGRAD:
            value = relu(own).to(dy.dtype)
            if REDUCE:
                first = (co < CO // 2)[:, None]
                half = tl.where(first, dy, 0.0).to(dy.dtype)
                grad = tl.dot(half, tl.trans(value), grad, input_precision=DOT)
                value = relu(corner).to(dy.dtype)
                half = tl.where(first, 0.0, dy).to(dy.dtype)
                grad = tl.dot(half, tl.trans(value), grad, input_precision=DOT)
            else:
                grad = tl.dot(dy, tl.trans(value), grad, input_precision=DOT)
        if DX:
            even = tl.zeros([CIB, BLOCK], tl.float32)
            even, odd = _transposed(
                even, even, weight_ptr + z * (CO * CI), dy, ci, co, REDUCE, CI, CO, DOT
            )
            _store_gradient(dx_ptr, spot, own, corner, even, odd, y, x, mask, REDUCE, HI, WI)
    if WGRAD:
        out = grad_ptr + (part.to(tl.int64) * edges + z) * (CO * CI)
        tl.store(
            out + (co[:, None] * CI + ci[None, :]), grad, mask=(co < CO)[:, None] & mask_i[None, :]
        )
