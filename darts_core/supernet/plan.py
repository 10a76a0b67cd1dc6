"""The plan: how a searched cell's operations run as batched kernels, or why they do not.

A cell all of whose operations are branches with separable convolutions, pools and identities is planned in
`plan_separable`, one with dense convolutions in `plan_dense`. Any other stays on the module path.
"""

from __future__ import annotations

from darts_core.supernet.branches import CellPlan
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.plan_dense import plan_dense
from darts_core.supernet.plan_separable import obstacles, plan_separable

__all__ = ["plan_cell"]


def plan_cell(cell: SearchCell, input_channels: int) -> CellPlan:
    """The plan of a searched cell whose states have `input_channels` channels."""
    edges = cell.edges
    order = tuple(sorted(range(len(edges)), key=lambda e: (edges[e][0], edges[e][1])))
    reasons = obstacles(cell)
    if not reasons:
        return plan_separable(cell, input_channels, order)
    return plan_dense(cell, input_channels, order) or CellPlan(None, reasons=reasons)
