"""How sure the weights are of what they point to: the lead of each choice over its nearest rival."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from darts_core.spaces.base import SearchSpace, Weights
from darts_core.spaces.choices import ChoiceSpace

__all__ = ["NEAR_TIE", "Decision", "decisions"]

NEAR_TIE = 0.05
"""A lead below this share of the best weight is a near-tie."""


@dataclass(frozen=True)
class Decision:
    """One choice of an architecture.

    Attributes:
        kind: the cell kind, or the label of a space of choices.
        edge: (source, target); None for a label.
        choice: the operation or option.
        confidence: 1 - the nearest rival's weight / the best one's, from 0 (a tie) to 1. The rival is the
            edge's next operation or, where a node keeps only some of its edges, the best one on an edge
            that was left out, whichever is heavier.
    """

    kind: str
    edge: tuple[int, int] | None
    choice: str | int | float | bool
    confidence: float


def decisions(space: SearchSpace, weights: Weights) -> list[Decision]:
    """Every choice that `space.discretize(weights)` makes, in its order."""
    if isinstance(space, ChoiceSpace):
        return [_option(space, label, weights) for label in space.cell_kinds]
    return [one for kind in space.cell_kinds for one in _cell(space, kind, weights)]


def _option(space: ChoiceSpace, label: str, weights: Weights) -> Decision:
    weight_K = np.asarray(weights[label], dtype=np.float64)[0]
    best = int(weight_K.argmax())
    return Decision(label, None, space.options(label)[best], _lead(weight_K, best))


def _cell(space: SearchSpace, kind: str, weights: Weights) -> list[Decision]:
    weight_EK = np.where(space.allowed(kind), np.asarray(weights[kind], np.float64), -np.inf)
    if space.keep_edges is not None and "none" in space.ops:
        weight_EK[:, space.ops.index("none")] = -np.inf
    best_E = weight_EK.max(axis=1)
    found = []
    for source, target, op in space.discretize(weights).cell(kind).edges:
        row = space.edges.index((source, target))
        lead = _lead(weight_EK[row], space.ops.index(op))
        if space.keep_edges is not None:
            rows = sorted((e for e, edge in enumerate(space.edges) if edge[1] == target),
                          key=lambda e: (-best_E[e], e))  # fmt: skip
            for left_out in rows[space.keep_edges : space.keep_edges + 1]:
                lead = min(lead, _share(best_E[row], best_E[left_out]))
        found.append(Decision(kind, (source, target), op, lead))
    return found


def _lead(weight_K: npt.NDArray[np.float64], best: int) -> float:
    others = np.delete(weight_K, best)
    return _share(weight_K[best], others.max()) if len(others) else 1.0


def _share(best: float, rival: float) -> float:
    """1 - rival / best; 1 where there is no rival (-inf), 0 where nothing weighs anything."""
    if not np.isfinite(rival):
        return 1.0
    return float(np.clip(1.0 - rival / best, 0.0, 1.0)) if best > 0 else 0.0
