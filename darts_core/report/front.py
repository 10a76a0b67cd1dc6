"""The picture of a trade-off as data: what every drawing of a front shows, whatever it is a front of.

`svg_front` draws it for pages, `png_front` into files; fronts of models are made in `models_front`,
those of a search by trials in `trials_front`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from darts_core.report.svg import Scale
from darts_core.study.pareto import front_beyond_error, signs

__all__ = ["YOURS", "Axis", "Front", "Key", "Point", "place_labels"]

YOURS = "your configuration"

_WIDE = 4.0
"""Largest over smallest value from which on the horizontal axis is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """What one axis measures, its unit included, and which side is better: "min" or "max"."""

    label: str
    better: str


@dataclass(frozen=True)
class Point:
    """One measured thing.

    Attributes:
        x: in the unit that the axis names.
        y: in the unit that the axis names.
        label: stands beside the mark; "" for none.
        tip: hover text, where there is one.
        color: name of the palette.
        shape: of the mark (`darts_core.report.svg_front.mark`).
        series: points of one series are joined by a thin line.
        counts: whether it may lie on the front.
        hollow: drawn as an outline: shown, not compared.
        x_range: ends of its spread (quantiles, or mean and standard deviation).
        y_range: ends of its spread.
        y_error: standard error of y: on the front lies what is better by more than that.
    """

    x: float
    y: float
    label: str = ""
    tip: str = ""
    color: str = "other"
    shape: str = "circle"
    series: str = ""
    counts: bool = True
    hollow: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    y_error: float = 0.0


@dataclass(frozen=True)
class Key:
    """One line of the legend: a mark and what it stands for."""

    shape: str
    color: str
    text: str
    hollow: bool = False


@dataclass(frozen=True)
class Front:
    """Points in two objectives, their Pareto front, and the baseline as a dashed cross.

    Attributes:
        title: what the picture shows.
        x: the horizontal axis.
        y: the vertical axis.
        points: drawn in this order.
        baseline: where the thing to beat stands, if it was measured.
        better: what the corner that beats the baseline is called.
        keys: the legend.
    """

    title: str
    x: Axis
    y: Axis
    points: tuple[Point, ...]
    baseline: tuple[float, float] | None = None
    better: str = ""
    keys: tuple[Key, ...] = ()

    @property
    def edge(self) -> list[Point]:
        """The points on the front, the best in x first."""
        able = [point for point in self.points if point.counts]
        if not able:
            return []
        sign = signs([self.x.better, self.y.better])
        costs = np.array([(point.x, point.y) for point in able]) * sign
        mask = front_beyond_error(costs, [point.y_error for point in able])
        found = [point for point, on in zip(able, mask, strict=True) if on]
        return sorted(found, key=lambda point: (float(sign[0]) * point.x, point.y))

    @property
    def wide(self) -> bool:
        """Whether the horizontal axis is logarithmic."""
        values = [point.x for point in self.points]
        return min(values) > 0 and max(values) / min(values) > _WIDE

    def scales(self, area: tuple[float, float, float, float]) -> tuple[Scale, Scale]:
        """Scales into (left, right, top, bottom) that hold all points and the spread of y."""
        left, right, top, bottom = area
        ends = [end for p in self.points for end in (p.y_range or (p.y, p.y))]
        return (
            Scale.fit([p.x for p in self.points], left, right, log=self.wide, pad=0.1),
            Scale.fit(ends, bottom, top, pad=0.1),
        )

    def stairs(self) -> list[tuple[float, float]]:
        """Corners of the edge of what is reachable, between its first and its last point."""
        corners: list[tuple[float, float]] = []
        for point in self.edge:
            if corners:
                corners.append((point.x, corners[-1][1]))
            corners.append((point.x, point.y))
        return corners

    def threads(self) -> list[list[Point]]:
        """The points of each series of more than one, from left to right."""
        groups: dict[str, list[Point]] = {}
        for point in self.points:
            if point.series:
                groups.setdefault(point.series, []).append(point)
        return [sorted(own, key=lambda p: p.x) for own in groups.values() if len(own) > 1]

    def named(self) -> list[Point]:
        """The points that have a label."""
        return [point for point in self.points if point.label]


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Common area of two boxes (left, top, right, bottom)."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def place_labels(
    points: Sequence[tuple[float, float]],
    marks: Sequence[tuple[float, float]],
    widths: Sequence[float],
    area: tuple[float, float, float, float],
) -> list[tuple[float, float]]:
    """Left ends of the base lines of labels near `points`, where each covers least.

    Args:
        points: what the labels belong to, in pixels, y downwards.
        marks: all marks that should stay visible.
        widths: of the labels.
        area: left, right, top and bottom of the plot.
    """
    left, right, top, bottom = area
    taken = [(a - 8, b - 8, a + 8, b + 8) for a, b in marks]
    result = []
    for (at, height), wide in zip(points, widths, strict=True):
        best, least = (at, height), float("inf")
        for dx, dy in ((-wide / 2, -11), (10, -8), (-wide - 10, -8), (-wide / 2, 21), (10, 18),
                       (-wide - 10, 18), (-wide / 2, -26), (-wide / 2, 36)):  # fmt: skip
            box = (at + dx, height + dy - 11, at + dx + wide, height + dy + 3)
            outside = max(0.0, left - box[0]) + max(0.0, box[2] - right)
            outside += max(0.0, top - box[1]) + max(0.0, box[3] - bottom)
            cost = sum(_overlap(box, other) for other in taken) + 20 * outside
            if cost < least:
                best, least = (box[0], height + dy), cost
        taken.append((best[0], best[1] - 11, best[0] + wide, best[1] + 3))
        result.append(best)
    return result
