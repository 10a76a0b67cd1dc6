"""One operation: a depthwise 7x7 convolution with a channel gate."""

import torch
from torch import nn

from darts_core.ops import register_op


@register_op("gated_conv_7x7", description="depthwise 7x7 convolution times a channel gate")
class GatedConv(nn.Module):
    def __init__(self, channels: int, stride: int, *, affine: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 7, stride, 3, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.norm(self.conv(torch.relu(x))) * gate
