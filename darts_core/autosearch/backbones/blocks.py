"""What residual networks are built of: convolution with norm, the two kinds of block, the stem.

Source: He et al. 2016, "Deep residual learning"; the stride stands in the 3x3 convolution (v1.5).
"""

from __future__ import annotations

from torch import Tensor, nn

from darts_core.errors import ConfigError

__all__ = ["BasicBlock", "Bottleneck", "Residual", "conv_norm", "resnet_stem"]


def conv_norm(channels_in: int, channels_out: int, kernel: int, stride: int) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    convolution = nn.Conv2d(
        channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels_out)]


class Residual(nn.Module):
    """A body plus its input, projected by a 1x1 convolution where the shape changes."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.body = nn.Sequential(*self._body(channels_in, width, stride))
        same = stride == 1 and channels_in == channels_out
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(*conv_norm(channels_in, channels_out, 1, stride))
        )
        self.activation = nn.ReLU(inplace=True)

    def _body(self, channels_in: int, width: int, stride: int) -> list[nn.Module]:
        raise TypeError("Residual is a base class; use BasicBlock or Bottleneck.")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output [B, width * expansion, H / stride, W / stride]."""
        return self.activation(self.body(x_BCHW) + self.shortcut(x_BCHW))


class BasicBlock(Residual):
    """Two 3x3 convolutions; the first carries the stride."""

    def _body(self, channels_in: int, width: int, stride: int) -> list[nn.Module]:
        return [
            *conv_norm(channels_in, width, 3, stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, 1),
        ]


class Bottleneck(Residual):
    """1x1, 3x3 (with the stride), 1x1 convolutions; four times as many channels leave as the width."""

    expansion = 4

    def _body(self, channels_in: int, width: int, stride: int) -> list[nn.Module]:
        return [
            *conv_norm(channels_in, width, 1, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, 4 * width, 1, 1),
        ]


def resnet_stem(kind: str, in_channels: int, width: int) -> nn.Sequential:
    """What stands before the blocks.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind == "imagenet":
        return nn.Sequential(
            *conv_norm(in_channels, width, 7, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        )
    if kind == "small":
        return nn.Sequential(*conv_norm(in_channels, width, 3, 1), nn.ReLU(inplace=True))
    raise ConfigError(
        f"Unknown stem {kind!r}; use 'imagenet' (7x7 stride 2 and a pool) or 'small' (3x3 stride 1, for "
        "images of about 32 pixels)."
    )
