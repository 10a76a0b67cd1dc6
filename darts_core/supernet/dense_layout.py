"""The layout of a cell with dense convolutions: what is batched, and where it lies in the packed tensors.

Parameters and statistics are packed source by source: for each kernel size the filters
[edges, C, C, k, k] of all edges of the source, so that a convolution reads its weight where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["DenseLayout"]


@dataclass(frozen=True)
class DenseLayout:
    """A cell of dense convolutions, pools and identities; other columns are `loose`.

    Attributes:
        inputs: states given from outside.
        nodes: states computed here.
        edges: (source, target) sorted by source, then target.
        channels: channels that the operations see; those of every state, but for `groups`.
        stride: stride of the edges that leave an input state.
        filters: (kernel, dilation) of the dense convolutions.
        max_pools: kernel sizes.
        avg_pools: kernel sizes.
        pool_norm: whether a batch norm without affine part follows the pools.
        skip: whether the last slot is an identity (on edges of stride 1).
        operations: how many columns the mixing weights have.
        slots: the column of each slot: filters, max pools, average pools, skip.
        loose: columns that run as modules.
        groups: states have `groups` times the channels; those beyond the first pass by (`partial`).
    """

    inputs: int
    nodes: int
    edges: tuple[tuple[int, int], ...]
    channels: int
    stride: int
    filters: tuple[tuple[int, int], ...]
    max_pools: tuple[int, ...]
    avg_pools: tuple[int, ...]
    pool_norm: bool
    skip: bool
    operations: int
    slots: tuple[int, ...]
    loose: tuple[int, ...]
    groups: int = 1

    @property
    def width(self) -> int:
        """Channels of every state."""
        return self.channels * self.groups

    @property
    def states(self) -> int:
        """Inputs and nodes."""
        return self.inputs + self.nodes

    @property
    def pools(self) -> int:
        """How many pools a state has."""
        return len(self.max_pools) + len(self.avg_pools)

    def leaving(self, source: int) -> tuple[int, int]:
        """(first, end) of the edges that leave a state."""
        rows = [e for e, edge in enumerate(self.edges) if edge[0] == source]
        return (rows[0], rows[-1] + 1) if rows else (0, 0)

    def stride_of(self, source: int) -> int:
        """Stride of the edges that leave a state."""
        return self.stride if source < self.inputs else 1

    def skips(self, source: int) -> bool:
        """Whether the edges of a state pass it on as it is."""
        return self.skip and self.stride_of(source) == 1

    def loose_columns(self, source: int) -> tuple[int, ...]:
        """Columns that run as modules on the edges of a state; a strided identity is a reduction."""
        reduced = self.skip and not self.skips(source)
        return (*self.loose, self.slots[-1]) if reduced else self.loose

    @cached_property
    def blocks(self) -> tuple[tuple[int, int, int, int], ...]:
        """(source, filter, start, count) of each convolution's weight in the packed parameters."""
        found, start = [], 0
        for source in range(self.states - 1):
            edge0, edge1 = self.leaving(source)
            for j, (kernel, _) in enumerate(self.filters):
                count = (edge1 - edge0) * (self.channels * kernel) ** 2
                found.append((source, j, start, count))
                start += count
        return tuple(found)

    @property
    def params(self) -> int:
        """Length of the packed parameters."""
        return sum(count for _, _, _, count in self.blocks)

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """(first, end) statistics rows of each source: filters x edges x C, then normalised pools x C."""
        found, start = [], 0
        for source in range(self.states - 1):
            edge0, edge1 = self.leaving(source)
            shared = self.pools if self.pool_norm and edge1 > edge0 else 0
            count = ((edge1 - edge0) * len(self.filters) + shared) * self.channels
            found.append((start, start + count))
            start += count
        return tuple(found)

    @property
    def rows(self) -> dict[str, int]:
        """Number of statistics rows, under "end"."""
        return {"end": self.spans[-1][1]}

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the nodes for input states of the given size."""
        return -(-height // self.stride), -(-width // self.stride)
