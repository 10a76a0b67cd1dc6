"""Architectures one choice away from another, and what each change gives up of the weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from darts_core.architecture import Architecture, CellChoice, Edge
from darts_core.spaces.base import SearchSpace, Weights
from darts_core.spaces.choices import ChoiceSpace

__all__ = ["changes"]

_LEAST = 1e-12


def changes(
    space: SearchSpace, architecture: Architecture, weights: Weights
) -> Iterator[tuple[Architecture, float]]:
    """(changed architecture, loss): another option, operation or, where a node keeps some edges, edge.

    The loss is the log of the weight that is given up less that of the weight taken instead; losses of
    changes at different places add up.

    Args:
        space: of the architecture.
        architecture: the one to be changed.
        weights: mixing weights [E, K] by cell kind, [1, K] by label.
    """
    if isinstance(space, ChoiceSpace):
        yield from _options(space, architecture, weights)
        return
    for kind, cell in architecture.cells:
        log_EK = _log(np.where(space.allowed(kind), np.asarray(weights[kind], np.float64), -1.0))
        if space.keep_edges is not None and "none" in space.ops:
            log_EK[:, space.ops.index("none")] = -np.inf
        for index, edge in enumerate(cell.edges):
            for changed, loss in _edges(space, cell, edge, log_EK):
                edges = [*cell.edges[:index], changed, *cell.edges[index + 1 :]]
                edges.sort(key=lambda e: (e[1], e[0]))
                other = CellChoice(tuple(edges), cell.concat)
                cells = tuple((k, other if k == kind else c) for k, c in architecture.cells)
                yield Architecture(architecture.space, cells), loss


def _log(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The logarithm; -inf for what is not allowed (below 0)."""
    return np.where(weights < 0, -np.inf, np.log(np.maximum(weights, _LEAST)))


def _edges(
    space: SearchSpace, cell: CellChoice, edge: Edge, log_EK: npt.NDArray[np.float64]
) -> Iterator[tuple[Edge, float]]:
    """What may stand in the place of one edge, and the loss."""
    source, target, op = edge
    now = log_EK[space.edges.index((source, target)), space.ops.index(op)]
    sources = [source]
    if space.keep_edges is not None:
        taken = {s for s, t, _ in cell.edges if t == target}
        sources += [s for s, t in space.edges if t == target and s not in taken]
    for other in sources:
        row = space.edges.index((other, target))
        for column, name in enumerate(space.ops):
            if np.isfinite(log_EK[row, column]) and (other, name) != (source, op):
                yield (other, target, name), float(max(now, np.log(_LEAST)) - log_EK[row, column])


def _options(
    space: ChoiceSpace, architecture: Architecture, weights: Weights
) -> Iterator[tuple[Architecture, float]]:
    for label, options in space.choices:
        log_K = _log(np.asarray(weights[label], np.float64)[0])
        at = options.index(architecture.choice(label))
        for column, option in enumerate(options):
            if column != at:
                pairs = tuple((n, option if n == label else v) for n, v in architecture.choices)
                loss = float(log_K[at] - log_K[column])
                yield Architecture(architecture.space, choices=pairs), loss
