"""The convolutional network over series, with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from darts_core.errors import ConfigError, unknown_name
from darts_core.spaces.conv1d import FORMS, Conv1dSpace
from darts_core.supernet.choice_maker import ChoiceMaker, Width
from darts_core.supernet.choice_network import (
    ResidualPath,
    StageNetwork,
    register_choice_network,
)

__all__ = ["SeriesBlock", "SeriesNetwork"]

_STEM_KERNEL = 9


class SeriesBlock(ResidualPath):
    """A convolution over time, dense or depthwise, and a 1x1 convolution; a shortcut around both.

    Shapes: [B, before, T] -> [B, out, ceil(T / stride)].

    Args:
        maker: of the choices.
        label: the block's; its choices are `label.form`, `label.kernel` and `label.dilation`.
        before: width of the input.
        out: the stage's width.
        stride: of the convolution over time.
        first: of its stage, whose shortcut changes the width.
    """

    def __init__(
        self,
        maker: ChoiceMaker,
        label: str,
        before: Width,
        out: Width,
        *,
        stride: int,
        first: bool,
    ) -> None:
        super().__init__()
        channels = before.channels

        def over_time(form: str) -> nn.Module:
            if form not in FORMS:
                raise ConfigError(unknown_name("form", str(form), FORMS))
            groups = channels if form == "separable" else 1

            def dilated(kernel: int) -> nn.Module:
                def conv(dilation: int) -> nn.Module:
                    padding = dilation * (kernel // 2)
                    return nn.Conv1d(
                        channels, channels, kernel, stride, padding, dilation, groups, bias=False
                    )

                return maker.layer(f"{label}.dilation", conv)

            return maker.layer(f"{label}.kernel", dilated)

        self.over_time = maker.layer(f"{label}.form", over_time)
        self.norm = nn.Sequential(nn.BatchNorm1d(channels), nn.ReLU())
        # the norm turns masked zeros into its shift, so they are masked again
        self.width = before.mask()
        self.pointwise = nn.Sequential(
            nn.Conv1d(channels, out.channels, 1, bias=False),
            nn.BatchNorm1d(out.channels),
            out.mask(),
        )
        self.shortcut: nn.Module = nn.Identity()
        if first:
            self.shortcut = nn.Sequential(
                nn.Conv1d(channels, out.channels, 1, stride, bias=False),
                nn.BatchNorm1d(out.channels),
                out.mask(),
            )
        self.activation = nn.ReLU()

    def forward(self, x_BCT: Tensor) -> Tensor:
        """The block's output."""
        path = self.pointwise(self.width(self.norm(self.over_time(x_BCT))))
        result: Tensor = self.activation(self.dropped(path) + self.shortcut(x_BCT))
        return result


@register_choice_network("conv1d", description="stages of residual blocks over time")
class SeriesNetwork(StageNetwork):
    """Stem, stages of blocks over time whose width doubles, mean over time, head.

    Args:
        space: what may be chosen.
        channels: largest width of the first stage.
        num_classes: size of the output.
        in_channels: channels of the series.
        made: choices by label; None leaves them open for `ModuleSupernet`.

    Raises:
        ConfigError: the space says no strides.
    """

    def __init__(
        self,
        space: Conv1dSpace,
        *,
        channels: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(space, Conv1dSpace):
            raise ConfigError(f"The space {space.name!r} has no stages over time.")
        maker = ChoiceMaker(space, made)
        first, *strides = space.strides
        stem = nn.Sequential(
            nn.Conv1d(in_channels, channels, _STEM_KERNEL, first, _STEM_KERNEL // 2, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        before = Width(channels, nn.Identity)
        for index, stride in enumerate(strides):
            stage, before = _stage(maker, index, stride, channels * 2**index, before)
            stages.append(stage)
        self.assemble(stem, stages, before.channels, num_classes)


def _stage(
    maker: ChoiceMaker, index: int, stride: int, full: int, before: Width
) -> tuple[nn.Module, Width]:
    """One stage and the width that it hands on."""
    label = f"stage{index + 1}"
    out = maker.width(f"{label}.width", full)

    def block(number: int) -> nn.Module:
        first, name = number == 1, f"{label}.block{number}"
        source, step = (before, stride) if first else (out, 1)
        return SeriesBlock(maker, name, source, out, stride=step, first=first)

    return maker.depth(f"{label}.depth", block), out
