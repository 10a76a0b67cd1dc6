"""Pools of a channels-last state that return at once where no edge drew them.

Maths. q[p] = max or mean of x over the K x K window around p, pixels beyond the edge left out; a maximum's
place is the first of the window's largest in rows, as that of torch. The transposes are gathered by the last
kernel of `source`, by the same flags.

Shapes: x [B, C, HI, WI] -> q [B, C, ceil(HI / stride), ceil(WI / stride)], channels-last; places like q,
int64; one flag, int32. Storage of x, means in fp32. Bytes: x and q once, or nothing. Autocast has no say.

Source: NAS-Bench-201 (arXiv:2001.00326); one path an edge as in GDAS (arXiv:1910.04465), section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["source_pool", "source_pool_reference"]


def source_pool_reference(
    x: Tensor, kernel: int, stride: int, *, maximum: bool
) -> tuple[Tensor, Tensor | None]:
    """(pool, places of maxima or None) in plain torch; any floating dtype."""
    if maximum:
        return F.max_pool2d(x, kernel, stride, kernel // 2, return_indices=True)  # type: ignore[return-value]
    return F.avg_pool2d(x, kernel, stride, kernel // 2, count_include_pad=False), None


@triton.jit
def _source_pool_kernel(
    x_ptr, out_ptr, place_ptr, live_ptr, pixels,
    K: tl.constexpr, IS_MAX: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    if tl.load(live_ptr) == 0:
        return
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, CP)
    mask = (i < pixels)[:, None] & (c < C)[None, :]
    n = (i // (H * W)).to(tl.int64)
    total = tl.zeros([BLOCK, CP], tl.float32)
    seen = tl.zeros([BLOCK], tl.float32)
    place = tl.zeros([BLOCK, CP], tl.int64)
    if IS_MAX:
        total = total - float("inf")
    for t in tl.static_range(K * K):
        y = i % (H * W) // W * STRIDE + (t // K - K // 2)
        x = i % W * STRIDE + (t % K - K // 2)
        there = (y >= 0) & (y < HI) & (x >= 0) & (x < WI)
        spot = ((n * HI + y) * WI + x)[:, None] * C + c[None, :]
        inside = mask & there[:, None]
        if IS_MAX:
            value = tl.load(x_ptr + spot, mask=inside, other=-float("inf")).to(tl.float32)
            better = (value > total) | (value != value)  # NaN wins, as in torch
            place = tl.where(better, (y * WI + x)[:, None].to(tl.int64), place)
            total = tl.where(better, value, total)
        else:
            total += tl.load(x_ptr + spot, mask=inside, other=0.0).to(tl.float32)
            seen += there.to(tl.float32)
    spot = i.to(tl.int64)[:, None] * C + c[None, :]
    if IS_MAX:
        tl.store(place_ptr + spot, place, mask=mask)
    else:
        total = total / seen[:, None]
    tl.store(out_ptr + spot, total.to(out_ptr.dtype.element_ty), mask=mask)


def source_pool(
    x: Tensor, kernel: int, stride: int, live: Tensor, *, maximum: bool
) -> tuple[Tensor, Tensor | None]:
    """`source_pool_reference` if the flag is not 0; else both results are undefined.

    Args:
        x: channels-last.
        kernel: odd size of the windows.
        stride: of the windows.
        live: the flag, one int32 on the device.
        maximum: or the mean.
    """
    batch, channels, height, width = x.shape
    size = (-(-height // stride), -(-width // stride))
    out = torch.empty(
        (batch, channels, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
    )
    places = torch.empty_like(out, dtype=torch.int64) if maximum else None
    padded = max(16, triton.next_power_of_2(channels))
    block = max(8, 512 // padded)
    pixels = batch * size[0] * size[1]
    _source_pool_kernel[(triton.cdiv(pixels, block),)](
        x, out, live if places is None else places, live, pixels,
        K=kernel, IS_MAX=maximum, C=channels, CP=padded, HI=height, WI=width, H=size[0], W=size[1],
        STRIDE=stride, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out, places
