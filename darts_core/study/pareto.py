"""Pareto fronts: what no other point beats in every objective. The only place that decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darts_core.errors import ConfigError
from darts_core.reading import finite

__all__ = ["front_beyond_error", "pareto_front", "pareto_mask", "pareto_ranks", "signs"]


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


def front_beyond_error(costs: ArrayLike, errors: ArrayLike) -> NDArray[np.bool_]:
    """`pareto_mask` of two costs of which the second is uncertain.

    Of the rows on the front, from the best in the first cost on, one stays only if its second cost is lower
    than that of the last one that stayed by more than the standard error of their difference.

    Shapes: costs [rows, 2], errors [rows], standard errors of the second cost -> [rows].
    """
    table, spread = np.asarray(costs, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    mask, last = pareto_mask(table), -1
    for i in np.flatnonzero(mask)[np.argsort(table[mask, 0], kind="stable")]:
        if last >= 0 and not np.array_equal(table[i], table[last]):
            gain = table[last, 1] - table[i, 1]
            mask[i] = gain > math.hypot(spread[i], spread[last])
        last = i if mask[i] else last
    return mask


def pareto_ranks(costs: ArrayLike) -> NDArray[np.int64]:
    """The non-dominated rank of each row: 0 on the front, 1 on the front of the rest, and so on.

    Equal rows share a rank; rows that hold a number which is not finite come after all others. Without a
    column all rows are equal. Memory: one byte for each pair of rows.

    Shapes: costs [rows, objectives] -> [rows].
    """
    table = np.asarray(costs, dtype=np.float64)
    ranks = np.zeros(len(table), dtype=np.int64)
    finite = np.isfinite(table).all(axis=1)
    left = np.flatnonzero(finite)
    beats = _beats(table[left])
    above, rank = beats.sum(axis=0), 0
    open_ = np.ones(len(left), dtype=np.bool_)
    while open_.any():
        front = open_ & (above == 0)
        ranks[left[front]] = rank
        above = above - beats[front].sum(axis=0)
        open_ &= ~front
        rank += 1
    ranks[~finite] = rank
    return ranks


def _beats(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[i, j]: row i is nowhere worse than row j and somewhere better."""
    beats = np.zeros((len(table), len(table)), dtype=np.bool_)
    for i, row in enumerate(table):
        beats[i] = (row <= table).all(axis=1) & (row < table).any(axis=1)
    return beats


def signs(directions: Sequence[str]) -> NDArray[np.float64]:
    """What makes a cost of each objective: 1 for "min" or "minimize", -1 for "max" or "maximize".

    Raises:
        ConfigError: a direction is none of them.
    """
    for direction in directions:
        if direction not in ("min", "max", "minimize", "maximize"):
            raise ConfigError(f"The direction {direction!r} is unknown; it is 'min' or 'max'.")
    return np.array([1.0 if d.startswith("min") else -1.0 for d in directions])


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
    to_costs = signs(list(objectives.values()))
    if not rows:
        return []
    costs = np.array([[_number(row.get(name)) for name in objectives] for row in rows]) * to_costs
    chosen = [int(i) for i in np.flatnonzero(pareto_mask(costs))]
    return [rows[i] for i in sorted(chosen, key=lambda i: (float(costs[i, 0]), i))]


def _number(value: Any) -> float:
    known = finite(value)
    return math.nan if known is None else known
