"""Hypervolume: how much of the space up to a reference point a set of points dominates, exactly.

Every column is a cost (smaller is better), as in `darts_core.study.pareto`.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darts_core.study.pareto import pareto_mask

__all__ = ["by_contribution", "hypervolume"]


def hypervolume(costs: ArrayLike, reference: ArrayLike) -> float:
    """The volume that the rows dominate below `reference`; rows not below it in every column add nothing.

    Shapes: costs [rows, objectives], reference [objectives] -> a number in the product of their units.
    Cost: O(rows log rows) for two objectives, times the rows for each further one.
    """
    limit = np.asarray(reference, dtype=np.float64)
    table = np.asarray(costs, dtype=np.float64).reshape(-1, len(limit))
    table = table[(table < limit).all(axis=1)]
    return _volume(table[pareto_mask(table)], limit) if len(table) else 0.0


def _volume(points: NDArray[np.float64], limit: NDArray[np.float64]) -> float:
    """Slices along the last column; in each, the volume of the points that reach it."""
    if len(limit) == 1:
        return float(limit[0] - points.min())
    if len(limit) == 2:
        points = points[np.lexsort((points[:, 1], points[:, 0]))]
        lowest = np.minimum.accumulate(points[:, 1])
        widths = np.diff(points[:, 0], append=limit[0])
        return float(np.sum(widths * (limit[1] - lowest)))
    points = points[np.argsort(points[:, -1], kind="stable")]
    heights = np.diff(points[:, -1], append=limit[-1])
    slices = [
        height * _volume(points[: i + 1, :-1], limit[:-1])
        for i, height in enumerate(heights)
        if height > 0
    ]
    return math.fsum(slices)


def by_contribution(costs: ArrayLike, reference: ArrayLike) -> list[int]:
    """The rows in an order in which each next one adds the most volume to those before it.

    Of rows that add the same, the earlier one goes first, so a row's double stands behind the others.
    What a row adds never grows with the rows before it, so an old figure bounds the new one.

    Shapes: costs [rows, objectives], reference [objectives] -> the rows' indices.
    Source: the greedy of Guerreiro, Fonseca and Paquete 2016, "Greedy hypervolume subset selection in low
    dimensions", section 1; at least 1 - 1/e of the best volume for each number of rows.
    """
    limit = np.asarray(reference, dtype=np.float64)
    table = np.asarray(costs, dtype=np.float64).reshape(-1, len(limit))
    bounds = [(-hypervolume(row, limit), index) for index, row in enumerate(table)]
    heapq.heapify(bounds)
    chosen: list[int] = []
    volume = 0.0
    while bounds:
        _, index = heapq.heappop(bounds)
        total = hypervolume(table[[*chosen, index]], limit)
        # rounding must not make a gain of what adds nothing
        gain = max(total - volume, 0.0)
        if bounds and (-gain, index) > bounds[0]:
            heapq.heappush(bounds, (-gain, index))
        else:
            chosen.append(index)
            volume += gain
    return chosen
