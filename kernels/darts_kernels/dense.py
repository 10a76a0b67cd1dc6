"""What the edges of one state add to their nodes: norms of dense convolutions and the weighted sum.

Maths. x is a state; for each kernel size j one convolution (`relu_conv`) has made the outputs y_j of all
edges e that leave it; its pools q_p are made once. With the mixing weights w and the (mean, inv) of each
channel of each branch,

    out_e = before_e + sum_j w_ej (y_je - mean_je) inv_je + sum_p w_ep norm(q_p) + w_e,skip x

Backward, with g_e the gradient of out_e and M pixels:

    s_e = sum g_e,  s_ek = sum g_e yhat_ek        (d w_ek is s_ek summed over channels)
    d y_ek = A (g_e - u) + B (y_ek - mean),       A = w inv, u = s_e / M, B = -A inv s_ek / M
    d q_p = sum_e of the same,  d x = sum_e w_e,skip g_e

Without batch statistics u and B are 0. A params step needs no s_ek for alpha, but the norms' backward
reads them all the same.

Shapes: everything is channels-last: y_j [M, E * C], q_p and x [M, C], out_e [M, C]; w [E, slots], slots
being convolutions, pools, skip. Statistics rows are (j, e, c), then normalised pools (p, c). Storage fp32
or bf16; moments, sums and coefficients fp32. Nothing is summed atomically. Bytes: forward every branch is
read twice (moments, sum); backward twice as well, and its gradient is written once. Autocast: inputs are
taken as they are. The backward is made of raw kernels and cannot be derived again.

Source: NAS-Bench-201 (arXiv:2001.00326); batch norm: Ioffe and Szegedy (arXiv:1502.03167).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from darts_kernels._common import next_power_of_2
from darts_kernels.moments import column_moments
from darts_kernels.norm import norm_reference

__all__ = ["SourceRun", "source_sum", "source_sum_reference"]

_MOST_PARTS = 512


@dataclass(frozen=True)
class SourceRun:
    """What the sum over a source needs besides tensors of the batch.

    Attributes:
        running_mean: [rows] running means, updated in place.
        running_var: [rows] running variances.
        momentum: share of the new statistics; 0 leaves the running ones alone.
        train: batch statistics (True) or running ones.
        pool_norm: whether the pools are normalised.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float = 0.1
    train: bool = True
    pool_norm: bool = False


def source_sum_reference(
    weight_ES: Tensor,
    ys: Sequence[Tensor],
    pools: Sequence[Tensor],
    skip: Tensor | None,
    before: Sequence[Tensor | None],
    *,
    pool_norm: bool,
) -> list[Tensor]:
    """`source_sum` with batch statistics in plain torch; differentiable, any floating dtype."""
    edges = weight_ES.shape[0]
    normed = [norm_reference(y)[0].chunk(edges, dim=1) for y in ys]
    shared = [norm_reference(q)[0] if pool_norm else q for q in pools]
    shared += [] if skip is None else [skip]
    outs = []
    for e in range(edges):
        terms = [*(y[e] for y in normed), *shared]
        out = sum(w * term for w, term in zip(weight_ES[e], terms, strict=True))
        outs.append(out if before[e] is None else out + before[e])
    return outs


@triton.jit
def _normed(value, moment_ptr, row, inside):
    mean = tl.load(moment_ptr + row * 2, mask=inside, other=0.0)
    inv = tl.load(moment_ptr + row * 2 + 1, mask=inside, other=0.0)
    return (value - mean[None, :]) * inv[None, :]


@triton.jit(do_not_specialize=["pixels"])
def _source_sum_kernel(
    ys, pools, x_ptr, before, outs, moment_ptr, mix_ptr, pixels,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, POOL_NORM: tl.constexpr,
    SKIP: tl.constexpr, BEFORE: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, CP)
    inside = c < C
    mask = (i < pixels)[:, None] & inside[None, :]
    place = i.to(tl.int64)[:, None] * C + c[None, :]
    wide = i.to(tl.int64)[:, None] * (E * C) + c[None, :]
    SLOTS: tl.constexpr = J + P + SKIP
    shared = ()
    for p in tl.static_range(P):
        value = tl.load(pools[p] + place, mask=mask, other=0.0).to(tl.float32)
        if POOL_NORM:
            value = _normed(value, moment_ptr, (J * E + p) * C + c, inside)
        shared = shared + (value,)
    if SKIP:
        shared = shared + (tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32),)
    for e in tl.static_range(E):
        out = tl.zeros([BLOCK, CP], tl.float32)
        if (BEFORE >> e) & 1:
            out = tl.load(before[e] + place, mask=mask, other=0.0).to(tl.float32)
        for j in tl.static_range(J):
            value = tl.load(ys[j] + wide + e * C, mask=mask, other=0.0).to(tl.float32)
            mix = tl.load(mix_ptr + e * SLOTS + j)
            out += mix * _normed(value, moment_ptr, (j * E + e) * C + c, inside)
        for s in tl.static_range(P + SKIP):
            out += tl.load(mix_ptr + e * SLOTS + J + s) * shared[s]
        tl.store(outs[e] + place, out.to(outs[e].dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["pixels", "parts"])
def _source_reduce_kernel(
    ys, pools, x_ptr, gs, moment_ptr, sum_ptr, pixels, parts,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, POOL_NORM: tl.constexpr,
    SKIP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    c = tl.arange(0, CP)
    inside = c < C
    ROWS: tl.constexpr = 1 + J + P + SKIP
    sums = ()
    for _ in tl.static_range(E * ROWS):
        sums = sums + (tl.zeros([CP], tl.float32),)
    for step in range(STEPS):
        i = (part * STEPS + step) * BLOCK + tl.arange(0, BLOCK)
        mask = (i < pixels)[:, None] & inside[None, :]
        place = i.to(tl.int64)[:, None] * C + c[None, :]
        wide = i.to(tl.int64)[:, None] * (E * C) + c[None, :]
        shared = ()
        for p in tl.static_range(P):
            value = tl.load(pools[p] + place, mask=mask, other=0.0).to(tl.float32)
            if POOL_NORM:
                value = _normed(value, moment_ptr, (J * E + p) * C + c, inside)
            shared = shared + (value,)
        if SKIP:
            shared = shared + (tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32),)
        new = ()
        for e in tl.static_range(E):
            g = tl.load(gs[e] + place, mask=mask, other=0.0).to(tl.float32)
            new = new + (sums[e * ROWS] + tl.sum(g, 0),)
            for j in tl.static_range(J):
                value = tl.load(ys[j] + wide + e * C, mask=mask, other=0.0).to(tl.float32)
                value = _normed(value, moment_ptr, (j * E + e) * C + c, inside)
                new = new + (sums[e * ROWS + 1 + j] + tl.sum(g * value, 0),)
            for s in tl.static_range(P + SKIP):
                new = new + (sums[e * ROWS + 1 + J + s] + tl.sum(g * shared[s], 0),)
        sums = new
    for k in tl.static_range(E * ROWS):
        tl.store(sum_ptr + (k * C + c) * parts + part, sums[k], mask=inside)


@triton.jit(do_not_specialize=["parts", "pixels"])
def _source_coefficient_kernel(
    sum_ptr, moment_ptr, mix_ptr, total_ptr, coef_ptr, parts, pixels,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, POOL_NORM: tl.constexpr,
    SKIP: tl.constexpr, TRAIN: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0)
    e = tl.program_id(1)
    SLOTS: tl.constexpr = J + P + SKIP
    c = tl.arange(0, CP)
    inside = c < C
    base = sum_ptr + (e * (1 + SLOTS) * C + c)[:, None] * parts
    s_edge = tl.zeros([CP], tl.float32)
    s_slot = tl.zeros([CP], tl.float32)
    for start in range(0, parts, PARTS):
        k = start + tl.arange(0, PARTS)
        mask = inside[:, None] & (k < parts)[None, :]
        s_edge += tl.sum(tl.load(base + k[None, :], mask=mask, other=0.0), 1)
        spot = base + (1 + slot) * C * parts + k[None, :]
        s_slot += tl.sum(tl.load(spot, mask=mask, other=0.0), 1)
    tl.store(total_ptr + e * SLOTS + slot, tl.sum(tl.where(inside, s_slot, 0.0)))
    mix = tl.load(mix_ptr + e * SLOTS + slot)
    normed = (slot < J) | ((slot < J + P) & (POOL_NORM == 1))
    row = tl.where(slot < J, slot * E + e, J * E + slot - J) * C + c
    mean = tl.load(moment_ptr + row * 2, mask=inside & normed, other=0.0)
    inv = tl.load(moment_ptr + row * 2 + 1, mask=inside & normed, other=1.0)
    scale = mix * inv
    live = 0.0
    if TRAIN:
        live = tl.where(normed, 1.0, 0.0)
    out = coef_ptr + ((e * SLOTS + slot) * C + c) * 4
    tl.store(out, scale, mask=inside)
    tl.store(out + 1, live * s_edge / pixels, mask=inside)
    tl.store(out + 2, -live * scale * inv * s_slot / pixels, mask=inside)
    tl.store(out + 3, mean, mask=inside)


@triton.jit
def _branch_gradient(g, value, coef_ptr, row, inside):
    """A (g - u) + B (value - mean)."""
    spot = coef_ptr + row * 4
    scale = tl.load(spot, mask=inside, other=0.0)[None, :]
    shift = tl.load(spot + 1, mask=inside, other=0.0)[None, :]
    slope = tl.load(spot + 2, mask=inside, other=0.0)[None, :]
    mean = tl.load(spot + 3, mask=inside, other=0.0)[None, :]
    return scale * (g - shift) + slope * (value - mean)


@triton.jit(do_not_specialize=["pixels"])
def _source_gradient_kernel(
    ys, pools, gs, dys, dpools, dx_ptr, coef_ptr, mix_ptr, pixels,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, SKIP: tl.constexpr, C: tl.constexpr,
    CP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, CP)
    inside = c < C
    mask = (i < pixels)[:, None] & inside[None, :]
    place = i.to(tl.int64)[:, None] * C + c[None, :]
    wide = i.to(tl.int64)[:, None] * (E * C) + c[None, :]
    SLOTS: tl.constexpr = J + P + SKIP
    values = ()
    grads = ()
    for p in tl.static_range(P):
        values = values + (tl.load(pools[p] + place, mask=mask, other=0.0).to(tl.float32),)
        grads = grads + (tl.zeros([BLOCK, CP], tl.float32),)
    dx = tl.zeros([BLOCK, CP], tl.float32)
    for e in tl.static_range(E):
        g = tl.load(gs[e] + place, mask=mask, other=0.0).to(tl.float32)
        for j in tl.static_range(J):
            value = tl.load(ys[j] + wide + e * C, mask=mask, other=0.0).to(tl.float32)
            dy = _branch_gradient(g, value, coef_ptr, (e * SLOTS + j) * C + c, inside)
            tl.store(dys[j] + wide + e * C, dy.to(dys[j].dtype.element_ty), mask=mask)
        new = ()
        for p in tl.static_range(P):
            row = (e * SLOTS + J + p) * C + c
            new = new + (grads[p] + _branch_gradient(g, values[p], coef_ptr, row, inside),)
        grads = new
        if SKIP:
            dx += tl.load(mix_ptr + e * SLOTS + J + P) * g
    for p in tl.static_range(P):
        tl.store(dpools[p] + place, grads[p].to(dpools[p].dtype.element_ty), mask=mask)
    if SKIP:
        tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@dataclass(frozen=True)
class _Sizes:
    """Sizes of one call; `ys` are channels-last."""

    edges: int
    channels: int
    filters: int
    pools: int
    skip: bool
    pixels: int

    @property
    def padded(self) -> int:
        return max(16, next_power_of_2(self.channels))

    @property
    def block(self) -> int:
        """Pixels of a tile of about 1,024 values."""
        return max(8, 1024 // self.padded)

    @property
    def steps(self) -> int:
        """Tiles that a program of a reduction sums over."""
        return max(1, triton.cdiv(self.pixels, self.block * _MOST_PARTS))

    @property
    def parts(self) -> int:
        return triton.cdiv(self.pixels, self.block * self.steps)

    @property
    def slots(self) -> int:
        return self.filters + self.pools + self.skip

    def constants(self) -> dict[str, int | bool]:
        """Compile-time arguments that most kernels share."""
        return {
            "E": self.edges, "J": self.filters, "P": self.pools, "SKIP": self.skip,
            "C": self.channels, "CP": self.padded,
        }  # fmt: skip


class _SourceSum(torch.autograd.Function):
    """Inputs: run, sizes, which sums there are, weights, then ys, pools, the skip and the sums so far."""

    @staticmethod
    def forward(ctx, run: SourceRun, s: _Sizes, present: int, weight_ES: Tensor, *tensors: Tensor):
        ys, pools, skip, before = _parted(s, tensors)
        mix = weight_ES.detach().float().contiguous()
        groups = [(ys, s.edges * s.channels), (pools if run.pool_norm else [], s.channels)]
        moments = column_moments(
            groups, run.running_mean, run.running_var, momentum=run.momentum, train=run.train,
            pixels=s.pixels, block=s.block, steps=s.steps,
        )  # fmt: skip
        batch, _, height, width = ys[0].shape
        shape = (batch, s.channels, height, width)
        outs = [
            torch.empty(
                shape, dtype=ys[0].dtype, device=ys[0].device, memory_format=torch.channels_last
            )
            for _ in range(s.edges)
        ]
        filled = iter(before)
        sums = [next(filled) if present >> e & 1 else outs[e] for e in range(s.edges)]
        _source_sum_kernel[(triton.cdiv(s.pixels, s.block),)](
            tuple(ys), tuple(pools) or (outs[0],), outs[0] if skip is None else skip, tuple(sums),
            tuple(outs), moments, mix, s.pixels,
            POOL_NORM=run.pool_norm, BEFORE=present, BLOCK=s.block, num_warps=4, **s.constants(),
        )  # fmt: skip
        ctx.run, ctx.sizes, ctx.present = run, s, present
        ctx.weights_dtype = weight_ES.dtype
        kept = [] if skip is None else [skip]
        ctx.save_for_backward(mix, moments, *ys, *pools, *kept)
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor):
        run, s = ctx.run, ctx.sizes
        mix, moments, *tensors = ctx.saved_tensors
        ys, pools, skip, _ = _parted(s, tensors)
        gs = tuple(g.contiguous(memory_format=torch.channels_last) for g in grads)
        device = mix.device
        sums = torch.empty(s.edges, 1 + s.slots, s.channels, s.parts, device=device)
        shared = tuple(pools) or (gs[0],)
        constants = s.constants()
        _source_reduce_kernel[(s.parts,)](
            tuple(ys), shared, gs[0] if skip is None else skip, gs, moments, sums, s.pixels,
            s.parts, POOL_NORM=run.pool_norm, BLOCK=s.block, STEPS=s.steps, num_warps=4,
            **constants,
        )  # fmt: skip
        totals = torch.empty(s.edges, s.slots, device=device)
        coefficients = torch.empty(s.edges, s.slots, s.channels, 4, device=device)
        _source_coefficient_kernel[(s.slots, s.edges)](
            sums, moments, mix, totals, coefficients, s.parts, s.pixels,
            POOL_NORM=run.pool_norm, TRAIN=run.train,
            PARTS=min(64, next_power_of_2(s.parts)), num_warps=4, **constants,
        )  # fmt: skip
        before = [g for e, g in enumerate(gs) if ctx.present >> e & 1]
        grad_mix = totals.to(ctx.weights_dtype)
        # a slot is one tensor: convolutions, pools, the skip
        if not any(ctx.needs_input_grad[4 : 4 + s.slots]):
            return None, None, None, grad_mix, *[None] * s.slots, *before
        dys, dpools = [torch.empty_like(y) for y in ys], [torch.empty_like(q) for q in pools]
        dskip = [] if skip is None else [torch.empty_like(skip)]
        _source_gradient_kernel[(triton.cdiv(s.pixels, s.block),)](
            tuple(ys), shared, gs, tuple(dys), tuple(dpools) or (dys[0],),
            dskip[0] if dskip else dys[0], coefficients, mix, s.pixels,
            BLOCK=s.block, num_warps=4, **constants,
        )  # fmt: skip
        return None, None, None, grad_mix, *dys, *dpools, *dskip, *before


def _parted(
    s: _Sizes, tensors: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor], Tensor | None, list[Tensor]]:
    """(ys, pools, skip, sums so far)."""
    shared = s.filters + s.pools
    skip = tensors[shared] if s.skip else None
    return (
        list(tensors[: s.filters]),
        list(tensors[s.filters : shared]),
        skip,
        list(tensors[s.slots :]),
    )


def source_sum(
    run: SourceRun,
    weight_ES: Tensor,
    ys: Sequence[Tensor],
    pools: Sequence[Tensor],
    skip: Tensor | None,
    before: Sequence[Tensor | None],
) -> list[Tensor]:
    """What the edges of a source add to their nodes, on top of the sums so far; differentiable once.

    Shapes: weights [E, slots]; ys [B, E * C, H, W]; pools and skip [B, C, H, W]; E sums [B, C, H, W] or
    None. Returns E tensors [B, C, H, W], channels-last.

    Raises:
        ValueError: there is no convolution, or the numbers of weights, edges and tensors do not fit.
    """
    edges, slots = weight_ES.shape
    if not ys or slots != len(ys) + len(pools) + (skip is not None) or edges != len(before):
        raise ValueError(
            f"source_sum got {len(ys)} convolutions, {len(pools)} pools, "
            f"{int(skip is not None)} skips and {len(before)} sums for weights [{edges}, {slots}]; "
            "it needs one convolution or more, a column for each tensor and a sum for each row."
        )
    batch, width, height, columns = ys[0].shape
    sizes = _Sizes(
        edges, width // edges, len(ys), len(pools), skip is not None, batch * height * columns
    )
    tensors = [
        *ys,
        *pools,
        *([] if skip is None else [skip]),
        *(x for x in before if x is not None),
    ]
    present = sum(1 << e for e, x in enumerate(before) if x is not None)
    last = [x.contiguous(memory_format=torch.channels_last) for x in tensors]
    return list(_SourceSum.apply(run, sizes, present, weight_ES, *last))
