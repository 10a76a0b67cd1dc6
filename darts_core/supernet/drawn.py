"""Cells whose mixing weights are sparse: an operation of weight zero is not evaluated.

That is the single-path form of GDAS (arXiv:1910.04465): one operation an edge runs, forward and backward.
With w the weights, m = [w != 0] and o_k the operations of an edge,

    edge(x) = sum_k m_k w_k o_k(x),      dL/dw_k = m_k <g, o_k(x)>,

so an operation that was not drawn has no part in any gradient. Which are drawn is read on the host only
where that waits for nothing, on a CPU. On a GPU the module path evaluates all of them under the mask and
the fused path skips on the device; outputs and gradients are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from darts_core.supernet.cell import SearchCell

__all__ = ["drawn_columns", "only_drawn", "share_pool_statistics"]


def only_drawn(weights: Tensor) -> Tensor:
    """`weights` in value; no gradient passes to those that are zero."""
    return weights * (weights.detach() != 0)


def drawn_columns(weights_EK: Tensor) -> list[list[int]] | None:
    """For each edge the operations whose weight is not zero; None where reading them would wait."""
    if weights_EK.device.type != "cpu":
        return None
    rows = (weights_EK.detach() != 0).tolist()
    return [[k for k, drawn in enumerate(row) if drawn] for row in rows]


@torch.no_grad()
def share_pool_statistics(cell: SearchCell, drawn: Sequence[Sequence[int]]) -> None:
    """Give the norms behind the same pool of the same state the running statistics of a drawn one.

    All edges that leave a state see the same pool, so their norms have always the same statistics; the
    packed paths keep them once. Here the edges that drew the pool have updated theirs.
    """
    for source in {source for source, _ in cell.edges}:
        rows = [e for e, edge in enumerate(cell.edges) if edge[0] == source]
        for k in {k for e in rows for k in drawn[e]}:
            updated = _pool_norm(cell, next(e for e in rows if k in drawn[e]), k)
            if updated is None or not updated.track_running_stats:
                continue
            for norm in (_pool_norm(cell, e, k) for e in rows if k not in drawn[e]):
                assert norm is not None
                norm.running_mean.copy_(updated.running_mean)  # type: ignore[union-attr,arg-type]
                norm.running_var.copy_(updated.running_var)  # type: ignore[union-attr,arg-type]


def _pool_norm(cell: SearchCell, edge: int, column: int) -> nn.BatchNorm2d | None:
    """The norm that the space puts behind a pool, if the operation is one."""
    mixed: Any = cell.mixed[edge]
    op = mixed.ops[column]
    # the space wraps a pool and its norm; a convolution has more parts and own statistics
    if isinstance(op, nn.Sequential) and len(op) == 2 and isinstance(op[1], nn.BatchNorm2d):
        return op[1] if not list(op[0].parameters()) else None
    return None
