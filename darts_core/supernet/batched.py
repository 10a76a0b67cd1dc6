"""The plan on a CPU: a searched cell in few and fast calls (`batched_run`, small planes `banded_run`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from darts_core.supernet.banded_drawn import BandedDrawnRun
from darts_core.supernet.banded_run import BandedRun
from darts_core.supernet.batched_run import BatchedRun
from darts_core.supernet.drawn import drawn_columns, only_drawn
from darts_core.supernet.packed import PackedCell

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["LARGEST_BAND", "BatchedSearchCell"]

LARGEST_BAND = 2_500_000
"""Products of one banded convolution (pixels in * pixels out * samples * channels) up to which it pays."""


class BatchedSearchCell(PackedCell):
    """A searched cell run by the plan with batched torch calls; made by `fuse` on a CPU.

    Which of the two forms runs follows from the shapes alone.
    """

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its inputs and the mixing weights [E, K]."""
        # 16-bit products are no faster here, and norms would lose their precision
        with torch.autocast("cpu", enabled=False):
            return self._forward([x.to(self.packed.dtype) for x in inputs], weights_EK)

    def _forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        layout = cast("CellLayout", self.plan.layout)
        run = self._run(layout, inputs, weights_EK)
        if self.training and run.tracking:
            self._batches.add_(1)
        states = [run.enter(index, x) for index, x in enumerate(inputs)]
        bypass = run.bypass() if layout.groups > 1 else None
        # the channels that operations see
        mixed = [bypass.add(state) for state in states] if bypass else states
        nodes: list[Tensor | None] = [None] * layout.states
        for number, (_, _, edge0, edge1) in enumerate(layout.waves):
            for node, part in run.leave(number, mixed).items():
                nodes[node] = _sum(nodes[node], part)
            for edge in range(edge0, edge1):
                source, node = layout.edges[edge]
                for part in run.loose(edge, mixed[source]):
                    nodes[node] = _sum(nodes[node], part)
            if len(states) < layout.states:
                made = nodes[len(states)]
                state = run.empty(mixed) if made is None else made
                states.append(bypass.join(state) if bypass else state)
                if bypass:
                    mixed.append(bypass.add(states[-1]))
        return run.outside([states[state] for state in self._outputs])

    def _run(
        self, layout: CellLayout, inputs: Sequence[Tensor], weights_EK: Tensor
    ) -> BatchedRun | BandedRun:
        # mixing weights of a network in fp64 may come in fp32
        mix_EK = weights_EK.to(self.packed.dtype).index_select(0, self._order[0])
        drawn = drawn_columns(mix_EK) if self.sparse else None
        mix_EK = only_drawn(mix_EK) if self.sparse else mix_EK
        batch, _, height, width = inputs[-1].shape
        inner_height, inner_width = layout.output_size(height, width)
        band = height * width * inner_height * inner_width
        if band * batch * layout.channels > LARGEST_BAND:
            return BatchedRun(self, layout, mix_EK, batch, drawn)
        if drawn is None or all(len(row) == layout.operations for row in drawn):
            return BandedRun(self, layout, mix_EK, height, width)
        return BandedDrawnRun(self, layout, mix_EK, height, width, drawn)


def _sum(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part
