"""What an operation is made of, as data: the supernet's plan turns these into batched kernel launches."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AvgPool",
    "BatchNorm",
    "Conv",
    "Depthwise",
    "FactorizedReduction",
    "Identity",
    "MaxPool",
    "Pointwise",
    "Primitive",
    "Relu",
    "Zero",
]


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class Depthwise:
    """A bias-free depthwise convolution with square kernel and same padding."""

    kernel: int
    dilation: int = 1
    stride: int = 1


@dataclass(frozen=True)
class Pointwise:
    """A bias-free 1x1 convolution that keeps the number of channels."""


@dataclass(frozen=True)
class Conv:
    """A bias-free dense convolution with square kernel and same padding."""

    kernel: int
    dilation: int = 1
    stride: int = 1


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation over batch and space."""

    affine: bool


@dataclass(frozen=True)
class MaxPool:
    """Max pooling with same padding."""

    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class AvgPool:
    """Average pooling with same padding that is not counted."""

    kernel: int
    stride: int = 1


@dataclass(frozen=True)
class Identity:
    """The input itself."""


@dataclass(frozen=True)
class Zero:
    """Zeros of the output's shape."""

    stride: int = 1


@dataclass(frozen=True)
class FactorizedReduction:
    """relu, two pointwise convolutions of stride 2 offset by one pixel, concatenated, batch norm."""

    affine: bool


Primitive = (
    Relu
    | Depthwise
    | Pointwise
    | Conv
    | BatchNorm
    | MaxPool
    | AvgPool
    | Identity
    | Zero
    | FactorizedReduction
)
