"""`banded_run` of a sparse cell: the drawn operations one by one, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.supernet.banded_run import BandedRun, pool_matrix, tap_bands
from darts_core.supernet.packed import PackedCell

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["BandedDrawnRun"]


class BandedDrawnRun(BandedRun):
    """One forward pass of one cell whose weights are mostly zero.

    Args:
        columns: for each edge of the layout the operations to run.
    """

    def __init__(
        self,
        cell: PackedCell,
        layout: CellLayout,
        mix_EK: Tensor,
        height: int,
        width: int,
        columns: Sequence[Sequence[int]],
    ) -> None:
        super().__init__(cell, layout, mix_EK, height, width)
        self.columns = columns
        self.slot_of = {column: slot for slot, column in enumerate(layout.slots) if column >= 0}
        self.pools: dict[tuple[int, int], Tensor] = {}
        # each edge's params by themselves, again without a gradient as long as the section
        count = {"1": len(layout.first), "2": len(layout.second)}
        self.taps = {number: self.packed[f"depthwise{number}"].unbind(0) for number in count}
        self.points = {
            number: self.packed[f"pointwise{number}"].flatten(0, 1).unbind(0) if branches else ()
            for number, branches in count.items()
        }
        self.reductions = self.packed["reduction"].split(1)

    def runs(self, edge: int, column: int) -> bool:
        """Whether the operation was drawn."""
        return column in self.columns[edge]

    def wave(
        self, wave: tuple[int, int, int, int], states: list[Tensor], size: list[tuple[int, int]]
    ) -> list[tuple[int, Tensor]]:
        """(edge, its weighted sum [C, pixels, samples]) for every edge of the wave."""
        terms = []
        for edge in range(wave[2], wave[3]):
            source = self.layout.edges[edge][0]
            stride = self.layout.stride if source < self.layout.inputs else 1
            shape = (self.layout.channels, size[-1][0] * size[-1][1], states[source].shape[-1])
            parts = [
                self.mix[edge, column]
                * self._branch(edge, self.slot_of[column], states[source], size, stride).view(shape)
                for column in self.columns[edge]
                if column in self.slot_of
            ]
            if not parts:
                # nothing, or the operation of zeros: the weights stay in the graph
                parts = [self.mix.new_zeros(shape) * self.mix[edge].sum()]
            terms.append((edge, torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]))
        return terms

    def _branch(
        self, edge: int, slot: int, state: Tensor, size: list[tuple[int, int]], stride: int
    ) -> Tensor:
        """[C, out pixels * samples] or the like: the normalised output of one operation."""
        layout = self.layout
        source = layout.edges[edge][0]
        first = len(layout.first)
        if slot < first:
            return self._separable(edge, slot, state, size, stride)
        if slot < first + layout.pools:
            key = (source, slot - first)
            if key not in self.pools:
                self.pools[key] = self._pool(source, slot - first, state, size[source], stride)
            return self.pools[key]
        if stride == 1:
            return state
        y = self._halve(F.relu(state), self.reductions[edge], *size[source])[0]
        return self.norm(y, layout.rows["reduction"] + edge * layout.channels)

    def _separable(
        self, edge: int, branch: int, state: Tensor, size: list[tuple[int, int]], stride: int
    ) -> Tensor:
        layout = self.layout
        height, width = size[layout.edges[edge][0]]
        count = len(layout.first)
        y = self._convolution("1", edge, branch, state, (height, width), stride)
        y = self.norm(y, layout.rows["first"] + (edge * count + branch) * layout.channels)
        if branch < len(layout.second):
            count = len(layout.second)
            y = y.view(layout.channels, -1, state.shape[-1])
            y = self._convolution("2", edge, branch, y, size[-1], 1)
            y = self.norm(y, layout.rows["second"] + (edge * count + branch) * layout.channels)
        return y

    def _convolution(
        self, number: str, edge: int, branch: int, x: Tensor, size: tuple[int, int], stride: int
    ) -> Tensor:
        """[C, out pixels * samples]: relu, depthwise and pointwise convolution."""
        filters = self.layout.first if number == "1" else self.layout.second
        kernel, dilation = filters[branch]
        channels = self.layout.channels
        start = channels * sum(k * k for k, _ in filters[:branch])
        taps = self.taps[number][edge].narrow(0, start, channels * kernel * kernel)
        matrix = taps.view(channels, -1) @ tap_bands(*size, kernel, dilation, stride, x.dtype)
        d = torch.bmm(matrix.view(channels, -1, x.shape[1]), F.relu(x)).flatten(1)
        return self.points[number][edge * len(filters) + branch] @ d

    def _pool(
        self, source: int, index: int, state: Tensor, size: tuple[int, int], stride: int
    ) -> Tensor:
        layout = self.layout
        kernel = (*layout.max_pools, *layout.avg_pools)[index]
        if index < len(layout.max_pools):
            plane = state.view(layout.channels, *size, -1).permute(3, 0, 1, 2)
            best = F.max_pool2d(plane, kernel, stride, kernel // 2)
            out = best.permute(1, 2, 3, 0).reshape(layout.channels, -1)
        else:
            matrix = pool_matrix(*size, kernel, stride, state.dtype)
            out = torch.matmul(matrix, state).reshape(layout.channels, -1)
        if not layout.pool_norm:
            return out
        return self.norm(
            out, layout.rows["pool"] + (source * layout.pools + index) * layout.channels
        )
