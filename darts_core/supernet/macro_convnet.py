"""Small stacks of convolutions, with their choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.spaces.choices import ChoiceSpace
from darts_core.spaces.convnet import PLAIN
from darts_core.supernet.choice_maker import ChoiceMaker, Width
from darts_core.supernet.choice_network import (
    ChoiceNetwork,
    ResidualPath,
    register_choice_network,
)
from darts_core.supernet.choices import Choice

__all__ = ["ConvNet"]


def _convolution(kind: str, channels_in: int, channels: int) -> nn.Module:
    """`conv_3x3` and its like: dense; `sep_3x3`: depthwise, then pointwise."""
    name, _, size = kind.partition("_")
    kernel = int(size[0])
    if name == "conv":
        return nn.Conv2d(channels_in, channels, kernel, padding=kernel // 2, bias=False)
    depthwise = nn.Conv2d(
        channels_in, channels_in, kernel, padding=kernel // 2, groups=channels_in, bias=False
    )
    return nn.Sequential(depthwise, nn.Conv2d(channels_in, channels, 1, bias=False))


class _NoShortcut(nn.Module):
    """Stands for a shortcut that is not there."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.zeros_like(x_BCHW)


class _Convolution(ResidualPath):
    """Convolution, batch norm, shortcut where there is one, ReLU.

    Shapes: [B, C_in, H, W] -> [B, C_out, H, W].
    """

    def __init__(
        self, conv: nn.Module, width: Width, shortcut: nn.Module, activation: nn.Module
    ) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm2d(width.channels)
        self.shortcut, self.activation, self.mask = shortcut, activation, width.mask()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x_BCHW))
        if not isinstance(self.shortcut, _NoShortcut):
            result = self.shortcut(x_BCHW) + self.dropped(result)
        # the norm turns masked zeros into its shift, so the mask comes last
        masked: Tensor = self.mask(self.activation(result))
        return masked


class _Mean(nn.Module):
    """[B, C, H, W] -> [B, C]."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean((2, 3))


class _LevelChoice(Choice):
    """How many levels run; whichever is the last, the means of its channels are handed on.

    Shapes: [B, C, H, W] -> [B, C].
    """

    def __init__(self, levels: Sequence[nn.Module], counts: Sequence[int]) -> None:
        super().__init__(counts, "levels")
        self.levels = nn.ModuleList(levels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        weights_K, terms = self.mixing, []
        for count, level in enumerate(self.levels, 1):
            x_BCHW = level(x_BCHW)
            if count in self.options:
                terms.append(weights_K[self.options.index(count)] * x_BCHW.mean((2, 3)))
        return torch.stack(terms).sum(0)

    def chosen(self, value: Any) -> nn.Module:
        """The first `value` levels and the mean."""
        return nn.Sequential(*list(self.levels)[: int(value)], _Mean())


@register_choice_network("convnet", description="levels of convolutions, pools between")
class ConvNet(ChoiceNetwork):
    """Levels of convolutions with a max pool between two of them, the mean of every channel, a classifier.

    Args:
        space: what may be chosen.
        channels: the unit of widths.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        made: choices by label; None leaves them open for `ModuleSupernet`.
        image_size: (height, width) of the images, which must outlast the pools; None: not looked at.

    Raises:
        ConfigError: the images are too small.
    """

    def __init__(
        self,
        space: ChoiceSpace,
        *,
        channels: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        counts = [int(count) for count in space.options("levels")]
        _check_size(space, max(counts), image_size)
        maker = ChoiceMaker(space, made)
        levels: list[nn.Module] = []
        before = in_channels
        for number in range(1, 1 + (max(counts) if made is None else int(made["levels"]))):
            width = maker.width(f"level{number}.width", channels)
            levels.append(_level(maker, number, before, width))
            before = width.channels
        self.body: nn.Module = nn.Sequential(*levels, _Mean())
        if made is None:
            self.body = _LevelChoice(levels, counts)
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        self.spread_drop()
        logits: Tensor = self.head(self.body(x_BCHW))
        return logits


def _check_size(space: ChoiceSpace, levels: int, image_size: Sequence[int] | None) -> None:
    side = 2 ** (levels - 1)
    if image_size is not None and min(image_size) < side:
        raise ConfigError(
            f"The space {space.name!r} pools {levels - 1} times and needs images of at least "
            f"{side}x{side} pixels, not {image_size[0]}x{image_size[1]}."
        )


def _level(maker: ChoiceMaker, number: int, before: int, width: Width) -> nn.Module:
    """The level `number` (from 1), the pool before it included."""
    labels = dict(maker.space.choices)

    def block(of: int) -> nn.Module:
        channels_in = before if of == 1 else width.channels
        label, shortcut = f"level{number}.conv{of}", f"level{number}.shortcut{of}"

        def make(kind: str) -> nn.Module:
            return _convolution(kind, channels_in, width.channels)

        conv = maker.layer(label, make) if label in labels else make(PLAIN)
        around: nn.Module = _NoShortcut()
        if of > 1:
            around = maker.layer(
                shortcut, lambda name: nn.Identity() if name == "add" else _NoShortcut()
            )
        return _Convolution(conv, width, around, nn.ReLU())

    label = f"level{number}.depth"
    convolutions = maker.depth(label, block) if label in labels else block(1)
    return convolutions if number == 1 else nn.Sequential(nn.MaxPool2d(2), convolutions)
