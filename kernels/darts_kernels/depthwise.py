"""Depthwise convolutions of many edges and filters at once, with relu (and batch norm) on load.

Maths. Every edge e leaves a source state x. Stage 1 applies F filters of sizes k_f and dilations d_f to
z = relu(x); stage 2 applies one filter to each inner tensor y_f through z = relu((y_f - mean) * inv):

    out_f[c, y, x] = sum_ij  w_f[c, i, j] * z[c, s*y + (i - r)*d, s*x + (j - r)*d],     r = k_f // 2

and backward, with g_f the gradient of out_f,

    dz[c, q]      = sum_f sum_ij  w_f[c, i, j] * g_f[c, (q - (ij - r)*d) / s]
    dw_f[c, i, j] = sum_q  z[c, q] * g_f[c, (q - (ij - r)*d) / s]

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
                value = tl.maximum(value, 0.0)
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
        window = _column(
            x, top, column, mask_l, other, shift, -HALO, STRIDE * (ROWS - 1) + 2 * HALO + 1,
            HI, WI, FULL, NORM, True, mean, inv,
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
            tl.store(out + f * out_step + row * W, sums[f][row].to(out.dtype.element_ty), mask=mask)


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
):  # fmt: skip
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


@triton.jit(do_not_specialize=["edge0", "batch", "lanes"])
def _inner_kernel(
    inner_ptr, moment_ptr, weight_ptr, out_ptr, drawn_ptr, edge0, batch, lanes,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, FIRST: tl.constexpr,
    TAPS: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, SLOTS: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
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
    moment = moment_ptr + ((edge * FIRST + which) * C + c) * 2
    mean = tl.load(moment)
    inv = tl.load(moment + 1)
    weights = weight_ptr + edge * (C * TAPS)
    for f in tl.static_range(COUNT):
        if which == f:
            _convolve(
                inp, out, step, weights + (C * ((OFFSETS >> (16 * f)) & 65535)), c, row0, x, row0,
                mask_l, mean, inv, (CODE >> (8 * f)) & 255, 0, 1,
                (((CODE >> (8 * f)) & 15) // 2) * ((CODE >> (8 * f + 4)) & 15),
                C, H, W, H, W, 1, ROWS, ROWS == H, True,
            )  # fmt: skip


@triton.jit
def _filter_backward(
    dz, z, g, weight_ptr, grad_ptr, mask_l, row0, x,
    K: tl.constexpr, DIL: tl.constexpr, STRIDE: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, FULL: tl.constexpr, WGRAD: tl.constexpr,
):  # fmt: skip
    """`dz` plus one filter's input gradient; stores the program's share of its weight gradient."""
    R: tl.constexpr = K // 2
    HALO: tl.constexpr = (R * DIL + STRIDE - 1) // STRIDE
    for j in tl.static_range(K):
        if (PX - (j - R) * DIL) % STRIDE == 0:
            window = _column(
                g, row0, x, mask_l, 0.0, (PX - (j - R) * DIL) // STRIDE, -HALO, ROWS + 2 * HALO,
                H, W, FULL, False, False, 0.0, 1.0,
            )  # fmt: skip
            for i in tl.static_range(K):
                if (PY - (i - R) * DIL) % STRIDE == 0:
                    weight = tl.load(weight_ptr + (i * K + j))
                    new = ()
                    total = tl.zeros_like(x).to(tl.float32)
                    for row in tl.static_range(ROWS):
                        value = window[row + (PY - (i - R) * DIL) // STRIDE + HALO]
                        new = new + (dz[row] + weight * value,)
                        if WGRAD:
                            total += value * z[row]
                    dz = new
                    if WGRAD:
                        tl.store(grad_ptr + (i * K + j), tl.sum(total))
    return dz


@triton.jit(do_not_specialize=["edge0", "batch", "lanes", "parts", "edges"])
def _inner_backward_kernel(
    inner_ptr, moment_ptr, g_ptr, weight_ptr, out_ptr, grad_ptr, sum_ptr, drawn_ptr,
    edge0, batch, lanes, parts, edges,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, FIRST: tl.constexpr,
    TAPS: tl.constexpr, C: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, WGRAD: tl.constexpr, SLOTS: tl.constexpr,
    SPARSE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    part = tl.program_id(1)
    edge = (edge0 + tl.program_id(2) // COUNT).to(tl.int64)
    which = tl.program_id(2) % COUNT
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(drawn_ptr + edge * SLOTS + which) == 0:
            return
    mask_l, n, row0, x = _lanes(lanes, H, W, ROWS, LANES)
    FULL: tl.constexpr = ROWS == H
    step = batch.to(tl.int64) * (C * H * W)
    place = n * (C * H * W) + c * (H * W) + row0 * W + x
    inp = inner_ptr + (edge * FIRST + which) * step + place
    branch = edge * COUNT + which
    scratch = tl.program_id(2).to(tl.int64) * step + place
    g = g_ptr + scratch
    moment = moment_ptr + ((edge * FIRST + which) * C + c) * 2
    mean = tl.load(moment)
    inv = tl.load(moment + 1)
    normed = ()
    z = ()
    for row in tl.static_range(ROWS):
        mask = mask_l
        if not FULL:
            mask = mask_l & (row0 + row < H)
        value = (tl.load(inp + row * W, mask=mask, other=mean).to(tl.float32) - mean) * inv
        normed = normed + (value,)
        z = z + (tl.maximum(value, 0.0),)
    dz = _zeros(x, ROWS)
    for f in tl.static_range(COUNT):
        if which == f:
            block = C * ((OFFSETS >> (16 * f)) & 65535) + c * (
                ((CODE >> (8 * f)) & 15) * ((CODE >> (8 * f)) & 15)
            )
            dz = _filter_backward(
                dz, z, g, weight_ptr + edge * (C * TAPS) + block,
                grad_ptr + (part.to(tl.int64) * edges + edge) * (C * TAPS) + block, mask_l, row0, x,
                (CODE >> (8 * f)) & 15, (CODE >> (8 * f + 4)) & 15, 1, 0, 0, H, W, ROWS, FULL, WGRAD,
            )  # fmt: skip
    total = tl.zeros_like(x).to(tl.float32)
    moment1 = tl.zeros_like(x).to(tl.float32)
    for row in tl.static_range(ROWS):
        mask = mask_l
        if not FULL:
            mask = mask_l & (row0 + row < H)
        grad = tl.where(normed[row] > 0.0, dz[row], 0.0)
        grad = tl.where(mask, grad, 0.0)
        total += grad
        moment1 += grad * normed[row]
        tl.store(out_ptr + scratch + row * W, grad.to(out_ptr.dtype.element_ty), mask=mask)
    sums = sum_ptr + (branch * C + c) * parts + part
    tl.store(sums, tl.sum(total))
    tl.store(sums + edges.to(tl.int64) * (COUNT * C) * parts, tl.sum(moment1))


@triton.jit
def _pool_gather(
    dx, g, argmax, mask_l, row0, x,
    IS_MAX: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, PY: tl.constexpr,
    PX: tl.constexpr, H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """`dx` plus the input gradient of one pool, gathered from the windows that cover each position."""
    R: tl.constexpr = K // 2
    HALO: tl.constexpr = (R + STRIDE - 1) // STRIDE
    for j in tl.static_range(K):
        if (PX + R - j) % STRIDE == 0:
            window = _column(
                g, row0, x, mask_l, 0.0, (PX + R - j) // STRIDE, -HALO, ROWS + 2 * HALO,
                H, W, FULL, False, False, 0.0, 1.0,
            )  # fmt: skip
            if IS_MAX:
                winner = _column(
                    argmax, row0, x, mask_l, -1, (PX + R - j) // STRIDE, -HALO, ROWS + 2 * HALO,
                    H, W, FULL, False, False, 0.0, 1.0,
                )  # fmt: skip
            for i in tl.static_range(K):
                if (PY + R - i) % STRIDE == 0:
                    new = ()
                    for row in tl.static_range(ROWS):
                        value = window[row + (PY + R - i) // STRIDE + HALO]
                        if IS_MAX:
                            chosen = winner[row + (PY + R - i) // STRIDE + HALO]
                            value = tl.where(chosen == (i * K + j), value, 0.0)
                        new = new + (dx[row] + value,)
                    dx = new
    return dx


@triton.jit
def _edge_filter_backward(
    dz, z, g_ptr, weight_ptr, grad_ptr, step, place, above, edge, share, c, mask_l, row0, x,
    F: tl.constexpr, CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr,
    TAPS: tl.constexpr, C: tl.constexpr, STRIDE: tl.constexpr, PY: tl.constexpr, PX: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, ROWS: tl.constexpr, FULL: tl.constexpr, WGRAD: tl.constexpr,
):  # fmt: skip
    """`_filter_backward` of filter F of an edge, `above` edges into the wave's scratch."""
    K: tl.constexpr = (CODE >> (8 * F)) & 15
    block = C * ((OFFSETS >> (16 * F)) & 65535) + c * (K * K)
    return _filter_backward(
        dz, z, g_ptr + (above * COUNT + F) * step + place, weight_ptr + edge * (C * TAPS) + block,
        grad_ptr + share * (C * TAPS) + block, mask_l, row0, x, K, (CODE >> (8 * F + 4)) & 15,
        STRIDE, PY, PX, H, W, ROWS, FULL, WGRAD,
    )  # fmt: skip


@triton.jit(do_not_specialize=["source0", "edge0", "batch", "lanes", "edges", "inputs", "live0"])
def _depthwise_backward_kernel(
    state_ptr, dstate_ptr, layout_ptr, first_ptr, target_ptr, g_ptr, weight_ptr, grad_ptr,
    dpool_ptr, argmax_ptr, mix_ptr, drawn_ptr, live_ptr, live0, source0, edge0, batch, lanes, edges, inputs,
    CODE: tl.constexpr, OFFSETS: tl.constexpr, COUNT: tl.constexpr, TAPS: tl.constexpr,
    C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    STRIDE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, WGRAD: tl.constexpr,
    POOLS: tl.constexpr, NPOOL: tl.constexpr, NMAX: tl.constexpr, SKIP: tl.constexpr,
    K_OPS: tl.constexpr, ADD: tl.constexpr, SLOTS: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0)
    part = tl.program_id(1).to(tl.int64)
    source = source0 + tl.program_id(2)
    mask_l, n, row0, x = _lanes(lanes, H, W, ROWS, LANES)
    FULL: tl.constexpr = ROWS == H
    EXACT: tl.constexpr = (ROWS == H) and (HI == H * STRIDE) and (WI == W * STRIDE)
    step = batch.to(tl.int64) * (C * H * W)
    place = n * (C * H * W) + c * (H * W) + row0 * W + x
    sample = tl.load(layout_ptr + 2 * source + 1).to(tl.int32)
    state = tl.load(layout_ptr + 2 * source) + c * (HI * WI)
    for PY in tl.static_range(STRIDE):
        for PX in tl.static_range(STRIDE):
            here = state + (n * sample + (row0 * STRIDE + PY) * WI + x * STRIDE + PX)
            z = ()
            for row in tl.static_range(ROWS):
                mask = mask_l
                if not EXACT:
                    mask = mask_l & ((row0 + row) * STRIDE + PY < HI) & (x * STRIDE + PX < WI)
                own = tl.load(state_ptr + here + row * (STRIDE * WI), mask=mask, other=0.0)
                z = z + (tl.maximum(own.to(tl.float32), 0.0),)
            dz = _zeros(x, ROWS)
            dx = _zeros(x, ROWS)
            for e in range(tl.load(first_ptr + source), tl.load(first_ptr + source + 1)):
                edge = step * 0 + e
                for f in tl.static_range(COUNT):
                    if SPARSE:
                        if tl.load(drawn_ptr + edge * SLOTS + f) != 0:
                            dz = _edge_filter_backward(
                                dz, z, g_ptr, weight_ptr, grad_ptr, step, place, edge - edge0, edge,
                                part * edges + edge, c, mask_l, row0, x, f, CODE, OFFSETS, COUNT,
                                TAPS, C, STRIDE, PY, PX, H, W, ROWS, FULL, WGRAD,
                            )  # fmt: skip
                    else:
                        dz = _edge_filter_backward(
                            dz, z, g_ptr, weight_ptr, grad_ptr, step, place, edge - edge0, edge,
                            part * edges + edge, c, mask_l, row0, x, f, CODE, OFFSETS, COUNT,
                            TAPS, C, STRIDE, PY, PX, H, W, ROWS, FULL, WGRAD,
                        )  # fmt: skip
                if SKIP >= 0:
                    mix = tl.load(mix_ptr + edge * K_OPS + SKIP)
                    target = tl.load(target_ptr + edge)
                    down = dstate_ptr + tl.load(layout_ptr + 2 * target) + c * (H * W)
                    down += n * tl.load(layout_ptr + 2 * target + 1).to(tl.int32) + row0 * W + x
                    new = ()
                    for row in tl.static_range(ROWS):
                        mask = mask_l
                        if not FULL:
                            mask = mask_l & (row0 + row < H)
                        g = tl.load(down + row * W, mask=mask, other=0.0).to(tl.float32)
                        new = new + (dx[row] + mix * g,)
                    dx = new
            for p in tl.static_range(NPOOL):
                if SPARSE:
                    if tl.load(live_ptr + live0 + source * NPOOL + p) != 0:
                        dx = _pool_gather(
                            dx,
                            dpool_ptr + ((source - source0).to(tl.int64) * NPOOL + p) * step + place,
                            argmax_ptr + (source.to(tl.int64) * NMAX + p) * step + place,
                            mask_l, row0, x, p < NMAX, (POOLS >> (4 * p)) & 15, STRIDE, PY, PX,
                            H, W, ROWS, FULL,
                        )  # fmt: skip
                else:
                    dx = _pool_gather(
                        dx, dpool_ptr + ((source - source0).to(tl.int64) * NPOOL + p) * step + place,
                        argmax_ptr + (source.to(tl.int64) * NMAX + p) * step + place,
                        mask_l, row0, x, p < NMAX, (POOLS >> (4 * p)) & 15, STRIDE, PY, PX,
                        H, W, ROWS, FULL,
                    )  # fmt: skip
            for row in tl.static_range(ROWS):
                mask = mask_l
                if not EXACT:
                    mask = mask_l & ((row0 + row) * STRIDE + PY < HI) & (x * STRIDE + PX < WI)
                value = tl.where(z[row] > 0.0, dz[row], 0.0) + dx[row]
                spot = dstate_ptr + here + row * (STRIDE * WI)
                if (source >= inputs) or ADD:
                    value += tl.load(spot, mask=mask, other=0.0).to(tl.float32)
                tl.store(spot, value.to(dstate_ptr.dtype.element_ty), mask=mask)
