"""Candidate operations without dense convolutions: zero, skip, pools, and the factorised reduction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_core.ops.base import register_op
from darts_core.ops.primitives import (
    AvgPool,
    FactorizedReduction,
    Identity,
    MaxPool,
    Primitive,
    Zero,
)

__all__ = ["AvgPool3x3", "FactorizedReduce", "MaxPool3x3", "Skip", "ZeroOp", "pad_to_even"]


def pad_to_even(x_BCHW: Tensor) -> Tensor:
    """`x` with a zero row and column appended where its height or width is odd."""
    height, width = x_BCHW.shape[-2:]
    if height % 2 or width % 2:
        return F.pad(x_BCHW, (0, width % 2, 0, height % 2))
    return x_BCHW


@register_op("none", description="zeros: no connection")
class ZeroOp(nn.Module):
    """Zeros of the output's shape, whatever the input."""

    def __init__(self, channels: int, stride: int, *, affine: bool) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(x_BCHW[:, :, :: self.stride, :: self.stride])

    def primitives(self) -> list[Primitive]:
        """zero."""
        return [Zero(self.stride)]


class FactorizedReduce(nn.Module):
    """relu, two pointwise convolutions of stride 2, the second shifted by one pixel, joined, batch norm.

    Shapes: [B, in_channels, H, W] -> [B, out_channels, ceil(H / 2), ceil(W / 2)]. Odd sizes are padded.
    Source: DARTS (arXiv:1806.09055), its released code.
    """

    def __init__(self, in_channels: int, out_channels: int, *, affine: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv_even = nn.Conv2d(in_channels, half, 1, 2, bias=False)
        self.conv_odd = nn.Conv2d(in_channels, out_channels - half, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels, affine=affine)
        self._affine = affine

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The halved feature map."""
        x = pad_to_even(F.relu(x_BCHW))
        return self.norm(torch.cat([self.conv_even(x), self.conv_odd(x[:, :, 1:, 1:])], dim=1))

    def primitives(self) -> list[Primitive]:
        """The factorised reduction as one primitive."""
        return [FactorizedReduction(self._affine)]


class Skip(nn.Module):
    """The input itself."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The input."""
        return x_BCHW

    def primitives(self) -> list[Primitive]:
        """identity."""
        return [Identity()]


@register_op("skip_connect", description="identity; with stride 2 a factorised reduction")
def _skip_connect(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return Skip() if stride == 1 else FactorizedReduce(channels, channels, affine=affine)


@register_op("max_pool_3x3", description="3x3 max pooling")
class MaxPool3x3(nn.MaxPool2d):
    """3x3 max pooling with same padding."""

    def __init__(self, channels: int, stride: int, *, affine: bool) -> None:
        super().__init__(3, stride, 1)

    def primitives(self) -> list[Primitive]:
        """max pool."""
        return [MaxPool(3, int(self.stride))]  # type: ignore[arg-type]


@register_op("avg_pool_3x3", description="3x3 average pooling, padding not counted")
class AvgPool3x3(nn.AvgPool2d):
    """3x3 average pooling whose padding is not in the count."""

    def __init__(self, channels: int, stride: int, *, affine: bool) -> None:
        super().__init__(3, stride, 1, count_include_pad=False)

    def primitives(self) -> list[Primitive]:
        """average pool."""
        return [AvgPool(3, int(self.stride))]  # type: ignore[arg-type]
