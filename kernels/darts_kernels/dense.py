"""The weighted sum of normalised convolutions, pools and a skip, for all edges that leave one state.

Maths. For each kernel size j one convolution has made the outputs y_j of all edges e that leave a state x;
its pools q_p are made once. With the mixing weights w and the (mean, inv) of each channel of each branch,

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
read twice (moments, sum); backward twice as well, and its gradient is written once.

Sparse weights (`drawn.source_flags`): a branch that is not drawn is neither read nor written, and its w has
gradient 0.

`source` puts these launches, the convolutions and the pools together and registers the derivative.

Source: NAS-Bench-201 (arXiv:2001.00326); batch norm: Ioffe and Szegedy (arXiv:1502.03167).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._common import next_power_of_2
from darts_kernels.norm import norm_reference

__all__ = ["Branches", "source_sum_reference", "sum_backward", "sum_forward"]

_MOST_PARTS = 1024


def source_sum_reference(
    weight_ES: Tensor,
    ys: Sequence[Tensor],
    pools: Sequence[Tensor],
    skip: Tensor | None,
    before: Sequence[Tensor | None],
    *,
    pool_norm: bool,
) -> list[Tensor]:
    """The sums with batch statistics in plain torch; differentiable, any floating dtype."""
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
def _if_live(mask, live_ptr, k, SPARSE: tl.constexpr):
    """The mask, or nothing where flag `k` is 0."""
    if SPARSE:
        mask = mask & (tl.load(live_ptr + k) != 0)
    return mask


@triton.jit
def _normed(value, moment_ptr, row, inside):
    mean = tl.load(moment_ptr + row * 2, mask=inside, other=0.0)
    inv = tl.load(moment_ptr + row * 2 + 1, mask=inside, other=0.0)
    return (value - mean[None, :]) * inv[None, :]


@triton.jit
def _source_sum_kernel(
    ys, pools, x_ptr, before, outs, moment_ptr, mix_ptr, live_ptr, pixels,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, POOL_NORM: tl.constexpr,
    SKIP: tl.constexpr, BEFORE: tl.constexpr, C: tl.constexpr, CP: tl.constexpr,
    BLOCK: tl.constexpr, SPARSE: tl.constexpr,
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
        used = _if_live(mask, live_ptr, J * E + p, SPARSE)
        value = tl.load(pools[p] + place, mask=used, other=0.0).to(tl.float32)
        if POOL_NORM:
            value = _normed(value, moment_ptr, (J * E + p) * C + c, inside)
        shared = shared + (value,)
    if SKIP:
        used = _if_live(mask, live_ptr, J * E + P, SPARSE)
        shared = shared + (tl.load(x_ptr + place, mask=used, other=0.0).to(tl.float32),)
    for e in tl.static_range(E):
        out = tl.zeros([BLOCK, CP], tl.float32)
        if (BEFORE >> e) & 1:
            out = tl.load(before[e] + place, mask=mask, other=0.0).to(tl.float32)
        for j in tl.static_range(J):
            used = _if_live(mask, live_ptr, j * E + e, SPARSE)
            value = tl.load(ys[j] + wide + e * C, mask=used, other=0.0).to(tl.float32)
            mix = tl.load(mix_ptr + e * SLOTS + j)
            out += mix * _normed(value, moment_ptr, (j * E + e) * C + c, inside)
        for s in tl.static_range(P + SKIP):
            out += tl.load(mix_ptr + e * SLOTS + J + s) * shared[s]
        tl.store(outs[e] + place, out.to(outs[e].dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["parts"])
def _source_reduce_kernel(
    ys, pools, x_ptr, gs, moment_ptr, sum_ptr, live_ptr, pixels, parts,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, POOL_NORM: tl.constexpr,
    SKIP: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, SPARSE: tl.constexpr,
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
            used = _if_live(mask, live_ptr, J * E + p, SPARSE)
            value = tl.load(pools[p] + place, mask=used, other=0.0).to(tl.float32)
            if POOL_NORM:
                value = _normed(value, moment_ptr, (J * E + p) * C + c, inside)
            shared = shared + (value,)
        if SKIP:
            used = _if_live(mask, live_ptr, J * E + P, SPARSE)
            shared = shared + (tl.load(x_ptr + place, mask=used, other=0.0).to(tl.float32),)
        new = ()
        for e in tl.static_range(E):
            g = tl.load(gs[e] + place, mask=mask, other=0.0).to(tl.float32)
            new = new + (sums[e * ROWS] + tl.sum(g, 0),)
            for j in tl.static_range(J):
                used = _if_live(mask, live_ptr, j * E + e, SPARSE)
                value = tl.load(ys[j] + wide + e * C, mask=used, other=0.0).to(tl.float32)
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
    PARTS: tl.constexpr, CHUNKS: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(0)
    e = tl.program_id(1)
    SLOTS: tl.constexpr = J + P + SKIP
    c = tl.arange(0, CP)
    inside = c < C
    base = sum_ptr + (e * (1 + SLOTS) * C + c)[:, None] * parts
    s_edge = tl.zeros([CP], tl.float32)
    s_slot = tl.zeros([CP], tl.float32)
    for chunk in range(CHUNKS):
        k = chunk * PARTS + tl.arange(0, PARTS)
        mask = inside[:, None] & (k < parts)[None, :]
        s_edge += tl.sum(tl.load(base + k[None, :], mask=mask, other=0.0), 1)
        spot = base + (1 + slot) * C * parts + k[None, :]
        s_slot += tl.sum(tl.load(spot, mask=mask, other=0.0), 1)
    mix = tl.load(mix_ptr + e * SLOTS + slot)
    total = tl.sum(tl.where(inside, s_slot, 0.0))
    if SPARSE:
        total = tl.where(mix != 0.0, total, 0.0)
    tl.store(total_ptr + e * SLOTS + slot, total)
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


@triton.jit
def _source_gradient_kernel(
    ys, pools, gs, dys, dpools, dx_ptr, coef_ptr, mix_ptr, live_ptr, pixels,
    E: tl.constexpr, J: tl.constexpr, P: tl.constexpr, SKIP: tl.constexpr, C: tl.constexpr,
    CP: tl.constexpr, BLOCK: tl.constexpr, SPARSE: tl.constexpr,
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
        used = _if_live(mask, live_ptr, J * E + p, SPARSE)
        values = values + (tl.load(pools[p] + place, mask=used, other=0.0).to(tl.float32),)
        grads = grads + (tl.zeros([BLOCK, CP], tl.float32),)
    dx = tl.zeros([BLOCK, CP], tl.float32)
    for e in tl.static_range(E):
        g = tl.load(gs[e] + place, mask=mask, other=0.0).to(tl.float32)
        for j in tl.static_range(J):
            used = _if_live(mask, live_ptr, j * E + e, SPARSE)
            value = tl.load(ys[j] + wide + e * C, mask=used, other=0.0).to(tl.float32)
            dy = _branch_gradient(g, value, coef_ptr, (e * SLOTS + j) * C + c, inside)
            tl.store(dys[j] + wide + e * C, dy.to(dys[j].dtype.element_ty), mask=used)
        new = ()
        for p in tl.static_range(P):
            row = (e * SLOTS + J + p) * C + c
            new = new + (grads[p] + _branch_gradient(g, values[p], coef_ptr, row, inside),)
        grads = new
        if SKIP:
            dx += tl.load(mix_ptr + e * SLOTS + J + P) * g
    for p in tl.static_range(P):
        used = _if_live(mask, live_ptr, J * E + p, SPARSE)
        tl.store(dpools[p] + place, grads[p].to(dpools[p].dtype.element_ty), mask=used)
    if SKIP:
        tl.store(dx_ptr + place, dx.to(dx_ptr.dtype.element_ty), mask=mask)


@dataclass
class Branches:
    """What the edges of a source add up, all channels-last.

    Attributes:
        edges: how many.
        ys: convolutions [B, E * C, H, W], one or more.
        pools: [B, C, H, W].
        skip: the state itself, or None.
        pool_norm: whether the pools are normalised.
        live: flags of `drawn.source_flags` where the weights are sparse.
    """

    edges: int
    ys: list[Tensor]
    pools: list[Tensor]
    skip: Tensor | None
    pool_norm: bool
    live: Tensor | None = None

    @property
    def channels(self) -> int:
        """Of a state."""
        return self.ys[0].shape[1] // self.edges

    @property
    def pixels(self) -> int:
        """Rows of the matrices."""
        batch, _, height, width = self.ys[0].shape
        return batch * height * width

    @property
    def padded(self) -> int:
        """Channels of a tile."""
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
    def slots(self) -> int:
        """Columns of the mixing weights."""
        return len(self.ys) + len(self.pools) + (self.skip is not None)

    @property
    def groups(self) -> list[tuple[list[Tensor], int]]:
        """(tensors, their channels) that are normalised, in the order of the statistics rows."""
        normed = self.pools if self.pool_norm else []
        return [(self.ys, self.edges * self.channels), (normed, self.channels)]

    def constants(self) -> dict[str, int | bool]:
        """Compile-time arguments that the kernels share."""
        return {
            "E": self.edges, "J": len(self.ys), "P": len(self.pools),
            "SKIP": self.skip is not None, "C": self.channels, "CP": self.padded,
            "SPARSE": self.live is not None,
        }  # fmt: skip


def sum_forward(
    b: Branches, mix_ES: Tensor, moments: Tensor, before: Sequence[Tensor | None]
) -> list[Tensor]:
    """The sums [B, C, H, W] of every edge on top of those before it.

    Args:
        b: what is added up.
        mix_ES: mixing weights [E, slots], fp32.
        moments: [rows, 2] (mean, inv), fp32.
        before: the node so far of every edge, channels-last, or None.
    """
    batch, _, height, width = b.ys[0].shape
    shape = (batch, b.channels, height, width)
    outs = [
        torch.empty(
            shape, dtype=b.ys[0].dtype, device=mix_ES.device,
            memory_format=torch.channels_last,
        )
        for _ in range(b.edges)
    ]  # fmt: skip
    sums = tuple(out if x is None else x for x, out in zip(before, outs, strict=True))
    _source_sum_kernel[(triton.cdiv(b.pixels, b.block),)](
        tuple(b.ys), tuple(b.pools) or (outs[0],), outs[0] if b.skip is None else b.skip, sums,
        tuple(outs), moments, mix_ES, mix_ES if b.live is None else b.live, b.pixels,
        POOL_NORM=b.pool_norm, BEFORE=sum(1 << e for e, x in enumerate(before) if x is not None),
        BLOCK=b.block, num_warps=4, **b.constants(),
    )  # fmt: skip
    return outs


def sum_backward(
    b: Branches,
    mix_ES: Tensor,
    moments: Tensor,
    grads: Sequence[Tensor],
    *,
    train: bool,
    branches: bool = True,
) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor | None]:
    """Gradients (of the mixing weights [E, slots], of the ys, of the pools, of the skip).

    Args:
        b: what was added up.
        mix_ES: as forward.
        moments: as forward.
        grads: of every edge's sum, channels-last.
        train: whether the moments are the batch's own.
        branches: False leaves out all but the first gradient.
    """
    gs, device, constants = tuple(grads), mix_ES.device, b.constants()
    parts = triton.cdiv(b.pixels, b.block * b.steps)
    sums = torch.empty(b.edges, 1 + b.slots, b.channels, parts, device=device)
    shared = tuple(b.pools) or (gs[0],)
    live = mix_ES if b.live is None else b.live
    _source_reduce_kernel[(parts,)](
        tuple(b.ys), shared, gs[0] if b.skip is None else b.skip, gs, moments, sums, live, b.pixels,
        parts,
        POOL_NORM=b.pool_norm, BLOCK=b.block, STEPS=b.steps, num_warps=4, **constants,
    )  # fmt: skip
    totals = torch.empty(b.edges, b.slots, device=device)
    coefficients = torch.empty(b.edges, b.slots, b.channels, 4, device=device)
    # tiles of 2,048 sums: two of them are under way, and larger ones would spill registers
    tile = min(64, max(1, 2048 // next_power_of_2(b.channels)), next_power_of_2(parts))
    _source_coefficient_kernel[(b.slots, b.edges)](
        sums, moments, mix_ES, totals, coefficients, parts, b.pixels,
        POOL_NORM=b.pool_norm, TRAIN=train, PARTS=tile, CHUNKS=triton.cdiv(parts, tile), num_warps=4,
        **constants,
    )  # fmt: skip
    if not branches:
        return totals, [], [], None
    dys, dpools = [torch.empty_like(y) for y in b.ys], [torch.empty_like(q) for q in b.pools]
    dskip = None if b.skip is None else torch.empty_like(b.skip)
    _source_gradient_kernel[(triton.cdiv(b.pixels, b.block),)](
        tuple(b.ys), shared, gs, tuple(dys), tuple(dpools) or (dys[0],),
        dys[0] if dskip is None else dskip, coefficients, mix_ES, live, b.pixels,
        BLOCK=b.block, num_warps=4, **constants,
    )  # fmt: skip
    return totals, dys, dpools, dskip
