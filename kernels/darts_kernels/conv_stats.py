"""Dense convolution with batch-norm statistics in its epilogue: a pointwise product over unfolded taps.

Maths. With k = (tap t, input channel i) running over K^2 Ci "channels" of the unfolded input u,

    u[k, p] = f(x[i, S p + D t - R]),  R = K // 2 * D,  f = relu or nothing,      y = W u

so a KxK convolution is the channel mixing of `point_stats` over K^2 Ci channels; they are unfolded on load,
never in memory. Per-program partials of mean and centred second moment come with y. Gradients are in
`conv_backward`.

A stem has one edge. In a cell with dense convolutions E edges read one x; where their weights are sparse,
flags in device memory tell which are drawn, and programs of the others return at once: their part of y
and of the partials is neither written nor, by those who look at the same flags, read.

Shapes: x [B, Ci, HI, WI]; W [E * Co, Ci, K, K]; y [B, E * Co, H, W], H = ceil(HI / S); all contiguous or all
channels-last. Statistics rows (e, o). Flags [E], int32. Sums fp32, storage fp32 or bf16. Bytes: x is read for
every edge and tap (cached), y written. FLOPs: 2 Ci K^2 an element of y. Autocast has no say. `stem` and
`drawn_source` register derivatives.

Source: Ioffe and Szegedy (arXiv:1502.03167); one path an edge as in GDAS (arXiv:1910.04465), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from darts_kernels._common import next_power_of_2
from darts_kernels._device import larger, merge_moments, relu

__all__ = ["ConvShape", "conv_forward", "conv_reference"]

_MOST_PARTS = 1024


def conv_reference(
    x_NCHW: Tensor, weight_OIKK: Tensor, *, stride: int = 1, dilation: int = 1, relu: bool = False
) -> Tensor:
    """The convolution of x, or of relu(x), alone; differentiable, any floating dtype."""
    z = F.relu(x_NCHW) if relu else x_NCHW
    padding = weight_OIKK.shape[-1] // 2 * dilation
    return F.conv2d(z, weight_OIKK.to(z.dtype), None, stride, padding, dilation)


@triton.jit
def _unfolded(
    x_ptr, k, n, row, column, mask_p, CI: tl.constexpr, HI: tl.constexpr, WI: tl.constexpr,
    K: tl.constexpr, D: tl.constexpr, S: tl.constexpr, LAST: tl.constexpr, RELU: tl.constexpr,
):  # fmt: skip
    """u [k, pixels], zero beyond the edge and where masked."""
    t = k // CI
    y = (t // K * D - K // 2 * D)[:, None] + (row * S)[None, :]
    x = (t % K * D - K // 2 * D)[:, None] + (column * S)[None, :]
    inside = (y >= 0) & (y < HI) & (x >= 0) & (x < WI)
    inside = inside & (k < CI * K * K)[:, None] & mask_p[None, :]
    # per-channel and per-pixel parts of the place stay one-dimensional
    if LAST:
        spot = (k % CI)[:, None] + (y * WI + x) * CI + (n * (HI * WI * CI))[None, :]
    else:
        spot = (k % CI * (HI * WI))[:, None] + (y * WI + x) + (n * (HI * WI * CI))[None, :]
    value = tl.load(x_ptr + spot, mask=inside, other=0.0)
    if RELU:
        value = relu(value)
    return value


@triton.jit(do_not_specialize=["parts", "row0"])
def _conv_kernel(
    x_ptr, weight_ptr, y_ptr, sum_ptr, live_ptr, pixels, parts, row0,
    E: tl.constexpr, CI: tl.constexpr, CO: tl.constexpr, COB: tl.constexpr, HI: tl.constexpr,
    WI: tl.constexpr, H: tl.constexpr, W: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
    S: tl.constexpr, LAST: tl.constexpr, RELU: tl.constexpr, KB: tl.constexpr, BLOCK: tl.constexpr,
    STEPS: tl.constexpr, DOT: tl.constexpr, SPARSE: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    e = tl.program_id(2)
    if SPARSE:  # noqa: SIM102 - a compile-time and a run-time condition
        if tl.load(live_ptr + e) == 0:
            return
    KK: tl.constexpr = K * K
    HW: tl.constexpr = H * W
    co = tl.program_id(1) * COB + tl.arange(0, COB)
    mask_o = co < CO
    count = 0.0
    mean = tl.zeros([COB], tl.float32)
    second = tl.zeros([COB], tl.float32)
    for step in range(STEPS):
        start = (part * STEPS + step) * BLOCK
        j = start + tl.arange(0, BLOCK)
        mask_p = j < pixels
        n = (j // HW).to(tl.int64)
        acc = tl.zeros([COB, BLOCK], tl.float32)
        for k0 in range(0, CI * KK, KB):
            k = k0 + tl.arange(0, KB)
            value = _unfolded(
                x_ptr, k, n, j % HW // W, j % W, mask_p, CI, HI, WI, K, D, S, LAST, RELU
            )
            spot = (e * CO + co)[:, None] * (CI * KK) + (k % CI * KK + k // CI)[None, :]
            weight = tl.load(
                weight_ptr + spot, mask=mask_o[:, None] & (k < CI * KK)[None, :], other=0.0
            )
            acc = tl.dot(weight.to(value.dtype), value, acc, input_precision=DOT)
        mask = mask_o[:, None] & mask_p[None, :]
        if LAST:
            spot = (e * CO + co)[:, None] + (j.to(tl.int64) * (E * CO))[None, :]
        else:
            spot = (co * HW)[:, None] + (n * (CO * HW) + j % HW)[None, :]
        tl.store(y_ptr + spot, acc.to(y_ptr.dtype.element_ty), mask=mask)
        here = tl.minimum(tl.maximum(pixels - start, 0), BLOCK).to(tl.float32)
        tile = tl.sum(acc, 1) / larger(here, 1.0)
        centred = tl.where(mask, acc - tile[:, None], 0.0)
        count, mean, second = merge_moments(
            count, mean, second, here, tile, tl.sum(centred * centred, 1)
        )
    out = sum_ptr + ((row0 + e * CO + co).to(tl.int64) * parts + part) * 2
    tl.store(out, mean, mask=mask_o)
    tl.store(out + 1, second, mask=mask_o)


@dataclass(frozen=True)
class ConvShape:
    """Sizes and tiles of convolutions that read one tensor.

    Attributes:
        batch, in_channels, height, width: of x.
        channels: that each edge makes.
        edges: how many sets of filters there are.
        stride: of all convolutions.
        last: channels-last memory instead of contiguous.
        relu: whether relu(x) is convolved.
        dot: Triton's `input_precision`.
    """

    batch: int
    in_channels: int
    height: int
    width: int
    channels: int
    edges: int = 1
    stride: int = 1
    last: bool = False
    relu: bool = False
    dot: str = "tf32x3"

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of y."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def pixels(self) -> int:
        """Of y, over all samples."""
        return self.batch * self.size[0] * self.size[1]

    @property
    def block(self) -> int:
        """Pixels of one product: no register spills at any width, by the compiler's report for sm_90."""
        return 64

    @property
    def steps(self) -> int:
        """Products that a program of the forward pass makes; its statistics are those of all."""
        return max(1, triton.cdiv(self.pixels, self.block * _MOST_PARTS))

    @property
    def parts(self) -> int:
        """Programs whose statistics are merged."""
        return triton.cdiv(self.pixels, self.block * self.steps)

    def constants(self, kernel: int, dilation: int) -> dict[str, int | bool | str]:
        """Compile-time arguments of a launch for one kernel size."""
        height, width = self.size
        return {
            "E": self.edges, "CI": self.in_channels, "CO": self.channels, "HI": self.height,
            "WI": self.width, "H": height, "W": width, "K": kernel, "D": dilation,
            "COB": tile_of(self.channels, 64), "KB": tile_of(self.in_channels * kernel**2, 32),
            "S": self.stride, "LAST": self.last, "RELU": self.relu, "BLOCK": self.block,
            "DOT": self.dot, "num_warps": 4, "num_stages": 2,
        }  # fmt: skip

    def empty(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """y, not yet filled."""
        shape = (self.batch, self.edges * self.channels, *self.size)
        memory = torch.channels_last if self.last else torch.contiguous_format
        return torch.empty(shape, dtype=dtype, device=device, memory_format=memory)


def tile_of(length: int, most: int) -> int:
    """The power of two that covers `length`, between what a matrix product needs and `most`."""
    return min(most, max(16, next_power_of_2(length)))


def conv_forward(
    shape: ConvShape,
    x: Tensor,
    weight: Tensor,
    sums: Tensor,
    row0: int,
    *,
    dilation: int = 1,
    dtype: torch.dtype | None = None,
    live: Tensor | None = None,
) -> Tensor:
    """y [B, E * Co, H, W]; its partial statistics go into rows `row0` on of `sums` [rows, parts, 2].

    Args:
        shape: sizes and tiles.
        x: [B, Ci, HI, WI] in the memory format of `shape`.
        weight: [E * Co, Ci, K, K].
        sums: fp32.
        row0: first statistics row.
        dilation: of the taps.
        dtype: of y; that of x by default.
        live: flags [E]; edges of flag 0 leave their part of y and of `sums` undefined.
    """
    y = shape.empty(dtype or x.dtype, x.device)
    constants = shape.constants(weight.shape[-1], dilation)
    grid = (shape.parts, triton.cdiv(shape.channels, int(constants["COB"])), shape.edges)
    _conv_kernel[grid](
        x, weight, y, sums, sums if live is None else live, shape.pixels, shape.parts, row0,
        STEPS=shape.steps, SPARSE=live is not None, **constants,
    )  # fmt: skip
    return y
