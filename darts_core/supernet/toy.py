"""The network around a toy cell: nothing in it mixes neighbouring pixels (see `darts_core.spaces.toy`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.relax import Relaxation
from darts_core.spaces import SearchSpace
from darts_core.supernet.build import CellNetwork, register_network
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.fixed_cell import FixedCell
from darts_core.supernet.search_skeleton import Skeleton, check_cells, register_search_skeleton
from darts_core.supernet.skeleton import Head

__all__ = ["ToyNetwork"]


class _ChannelStem(nn.Module):
    """One state from channel 0, one from channel 1: a 1x1 convolution and norm each."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        if in_channels < 2:
            raise ConfigError(
                f"The toy skeleton needs images of 2 channels or more, not {in_channels}."
            )
        self.parts = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, channels, 1, bias=False), nn.BatchNorm2d(channels))
            for _ in range(2)
        )

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        return [part(x_BCHW[:, i : i + 1]) for i, part in enumerate(self.parts)]


class _BothInputs(nn.Module):
    """Hands both states to the cell."""

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return list(inputs)


@register_search_skeleton("toy", description="one cell between two channels and a head")
def _toy_skeleton(
    space: SearchSpace,
    *,
    channels: int,
    layers: int,
    num_classes: int,
    in_channels: int,
    stem: str,
    relaxation: Relaxation,
) -> Skeleton:
    if layers != 1:
        raise ConfigError(f"The toy skeleton has one cell; use layers=1, not {layers}.")
    check_cells(space, inputs=2, one_output=True)
    cell = SearchCell(
        space,
        channels,
        kind=space.cell_kinds[0],
        preprocess=_BothInputs(),
        channel_fraction=relaxation.channel_fraction,
    )
    return (
        _ChannelStem(in_channels, channels),
        nn.ModuleList([cell]),
        Head(channels, num_classes, norm=True),
    )


@register_network("toy", description="one cell between two channels and a head")
class ToyNetwork(CellNetwork):
    """The plain network of a toy architecture."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        channels: int,
        layers: int,
        num_classes: int,
        in_channels: int,
        **_: Any,
    ) -> None:
        super().__init__()
        if layers != 1:
            raise ConfigError(f"The toy skeleton has one cell; use layers=1, not {layers}.")
        self.stem = _ChannelStem(in_channels, channels)
        self.cell = FixedCell(architecture.cells[0][1], channels)
        self.head = Head(channels, num_classes, norm=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        logits: Tensor = self.head(self.cell(self.stem(x_BCHW), self._drop()))
        return logits
