"""The MobileNet-like network, with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.spaces import SPACES
from darts_core.spaces.mobilenet import MobileNetSpace
from darts_core.supernet.build import CellNetwork, register_network
from darts_core.supernet.choice_maker import ChoiceMaker
from darts_core.supernet.fixed_cell import drop_path

__all__ = ["InvertedResidual", "MobileNet"]


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where shapes agree.

    Source: MobileNetV2 (arXiv:1801.04381), section 3.3.
    """

    def __init__(
        self,
        maker: ChoiceMaker,
        label: str,
        space: MobileNetSpace,
        *,
        in_channels: int,
        full_width: int,
        out: tuple[int, Callable[[], nn.Module]],
        stride: int,
        shortcut: bool,
    ) -> None:
        super().__init__()
        hidden, hidden_width = maker.width(
            f"{label}.expansion", [e * full_width for e in space.expansions], space.expansions
        )
        channels, out_width = out

        def depthwise(kernel: int) -> nn.Module:
            return nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)

        self.expand = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
        )
        self.expand_width = hidden_width()
        self.depthwise = maker.layer(f"{label}.kernel", space.kernels, depthwise)
        self.depthwise_norm = nn.Sequential(nn.BatchNorm2d(hidden), nn.ReLU6())
        # the norm turns masked zeros into its shift, so they are masked again
        self.depthwise_width = hidden_width()
        self.project = nn.Sequential(
            nn.Conv2d(hidden, channels, 1, bias=False), nn.BatchNorm2d(channels)
        )
        self.project_width = out_width()
        self.shortcut = shortcut
        self.drop: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output."""
        hidden = self.expand_width(self.expand(x_BCHW))
        hidden = self.depthwise_width(self.depthwise_norm(self.depthwise(hidden)))
        result: Tensor = self.project_width(self.project(hidden))
        if not self.shortcut:
            return result
        return x_BCHW + (result if self.drop is None else drop_path(result, self.drop))


class MobileNet(CellNetwork):
    """Stem, stages of inverted residuals whose width doubles, head.

    Args:
        space: what may be chosen.
        channels: largest width of the first stage.
        layers: most blocks a stage; the space's depths say which number that is.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        made: choices by label; None leaves them open for `ModuleSupernet`.

    Raises:
        ConfigError: `layers` is not the space's largest depth.
    """

    def __init__(
        self,
        space: MobileNetSpace,
        *,
        channels: int,
        layers: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if layers != max(space.depths):
            raise ConfigError(
                f"The space {space.name!r} chooses depths among {list(space.depths)}; set layers="
                f"{max(space.depths)}, not {layers}."
            )
        maker = ChoiceMaker(made)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
        )
        stages: list[nn.Module] = []
        before = channels
        for index, stride in enumerate(space.strides):
            stage, before = _stage(maker, space, index, stride, channels * 2**index, before)
            stages.append(stage)
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        drop = self._drop()
        for module in self.modules():
            if isinstance(module, InvertedResidual):
                module.drop = drop
        features = self.stages(self.stem(x_BCHW))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def _stage(
    maker: ChoiceMaker, space: MobileNetSpace, index: int, stride: int, full_width: int, before: int
) -> tuple[nn.Module, int]:
    """One stage and the channels it hands on."""
    label = f"stage{index + 1}"
    widths = [max(1, round(ratio * full_width)) for ratio in space.widths]
    out = maker.width(f"{label}.width", widths, space.widths)

    def block(number: int) -> nn.Module:
        first = number == 1
        return InvertedResidual(
            maker,
            f"{label}.block{number}",
            space,
            in_channels=before if first else out[0],
            full_width=full_width,
            out=out,
            stride=stride if first else 1,
            shortcut=not first,
        )

    later = maker.depth(f"{label}.depth", space.depths, block)
    return nn.Sequential(block(1), later), out[0]


@register_network("mobilenet", description="stages of inverted residuals")
def _build_mobilenet(
    architecture: Architecture, *, channels: int, layers: int, num_classes: int, **sizes: Any
) -> nn.Module:
    space = SPACES[architecture.space]
    if not isinstance(space, MobileNetSpace):
        raise ConfigError(f"The space {space.name!r} has no MobileNet stages.")
    if sizes.get("auxiliary"):
        raise ConfigError("A MobileNet-like network has no auxiliary head; use auxiliary=false.")
    space.index(architecture)
    return MobileNet(
        space,
        channels=channels,
        layers=layers,
        num_classes=num_classes,
        in_channels=sizes["in_channels"],
        made=dict(architecture.choices),
    )
