"""Partial channels in the plan's terms: what passes a cell beside its mixed operations.

With K groups a state has C = K c channels. Operations see the first c; the others pass by, max-pooled 2 x 2
where an edge has stride 2, times the weight of the edge, and the node's channels are interleaved:

    node = shuffle(cat(sum_e mixed_e(x[:c]), sum_e b_e bypass(x[c:]))),     b_e = sum_k w_ek,

channel i of group g becoming channel i K + g. The shuffle is a fixed permutation and everything here is
linear, so it is done once a node and not once an edge. Torch calls for the batched path; the fused path's
kernels are `darts_kernels.partial`.

Source: PC-DARTS (arXiv:1907.05737), Eq. 2 and 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["Bypass", "ImageBypass", "PixelBypass"]


class Bypass(ABC):
    """The bypass of one forward pass of a cell; a subclass knows how the states lie in memory.

    Args:
        layout: the cell, its `groups` > 1.
        mix_EK: mixing weights in the layout's order.
    """

    def __init__(self, layout: CellLayout, mix_EK: Tensor) -> None:
        self.layout = layout
        self.edge_weights = mix_EK.sum(-1)
        self.rests: list[Tensor] = []

    def add(self, state: Tensor) -> Tensor:
        """Note the bypass of the next state; returns the channels that are mixed."""
        mixed, rest = self.split(state)
        if len(self.rests) < self.layout.inputs and self.layout.stride == 2:
            rest = self.pool(rest)
        self.rests.append(rest)
        return mixed

    def join(self, mixed: Tensor) -> Tensor:
        """The next node of K c channels from the sum of its mixed operations."""
        edges, node = self.layout.edges, len(self.rests)
        rows = [e for e, (_, target) in enumerate(edges) if target == node]
        rests = [self.edge_weights[e] * self.rests[edges[e][0]] for e in rows]
        return self.interleave([mixed, torch.stack(rests).sum(0)])

    @abstractmethod
    def split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed channels and the rest."""

    @abstractmethod
    def pool(self, rest: Tensor) -> Tensor:
        """2 x 2 max pool of an input's rest."""

    @abstractmethod
    def interleave(self, parts: Sequence[Tensor]) -> Tensor:
        """Both parts together, shuffled."""


class PixelBypass(Bypass):
    """For states [C, pixels, samples], the inputs of `size`."""

    def __init__(self, layout: CellLayout, mix_EK: Tensor, size: tuple[int, int]) -> None:
        super().__init__(layout, mix_EK)
        self.size = size

    def split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed channels and the rest."""
        return state[: self.layout.channels], state[self.layout.channels :]

    def pool(self, rest: Tensor) -> Tensor:
        """2 x 2 max pool of an input's rest."""
        plane = rest.unflatten(1, self.size).permute(3, 0, 1, 2)
        pooled = F.max_pool2d(plane, 2, 2, ceil_mode=True)
        return pooled.permute(1, 2, 3, 0).flatten(1, 2)

    def interleave(self, parts: Sequence[Tensor]) -> Tensor:
        """Both parts together, shuffled."""
        joined = torch.cat(list(parts)).unflatten(0, (self.layout.groups, -1))
        return joined.transpose(0, 1).flatten(0, 1)


class ImageBypass(Bypass):
    """For states [groups of samples, samples * C, height, width]."""

    def __init__(self, layout: CellLayout, mix_EK: Tensor, samples: int) -> None:
        super().__init__(layout, mix_EK)
        self.samples = samples

    def _apart(self, state: Tensor) -> Tensor:
        return state.permute(0, 2, 3, 1).unflatten(3, (self.samples, -1))

    def split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """The mixed channels and the rest."""
        parts = self._apart(state).tensor_split([self.layout.channels], dim=-1)
        mixed, rest = (part.flatten(3).permute(0, 3, 1, 2) for part in parts)
        return mixed, rest

    def pool(self, rest: Tensor) -> Tensor:
        """2 x 2 max pool of an input's rest."""
        return F.max_pool2d(rest, 2, 2, ceil_mode=True)

    def interleave(self, parts: Sequence[Tensor]) -> Tensor:
        """Both parts together, shuffled."""
        joined = torch.cat([self._apart(part) for part in parts], dim=-1)
        joined = joined.unflatten(-1, (self.layout.groups, -1)).transpose(-1, -2)
        return joined.flatten(3).permute(0, 3, 1, 2)
