"""An operation that carries no information, to see whether a search avoids it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darts_core.ops.base import register_op

__all__ = ["Noise"]


@register_op("noise", description="standard normal noise instead of the input (RobustDARTS S4)")
class Noise(nn.Module):
    """Standard normal noise of the output's shape; the input counts by its shape only.

    Shapes: [B, C, H, W] -> [B, C, ceil(H / stride), ceil(W / stride)].
    Source: RobustDARTS (arXiv:1909.09656), section 3, space S4.
    """

    def __init__(self, channels: int, stride: int, *, affine: bool) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Fresh noise."""
        return torch.randn_like(x_BCHW[:, :, :: self.stride, :: self.stride])
