"""The fused path: a searched cell on batched Triton kernels, one node of autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from darts_core.supernet.packed import PackedCell

if TYPE_CHECKING:
    from darts_kernels.layout import CellLayout

__all__ = ["FusedSearchCell"]


class _CellFunction(torch.autograd.Function):
    """The cell as one node of autograd; its backward is made of raw kernels and cannot be derived again."""

    @staticmethod
    def forward(
        ctx: Any, run: Any, order: Any, weights_EK: Tensor, packed: Tensor, *inputs: Tensor
    ) -> Tensor:
        from darts_kernels._common import on_device_of
        from darts_kernels.cell import cell_forward

        mix_EK = weights_EK.float().index_select(0, order[0])
        with on_device_of(packed):
            nodes, saved = cell_forward(run, list(inputs), mix_EK, packed)
        ctx.run, ctx.order, ctx.count = run, order, len(inputs)
        ctx.weights_dtype = weights_EK.dtype
        ctx.save_for_backward(mix_EK, packed, *inputs, *saved.tensors())
        return nodes

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nodes: Tensor) -> tuple[Any, ...]:
        from darts_kernels.cell import cell_backward
        from darts_kernels.cell_run import Saved

        mix_EK, packed, *rest = ctx.saved_tensors
        inputs, saved = rest[: ctx.count], Saved(*rest[ctx.count :])
        grads, grad_mix, grad_packed = cell_backward(
            ctx.run,
            inputs,
            mix_EK,
            packed,
            saved,
            grad_nodes,
            input_grads=list(ctx.needs_input_grad[4:]),
        )
        grad_weights = grad_mix.index_select(0, ctx.order[1]).to(ctx.weights_dtype)
        return None, None, grad_weights, grad_packed, *grads


class FusedSearchCell(PackedCell):
    """A searched cell whose branches run as batched kernels; made by `fuse` on a GPU."""

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its inputs and the mixing weights [E, K]."""
        from darts_kernels._common import PRECISIONS
        from darts_kernels.cell_run import CellRun

        layout = cast("CellLayout", self.plan.layout)
        tracking = self._probe is None or self._probe.track_running_stats
        update = self.training and tracking
        precision = PRECISIONS[self.precision]
        run = CellRun(
            layout,
            precision,
            self._mean,
            self._var,
            momentum=0.1 if update else 0.0,
            train=self.training or not tracking,
            sparse=self.sparse,
            keep=torch.is_grad_enabled() and self.packed.requires_grad,
        )
        if update:
            self._batches.add_(1)
        states = [x.to(precision.storage).contiguous() for x in inputs]
        nodes: Tensor = _CellFunction.apply(run, self._order, weights_EK, self.packed, *states)
        if len(self._outputs) < layout.nodes:
            first = (self._outputs[0] - layout.inputs) * layout.width
            nodes = nodes[:, first : first + len(self._outputs) * layout.width]
        return nodes.float() if self.cast_output else nodes
