"""ResNet backbones built from a code: `ResNet50(code="1-1-1-2112112")` is a plain torch module.

Shapes: B batch, C channels, H W image size. A backbone has no classifier: pool its last output and put a
linear layer of your own on `out_channels`.
Source: He et al. 2016, "Deep residual learning"; the stride stands in the 3x3 convolution (v1.5).
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from darts_core.autosearch.backbones.blocks import BasicBlock, Bottleneck, Residual, resnet_stem
from darts_core.autosearch.backbones.grammar import STANDARD, blocks, named_code
from darts_core.errors import ArchitectureError, ConfigError, first_line
from darts_core.reading import check_stored

__all__ = ["Backbone", "ResNet18", "ResNet34", "ResNet50", "ResNet101"]


class Backbone(nn.Module):
    """A residual network without classifier, built from a code.

    Args:
        code: the code, a standard network's name, or a published choice such as `resnet50/4`.
        block: `BasicBlock` or `Bottleneck`.
        in_channels: channels of the images.
        outputs: "last" gives the last stage's output, "stages" the list of every stage's output.
        width: channels at the code's first `1`.
        stem: "imagenet" or "small" (for images of about 32 pixels).
        pretrained: a state-dict file saved from the same backbone, or None for random params.

    Raises:
        ArchitectureError: the code is malformed (the position is named) or the file fits another network.
    """

    def __new__(cls, code: str = "", *_: Any, **options: Any) -> Any:
        """A backbone; with a code such as `search:resnet50`, the supernet over its depths and widths."""
        if str(code).startswith("search:"):
            from darts_core.autosearch.backbones.searchable import SearchableResNet

            return SearchableResNet(code.partition(":")[2], cls.block_type, **options)
        return super().__new__(cls)

    block_type: type[Residual]

    def __init__(
        self,
        code: str,
        block: type[Residual],
        *,
        in_channels: int = 3,
        outputs: str = "last",
        width: int = 64,
        stem: str = "imagenet",
        pretrained: str | Path | None = None,
    ) -> None:
        super().__init__()
        if outputs not in ("last", "stages"):
            raise ConfigError(f"Unknown outputs {outputs!r}; use 'last' or 'stages'.")
        self.code = named_code(code)
        self.outputs = outputs
        self.stem = resnet_stem(stem, in_channels, width)
        stages: list[list[nn.Module]] = []
        self.stage_channels: list[int] = []
        channels = width
        for item in blocks(self.code, width):
            if item.stage == len(stages):
                stages.append([])
                self.stage_channels.append(0)
            stages[-1].append(block(channels, item.width, item.stride))
            channels = self.stage_channels[-1] = item.width * block.expansion
        self.stages = nn.ModuleList([nn.Sequential(*stage) for stage in stages])
        self.out_channels = channels
        self._initialise()
        if pretrained is not None:
            _load(self, Path(pretrained))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor | list[Tensor]:
        """The last stage's output [B, out_channels, H', W'], or the list of all stages' outputs."""
        x_BCHW = self.stem(x_BCHW)
        every = []
        for stage in self.stages:
            x_BCHW = stage(x_BCHW)
            every.append(x_BCHW)
        return every if self.outputs == "stages" else x_BCHW


def _load(backbone: Backbone, path: Path) -> None:
    import torch

    if not path.is_file():
        raise ConfigError(
            f"There is no file of pretrained params at {path}; name an existing file."
        )
    try:
        if zipfile.is_zipfile(path):  # one of an old torch is none, and packs nothing
            check_stored(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        backbone.load_state_dict(state)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise ArchitectureError(
            f"{path} does not fit the backbone with code {backbone.code!r} ({first_line(error)}); "
            "give a state dict saved from the same code, width and stem."
        ) from error


class ResNet18(Backbone):
    """ResNet-18 (basic blocks), or another `code` of them."""

    block_type = BasicBlock

    def __init__(self, code: str = STANDARD["resnet18"], **options: object) -> None:
        super().__init__(code, BasicBlock, **options)  # type: ignore[arg-type]


class ResNet34(Backbone):
    """ResNet-34 (basic blocks), or another `code` of them."""

    block_type = BasicBlock

    def __init__(self, code: str = STANDARD["resnet34"], **options: object) -> None:
        super().__init__(code, BasicBlock, **options)  # type: ignore[arg-type]


class ResNet50(Backbone):
    """ResNet-50 (bottlenecks), or another `code` of them; `resnet50/0`..`resnet50/10` are published."""

    block_type = Bottleneck

    def __init__(self, code: str = STANDARD["resnet50"], **options: object) -> None:
        super().__init__(code, Bottleneck, **options)  # type: ignore[arg-type]


class ResNet101(Backbone):
    """ResNet-101 (bottlenecks), or another `code` of them."""

    block_type = Bottleneck

    def __init__(self, code: str = STANDARD["resnet101"], **options: object) -> None:
        super().__init__(code, Bottleneck, **options)  # type: ignore[arg-type]
