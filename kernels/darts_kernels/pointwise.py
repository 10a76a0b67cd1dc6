"""Pointwise (1x1) convolutions of many edges and branches at once, with batch-norm statistics.

Maths. With d the depthwise output of a branch and W its [C, C] matrix,

    y = W d,    and the mean and centred second moment of every channel of y as per-program partials,

and backward, for the batch norm that follows (yhat = (y - mean) * inv, loss gradient g at its output),

    dy = A (g - u) + B (y - mean),     A = w inv,  u = sum(g) / M,  B = -A inv sum(g yhat) / M
    dd = W^T dy,      dW = dy d^T

where w is the branch's mixing weight (1 inside a separable convolution). A program forms
A, u and B once (`norm.norm_gradient`), and dy in registers: it never reaches memory.

Shapes: d, y [E, F, N, C, H, W]; W [E, F, C, C]; partials [rows, programs, 2]; dW partials
[programs, E, F, C, C]. Products accumulate in fp32; operands are TF32, 3xTF32, fp16 or bf16 as the
precision says. Bytes: forward reads d and writes y; backward reads g, y (and d for dW) and writes dd.
Flops: 2 C an element forward, 4 C backward.

Source: the operations are those of DARTS (arXiv:1806.09055), section 3.1.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import begin, larger, merge_moments, place_of
from darts_kernels.norm import norm_gradient

__all__ = ["pointwise_reference"]


def pointwise_reference(d_FNCHW: Tensor, weight_FCC: Tensor) -> Tensor:
    """[F, N, C, H, W]: each branch's channel mixing; differentiable, any floating dtype."""
    return torch.einsum("foi,fnihw->fnohw", weight_FCC.to(d_FNCHW.dtype), d_FNCHW)


@triton.jit(do_not_specialize=["edge0", "batch", "parts", "row0"])
def _pointwise_kernel(
    d_ptr, weight_ptr, y_ptr, sum_ptr, drawn_ptr, edge0, batch, pixels, parts, row0,
    F: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, HW: tl.constexpr,
    BLOCK: tl.constexpr,
    STEPS: tl.constexpr, DOT: tl.constexpr, SLOTS: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    part = tl.program_id(0)
    edge = (edge0 + tl.program_id(2)).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + edge * SLOTS + tl.program_id(1)) == 0:
            return
    branch = edge * F + tl.program_id(1)
    co = tl.arange(0, CP)
    mask_c = co < C
    wide = co[:, None] * C + co[None, :]
    weight = tl.load(
        weight_ptr + branch * (C * C) + wide, mask=mask_c[:, None] & mask_c[None, :], other=0.0
    )
    weight = weight.to(d_ptr.dtype.element_ty)
    # scratch holds the edges of one wave
    base = (tl.program_id(2) * F + tl.program_id(1)).to(tl.int64) * batch * (C * HW)
    above = branch * batch * (C * HW)
    count = 0.0
    mean = tl.zeros([CP], tl.float32)
    second = tl.zeros([CP], tl.float32)
    for step in range(STEPS):
        j = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask_p = j < pixels
        place = (j // HW) * (C * HW) + j % HW
        spot = co[:, None] * HW + place[None, :]
        mask = mask_c[:, None] & mask_p[None, :]
        d = tl.load(d_ptr + base + spot, mask=mask, other=0.0)
        y = tl.dot(weight, d, input_precision=DOT)
        stored = y.to(y_ptr.dtype.element_ty)
        tl.store(y_ptr + above + spot, stored, mask=mask)
        # masked pixels give y = 0, so only the centred moment needs the mask
        tile_count = tl.minimum(tl.maximum(pixels - (part * STEPS + step) * BLOCK, 0), BLOCK).to(
            tl.float32
        )
        tile_mean = tl.sum(y, 1) / larger(tile_count, 1.0)
        centred = tl.where(mask, y - tile_mean[:, None], 0.0)
        count, mean, second = merge_moments(
            count, mean, second, tile_count, tile_mean, tl.sum(centred * centred, 1)
        )
    row = sum_ptr + ((row0 + branch * C + co) * parts + part) * 2
    tl.store(row, mean, mask=mask_c)
    tl.store(row + 1, second, mask=mask_c)


@triton.jit(
    # what partials are addressed by is specialised, so that they are read 128 bits at a time
    do_not_specialize=["edge0", "batch", "branches", "inner_rows", "row0"]
)
def _pointwise_backward_kernel(
    g_ptr, layout_ptr, target_ptr, inner_ptr, y_ptr, d_ptr, weight_ptr, moment_ptr, mix_ptr, slot_op_ptr,
    sum_ptr, inner_sum_ptr, out_ptr, grad_ptr, drawn_ptr, edge0, batch, pixels, branches, parts,
    inner_parts, inner_rows, row0,
    F: tl.constexpr, INNER: tl.constexpr, SLOTS: tl.constexpr, K_OPS: tl.constexpr, C: tl.constexpr,
    CP: tl.constexpr, PARTS: tl.constexpr,
    HW: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr, WGRAD: tl.constexpr,
    DOT: tl.constexpr, LOW: tl.constexpr, ALIGNED: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    part = tl.program_id(0).to(tl.int64)
    which = tl.program_id(1)
    edge = (edge0 + tl.program_id(2)).to(tl.int64)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + edge * SLOTS + which) == 0:
            return
    branch = edge * F + which
    co = tl.arange(0, CP)
    mask_c = co < C
    wide = co[None, :] * C + co[:, None]
    square = mask_c[:, None] & mask_c[None, :]
    transposed = tl.load(weight_ptr + branch * (C * C) + wide, mask=square, other=0.0)
    if LOW:
        transposed = transposed.to(d_ptr.dtype.element_ty)
    start, sample = place_of(layout_ptr, tl.load(target_ptr + edge), ALIGNED)
    g = g_ptr + start
    mix = tl.load(mix_ptr + edge * K_OPS + tl.load(slot_op_ptr + which))
    count = parts
    edge_sums = sum_ptr + edge * ((SLOTS + 1) * C) * parts
    slot_sums = edge_sums + (1 + which) * C * parts
    if INNER > 0:
        # the first INNER branches have a second stage: their gradient was left by its backward
        mix = tl.where(which < INNER, 1.0, mix)
        if which < INNER:
            g = inner_ptr + (tl.program_id(2) * INNER + which).to(tl.int64) * batch * (C * HW)
            sample = C * HW
            count = inner_parts
            edge_sums = inner_sum_ptr + (edge * INNER + which) * C * inner_parts
            slot_sums = edge_sums + inner_rows.to(tl.int64) * inner_parts
    scale, shift, slope, mean = norm_gradient(
        edge_sums, slot_sums, count, moment_ptr + (row0 + branch * C) * 2, mix, pixels, co, mask_c, CP,
        PARTS, False,
    )  # fmt: skip
    base = (tl.program_id(2) * F + which).to(tl.int64) * batch * (C * HW)
    above = branch * batch * (C * HW)
    grad = tl.zeros([CP, CP], tl.float32)
    for step in range(STEPS):
        j = (part.to(tl.int32) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask = mask_c[:, None] & (j < pixels)[None, :]
        inside = j % HW
        n = j // HW
        spot = co[:, None] * HW + (n * (C * HW) + inside)[None, :]
        up = tl.load(g + (co[:, None] * HW + (n * sample + inside)[None, :]), mask=mask, other=0.0)
        y = tl.load(y_ptr + above + spot, mask=mask, other=0.0).to(tl.float32)
        dy = scale[:, None] * (up.to(tl.float32) - shift[:, None])
        dy += slope[:, None] * (y - mean[:, None])
        dy = tl.where(mask, dy, 0.0)
        if LOW:
            dy = dy.to(d_ptr.dtype.element_ty)
        dd = tl.dot(transposed, dy, input_precision=DOT)
        tl.store(out_ptr + base + spot, dd.to(out_ptr.dtype.element_ty), mask=mask)
        if WGRAD:
            d = tl.load(d_ptr + base + spot, mask=mask, other=0.0).to(dy.dtype)
            grad = tl.dot(dy, tl.trans(d), grad, input_precision=DOT)
    if WGRAD:
        spot = grad_ptr + (part * branches + branch) * (C * C)
        tl.store(spot + (co[:, None] * C + co[None, :]), grad, mask=square)
