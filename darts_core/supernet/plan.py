"""The plan: how a searched cell's operations run as batched kernels, or why they do not.

A cell all of whose operations are branches with separable convolutions, pools and identities is planned in
`plan_separable`, one with dense convolutions in `plan_dense`. Operations without a form run as modules and
join the node sums of the others: in a dense cell everywhere, in a separable one where nodes are made one
after the other (a CPU; on a GPU the whole cell is one node of autograd). Any other cell stays on the module
path.
"""

from __future__ import annotations

from darts_core.supernet.branches import CellPlan
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.plan_dense import plan_dense
from darts_core.supernet.plan_separable import formless, obstacles, plan_separable

__all__ = ["plan_cell"]


def plan_cell(cell: SearchCell, input_channels: int, *, modules: bool = False) -> CellPlan:
    """The plan of a searched cell whose states have `input_channels` channels.

    Args:
        cell: searched cell on the module path.
        input_channels: of its states.
        modules: whether a separable cell may run operations without a form as modules.
    """
    if len({parameter.requires_grad for parameter in cell.parameters()}) > 1:
        # one packed tensor cannot move in parts
        return CellPlan(None, reasons=("some of its parameters are held fast, and others are not",))
    edges = cell.edges
    order = tuple(sorted(range(len(edges)), key=lambda e: (edges[e][0], edges[e][1])))
    reasons = obstacles(cell)
    if not reasons:
        return plan_separable(cell, input_channels, order)
    dense = plan_dense(cell, input_channels, order)
    if dense is not None:
        return dense
    loose = formless(cell)
    # nothing else stands in the way
    if modules and len(reasons) == len(loose):
        return plan_separable(cell, input_channels, order, loose)
    return CellPlan(None, reasons=reasons)
