"""What a fused cell is, as numbers: edges, branches, slots; and where its tensors lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import torch
from torch import Tensor

from darts_kernels._common import filter_codes, pool_code

__all__ = ["CellLayout", "CellTables", "Section", "cell_tables"]


@dataclass(frozen=True)
class Section:
    """A block of the packed parameters: `shape` values from `start` on."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values the section holds."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    def of(self, flat: Tensor) -> Tensor:
        """The section inside a packed vector."""
        return flat[self.start : self.start + self.size]


@dataclass(frozen=True)
class CellLayout:
    """A cell whose edges all mix the same operations, each made of known branches.

    Attributes:
        inputs: states given from outside.
        nodes: states computed here.
        edges: (source, target) sorted by source, then target.
        channels: channels that the operations see; those of every state, but for `groups`.
        stride: stride of the edges that leave an input state.
        first: (kernel, dilation) of the depthwise filters; those with a second stage come first.
        second: (kernel, 1) of the second stages, for the first `len(second)` filters.
        max_pools: kernel sizes.
        avg_pools: kernel sizes.
        pool_norm: whether a batch norm without affine part follows the pools.
        skip: whether the last slot is an identity.
        reduction: whether that identity is a factorised reduction on edges of stride 2.
        operations: how many columns the mixing weights have.
        slots: the column of each slot: filters, max pools, average pools, skip (-1: no such operation).
        input_channels: channels of the tensors that preprocessing reads; empty: inputs are states.
        input_reduces: which of them are halved on the way.
        groups: states have `groups` times the channels; those beyond the first pass by (`partial`).
    """

    inputs: int
    nodes: int
    edges: tuple[tuple[int, int], ...]
    channels: int
    stride: int
    first: tuple[tuple[int, int], ...]
    second: tuple[tuple[int, int], ...]
    max_pools: tuple[int, ...]
    avg_pools: tuple[int, ...]
    pool_norm: bool
    skip: bool
    reduction: bool
    operations: int
    slots: tuple[int, ...]
    input_channels: tuple[int, ...] = ()
    input_reduces: tuple[bool, ...] = ()
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

    @cached_property
    def waves(self) -> tuple[tuple[int, int, int, int], ...]:
        """(first source, end source, first edge, end edge) of each wave.

        All inputs leave in the first wave, then one node after the other: a node is complete as soon as
        its predecessors' waves have run.
        """
        starts = [0, *range(self.inputs, self.states)]
        waves = []
        for begin, end in pairwise(starts):
            rows = [e for e, (source, _) in enumerate(self.edges) if begin <= source < end]
            waves.append((begin, end, rows[0] if rows else 0, rows[-1] + 1 if rows else 0))
        return tuple(waves)

    @property
    def input_edges(self) -> int:
        """Edges that leave an input state; they come first."""
        return sum(source < self.inputs for source, _ in self.edges)

    @property
    def reduced_edges(self) -> int:
        """Edges whose identity is a factorised reduction."""
        return self.input_edges if self.reduction else 0

    @cached_property
    def sections(self) -> dict[str, Section]:
        """The packed parameters: depthwise and pointwise of both stages, reductions, preprocessing."""
        edges, channels = len(self.edges), self.channels
        shapes: dict[str, tuple[int, ...]] = {
            "depthwise1": (edges, channels * filter_codes(self.first)[2]),
            "pointwise1": (edges, len(self.first), channels, channels),
            "depthwise2": (edges, channels * filter_codes(self.second)[2]),
            "pointwise2": (edges, len(self.second), channels, channels),
            "reduction": (self.reduced_edges, channels, channels),
        }
        for index, width in enumerate(self.input_channels):
            shapes[f"input{index}"] = (1, self.width, width)
        sections, start = {}, 0
        for name, shape in shapes.items():
            sections[name] = Section(start, shape)
            start += sections[name].size
        return sections

    @property
    def params(self) -> int:
        """Length of the packed parameters."""
        return sum(section.size for section in self.sections.values())

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where the statistics of each kind of branch start; "end" is their number."""
        edges, channels = len(self.edges), self.channels
        counts = {
            "first": edges * len(self.first) * channels,
            "second": edges * len(self.second) * channels,
            "pool": (self.states - 1) * self.pools * channels,
            "reduction": self.reduced_edges * channels,
            "input": len(self.input_channels) * self.width,
        }
        rows, start = {}, 0
        for name, count in counts.items():
            rows[name] = start
            start += count
        rows["end"] = start
        return rows

    @property
    def code1(self) -> tuple[int, int, int, int]:
        """Codes of the first-stage filters, see `filter_codes`."""
        return filter_codes(self.first)

    @property
    def code2(self) -> tuple[int, int, int, int]:
        """Codes of the second-stage filters."""
        return filter_codes(self.second)

    @property
    def code_pools(self) -> int:
        """Pool sizes, max pools first."""
        return pool_code((*self.max_pools, *self.avg_pools))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the nodes for input states of the given size."""
        return -(-height // self.stride), -(-width // self.stride)


@dataclass(frozen=True)
class CellTables:
    """Device tables of a layout for one batch shape.

    Attributes:
        places: [states, 2] int64: where a state starts in the state buffer, and its step from sample to
            sample. Nodes lie interleaved, as channels of the concatenated output.
        source: [E] source of each edge.
        target: [E] target of each edge.
        first_edge: [states + 1] first edge of each source.
        entering: [nodes, 1 + degree] number and list of the edges that enter a node.
        slot_ops: [slots] column of the mixing weights.
        slot_index: columns of the slots that are operations, as an index.
        one: [0, 1]: the source and edge tables of a tensor that stands alone.
        degree: edges that enter a node, at most.
        aligned: whether all of `places` are multiples of 16, so that 128-bit accesses fit.
    """

    places: Tensor
    source: Tensor
    target: Tensor
    first_edge: Tensor
    entering: Tensor
    slot_ops: Tensor
    slot_index: Tensor
    one: Tensor
    degree: int
    aligned: bool


# A backward pass reads them, which it could not if they were made in inference mode. None is ever dropped: a
# recorded step reads them by their addresses and never asks for them again. They take a few KB a shape.
@cache
@torch.inference_mode(False)
def cell_tables(
    layout: CellLayout, batch: int, height: int, width: int, device: torch.device
) -> CellTables:
    """The tables for input states of `height` x `width`; cached, so that a graph's pointers stay valid."""
    out_height, out_width = layout.output_size(height, width)
    state = layout.channels * height * width
    node = layout.channels * out_height * out_width
    start = layout.inputs * batch * state
    places = [(i * batch * state, state) for i in range(layout.inputs)]
    places += [(start + i * node, layout.nodes * node) for i in range(layout.nodes)]
    firsts = [
        sum(source < state_ for source, _ in layout.edges) for state_ in range(layout.states + 1)
    ]
    entering = [
        [e for e, (_, target) in enumerate(layout.edges) if target == layout.inputs + node_]
        for node_ in range(layout.nodes)
    ]
    degree = max(len(rows) for rows in entering)

    def table(values: object, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return CellTables(
        places=table(places, torch.int64),
        source=table([source for source, _ in layout.edges]),
        target=table([target for _, target in layout.edges]),
        first_edge=table(firsts),
        entering=table([[len(rows), *rows, *[0] * (degree - len(rows))] for rows in entering]),
        slot_ops=table([max(0, column) for column in layout.slots]),
        slot_index=table([column for column in layout.slots if column >= 0], torch.int64),
        one=table([0, 1]),
        degree=degree,
        aligned=all(number % 16 == 0 for place in places for number in place),
    )
