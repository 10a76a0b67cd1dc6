"""Depthwise convolutions of many edges and filters at once, with relu (and batch norm) on load.

Maths. Every edge e leaves a source state x. Stage 1 applies F filters of sizes k_f and dilations d_f to
z = relu(x); stage 2 applies one filter to each inner tensor y_f through z = relu((y_f - mean) * inv):

    out_f[c, y, x] = sum_ij  w_f[c, i, j] * z[c, s*y + (i - r)*d, s*x + (j - r)*d],     r = k_f // 2

The backward is in `depthwise_backward`.

Shapes: x [N, C, H*s, W*s] inside a state buffer; out [E, F, N, C, H, W]; a filter block holds, for each
edge and filter, [C, k*k]. Partial weight gradients come out as [programs, E, ...] and are summed once.

Plan. One warp slides along rows: a program owns one channel and strips of ROWS rows by LANES columns. For a
horizontal tap it loads ROWS + halo values once and uses each for every vertical tap of every filter, so a
5x5 filter costs (ROWS + 4) / ROWS * 5 loads an element instead of 25. Weights are scalars of the program.

Accumulation is fp32 whatever the storage. Bytes: stage 1 reads a state once (all filters of an edge share
it) and writes F tensors; backward reads F tensors an edge and writes one a state. Flops: 2 * sum k_f^2 an
element forward, twice that backward with weight gradients.

Source: the operations are those of DARTS (arXiv:1806.09055), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._device import begin, relu
from darts_kernels.norm import inverse_deviation, row_moments

__all__ = ["depthwise_reference"]

Filters = Sequence[tuple[int, int]]


def depthwise_reference(
    x_NCHW: Tensor, weights: Sequence[Tensor], filters: Filters, stride: int
) -> Tensor:
    """[F, N, C, H', W']: every filter applied to relu(x); differentiable, any floating dtype."""
    z = F.relu(x_NCHW)
    channels = z.shape[1]
    outs = []
    for weight, (kernel, dilation) in zip(weights, filters, strict=True):
        filled = weight.reshape(channels, 1, kernel, kernel).to(z.dtype)
        padding = dilation * (kernel - 1) // 2
        outs.append(F.conv2d(z, filled, None, stride, padding, dilation, channels))
    return torch.stack(outs)


@triton.jit
def _column(
    base, top, column, mask_l, other,
    SHIFT: tl.constexpr, LOW: tl.constexpr, COUNT: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    FULL: tl.constexpr, NORM: tl.constexpr, RELU: tl.constexpr, mean, inv,
):  # fmt: skip
    """The values of COUNT rows from `top + LOW` on, at `column + SHIFT`; zero outside the plane."""
    values = ()
    mask_c = mask_l & (column + SHIFT >= 0) & (column + SHIFT < W)
    for row in tl.static_range(COUNT):
        if FULL and (LOW + row < 0 or LOW + row >= H):
            value = tl.zeros_like(column).to(tl.float32)
        else:
            mask = mask_c
            if not FULL:
                mask = mask_c & (top + (LOW + row) >= 0) & (top + (LOW + row) < H)
            value = tl.load(base + ((LOW + row) * W + SHIFT), mask=mask, other=other).to(tl.float32)
            if NORM:
                value = (value - mean) * inv
            if RELU:
                value = relu(value)
        values = values + (value,)
    return values


@triton.jit
def _filter_taps(
    sums, window, weight_ptr,
    SHIFT: tl.constexpr, K: tl.constexpr, DIL: tl.constexpr, STRIDE: tl.constexpr,
    ROWS: tl.constexpr, HALO: tl.constexpr,
):  # fmt: skip
    """`sums` of one filter with the taps of the column at `SHIFT` added."""
    if SHIFT % DIL == 0 and SHIFT <= (K // 2) * DIL and -SHIFT <= (K // 2) * DIL:
        for i in tl.static_range(K):
            weight = tl.load(weight_ptr + (i * K + SHIFT // DIL + K // 2))
            new = ()
            for row in tl.static_range(ROWS):
                new = new + (sums[row] + weight * window[STRIDE * row + (i - K // 2) * DIL + HALO],)
            sums = new
    return sums


@triton.jit
def _zeros(lane, COUNT: tl.constexpr):
    values = ()
    for _ in tl.static_range(COUNT):
        values = values + (tl.zeros_like(lane).to(tl.float32),)
    return values


@triton.jit
def _convolve(
    x, out, out_step, weight_ptr, c, top, column, row0, mask_l, mean, inv,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, HALO: tl.constexpr,
    C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    STRIDE: tl.constexpr, ROWS: tl.constexpr, FULL: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    """COUNT filters of CODE applied to the strip at `x`, stored at `out + f * out_step`."""
    sums = ()
    for _ in tl.static_range(COUNT):
        sums = sums + (_zeros(column, ROWS),)
    other = 0.0
    if NORM:
        # the padding of a normalised input is zero after the norm
        other = mean
    for shift in tl.static_range(-HALO, HALO + 1):
        # relu and sums are linear in a positive factor: the deviation divides the few sums, not every value
        window = _column(
            x, top, column, mask_l, other, shift, -HALO, STRIDE * (ROWS - 1) + 2 * HALO + 1,
            HI, WI, FULL, NORM, True, mean, 1.0,
        )  # fmt: skip
        new = ()
        for f in tl.static_range(COUNT):
            new = new + (
                _filter_taps(
                    sums[f],
                    window,
                    weight_ptr
                    + (C * ((OFFSETS >> (16 * f)) & 65535))
                    + c * (((CODE >> (8 * f)) & 15) * ((CODE >> (8 * f)) & 15)),
                    shift,
                    (CODE >> (8 * f)) & 15,
                    (CODE >> (8 * f + 4)) & 15,
                    STRIDE,
                    ROWS,
                    HALO,
                ),
            )
        sums = new
    for f in tl.static_range(COUNT):
        for row in tl.static_range(ROWS):
            mask = mask_l
            if not FULL:
                mask = mask_l & (row0 + row < H)
            value = sums[f][row]  # type: ignore[var-annotated]
            if NORM:
                value = value * inv
            tl.store(out + f * out_step + row * W, value.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _lanes(lanes, H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr):
    """This program's lanes as (valid, sample, first row, column)."""
    STRIPS: tl.constexpr = (H + ROWS - 1) // ROWS
    i = tl.program_id(1) * LANES + tl.arange(0, LANES)
    return i < lanes, i // W // STRIPS, (i // W % STRIPS) * ROWS, i % W


@triton.jit(do_not_specialize=["edge0", "batch", "lanes"])
def _depthwise_kernel(
    state_ptr, layout_ptr, source_ptr, weight_ptr, out_ptr, drawn_ptr, edge0, batch, lanes,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, TAPS: tl.constexpr,
    HALO: tl.constexpr, C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
    SLOTS: tl.constexpr, SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    edge = (edge0 + tl.program_id(2)).to(tl.int64)
    mask_l, n, row0, x = _lanes(lanes, H, W, ROWS, LANES)
    source = tl.load(source_ptr + edge)
    base = state_ptr + tl.load(layout_ptr + 2 * source) + c * (HI * WI)
    sample = tl.load(layout_ptr + 2 * source + 1).to(tl.int32)
    inp = base + n * sample + row0 * (STRIDE * WI) + x * STRIDE
    step = batch.to(tl.int64) * (C * H * W)
    # scratch holds the edges of one wave
    out = out_ptr + tl.program_id(2).to(tl.int64) * COUNT * step
    out += n * (C * H * W) + c * (H * W) + row0 * W + x
    if SPARSE:
        for f in tl.static_range(COUNT):
            if tl.load(drawn_ptr + edge * SLOTS + f) != 0:
                _convolve(
                    inp, out + f * step, step,
                    weight_ptr + edge * (C * TAPS) + (C * ((OFFSETS >> (16 * f)) & 65535)), c,
                    row0 * STRIDE, x * STRIDE, row0, mask_l, 0.0, 1.0, (CODE >> (8 * f)) & 255, 0, 1,
                    (((CODE >> (8 * f)) & 15) // 2) * ((CODE >> (8 * f + 4)) & 15),
                    C, HI, WI, H, W, STRIDE, ROWS, ROWS == H, False,
                )  # fmt: skip
    else:
        _convolve(
            inp, out, step, weight_ptr + edge * (C * TAPS), c, row0 * STRIDE, x * STRIDE, row0,
            mask_l, 0.0, 1.0, CODE, OFFSETS, COUNT, HALO, C, HI, WI, H, W, STRIDE, ROWS, ROWS == H,
            False,
        )  # fmt: skip


@triton.jit(do_not_specialize=["edge0", "batch", "lanes", "parts", "chunk", "pixels"])
def _inner_kernel(
    inner_ptr, moment_ptr, sum_ptr, weight_ptr, out_ptr, drawn_ptr, edge0, batch, lanes, parts, chunk,
    pixels,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, FIRST: tl.constexpr,
    TAPS: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, PARTS: tl.constexpr, SLOTS: tl.constexpr,
    SPARSE: tl.constexpr,
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
    c = tl.program_id(0)
    edge = (edge0 + tl.program_id(2) // COUNT).to(tl.int64)
    which = tl.program_id(2) % COUNT
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + edge * SLOTS + which) == 0:
            return
    mask_l, n, row0, x = _lanes(lanes, H, W, ROWS, LANES)
    step = batch.to(tl.int64) * (C * H * W)
    place = n * (C * H * W) + c * (H * W) + row0 * W + x
    inp = inner_ptr + (edge * FIRST + which) * step + place
    out = out_ptr + tl.program_id(2).to(tl.int64) * step + place
    row = (edge * FIRST + which) * C + c
    if PARTS > 0:
        # nobody has merged the partials yet: a launch for it would take longer
        mean, second, total = row_moments(sum_ptr, row, parts, chunk, pixels, PARTS)
        inv = inverse_deviation(second / total)
    else:
        mean = tl.load(moment_ptr + row * 2)
        inv = tl.load(moment_ptr + row * 2 + 1)
    weights = weight_ptr + edge * (C * TAPS)
    for f in tl.static_range(COUNT):
        if which == f:
            _convolve(
                inp, out, step, weights + (C * ((OFFSETS >> (16 * f)) & 65535)), c, row0, x, row0,
                mask_l, mean, inv, (CODE >> (8 * f)) & 255, 0, 1,
                (((CODE >> (8 * f)) & 15) // 2) * ((CODE >> (8 * f + 4)) & 15),
                C, H, W, H, W, 1, ROWS, ROWS == H, True,
            )  # fmt: skip
