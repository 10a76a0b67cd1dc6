"""The MobileNet-like network, with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.spaces.mobilenet import MobileNetSpace
from darts_core.supernet.choice_maker import ChoiceMaker, Width
from darts_core.supernet.choice_network import (
    ResidualPath,
    StageNetwork,
    register_choice_network,
)

__all__ = ["InvertedResidual", "MobileNet"]


class InvertedResidual(ResidualPath):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where shapes agree.

    Source: MobileNetV2 (arXiv:1801.04381), section 3.3.
    """

    def __init__(
        self,
        maker: ChoiceMaker,
        label: str,
        *,
        in_channels: int,
        full_width: int,
        out: Width,
        stride: int,
        shortcut: bool,
    ) -> None:
        super().__init__()
        hidden_width = maker.width(f"{label}.expansion", full_width)
        hidden = hidden_width.channels

        def depthwise(kernel: int) -> nn.Module:
            return nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)

        self.expand = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
        )
        self.expand_width = hidden_width.mask()
        self.depthwise = maker.layer(f"{label}.kernel", depthwise)
        self.depthwise_norm = nn.Sequential(nn.BatchNorm2d(hidden), nn.ReLU6())
        # the norm turns masked zeros into its shift, so they are masked again
        self.depthwise_width = hidden_width.mask()
        self.project = nn.Sequential(
            nn.Conv2d(hidden, out.channels, 1, bias=False), nn.BatchNorm2d(out.channels)
        )
        self.project_width = out.mask()
        self.shortcut = shortcut

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output."""
        hidden = self.expand_width(self.expand(x_BCHW))
        hidden = self.depthwise_width(self.depthwise_norm(self.depthwise(hidden)))
        result: Tensor = self.project_width(self.project(hidden))
        return x_BCHW + self.dropped(result) if self.shortcut else result


@register_choice_network("mobilenet", description="stages of inverted residuals")
class MobileNet(StageNetwork):
    """Stem, stages of inverted residuals whose width doubles, head.

    Args:
        space: what may be chosen.
        channels: largest width of the first stage.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        made: choices by label; None leaves them open for `ModuleSupernet`.

    Raises:
        ConfigError: the space says no strides.
    """

    def __init__(
        self,
        space: MobileNetSpace,
        *,
        channels: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, MobileNetSpace):
            raise ConfigError(f"The space {space.name!r} has no MobileNet stages.")
        maker = ChoiceMaker(space, made)
        stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )
        stages: list[nn.Module] = []
        before = channels
        for index, stride in enumerate(space.strides):
            stage, before = _stage(maker, index, stride, channels * 2**index, before)
            stages.append(stage)
        self.assemble(stem, stages, before, num_classes)


def _stage(
    maker: ChoiceMaker, index: int, stride: int, full_width: int, before: int
) -> tuple[nn.Module, int]:
    """One stage and the channels it hands on."""
    label = f"stage{index + 1}"
    out = maker.width(f"{label}.width", full_width)

    def block(number: int) -> nn.Module:
        first = number == 1
        return InvertedResidual(
            maker,
            f"{label}.block{number}",
            in_channels=before if first else out.channels,
            full_width=full_width,
            out=out,
            stride=stride if first else 1,
            shortcut=not first,
        )

    return maker.depth(f"{label}.depth", block), out.channels
