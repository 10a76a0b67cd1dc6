"""The residual network, with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from darts_core.spaces.choices import ChoiceSpace
from darts_core.supernet.choice_maker import ChoiceMaker, Width
from darts_core.supernet.choice_network import (
    ResidualPath,
    StageNetwork,
    register_choice_network,
)

__all__ = ["ResNet", "ResidualBlock"]


def _conv(before: int, after: Width, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after.channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(after.channels),
    ]


class ResidualBlock(ResidualPath):
    """Two 3x3 convolutions, or with a bottleneck 1x1, 3x3, 1x1, and a shortcut.

    Masks stand behind whatever the searched width decides, so that widths can be cut exactly.

    Args:
        channels_in: of the input.
        width: makes the stage's width, times a factor.
        stride: of the (first) 3x3 convolution.
        project: a 1x1 convolution in the shortcut; needed where the input has another shape or width.
        bottleneck: 1x1, 3x3, 1x1 with four times as many channels leaving as the width.

    Source: arXiv:1512.03385, Figure 5; the stride stands in the 3x3 convolution.
    """

    def __init__(
        self,
        channels_in: int,
        width: Callable[[int], Width],
        stride: int,
        *,
        project: bool,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        inner, out = width(1), width(4 if bottleneck else 1)
        if bottleneck:
            body = [
                *_conv(channels_in, inner, 1), nn.ReLU(), inner.mask(),
                *_conv(inner.channels, inner, 3, stride), nn.ReLU(), inner.mask(),
                *_conv(inner.channels, out, 1), out.mask(),
            ]  # fmt: skip
        else:
            body = [
                *_conv(channels_in, inner, 3, stride), nn.ReLU(), inner.mask(),
                *_conv(inner.channels, out, 3), out.mask(),
            ]  # fmt: skip
        self.body = nn.Sequential(*body)
        self.shortcut: nn.Module = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(*_conv(channels_in, out, 1, stride), out.mask())
        self.activation = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output."""
        result: Tensor = self.activation(self.dropped(self.body(x_BCHW)) + self.shortcut(x_BCHW))
        return result


@register_choice_network("resnet", description="stages of residual blocks")
class ResNet(StageNetwork):
    """Stem, stages of residual blocks whose width doubles, head.

    Args:
        space: what may be chosen.
        channels: largest width of the first stage.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        made: choices by label; None leaves them open for `ModuleSupernet`.
    """

    def __init__(
        self,
        space: ChoiceSpace,
        *,
        channels: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        maker = ChoiceMaker(space, made)
        stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        before = channels
        for index in range(maker.stages()):
            stage, before = _stage(maker, index, channels * 2**index, before)
            stages.append(stage)
        self.assemble(stem, stages, before, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _stage(maker: ChoiceMaker, index: int, full: int, before: int) -> tuple[nn.Module, int]:
    """One stage and the channels it hands on."""
    label = f"stage{index + 1}"

    def width(factor: int) -> Width:
        return maker.width(f"{label}.width", factor * full)

    def block(number: int) -> nn.Module:
        if number > 1:
            return ResidualBlock(width(1).channels, width, 1, project=False)
        return ResidualBlock(before, width, 2 if index else 1, project=True)

    return maker.depth(f"{label}.depth", block), width(1).channels
