"""The searched cell of plain modules: a mixed operation on every edge of the space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.ops.conv import ReluConvNorm
from darts_core.ops.simple import FactorizedReduce
from darts_core.spaces import SearchSpace
from darts_core.supernet.drawn import drawn_columns, only_drawn
from darts_core.supernet.mixed_op import MixedOp
from darts_core.supernet.skeleton import CellSpec

__all__ = ["Preprocess", "SearchCell"]


class Preprocess(nn.Module):
    """Bring the two inputs of a DARTS cell to its width and resolution."""

    def __init__(self, spec: CellSpec, *, affine: bool) -> None:
        super().__init__()
        if spec.last_reduced:
            self.older: nn.Module = FactorizedReduce(
                spec.channels_before_last, spec.channels, affine=affine
            )
        else:
            self.older = ReluConvNorm(spec.channels_before_last, spec.channels, 1, 1, affine=affine)
        self.newer = ReluConvNorm(spec.channels_last, spec.channels, 1, 1, affine=affine)

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The two first states of the cell."""
        return [self.older(inputs[0]), self.newer(inputs[1])]


class SearchCell(nn.Module):
    """A cell in which every edge of the space carries a mixed operation.

    Attributes:
        sparse: operations of weight zero are not evaluated, see `darts_core.supernet.drawn`.
    """

    sparse: bool = False

    def __init__(
        self,
        space: SearchSpace,
        channels: int,
        *,
        kind: str,
        reduces: bool = False,
        preprocess: nn.Module | None = None,
        channel_fraction: int = 1,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.preprocess = preprocess
        self._edges = space.edges
        self._outputs = space.output_states
        self._first_node, self._states = space.inputs, space.inputs + space.nodes
        # what the plan of the fused path reads
        self.channels, self.inputs, self.nodes = channels, space.inputs, space.nodes
        self.edges, self.norm_after_pool = space.edges, space.norm_after_pool
        self.mixed = nn.ModuleList(
            MixedOp(
                space.ops,
                channels,
                2 if reduces and source < space.inputs else 1,
                norm_after_pool=space.norm_after_pool,
                channel_fraction=channel_fraction,
            )
            for source, _ in self._edges
        )

    def forward(self, inputs: Sequence[Tensor], weights_EK: Tensor) -> Tensor:
        """The cell's output from its input states and the mixing weights [E, K]."""
        states = list(self.preprocess(inputs) if self.preprocess is not None else inputs)
        drawn = None
        if self.sparse:
            weights_EK, drawn = only_drawn(weights_EK), drawn_columns(weights_EK)
        for target in range(self._first_node, self._states):
            terms = [
                self.mixed[e](states[source], weights_EK[e])
                if drawn is None
                else self.mixed[e](states[source], weights_EK[e], drawn[e])
                for e, (source, node) in enumerate(self._edges)
                if node == target
            ]
            states.append(torch.stack(terms).sum(0) if len(terms) > 1 else terms[0])
        if drawn is not None and self.training:
            self._share_pool_statistics(drawn)
        outputs = [states[state] for state in self._outputs]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]

    @torch.no_grad()
    def _share_pool_statistics(self, drawn: Sequence[Sequence[int]]) -> None:
        """Give the norms behind the same pool of the same state the running statistics of a drawn one.

        All edges that leave a state see the same pool, so their norms have always the same statistics; the
        packed paths keep them once. Here the edges that drew the pool have updated theirs.
        """
        for source in {source for source, _ in self.edges}:
            rows = [e for e, edge in enumerate(self.edges) if edge[0] == source]
            for k in {k for e in rows for k in drawn[e]}:
                updated = self._pool_norm(next(e for e in rows if k in drawn[e]), k)
                if updated is None or not updated.track_running_stats:
                    continue
                for norm in (self._pool_norm(e, k) for e in rows if k not in drawn[e]):
                    assert norm is not None
                    norm.running_mean.copy_(updated.running_mean)  # type: ignore[union-attr,arg-type]
                    norm.running_var.copy_(updated.running_var)  # type: ignore[union-attr,arg-type]

    def _pool_norm(self, edge: int, column: int) -> nn.BatchNorm2d | None:
        """The norm that the space puts behind a pool, if the operation is one."""
        mixed: Any = self.mixed[edge]
        op = mixed.ops[column]
        # the space wraps a pool and its norm; a convolution has more parts and own statistics
        if isinstance(op, nn.Sequential) and len(op) == 2 and isinstance(op[1], nn.BatchNorm2d):
            return op[1] if not list(op[0].parameters()) else None
        return None
