"""Cells whose mixing weights are sparse: an operation of weight zero is not evaluated.

That is the single-path form of GDAS (arXiv:1910.04465): one operation an edge runs, forward and backward.
With w the weights, m = [w != 0] and o_k the operations of an edge,

    edge(x) = sum_k m_k w_k o_k(x),      dL/dw_k = m_k <g, o_k(x)>,

so an operation that was not drawn has no part in any gradient. Which are drawn is read on the host only
where that waits for nothing, on a CPU. On a GPU the module path evaluates all of them under the mask and
the fused path skips on the device; outputs and gradients are the same everywhere.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["drawn_columns", "only_drawn"]


def only_drawn(weights: Tensor) -> Tensor:
    """`weights` in value; no gradient passes to those that are zero."""
    return weights * (weights.detach() != 0)


def drawn_columns(weights_EK: Tensor) -> list[list[int]] | None:
    """For each edge the operations whose weight is not zero; None where reading them would wait."""
    if weights_EK.device.type != "cpu":
        return None
    rows = (weights_EK.detach() != 0).tolist()
    return [[k for k, drawn in enumerate(row) if drawn] for row in rows]
