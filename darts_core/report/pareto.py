"""Pareto fronts: the rows that no other row beats in everything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darts_core.errors import ConfigError, LatencyError
from darts_core.report.escape import plain_text
from darts_core.report.rows import ModelRow, finite

__all__ = [
    "accuracy_latency_front",
    "comparable_rows",
    "loaded_rows",
    "pareto_front",
    "pareto_mask",
]


def pareto_mask(costs: ArrayLike) -> NDArray[np.bool_]:
    """Which rows are on the front when every column is a cost (smaller is better).

    A row is off the front when another is nowhere worse and somewhere better; equal rows stay
    together; a row holding NaN is never on it.

    Shapes: costs [rows, objectives] -> [rows].
    """
    table = np.atleast_2d(np.asarray(costs, dtype=np.float64))
    known = np.asarray(~np.isnan(table).any(axis=1), dtype=np.bool_)
    mask: NDArray[np.bool_] = np.zeros(len(table), dtype=np.bool_)
    for i in np.flatnonzero(known):
        others = table[known]
        beaten = (others <= table[i]).all(axis=1) & (others < table[i]).any(axis=1)
        mask[i] = not beaten.any()
    return mask


def pareto_front(
    rows: Sequence[Mapping[str, Any]], objectives: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    """The rows on the front, sorted by the first objective; rows lacking a number are left out.

    Args:
        rows: mappings that hold the objectives' values.
        objectives: name -> "min" or "max".

    Raises:
        ConfigError: no objective is given, or a direction is neither "min" nor "max".
    """
    if not objectives:
        raise ConfigError("A front needs at least one objective, for example {'accuracy': 'max'}.")
    signs = []
    for name, direction in objectives.items():
        if direction not in ("min", "max"):
            raise ConfigError(
                f"The direction of {plain_text(name)!r} is {plain_text(direction)!r}; "
                "it is 'min' or 'max'."
            )
        signs.append(1.0 if direction == "min" else -1.0)
    if not rows:
        return []
    table = np.array(
        [[finite(row.get(name)) for name in objectives] for row in rows], dtype=np.float64
    ) * np.array(signs)
    chosen = [int(i) for i in np.flatnonzero(pareto_mask(table))]
    return [rows[i] for i in sorted(chosen, key=lambda i: (float(table[i, 0]), i))]


def comparable_rows(rows: Iterable[ModelRow], batch: int) -> list[ModelRow]:
    """The rows with an unflagged time at `batch` and an accuracy, all of one device and data set.

    Raises:
        LatencyError: the rows come from several devices or several data sets.
    """
    kept = [
        row
        for row in rows
        if row.accuracy_mean is not None and batch in row.latency and not row.latency[batch].flagged
    ]
    devices = {row.latency[batch].where or row.device for row in kept}
    for what, found in (("device", devices), ("data set", {row.data for row in kept})):
        if len(found) > 1:
            names = ", ".join(repr(plain_text(name)) for name in sorted(found))
            raise LatencyError(
                f"Rows of more than one {what} ({names}) cannot share one front; draw one front "
                f"for each {what}, or measure all of them again on one."
            )
    return kept


def loaded_rows(rows: Iterable[ModelRow], batch: int) -> list[ModelRow]:
    """The rows with a time at `batch` that was taken under foreign load, and an accuracy.

    They may be shown (as what they are) beside a front of the same place, never in it: rows of other
    devices or data sets than the comparable ones are left out.
    """
    rows = list(rows)
    found = [
        row
        for row in rows
        if row.accuracy_mean is not None and batch in row.latency and row.latency[batch].flagged
    ]
    near = (comparable_rows(rows, batch) or found)[:1]
    return [
        row
        for row in found
        if (row.latency[batch].where, row.data) == (near[0].latency[batch].where, near[0].data)
    ]


def accuracy_latency_front(rows: Iterable[ModelRow], batch: int) -> list[ModelRow]:
    """The rows that no other beats in both test accuracy and median latency, fastest first.

    Flagged times and rows without an accuracy do not take part.

    Raises:
        LatencyError: the rows come from several devices or several data sets.
    """
    kept = comparable_rows(rows, batch)
    if not kept:
        return []
    costs = [[row.latency[batch].median_ms, -(row.accuracy_mean or 0.0)] for row in kept]
    front = [row for row, on in zip(kept, pareto_mask(costs), strict=True) if on]
    return sorted(front, key=lambda row: row.latency[batch].median_ms)
