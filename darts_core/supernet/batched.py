"""The plan on a CPU: a searched cell as a few large matrix products (`batched_run`, `batched_drawn`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from darts_core.supernet.batched_drawn import DrawnRun
from darts_core.supernet.batched_run import BatchedRun
from darts_core.supernet.drawn import drawn_columns
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.partial import Bypass

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["LARGEST_PLANE", "BatchedSearchCell"]

LARGEST_PLANE = 256
"""Pixels above which a banded product costs more than the convolution it replaces."""


class BatchedSearchCell(PackedCell):
    """A searched cell run by the plan with batched torch calls; made by `fuse` on a CPU."""

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its inputs and the mixing weights [E, K]."""
        layout = cast("CellLayout", self.plan.layout)
        height, width = inputs[-1].shape[-2:]
        if height * width > LARGEST_PLANE:
            return super().forward(inputs, weights_EK)
        out_height, out_width = layout.output_size(height, width)
        # mixing weights of a network in fp64 may come in fp32
        mix_EK = weights_EK.to(self.packed.dtype).index_select(0, self._order[0])
        run = self._run(layout, mix_EK)
        if self.training and run.tracking:
            self._batches.add_(1)
        batch = inputs[0].shape[0]
        states = [run.enter(index, x) for index, x in enumerate(inputs)]
        bypass = Bypass(layout, run.mix, (height, width)) if layout.groups > 1 else None
        # the channels that operations see
        mixed = [bypass.add(state) for state in states] if bypass else states
        size = [(height, width)] * layout.inputs + [(out_height, out_width)] * layout.nodes
        terms: list[list[Tensor]] = [[] for _ in range(layout.nodes)]
        for wave in layout.waves:
            for edge, term in run.wave(wave, mixed, size):
                source, target = layout.edges[edge]
                extra = run.loose(edge, mixed[source], size[source])
                terms[target - layout.inputs] += [term, *extra]
            if len(states) < layout.states:
                parts = terms[len(states) - layout.inputs]
                states.append(torch.stack(parts).sum(0) if len(parts) > 1 else parts[0])
                if bypass:
                    states[-1] = bypass.join(states[-1])
                    mixed.append(bypass.add(states[-1]))
        shape = (layout.width, out_height, out_width, batch)
        outputs = [states[state].view(shape).permute(3, 0, 1, 2) for state in self._outputs]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0].contiguous()

    def _run(self, layout: CellLayout, mix_EK: Tensor) -> BatchedRun:
        columns = drawn_columns(mix_EK) if self.sparse else None
        if columns is None or all(len(row) == layout.operations for row in columns):
            return BatchedRun(self, layout, mix_EK)
        return DrawnRun(self, layout, mix_EK, columns)
