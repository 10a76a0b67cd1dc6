"""Batch norms of whole states that lie one after the other: stems and preprocessed inputs of a cell.

Forward, every program merges the partial moments of its channel (`norm.row_moments`) and writes
(y - mean) * inv, times a scale and plus a shift where the norm has them. Backward,

    dy = scale inv (g - sum(g) / M) - scale inv^2 (y - mean) sum(g yhat) / M

needs two sums a channel (`_normalize_reduce_kernel`), of which a stem forms its coefficients
(`_normalize_coefficient_kernel`); a cell's inputs leave that to the gradient that reads them.

Shapes: y [tensors, N, C, H, W]; partials [rows, programs, 2]. Bytes: forward reads and writes y; the sums
read g and y.
"""

from __future__ import annotations

from collections.abc import Mapping

import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._common import next_power_of_2
from darts_kernels._device import begin
from darts_kernels.norm import inverse_deviation, keep_moments, row_moments

__all__ = ["normalize"]


@triton.jit(do_not_specialize=["row0", "parts", "chunk"])
def _normalize_kernel(
    y_ptr, out_ptr, sum_ptr, moment_ptr, mean_ptr, var_ptr, scale_ptr, shift_ptr, pixels, row0,
    parts, chunk, momentum,
    C: tl.constexpr, HW: tl.constexpr, BLOCK: tl.constexpr, STEPS: tl.constexpr, PARTS: tl.constexpr,
    AFFINE: tl.constexpr, TRAIN: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    row = tl.program_id(2) * C + c
    base = tl.program_id(2).to(tl.int64) * pixels * C
    # every program merges the partials of its channel: a launch for it would take longer
    if TRAIN:
        mean, second, total = row_moments(sum_ptr, row, parts, chunk, pixels, PARTS)
        var = second / total
        if tl.program_id(1) == 0:
            keep_moments(moment_ptr, mean_ptr, var_ptr, row0 + row, mean, second, total, momentum,
                         c >= 0, False)  # fmt: skip
    else:
        mean = tl.load(mean_ptr + row0 + row)
        var = tl.load(var_ptr + row0 + row)
        if tl.program_id(1) == 0:
            tl.store(moment_ptr + (row0 + row) * 2, mean)
            tl.store(moment_ptr + (row0 + row) * 2 + 1, inverse_deviation(var))
    scale = inverse_deviation(var)
    shift = 0.0
    if AFFINE:
        scale = scale * tl.load(scale_ptr + c)
        shift = tl.load(shift_ptr + c)
    for step in tl.static_range(STEPS):
        j = (tl.program_id(1) * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask = j < pixels
        spot = base + (j // HW).to(tl.int64) * (C * HW) + c * HW + j % HW
        value = tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32)
        value = (value - mean) * scale + shift
        tl.store(out_ptr + spot, value.to(out_ptr.dtype.element_ty), mask=mask)


def normalize(
    y: Tensor,
    out: Tensor,
    sums: Tensor,
    moments: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    affine: tuple[Tensor, Tensor] | None,
    *,
    tensors: int,
    channels: int,
    plane: int,
    pixels: int,
    block: int,
    row0: int,
    chunk: int,
    momentum: float,
    train: bool,
    options: Mapping[str, int],
) -> None:
    """Write the norm of tensors that lie one after the other, their moments and running statistics.

    Args:
        y: [tensors, N, C, H, W], contiguous from its start on.
        out: likewise; may be y.
        sums: partials [tensors * C, parts, 2] of programs of `chunk` pixels; not read in evaluation.
        moments: (mean, inv) of rows `row0` on are written.
        running_mean: rows `row0` on are moved.
        running_var: likewise.
        affine: scale and shift [C], or None.
        tensors: how many.
        channels: of each.
        plane: pixels of a plane.
        pixels: of all planes of a channel.
        block: pixels of a tile.
        row0: first row.
        chunk: see `sums`.
        momentum: share of the new statistics.
        train: batch statistics, or the running ones.
        options: of the launch, see `launch_options`.
    """
    tiles = triton.cdiv(pixels, block)
    # every program merges the partials of its channel, so few and large ones, but enough for a device
    steps = max(1, min(4, tensors * channels * tiles // 512))
    scale, shift = affine or (moments, moments)
    _normalize_kernel[(channels, triton.cdiv(tiles, steps), tensors)](
        y, out, sums, moments, running_mean, running_var, scale, shift, pixels, row0, sums.shape[1],
        chunk, momentum,
        C=channels, HW=plane, BLOCK=block, STEPS=steps, PARTS=next_power_of_2(sums.shape[1]),
        AFFINE=affine is not None, TRAIN=train, **options,
    )  # fmt: skip


@triton.jit(do_not_specialize=["parts", "z0"])
def _normalize_reduce_kernel(
    g_ptr, y_ptr, moment_ptr, sum_ptr, pixels, parts, z0,
    C: tl.constexpr, HW: tl.constexpr, BLOCK: tl.constexpr, AFFINE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    part = tl.program_id(1)
    z = (z0 + tl.program_id(2)).to(tl.int64)
    j = part * BLOCK + tl.arange(0, BLOCK)
    mask = j < pixels
    spot = z * pixels * C + (j // HW).to(tl.int64) * (C * HW) + c * HW + j % HW
    g = tl.load(g_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    if AFFINE:
        # the stored tensor is the convolution's; without an affine part it is normalised in place
        y = (y - tl.load(moment_ptr + c * 2)) * tl.load(moment_ptr + c * 2 + 1)
    sums = sum_ptr + (z * (2 * C) + c) * parts + part
    tl.store(sums, tl.sum(g))
    tl.store(sums + C * parts, tl.sum(g * y))


@triton.jit(do_not_specialize=["parts", "pixels"])
def _normalize_coefficient_kernel(
    sum_ptr, moment_ptr, scale_ptr, total_ptr, coef_ptr, parts, pixels,
    C: tl.constexpr, PARTS: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    k = tl.arange(0, PARTS)
    total = tl.sum(tl.load(sum_ptr + c * parts + k, mask=k < parts, other=0.0))
    moment1 = tl.sum(tl.load(sum_ptr + (C + c) * parts + k, mask=k < parts, other=0.0))
    # sums over the norm's output are the gradients of its scale and shift
    tl.store(total_ptr + c, moment1)
    tl.store(total_ptr + C + c, total)
    inv = tl.load(moment_ptr + c * 2 + 1)
    scale = inv * tl.load(scale_ptr + c)
    slope = -scale * inv * moment1 / pixels
    if not TRAIN:
        slope = 0.0
        total = 0.0
    tl.store(coef_ptr + c * 4, scale)
    tl.store(coef_ptr + c * 4 + 1, total / pixels)
    tl.store(coef_ptr + c * 4 + 2, slope)
    tl.store(coef_ptr + c * 4 + 3, tl.load(moment_ptr + c * 2))
