"""Small stacks of convolutions, with their choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.spaces import SPACES
from darts_core.spaces.convnet import SHORTCUTS, ConvNetSpace
from darts_core.supernet.build import CellNetwork, register_network
from darts_core.supernet.choice_maker import ChoiceMaker
from darts_core.supernet.choices import Choice
from darts_core.supernet.fixed_cell import drop_path

__all__ = ["ConvNet"]

Out = tuple[int, Callable[[], nn.Module]]


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


def _shortcut(name: str) -> nn.Module:
    return nn.Identity() if name == "add" else _NoShortcut()


class _Convolution(nn.Module):
    """Convolution, batch norm, shortcut where there is one, ReLU.

    Shapes: [B, C_in, H, W] -> [B, C_out, H, W].
    """

    def __init__(
        self,
        maker: ChoiceMaker,
        label: str,
        kinds: Sequence[str],
        channels_in: int,
        out: Out,
        shortcut: str | None = None,
    ) -> None:
        super().__init__()
        channels, width = out
        self.conv = maker.layer(
            label, kinds, lambda kind: _convolution(kind, channels_in, channels)
        )
        self.norm = nn.BatchNorm2d(channels)
        self.shortcut = maker.layer(shortcut, SHORTCUTS, _shortcut) if shortcut else _NoShortcut()
        self.activation, self.width = nn.ReLU(), width()
        self.drop: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x_BCHW))
        if not isinstance(self.shortcut, _NoShortcut):
            kept = result if self.drop is None else drop_path(result, self.drop)
            result = self.shortcut(x_BCHW) + kept
        # the norm turns masked zeros into its shift, so the mask comes last
        masked: Tensor = self.width(self.activation(result))
        return masked


class _LevelChoice(Choice):
    """How many levels run; whichever is the last, the means of its channels are handed on.

    Shapes: [B, C, H, W] -> [B, C].
    """

    def __init__(self, levels: Sequence[nn.Module], counts: Sequence[int], label: str) -> None:
        super().__init__(counts, label)
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


class _Mean(nn.Module):
    """[B, C, H, W] -> [B, C]."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW.mean((2, 3))


class ConvNet(CellNetwork):
    """Levels of convolutions with a max pool between two of them, the mean of every channel, a classifier.

    Args:
        space: what may be chosen.
        channels: the unit of widths.
        layers: most convolutions of a level; the space's depths say which number that is.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        made: choices by label; None leaves them open for `ModuleSupernet`.
        image_size: (height, width) of the images, which must outlast the pools; None: not looked at.

    Raises:
        ConfigError: `layers` is not the space's largest depth, or the images are too small.
    """

    def __init__(
        self,
        space: ConvNetSpace,
        *,
        channels: int,
        layers: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
        image_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check(space, layers, image_size)
        maker = ChoiceMaker(made)
        most = max(space.levels) if made is None else int(made["levels"])
        levels: list[nn.Module] = []
        widths, before = [channels * width for width in space.widths], in_channels
        for number in range(1, most + 1):
            out = maker.width(f"level{number}.width", widths, space.widths)
            levels.append(_level(maker, space, number, before, out))
            before = out[0]
        self.body: nn.Module = (
            _LevelChoice(levels, space.levels, "levels")
            if made is None
            else nn.Sequential(*levels, _Mean())
        )
        self.head = nn.Linear(before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        drop = self._drop()
        for module in self.modules():
            if isinstance(module, _Convolution):
                module.drop = drop
        logits: Tensor = self.head(self.body(x_BCHW))
        return logits


def _check(space: ConvNetSpace, layers: int, image_size: Sequence[int] | None) -> None:
    most = max(max(depths) for depths in space.depths)
    if layers != most:
        raise ConfigError(
            f"The space {space.name!r} has up to {most} convolutions a level; set layers={most}, not "
            f"{layers}."
        )
    side = 2 ** (max(space.levels) - 1)
    if image_size is not None and min(image_size) < side:
        raise ConfigError(
            f"The space {space.name!r} pools {max(space.levels) - 1} times and needs images of at least "
            f"{side}x{side} pixels, not {image_size[0]}x{image_size[1]}."
        )


def _level(
    maker: ChoiceMaker, space: ConvNetSpace, number: int, before: int, out: Out
) -> nn.Module:
    """The level `number` (from 1), the pool before it included."""
    label, depths = f"level{number}", space.depths[number - 1]
    parts: list[nn.Module] = [nn.MaxPool2d(2)] if number > 1 else []
    parts.append(_Convolution(maker, f"{label}.conv1", space.kinds, before, out))

    def later(block: int) -> nn.Module:
        shortcut = f"{label}.shortcut{block}"
        return _Convolution(maker, f"{label}.conv{block}", space.kinds, out[0], out, shortcut)

    if max(depths) > 1:
        parts.append(maker.depth(f"{label}.depth", depths, later))
    return nn.Sequential(*parts)


@register_network("convnet", description="levels of convolutions, pools between")
def _build_convnet(
    architecture: Architecture, *, channels: int, layers: int, num_classes: int, **sizes: Any
) -> nn.Module:
    space = SPACES[architecture.space]
    if not isinstance(space, ConvNetSpace):
        raise ConfigError(f"The space {space.name!r} has no levels of convolutions.")
    if sizes.get("auxiliary"):
        raise ConfigError("A stack of convolutions has no auxiliary head; use auxiliary=false.")
    space.index(architecture)
    return ConvNet(
        space,
        channels=channels,
        layers=layers,
        num_classes=num_classes,
        in_channels=sizes["in_channels"],
        made=dict(architecture.choices),
    )
