"""Backward of the depthwise convolutions of `depthwise`; a state also gathers its pools and skips here.

Maths. With g_f the gradient of filter f's output, r = k_f // 2, stride s and dilation d,

    dz[c, q]      = sum_f sum_ij  w_f[c, i, j] * g_f[c, (q - (ij - r)*d) / s]
    dw_f[c, i, j] = sum_q  z[c, q] * g_f[c, (q - (ij - r)*d) / s]

and, z being relu(x) or relu of the normalised inner tensor, the gradient passes where z > 0. The gradient of
a state adds to that the gradients of its pools (to the maximum of a window, or spread over it) and of the
edges' identities, w g, so that it is written once.

Shapes: as in `depthwise`; partial weight gradients come out as [programs, E, ...] and are summed once, with
two more sums a channel of the second stage: of the gradient, and of the gradient times the normalised input.

Plan. The strips of `depthwise`: a window of a filter's gradient is loaded once a horizontal tap and used for
every vertical one, for the input and the weight gradient alike. All edges of a source are one program.

Bytes: reads F tensors an edge, its pools and the state, writes one a state. Flops: those of the forward, and
as many again with weight gradients.

Source: the operations are those of DARTS (arXiv:1806.09055), section 3.1.
"""

from __future__ import annotations

import triton
import triton.language as tl

from darts_kernels._device import begin, relu
from darts_kernels.depthwise import _column, _lanes, _zeros

__all__: list[str] = []


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
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
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
        z = z + (relu(value),)
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
    OVERLAP: tl.constexpr = False,
):  # fmt: skip
    begin(OVERLAP)
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
                z = z + (relu(own.to(tl.float32)),)
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
