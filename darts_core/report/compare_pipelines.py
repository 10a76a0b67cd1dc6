"""Pipelines over each other: the val metric while searching and training, and their measured models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from darts_core.errors import DartsError
from darts_core.report.blocks import callout, card, pair
from darts_core.report.charts import Line, line_chart
from darts_core.report.columns import Column
from darts_core.report.front import Front, Key, Point
from darts_core.report.html import Markup
from darts_core.report.legend import series_shape
from darts_core.report.models_front import comparable_rows, models_front
from darts_core.report.models_table import batches
from darts_core.report.palette import series_colors
from darts_core.report.read import VersionRun, read_rows, read_version, series
from darts_core.report.rows import ModelRow
from darts_core.report.svg_front import front_svg, key_html
from darts_core.store.record import PIPELINE

__all__ = ["overlaid", "pipeline_pictures"]

_STAGES = {"search": "the supernet, while searching", "train": "the network, while training"}


def pipeline_pictures(columns: Sequence[Column]) -> Markup:
    """Val curves and models of the pipelines among the versions; nothing where fewer than two have one."""
    runs = []
    for column in columns:
        if column.version.kind == PIPELINE:
            try:
                runs.append((column.label, read_version(column.folder)))
            except DartsError:
                continue
    curves = [drawn for stage, what in _STAGES.items() if (drawn := _curves(runs, stage, what))]
    return (pair(*curves) if curves else Markup()) + _models(runs)


def _curves(runs: Sequence[tuple[str, VersionRun]], name: str, what: str) -> Markup:
    """The val metric of one stage, a line a version, of those that share their metric with the first."""
    stages = [(label, run.stages[name]) for label, run in runs if name in run.stages]
    if not stages:
        return Markup()
    metric = stages[0][1].metric
    lines = [
        (label, points)
        for label, stage in stages
        if stage.metric == metric and (points := series(stage.metrics, f"val_{metric.name}"))
    ]
    if len(lines) < 2:
        return Markup()
    colors = series_colors(len(lines))
    title = f"Val {metric.words} of {what}"
    drawn = line_chart(
        [Line(label, points, color) for (label, points), color in zip(lines, colors, strict=True)],
        x_label="epoch", y_label=metric.words, title=title, percent=metric.share,
    )  # fmt: skip
    return card(drawn, title=title)


def _models(runs: Sequence[tuple[str, VersionRun]]) -> Markup:
    """All measured models at the largest common batch; the front is that of all together."""
    found: list[tuple[str, list[ModelRow]]] = []
    for label, run in runs:
        if "bench" in run.stages:
            try:
                found.append((label, read_rows(run.stages["bench"].folder / "results.json")))
            except DartsError:
                continue
    shared = set.intersection(*(set(batches(rows)) for _, rows in found)) if found else set()
    if len(found) < 2 or not shared:
        return Markup()
    batch = max(shared)
    try:  # times of two machines, or of two data sets, are no comparison
        comparable_rows([row for _, rows in found for row in rows], batch)
        fronts = [(label, models_front(rows, batch)) for label, rows in found]
    except DartsError as error:
        return callout(str(error))
    return overlaid(fronts, "Models of the versions", head="Models", named=lambda p: p.label)


def overlaid(
    fronts: Sequence[tuple[str, Front | None]],
    title: str,
    *,
    head: str,
    named: Callable[[Point], str],
) -> Markup:
    """Fronts in one picture, a mark and a colour a version; the edge is that of all together.

    Args:
        fronts: with the labels of their versions.
        title: of the picture.
        head: of its card.
        named: what stands beside a point.
    """
    points: list[Point] = []
    keys: list[Key] = []
    first: Front | None = None
    for index, (label, own) in enumerate(fronts):
        if own is None:
            continue
        first = first or own
        color, shape = series_colors(len(fronts))[index], series_shape(index)
        keys.append(Key(shape, color, label))
        points += [
            replace(p, color=color, shape=shape, series="", label=named(p), tip=f"{label}, {p.tip}")
            for p in own.points
        ]
    if first is None:
        return Markup()
    front = Front(title, first.x, first.y, tuple(points), keys=tuple(keys))
    return card(front_svg(front, width=1060) + key_html([front]), title=head)
