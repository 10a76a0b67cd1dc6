"""All that leaves one state of a cell with dense convolutions, as one node of autograd.

Maths. With z = relu(x), y_j = conv(z, W_j) for all edges at once (`relu_conv`), q_p the pools of x, and out_e
the weighted sums of `dense`; backward

    d x = [x > 0] sum_j dgrad(W_j, d y_j) + sum_p pool_p^T(d q_p) + d skip

in one kernel: an average pool's transpose gathers d q / window size from the windows that hold the pixel, a
maximum's gathers d q from those whose maximum it is. Nothing is summed atomically.

Where the mixing weights are sparse (`drawn_source`), what is not drawn is skipped on the device.

Kept for the backward: x, y_j, q_p (a maximum's place too) and moments; relu(x) is made again.

Shapes: x [B, C, H, W], W_j [E * C, C, k_j, k_j], weights [E, slots], out_e [B, C, H', W'] with
H' = ceil(H / stride); channels-last. Autocast: switched off inside. Differentiable once. Bytes: that of
its parts, and the last kernel reads d z_j, x, d q_p and d skip and writes d x.

Source: NAS-Bench-201 (arXiv:2001.00326).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from darts_kernels import drawn_source
from darts_kernels._common import on_device_of, pool_code
from darts_kernels.dense import Branches, source_sum_reference, sum_backward, sum_forward
from darts_kernels.moments import column_moments
from darts_kernels.relu_conv import conv_backward, conv_forward, relu_conv_reference
from darts_kernels.source_run import SourceRun

__all__ = ["source", "source_reference"]


def source_reference(
    run: SourceRun,
    weight_ES: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    before: Sequence[Tensor | None],
) -> list[Tensor]:
    """`source` with batch statistics in plain torch; differentiable, any floating dtype."""
    ys = relu_conv_reference(x, weights, run.dilations, run.stride)
    pools = [F.max_pool2d(x, k, run.stride, k // 2) for k in run.max_pools]
    pools += [_average(x, k, run.stride) for k in run.avg_pools]
    skip = x if run.skip else None
    return source_sum_reference(weight_ES, ys, pools, skip, before, pool_norm=run.pool_norm)


def _average(x: Tensor, kernel: int, stride: int) -> Tensor:
    return F.avg_pool2d(x, kernel, stride, kernel // 2, count_include_pad=False)


@triton.jit
def _pool_gradient(
    dpool_ptr, place_ptr, n, row, column, c, mask,
    IS_MAX: tl.constexpr, K: tl.constexpr, C: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
    H: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr, CP: tl.constexpr,
):  # fmt: skip
    """Gradient of the pixels (row, column) of plane n from the windows that hold them."""
    R: tl.constexpr = K // 2
    total = tl.zeros([BLOCK, CP], tl.float32)
    for t in tl.static_range(K * K):
        # the window that holds the pixel as its tap t
        y = row + R - t // K
        x = column + R - t % K
        there = (y >= 0) & (x >= 0) & (y % STRIDE == 0) & (x % STRIDE == 0)
        y = y // STRIDE
        x = x // STRIDE
        there = there & (y < H) & (x < W)
        spot = ((n * H + y) * W + x).to(tl.int64)[:, None] * C + c[None, :]
        inside = mask & there[:, None]
        g = tl.load(dpool_ptr + spot, mask=inside, other=0.0).to(tl.float32)
        if IS_MAX:
            winner = tl.load(place_ptr + spot, mask=inside, other=-1)
            g = tl.where(winner == (row * WI + column)[:, None], g, 0.0)
        else:
            rows = tl.minimum(y * STRIDE + R, HI - 1) - tl.maximum(y * STRIDE - R, 0) + 1
            columns = tl.minimum(x * STRIDE + R, WI - 1) - tl.maximum(x * STRIDE - R, 0) + 1
            g = g / tl.where(there, rows * columns, 1).to(tl.float32)[:, None]
        total += g
    return total


@triton.jit
def _state_gradient_kernel(
    dzs, x_ptr, dpools, places, dskip_ptr, out_ptr, live_ptr, pixels,
    J: tl.constexpr, P: tl.constexpr, NMAX: tl.constexpr, POOLS: tl.constexpr, SKIP: tl.constexpr,
    C: tl.constexpr, CP: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr, H: tl.constexpr,
    W: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, CP)
    mask = (i < pixels)[:, None] & (c < C)[None, :]
    place = i.to(tl.int64)[:, None] * C + c[None, :]
    total = tl.zeros([BLOCK, CP], tl.float32)
    for j in tl.static_range(J):
        total += tl.load(dzs[j] + place, mask=mask, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
    total = tl.where(x > 0, total, 0.0)
    if SKIP:
        total += tl.load(dskip_ptr + place, mask=mask, other=0.0).to(tl.float32)
    n = i // (HI * WI)
    row = i % (HI * WI) // WI
    column = i % WI
    for p in tl.static_range(P):
        used = mask
        if SPARSE:
            used = mask & (tl.load(live_ptr + p) != 0)
        # a maximum's places are int64, an average has none
        total += _pool_gradient(
            dpools[p], places[p] if p < NMAX else None, n, row, column, c, used, p < NMAX,
            (POOLS >> (4 * p)) & 15, C, HI, WI, H, W, STRIDE, BLOCK, CP,
        )  # fmt: skip
    tl.store(out_ptr + place, total.to(out_ptr.dtype.element_ty), mask=mask)


def state_gradient(
    run: SourceRun,
    x: Tensor,
    dzs: Sequence[Tensor],
    dpools: Sequence[Tensor],
    places: Sequence[Tensor],
    dskip: Tensor | None,
    live: Tensor | None = None,
) -> Tensor:
    """Gradient of a state from its convolutions, pools and skip, all channels-last.

    Args:
        run: stride and pools.
        x: the state [B, C, H, W].
        dzs: gradients of relu(x), one for each convolution.
        dpools: gradients of the pools [B, C, H', W'], maxima first.
        places: for each maximum its place in the plane of x, int64.
        dskip: gradient of the skip, or None.
        live: a flag for each pool; the gradients of those of flag 0 are not read.
    """
    batch, channels, height, width = x.shape
    out = torch.empty_like(x)
    padded = max(16, triton.next_power_of_2(channels))
    # half the tile of the other kernels: the taps of a pool are all in flight
    block = max(8, 512 // padded)
    pixels = batch * height * width
    _state_gradient_kernel[(triton.cdiv(pixels, block),)](
        tuple(dzs), x, tuple(dpools) or (x,), tuple(places) or (x,), x if dskip is None else dskip,
        out, x if live is None else live, pixels,
        J=len(dzs), P=len(dpools), NMAX=len(places), POOLS=pool_code(run.max_pools + run.avg_pools),
        SKIP=dskip is not None, C=channels, CP=padded, HI=height, WI=width,
        H=-(-height // run.stride), W=-(-width // run.stride), STRIDE=run.stride, BLOCK=block,
        SPARSE=live is not None, num_warps=4,
    )  # fmt: skip
    return out


@dataclass
class _Parts:
    """What a source's forward pass makes before the sums; `live` are its flags where weights are sparse."""

    ys: list[Tensor]
    pools: list[Tensor]
    places: list[Tensor]
    moments: Tensor
    live: Tensor | None = None


def _all_parts(run: SourceRun, edges: int, x: Tensor, weights: Sequence[Tensor]) -> _Parts:
    """Every convolution and pool, by the library."""
    ys = conv_forward(x, weights, run.dilations, run.stride, tf32=run.tf32)
    found = [F.max_pool2d(x, k, run.stride, k // 2, return_indices=True) for k in run.max_pools]
    pools = [q for q, _ in found] + [_average(x, k, run.stride) for k in run.avg_pools]
    pools = [q.contiguous(memory_format=torch.channels_last) for q in pools]
    places = [i.contiguous(memory_format=torch.channels_last) for _, i in found]
    b = Branches(edges, ys, pools, x if run.skip else None, run.pool_norm)
    moments = column_moments(
        b.groups, run.running_mean, run.running_var, momentum=run.momentum, train=run.train,
        pixels=b.pixels, block=b.block, steps=b.steps,
    )  # fmt: skip
    return _Parts(ys, pools, places, moments)


class _Source(torch.autograd.Function):
    """Inputs: run, mixing weights, which sums there are, state, convolutions' weights, the sums."""

    @staticmethod
    def forward(ctx, run: SourceRun, mix_ES: Tensor, present: int, x: Tensor, *tensors: Tensor):
        count, edges = len(run.dilations), mix_ES.shape[0]
        weights, sums = tensors[:count], iter(tensors[count:])
        mix = mix_ES.float().contiguous()
        if run.sparse:
            made = _Parts(*drawn_source.drawn_parts(run, mix, x, weights))
        else:
            made = _all_parts(run, edges, x, weights)
        skip = x if run.skip else None
        b = Branches(edges, made.ys, made.pools, skip, run.pool_norm, made.live)
        before = [next(sums) if present >> e & 1 else None for e in range(edges)]
        outs = sum_forward(b, mix, made.moments, before)
        ctx.run, ctx.present, ctx.weights_dtype = run, present, mix_ES.dtype
        # without sparse weights there are no flags, and nothing reads what stands for them
        live = mix if made.live is None else made.live
        ctx.save_for_backward(
            mix, made.moments, x, live, *weights, *made.ys, *made.pools, *made.places
        )
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        run, count = ctx.run, len(ctx.run.dilations)
        mix, moments, x, live, *tensors = ctx.saved_tensors
        weights, ys, rest = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        shared = len(run.max_pools) + len(run.avg_pools)
        pools, places = rest[:shared], rest[shared:]
        wants_x, wants_weights = ctx.needs_input_grad[3], any(ctx.needs_input_grad[4 : 4 + count])
        gs = [g.contiguous(memory_format=torch.channels_last) for g in grads]
        flags = live if run.sparse else None
        b = Branches(len(gs), ys, pools, x if run.skip else None, run.pool_norm, flags)
        totals, dys, dpools, dskip = sum_backward(
            b, mix, moments, gs, train=run.train, branches=wants_x or wants_weights
        )
        dx: Tensor | None = None
        dweights: Sequence[Tensor | None] = [None] * count
        if dys:
            wanted = {"wants_x": wants_x, "wants_weights": wants_weights}
            if run.sparse:
                dzs, found = drawn_source.drawn_backward(run, x, dys, weights, live, **wanted)
            else:
                dzs, found = conv_backward(
                    x, dys, weights, run.dilations, run.stride, tf32=run.tf32, **wanted
                )
            dweights = found or dweights
            if wants_x:
                of_pools = None if flags is None else flags[count * len(gs) :]
                dx = state_gradient(run, x, dzs, dpools, places, dskip, of_pools)
        before = [g for e, g in enumerate(gs) if ctx.present >> e & 1]
        return None, totals.to(ctx.weights_dtype), None, dx, *dweights, *before


def source(
    run: SourceRun,
    weight_ES: Tensor,
    x: Tensor,
    weights: Sequence[Tensor],
    before: Sequence[Tensor | None],
) -> list[Tensor]:
    """What the edges of a state add to their nodes, on top of the sums so far; differentiable once.

    Shapes: mixing weights [E, slots] (convolutions, max pools, average pools, skip); x [B, C, H, W];
    convolutions' weights [E * C, C, k, k] in any dtype; E sums [B, C, H', W'] or None. Returns E tensors
    [B, C, H', W'], channels-last.

    Raises:
        ValueError: there is no convolution, or the numbers of weights, edges and tensors do not fit.
    """
    edges, slots = weight_ES.shape
    if (
        not weights
        or len(weights) != len(run.dilations)
        or slots != run.slots
        or edges != len(before)
    ):
        raise ValueError(
            f"source got {len(weights)} convolutions, {len(before)} sums and mixing weights "
            f"[{edges}, {slots}] for {run.slots} slots; it needs one convolution or more, a column for "
            "each slot and a sum (or None) for each row."
        )
    if run.skip and run.stride != 1:
        raise ValueError(f"A state cannot be skipped at stride {run.stride}.")
    last = [t.contiguous(memory_format=torch.channels_last) for t in before if t is not None]
    present = sum(1 << e for e, t in enumerate(before) if t is not None)
    x = x.contiguous(memory_format=torch.channels_last)
    # the library takes filters in any memory format, the kernels of sparse weights in one
    weights = [w.contiguous() for w in weights] if run.sparse else weights
    with on_device_of(x):
        return list(_Source.apply(run, weight_ES, present, x, *weights, *last))
