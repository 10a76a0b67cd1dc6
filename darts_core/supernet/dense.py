"""Searched cells with dense convolutions (NAS-Bench-201), batched over the edges that leave a state.

For each state in turn: relu once, one convolution per kernel size for all edges that leave it (filters
concatenated along the output channels), each pool once; then norms and the weighted sum of what each edge
adds to its node. Operations that the plan does not know run as modules and join the node by the generic
weighted sum. Tensors are channels-last, so that the convolution's output is a matrix [pixels, edges * C].

On a GPU norm and sum are the kernels of `darts_kernels.dense`. On a CPU everything is ordinary torch: any
floating dtype, any number of derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.supernet.drawn import drawn_columns, only_drawn
from darts_core.supernet.mixed_op import lean_sum
from darts_core.supernet.packed import PackedCell

if TYPE_CHECKING:
    from darts_core.supernet.cell import SearchCell
    from darts_core.supernet.dense_layout import DenseLayout

__all__ = ["BatchedDenseCell", "FusedDenseCell"]


class BatchedDenseCell(PackedCell):
    """A searched cell with dense convolutions as batched torch calls; made by `fuse` on a CPU."""

    _slots: Tensor
    _looks = True  # reads on the host which operations are drawn

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its inputs and the mixing weights [E, K]."""
        layout = cast("DenseLayout", self.plan.layout)
        if self.sparse:
            columns = drawn_columns(weights_EK) if self._looks else None
            if columns is not None and any(len(row) < layout.operations for row in columns):
                # on a CPU the drawn operations alone, one by one
                return super().forward(inputs, weights_EK)
            # on a GPU reading the draw would wait: kernels look for themselves, modules are all evaluated;
            # gradients reach the drawn ones
            weights_EK = only_drawn(weights_EK)
        if self.training and self._tracking:
            self._batches.add_(1)
        given = [x.to(self.packed.dtype) for x in inputs]
        given = list(self.preprocess(given) if self.preprocess is not None else given)
        states = [self._stored(x) for x in given]
        # the channels that operations see
        mixed = [self._mixed(state) for state in states]
        # mixing weights of a network in fp64 may come in fp32
        mix_EK = weights_EK.to(self.packed.dtype).index_select(0, self._order[0])
        mix_ES = mix_EK.index_select(1, self._slots)
        blocks = self.packed.split([count for _, _, _, count in layout.blocks])
        nodes: list[Tensor | None] = [None] * layout.nodes
        loose: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(layout.nodes)]
        for source in range(layout.states - 1):
            edge0, edge1 = layout.leaving(source)
            targets = [layout.edges[e][1] - layout.inputs for e in range(edge0, edge1)]
            if targets:
                count = len(layout.filters)
                weights = blocks[count * source : count * (source + 1)]
                sums = [nodes[target] for target in targets]
                outs = self._leave(source, mixed[source], weights, mix_ES[edge0:edge1], sums)
                for target, out in zip(targets, outs, strict=True):
                    nodes[target] = out
                for e, target in enumerate(targets, edge0):
                    loose[target] += self._loose(source, e, mixed[source], mix_EK[e])
            if len(states) < layout.states and source >= layout.inputs - 1:
                target = len(states) - layout.inputs
                node = lean_sum(loose[target], nodes[target])
                states.append(self._joined(node, states, mix_EK) if layout.groups > 1 else node)
                mixed.append(self._mixed(states[-1]))
        outputs = [states[state] for state in self._outputs]
        joined = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
        return joined.to(self.packed.dtype)

    def restore(self) -> SearchCell:
        """Become an ordinary `SearchCell` again, with the present values."""
        del self.__dict__["_slots"]
        return super().restore()

    def _link(self) -> None:
        super()._link()
        # an index on the device: one from the host would make a captured step wait
        slots = cast("DenseLayout", self.plan.layout).slots
        self.__dict__["_slots"] = torch.tensor(slots, device=self.packed.device)

    @property
    def _tracking(self) -> bool:
        return self._probe is None or bool(self._probe.track_running_stats)

    def _stored(self, x_BCHW: Tensor) -> Tensor:
        """A state as the cell keeps it."""
        return x_BCHW.contiguous(memory_format=torch.channels_last)

    def _mixed(self, state: Tensor) -> Tensor:
        """The channels of a state that operations see."""
        layout = cast("DenseLayout", self.plan.layout)
        if layout.groups == 1:
            return state
        return state[:, : layout.channels].contiguous(memory_format=torch.channels_last)

    def _joined(self, mixed: Tensor, states: Sequence[Tensor], mix_EK: Tensor) -> Tensor:
        """The next node: its mixed channels, and what passes the edges that enter it."""
        from darts_kernels.join import join_reference

        layout = cast("DenseLayout", self.plan.layout)
        rows = [e for e, (_, target) in enumerate(layout.edges) if target == len(states)]
        sources = [layout.edges[e][0] for e in rows]
        # rows one by one: an index from the host would make a captured step wait
        weights_E = torch.stack([mix_EK[e].sum() for e in rows])
        node = join_reference(
            mixed,
            [states[source] for source in sources],
            [layout.stride_of(source) for source in sources],
            weights_E.to(mixed.dtype),
            layout.groups,
        )
        return self._stored(node)

    def _loose(
        self, source: int, edge: int, state: Tensor, mix_K: Tensor
    ) -> list[tuple[Tensor, Tensor]]:
        """(weight, output) of the operations of an edge that run as modules."""
        layout = cast("DenseLayout", self.plan.layout)
        columns = layout.loose_columns(source)
        if not columns:
            return []
        mixed = self.mixed[self.plan.order[edge]]
        low = state.dtype == torch.bfloat16
        with torch.autocast(state.device.type, dtype=torch.bfloat16, enabled=low):
            outs = [mixed.ops[k](state).to(state.dtype) for k in columns]  # type: ignore[union-attr,operator,index]
        return [(mix_K[k], out) for k, out in zip(columns, outs, strict=True)]

    def _weights(self, blocks: Sequence[Tensor]) -> list[Tensor]:
        """The filters [edges * C, C, k, k] of each kernel size of one source."""
        layout = cast("DenseLayout", self.plan.layout)
        return [
            block.view(-1, layout.channels, kernel, kernel)
            for block, (kernel, _) in zip(blocks, layout.filters, strict=True)
        ]

    def _pools(self, source: int, state: Tensor) -> list[Tensor]:
        layout = cast("DenseLayout", self.plan.layout)
        stride = layout.stride_of(source)
        pools = [F.max_pool2d(state, k, stride, k // 2) for k in layout.max_pools]
        return pools + [
            F.avg_pool2d(state, k, stride, k // 2, count_include_pad=False)
            for k in layout.avg_pools
        ]

    def _leave(
        self,
        source: int,
        state: Tensor,
        blocks: Sequence[Tensor],
        mix_ES: Tensor,
        sums: Sequence[Tensor | None],
    ) -> list[Tensor]:
        """`sums` (the nodes so far) plus what the edges of a source add to them."""
        layout = cast("DenseLayout", self.plan.layout)
        channels, row = layout.channels, layout.spans[source][0]
        z, stride = F.relu(state), layout.stride_of(source)
        total: Tensor | None = None
        slot = 0
        for weight, (kernel, dilation) in zip(self._weights(blocks), layout.filters, strict=True):
            y = F.conv2d(z, weight, None, stride, kernel // 2 * dilation, dilation)
            # the norm's own factor is the mixing weight: normalised and weighted in one pass
            y = self._norm(y, row, mix_ES[:, slot].repeat_interleave(channels))
            total = y if total is None else total.add_(y)
            row, slot = row + y.shape[1], slot + 1
        assert total is not None
        shared = self._pools(source, state)
        if layout.pool_norm:
            shared = [self._norm(x, row + p * channels, None) for p, x in enumerate(shared)]
        if layout.skips(source):
            shared.append(state)
        outs = []
        for e, out in enumerate(total.split(channels, dim=1)):
            for s, x in enumerate(shared, slot):
                out = torch.addcmul(out, x, mix_ES[e, s])
            before = sums[e]
            outs.append(out if before is None else out + before)
        return outs

    def _norm(self, y: Tensor, row: int, scale: Tensor | None) -> Tensor:
        """`y` normalised, its channels being statistics rows from `row` on, times `scale` per channel."""
        train = self.training or not self._tracking
        use = self._tracking or not train
        span = slice(row, row + y.shape[1])
        return F.batch_norm(
            y,
            self._mean[span] if use else None,
            self._var[span] if use else None,
            weight=scale,
            training=train,
            momentum=0.1,
        )


class FusedDenseCell(BatchedDenseCell):
    """A searched cell with dense convolutions on cuDNN and Triton; made by `fuse` on a GPU.

    Sparse weights (GDAS): all of it is Triton, and operations that are not drawn are skipped on the device.
    """

    _looks = False

    def _stored(self, x_BCHW: Tensor) -> Tensor:
        from darts_kernels._common import PRECISIONS

        storage = PRECISIONS[self.precision].storage
        return x_BCHW.to(storage).contiguous(memory_format=torch.channels_last)

    def _leave(
        self,
        source: int,
        state: Tensor,
        blocks: Sequence[Tensor],
        mix_ES: Tensor,
        sums: Sequence[Tensor | None],
    ) -> list[Tensor]:
        from darts_kernels.source import source as run_source
        from darts_kernels.source_run import SourceRun

        layout = cast("DenseLayout", self.plan.layout)
        begin, end = layout.spans[source]
        run = SourceRun(
            self._mean[begin:end],
            self._var[begin:end],
            dilations=tuple(dilation for _, dilation in layout.filters),
            stride=layout.stride_of(source),
            max_pools=layout.max_pools,
            avg_pools=layout.avg_pools,
            pool_norm=layout.pool_norm,
            skip=layout.skips(source),
            tf32=self.precision == "tf32",
            momentum=0.1 if self.training and self._tracking else 0.0,
            train=self.training or not self._tracking,
            sparse=self.sparse,
        )
        return run_source(run, mix_ES[:, : run.slots], state, self._weights(blocks), sums)
