"""Gradients of the dense convolutions of `conv_stats`, which unfold on load too.

Maths. With u the unfolded input and dy the gradient of y - or, formed on load, that of the norm's output g,
dy = A (g - u') + B (y - mean) -

    dx[i, q] = sum_(e, o, t) W[e, o, i, t] dy[e, o, (q + R - D t) / S]
    dW[e, o, k] = sum_p dy[e, o, p] u[k, p]

dx gathers, for all edges and kernel sizes at once, from the windows that hold a pixel; dW goes through a
buffer of shares, one a program. Nothing is summed atomically. An edge whose flag is 0 adds nothing to dx
and has dW = 0, and nothing of it is read.

Shapes: as in `conv_stats`; coefficients (A, u', B, mean) [Co, 4]; shares [programs, E, Co, Ci K^2], fp32.
Bytes: each reads dy (and y) for every tap (cached) and x, and writes its result; FLOPs: 2 Ci K^2 an element
of y each. The reference is autograd of `conv_reference`.

Source: as `conv_stats`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels.conv_stats import ConvShape, _unfolded, tile_of

__all__ = ["conv_inputs", "conv_weights"]

_PROGRAMS = 512


@triton.jit
def _upstream(g_ptr, y_ptr, coef_ptr, spot, channel, mask, NORM: tl.constexpr):
    """dy [channels, pixels] in fp32, zero where masked."""
    g = tl.load(g_ptr + spot, mask=mask, other=0.0).to(tl.float32)
    if NORM:
        coef = coef_ptr + channel * 4
        y = tl.load(y_ptr + spot, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(coef)[:, None] * (g - tl.load(coef + 1)[:, None])
        dy += tl.load(coef + 2)[:, None] * (y - tl.load(coef + 3)[:, None])
        g = tl.where(mask, dy, 0.0)
    return g


@triton.jit
def _of_edge(
    acc, e, g_ptr, y_ptr, coef_ptr, weight_ptr, n, row, column, ci, mask_p,
    E: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    K: tl.constexpr, D: tl.constexpr, S: tl.constexpr, LAST: tl.constexpr, NORM: tl.constexpr,
    KB: tl.constexpr, DOT: tl.constexpr, LOW: tl.constexpr,
):  # fmt: skip
    """`acc` plus what edge e of one convolution returns to x [channels, pixels]."""
    KK: tl.constexpr = K * K
    for k0 in range(0, CO * KK, KB):
        k = k0 + tl.arange(0, KB)
        t = k // CO
        mask_k = k < CO * KK
        # what the window that holds the pixel as its tap t is centred on
        y = row[None, :] + (K // 2 * D - t // K * D)[:, None]
        x = column[None, :] + (K // 2 * D - t % K * D)[:, None]
        there = (y >= 0) & (x >= 0) & (y % S == 0) & (x % S == 0)
        there = there & (y // S < H) & (x // S < W) & mask_k[:, None] & mask_p[None, :]
        plane = (n * (H * W))[None, :] + (y // S * W + x // S)
        if LAST:
            spot = (e * CO + k % CO)[:, None] + plane * (E * CO)
        else:
            spot = (k % CO * (H * W))[:, None] + plane + (n * ((CO - 1) * H * W))[None, :]
        dy = _upstream(g_ptr, y_ptr, coef_ptr, spot, k % CO, there, NORM)
        place = ((e * CO + k % CO) * (CI * KK) + t)[None, :] + (ci * KK)[:, None]
        mask_w = (ci < CI)[:, None] & mask_k[None, :]
        weight = tl.load(weight_ptr + place, mask=mask_w, other=0.0)
        if LOW:
            dy = dy.to(g_ptr.dtype.element_ty)
        acc = tl.dot(weight.to(dy.dtype), dy, acc, input_precision=DOT)
    return acc


@triton.jit
def _gathered(
    acc, g_ptr, y_ptr, coef_ptr, weight_ptr, live_ptr, n, row, column, ci, mask_p,
    E: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
    K: tl.constexpr, D: tl.constexpr, S: tl.constexpr, LAST: tl.constexpr, NORM: tl.constexpr,
    KB: tl.constexpr, DOT: tl.constexpr, LOW: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    """`acc` plus what the edges of one convolution return to x [channels, pixels]."""
    for e in range(E):
        if SPARSE:
            if tl.load(live_ptr + e) != 0:
                acc = _of_edge(acc, e, g_ptr, y_ptr, coef_ptr, weight_ptr, n, row, column, ci, mask_p,
                               E, CI, CO, H, W, K, D, S, LAST, NORM, KB, DOT, LOW)  # fmt: skip
        else:
            acc = _of_edge(acc, e, g_ptr, y_ptr, coef_ptr, weight_ptr, n, row, column, ci, mask_p,
                           E, CI, CO, H, W, K, D, S, LAST, NORM, KB, DOT, LOW)  # fmt: skip
    return acc


@triton.jit
def _conv_input_kernel(
    gs, y_ptr, coef_ptr, weights, x_ptr, dx_ptr, live_ptr, pixels,
    E: tl.constexpr, CI: tl.constexpr, CIB: tl.constexpr, CO: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, FILTERS: tl.constexpr, J: tl.constexpr,
    S: tl.constexpr, LAST: tl.constexpr, RELU: tl.constexpr, NORM: tl.constexpr, KB: tl.constexpr,
    BLOCK: tl.constexpr, DOT: tl.constexpr, LOW: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask_p = j < pixels
    n = (j // (HI * WI)).to(tl.int64)
    ci = tl.program_id(1) * CIB + tl.arange(0, CIB)
    acc = tl.zeros([CIB, BLOCK], tl.float32)
    for i in tl.static_range(J):
        # kernel and dilation of each convolution, 8 bits each
        acc = _gathered(
            acc, gs[i], y_ptr, coef_ptr, weights[i], live_ptr + i * E, n, j % (HI * WI) // WI,
            j % WI, ci, mask_p, E, CI, CO, H, W, (FILTERS >> (16 * i)) & 255,
            (FILTERS >> (16 * i + 8)) & 255, S, LAST, NORM, KB, DOT, LOW, SPARSE,
        )  # fmt: skip
    if LAST:
        spot = ci[:, None] + (j.to(tl.int64) * CI)[None, :]
    else:
        spot = (ci * (HI * WI))[:, None] + (n * (CI * HI * WI) + j % (HI * WI))[None, :]
    mask = (ci < CI)[:, None] & mask_p[None, :]
    if RELU:
        value = tl.load(x_ptr + spot, mask=mask, other=0.0).to(tl.float32)
        acc = tl.where(value > 0.0, acc, 0.0)
    tl.store(dx_ptr + spot, acc.to(dx_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _conv_weight_kernel(
    x_ptr, g_ptr, y_ptr, coef_ptr, share_ptr, live_ptr, pixels,
    E: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, COB: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
    S: tl.constexpr, LAST: tl.constexpr, RELU: tl.constexpr, NORM: tl.constexpr, KB: tl.constexpr,
    BLOCK: tl.constexpr, STEPS: tl.constexpr, DOT: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    e = tl.program_id(2)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(live_ptr + e) == 0:
            return
    KK: tl.constexpr = K * K
    HW: tl.constexpr = H * W
    CHUNKS: tl.constexpr = (CI * KK + KB - 1) // KB
    k = tl.program_id(1) % CHUNKS * KB + tl.arange(0, KB)
    co = tl.program_id(1) // CHUNKS * COB + tl.arange(0, COB)
    mask_o = co < CO
    channel = tl.where(mask_o, co, 0)
    acc = tl.zeros([COB, KB], tl.float32)
    for step in range(STEPS):
        j = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask_p = j < pixels
        n = (j // HW).to(tl.int64)
        if LAST:
            spot = (e * CO + co)[:, None] + (j.to(tl.int64) * (E * CO))[None, :]
        else:
            spot = (co * HW)[:, None] + (n * (CO * HW) + j % HW)[None, :]
        mask = mask_o[:, None] & mask_p[None, :]
        dy = _upstream(g_ptr, y_ptr, coef_ptr, spot, channel, mask, NORM)
        value = _unfolded(x_ptr, k, n, j % HW // W, j % W, mask_p, CI, HI, WI, K, D, S, LAST, RELU)
        acc = tl.dot(dy.to(value.dtype), tl.trans(value), acc, input_precision=DOT)
    place = (co * (CI * KK))[:, None] + (k % CI * KK + k // CI)[None, :]
    out = share_ptr + (part.to(tl.int64) * E + e) * (CO * CI * KK)
    tl.store(out + place, acc, mask=mask_o[:, None] & (k < CI * KK)[None, :])


@triton.jit(do_not_specialize=["parts", "size"])
def _conv_share_kernel(
    share_ptr, out_ptr, live_ptr, parts, size,
    E: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    e = tl.program_id(1)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    left = parts
    if SPARSE:
        left = tl.where(tl.load(live_ptr + e) != 0, parts, 0)
    spot = share_ptr + (row[:, None] * (E * size) + (e * size + i)[None, :])
    # Triton 3.6's interpreter cannot count to a number that is known at run time alone
    while left > 0:
        mask = (row < left)[:, None] & (i < size)[None, :]
        total += tl.load(spot, mask=mask, other=0.0)
        spot += ROWS * E * size
        left -= ROWS
    out = tl.sum(total, 0)
    tl.store(out_ptr + e * size + i, out.to(out_ptr.dtype.element_ty), mask=i < size)


def conv_inputs(
    shape: ConvShape,
    x: Tensor,
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    dilations: Sequence[int],
    *,
    relu: bool | None = None,
    normed: tuple[Tensor, Tensor] | None = None,
    live: Tensor | None = None,
) -> Tensor:
    """Gradient of x, or of relu(x), from all convolutions of all edges.

    Args:
        shape: sizes and tiles.
        x: as forward.
        grads: of each y, or of its norm's output where `normed` is given (one convolution only).
        weights: of each convolution [E * Co, Ci, K, K], K below 256.
        dilations: of each, below 256.
        relu: whether relu's mask is applied; as `shape.relu` says by default.
        normed: (y, coefficients [Co, 4]).
        live: flags [J * E], kernel size by kernel size.
    """
    dx = torch.empty_like(x)
    constants = shape.constants(max(w.shape[-1] for w in weights), 1)
    if relu is not None:
        constants["RELU"] = relu
    tile = tile_of(shape.in_channels, 64)
    pixels = shape.batch * shape.height * shape.width
    code = sum(
        (w.shape[-1] | d << 8) << (16 * i)
        for i, (w, d) in enumerate(zip(weights, dilations, strict=True))
    )
    for name in ("K", "D", "COB"):
        del constants[name]
    grid = (triton.cdiv(pixels, shape.block), triton.cdiv(shape.in_channels, tile))
    y, coefficients = normed or (grads[0], grads[0])
    _conv_input_kernel[grid](
        tuple(grads), y, coefficients, tuple(weights), x, dx, dx if live is None else live, pixels,
        CIB=tile, FILTERS=code, J=len(weights), NORM=normed is not None,
        LOW=grads[0].dtype != torch.float32, SPARSE=live is not None, **constants,
    )  # fmt: skip
    return dx


def conv_weights(
    shape: ConvShape,
    x: Tensor,
    grad: Tensor,
    weight: Tensor,
    *,
    dilation: int = 1,
    normed: tuple[Tensor, Tensor] | None = None,
    live: Tensor | None = None,
) -> Tensor:
    """Gradient of one convolution's weight [E * Co, Ci, K, K]; zero for edges of flag 0.

    Args:
        shape: sizes and tiles.
        x: as forward.
        grad: of y, or of its norm's output where `normed` is given.
        weight: for its shape and dtype.
        dilation: of the taps.
        normed: (y, coefficients [Co, 4]).
        live: flags [E].
    """
    constants = shape.constants(weight.shape[-1], dilation)
    size = weight.numel() // shape.edges
    chunks = triton.cdiv(shape.in_channels * weight.shape[-1] ** 2, int(constants["KB"]))
    chunks *= triton.cdiv(shape.channels, int(constants["COB"]))
    wanted = max(1, _PROGRAMS // (chunks * shape.edges))
    steps = max(1, triton.cdiv(shape.pixels, shape.block * wanted))
    parts = triton.cdiv(shape.pixels, shape.block * steps)
    shares = torch.empty(parts, shape.edges, size, device=x.device)
    y, coefficients = normed or (grad, grad)
    _conv_weight_kernel[(parts, chunks, shape.edges)](
        x, grad, y, coefficients, shares, shares if live is None else live, shape.pixels,
        STEPS=steps, NORM=normed is not None, SPARSE=live is not None, **constants,
    )  # fmt: skip
    out = torch.empty_like(weight, memory_format=torch.contiguous_format)
    # narrow columns of many shares at once: few weights have hundreds of shares
    _conv_share_kernel[(triton.cdiv(size, 32), shape.edges)](
        shares, out, shares if live is None else live, parts, size,
        E=shape.edges, ROWS=32, BLOCK=32, SPARSE=live is not None, num_warps=4,
    )  # fmt: skip
    return out
