"""Partial channel connections with edge normalisation (PC-DARTS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from darts_core.relax.base import Relaxation
from darts_core.settings import Bounds, bounded

if TYPE_CHECKING:
    from darts_core.spaces import SearchSpace

__all__ = ["PartialChannels"]


class PartialChannels(Relaxation):
    """Softmax weights on 1/K of the channels, times a softmax over the edges that enter a node.

    Source: PC-DARTS (arXiv:1907.05737), Eq. 2 (partial channels), Eq. 3 and 4 (edge normalisation);
    K = 4 on CIFAR-10, 2 on ImageNet.

    Args:
        channel_fraction: K, at least 1; `search.channels` must be its multiple.
        edge_normalisation: learn a weight for each edge.

    Raises:
        ConfigError: `channel_fraction` is below 1.
    """

    @bounded(channel_fraction=Bounds(low=1, high=4096))
    def __init__(self, channel_fraction: int = 4, *, edge_normalisation: bool = True) -> None:
        self.channel_fraction = channel_fraction
        self.edge_normalisation = edge_normalisation

    def weights(
        self, alpha_EK: Tensor, progress: Tensor | float, generator: torch.Generator | None
    ) -> Tensor:
        """The softmax over operations; `edge_scale` multiplies it."""
        return torch.softmax(alpha_EK, dim=-1)

    def extra_alphas(self, space: SearchSpace) -> dict[str, tuple[int, ...]]:
        """One logit an edge for every kind of cell: `edge_<kind>`."""
        if not self.edge_normalisation:
            return {}
        return {f"edge_{kind}": (len(space.edges),) for kind in space.cell_kinds}

    def edge_scale(
        self, kind: str, extras: Mapping[str, Tensor], space: SearchSpace
    ) -> Tensor | None:
        """The softmax of the edge logits over the edges of each node."""
        if not self.edge_normalisation:
            return None
        beta_E = extras[f"edge_{kind}"]
        # edges are listed node by node, so each node's edges are a slice
        sizes = list(range(space.inputs, space.inputs + space.nodes))
        return torch.cat([torch.softmax(part, dim=0) for part in beta_E.split(sizes)])
