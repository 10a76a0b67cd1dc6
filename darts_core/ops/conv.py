"""Convolutional candidate operations: separable, dilated separable, dense, and the factorised 7x7."""

from __future__ import annotations

from torch import nn

from darts_core.ops.base import register_op
from darts_core.ops.primitives import BatchNorm, Conv, Depthwise, Pointwise, Primitive, Relu

__all__ = ["DilatedConv", "ReluConvNorm", "SeparableConv"]


def _separable(
    channels: int, kernel: int, stride: int, dilation: int, affine: bool
) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        ),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def _declared(kernel: int, stride: int, dilation: int, affine: bool) -> list[Primitive]:
    return [Relu(), Depthwise(kernel, dilation, stride), Pointwise(), BatchNorm(affine)]


class ReluConvNorm(nn.Sequential):
    """relu, dense convolution (same padding, no bias), batch norm.

    Shapes: [B, in_channels, H, W] -> [B, out_channels, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, *, affine: bool
    ) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )
        self._primitives: list[Primitive] = [
            Relu(),
            Conv(kernel, stride=stride),
            BatchNorm(affine),
        ]

    def primitives(self) -> list[Primitive]:
        """relu, conv, batch norm."""
        return self._primitives


class DilatedConv(nn.Sequential):
    """relu, depthwise convolution with dilation 2, pointwise convolution, batch norm.

    Shapes: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)].
    Source: DARTS (arXiv:1806.09055), section 3.1.
    """

    def __init__(
        self, channels: int, stride: int, *, affine: bool, kernel: int, dilation: int = 2
    ) -> None:
        super().__init__(*_separable(channels, kernel, stride, dilation, affine))
        self._primitives = _declared(kernel, stride, dilation, affine)

    def primitives(self) -> list[Primitive]:
        """relu, depthwise, pointwise, batch norm."""
        return self._primitives


class SeparableConv(nn.Sequential):
    """(relu, depthwise, pointwise, batch norm) twice; the stride is in the first depthwise.

    Shapes: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)].
    Source: DARTS (arXiv:1806.09055), section 3.1.
    """

    def __init__(self, channels: int, stride: int, *, affine: bool, kernel: int) -> None:
        super().__init__(
            *_separable(channels, kernel, stride, 1, affine),
            *_separable(channels, kernel, 1, 1, affine),
        )
        self._primitives = _declared(kernel, stride, 1, affine) + _declared(kernel, 1, 1, affine)

    def primitives(self) -> list[Primitive]:
        """(relu, depthwise, pointwise, batch norm) twice."""
        return self._primitives


@register_op("sep_conv_3x3", description="separable 3x3 convolution, applied twice")
def _sep_conv_3x3(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return SeparableConv(channels, stride, affine=affine, kernel=3)


@register_op("sep_conv_5x5", description="separable 5x5 convolution, applied twice")
def _sep_conv_5x5(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return SeparableConv(channels, stride, affine=affine, kernel=5)


@register_op("sep_conv_7x7", description="separable 7x7 convolution, applied twice")
def _sep_conv_7x7(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return SeparableConv(channels, stride, affine=affine, kernel=7)


@register_op("dil_conv_3x3", description="separable 3x3 convolution with dilation 2 (5x5 field)")
def _dil_conv_3x3(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return DilatedConv(channels, stride, affine=affine, kernel=3)


@register_op("dil_conv_5x5", description="separable 5x5 convolution with dilation 2 (9x9 field)")
def _dil_conv_5x5(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return DilatedConv(channels, stride, affine=affine, kernel=5)


@register_op("nor_conv_1x1", description="relu, dense 1x1 convolution, batch norm")
def _nor_conv_1x1(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return ReluConvNorm(channels, channels, 1, stride, affine=affine)


@register_op("nor_conv_3x3", description="relu, dense 3x3 convolution, batch norm")
def _nor_conv_3x3(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return ReluConvNorm(channels, channels, 3, stride, affine=affine)


@register_op("conv_7x1_1x7", description="relu, dense 1x7 then 7x1 convolution, batch norm")
def _conv_7x1_1x7(channels: int, stride: int, *, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )
