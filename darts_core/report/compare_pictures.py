"""Versions of searches over each other: best so far of each, and their fronts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.report.blocks import callout, card, pair
from darts_core.report.charts import Line, line_chart
from darts_core.report.columns import Column
from darts_core.report.compare_pipelines import overlaid, pipeline_pictures
from darts_core.report.front import Point
from darts_core.report.html import Markup
from darts_core.report.palette import series_colors
from darts_core.report.trials_front import Gains, search_front
from darts_core.store.record import SCRIPT
from darts_core.study.results import Goals, Row, read_rows, row_values, search_rows, summary

__all__ = ["compare_pictures"]


def compare_pictures(columns: Sequence[Column]) -> Markup:
    """Curves and fronts of the versions over each other, of searches of scripts and of pipelines apart."""
    return _scripts(columns) + pipeline_pictures(columns)


def _scripts(columns: Sequence[Column]) -> Markup:
    """Best so far and fronts of the searches of scripts among the versions that share their objectives."""
    found: list[tuple[str, list[Row], Goals, Gains]] = []
    others: list[str] = []
    for version in [column.version for column in columns]:
        if version.kind != SCRIPT:
            continue
        try:
            ended = summary(version.path)
        except JobError:
            continue
        goals = ended["objectives"]
        if not found or _names(goals) == _names(found[0][2]):
            found.append((version.label, read_rows(version.path), goals, ended["gain"]))
        else:
            others.append(version.label)
    # their numbers mean something else
    told = f"Not drawn, as other objectives were searched: {', '.join(others)}."
    left = callout(told) if others else Markup()
    if len(found) < 2:
        return left
    lines = [
        Line(label, _so_far(rows, goals), color, steps=True)
        for (label, rows, goals, _), color in zip(found, series_colors(len(found)), strict=True)
    ]
    metric = str(found[0][2][0]["metric"]).replace("_", " ")
    curves = line_chart(lines, x_label="trial", y_label=metric, title="Best so far of each version",
                        width=1060)  # fmt: skip
    return pair(card(curves, title="Best so far")) + _fronts(found) + left


def _names(goals: Goals) -> list[Any]:
    return [(goal["metric"], goal["mode"]) for goal in goals]


def _so_far(rows: Sequence[Row], goals: Goals) -> list[tuple[float, float]]:
    better = max if goals[0]["mode"] == "max" else min
    points: list[tuple[float, float]] = []
    for row in search_rows(rows):
        values = row_values(row, goals[:1])
        if values is not None and row["state"] == "done":
            best = better([*(y for _, y in points[-1:]), values[0]])
            points.append((float(len(points)), best))
    return points


def _fronts(found: Sequence[tuple[str, list[Row], Goals, Gains]]) -> Markup:
    """All trials in one picture; bars are the spread over fresh seeds, where a pick was confirmed."""
    own = [(label, search_front(rows, goals, gains=gains)) for label, rows, goals, gains in found]
    return overlaid(own, "Objectives of the versions", head="Fronts", named=_bars)


def _bars(point: Point) -> str:
    return "" if point.y_range is None else point.tip.partition(":")[0]
