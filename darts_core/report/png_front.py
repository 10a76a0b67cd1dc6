"""Fronts as PNG files: for the README, TensorBoard, job folders and sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError
from darts_core.report.front import Axis, Front, Point, place_labels
from darts_core.report.models_front import models_front
from darts_core.report.palette import hex_color
from darts_core.report.png_figure import (
    DPI,
    new_figure,
    only_data,
    plain_label,
    plain_title,
    save_png,
)
from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import Scale, number, text_width
from darts_core.study.pareto import pareto_front

__all__ = ["front_png", "save_front", "scatter_png"]

_MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^",
    "hexagon": "H", "pentagon": "p", "star": "*", "cross": "P",
}  # fmt: skip
_MOST_NAMES = 20


def front_png(rows: Sequence[ModelRow], path: str | Path, *, batch: int | None = None) -> Path:
    """Test accuracy against latency, one panel a batch size: error bars, baseline, Pareto front.

    Times taken under foreign load are hollow marks outside the front.

    Raises:
        LatencyError: the rows come from several devices or data sets.
        ConfigError: no row has both an accuracy and a time.
    """
    sizes = [batch] if batch else sorted({size for row in rows for size in row.latency})
    fronts = [front for size in sizes if (front := models_front(rows, size)) is not None]
    if not fronts:
        raise ConfigError(
            "No row has both a test accuracy and a latency, so there is no front to draw; run "
            "`darts-core bench what=models`."
        )
    return save_front(fronts, path, titles=False)


def scatter_png(
    points: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    x: str,
    y: str,
    x_direction: str = "min",
    y_direction: str = "max",
    baseline: Mapping[str, Any] | None = None,
    title: str = "",
) -> Path:
    """Any two numbers of `points` against each other with their Pareto front, into a PNG file.

    Args:
        points: mappings with the two numbers and optionally `name`; others are left out.
        path: where the picture goes.
        x: key of the horizontal number.
        y: key of the vertical number.
        x_direction: "min" or "max" (which side is better).
        y_direction: the same for `y`.
        baseline: a point to mark with a cross of dashed lines.
        title: stands above the picture.

    Raises:
        ConfigError: a direction is neither "min" nor "max", or no point has both numbers.
    """
    kept = [p for p in points if None not in (finite(p.get(x)), finite(p.get(y)))]
    if not kept:
        raise ConfigError(f"No point has both {x!r} and {y!r}, so there is no front to draw.")
    best = pareto_front(kept, {x: x_direction, y: y_direction})[:_MOST_NAMES]
    front = Front(
        title,
        Axis(x.replace("_", " "), x_direction),
        Axis(y.replace("_", " "), y_direction),
        tuple(
            Point(float(p[x]), float(p[y]), color="searched",
                  label=str(p.get("name") or "") if any(p is one for one in best) else "")
            for p in kept
        ),
        baseline=_place(baseline, x, y),
    )  # fmt: skip
    return save_front([front], path)


def _place(point: Mapping[str, Any] | None, x: str, y: str) -> tuple[float, float] | None:
    """Where a point stands, if it has both numbers."""
    across, up = (finite(point.get(x)), finite(point.get(y))) if point else (None, None)
    return None if across is None or up is None else (across, up)


def save_front(fronts: Sequence[Front], path: str | Path, *, titles: bool = True) -> Path:
    """Draw fronts side by side into a PNG file."""
    figure = new_figure(max(5.2 * len(fronts), 5.8), 3.9)
    panels = figure.subplots(1, len(fronts), squeeze=False)[0]
    for axes, front in zip(panels, fronts, strict=True):
        _draw(axes, front)
        if titles:
            axes.set_title(plain_title(front.title), fontsize=8, loc="left")
    _legend(panels[-1], fronts[-1])
    figure.tight_layout()
    for axes, front in zip(panels, fronts, strict=True):
        _name(axes, front)
    return save_png(figure, path)


def _draw(axes: Any, front: Front) -> None:
    only_data(axes)
    for own in front.threads():
        color = hex_color(own[0].color)
        axes.plot([p.x for p in own], [p.y for p in own], color=color, linewidth=0.9, alpha=0.45)
    for point in front.points:
        _mark(axes, point)
    stairs = front.stairs()
    axes.plot([a for a, _ in stairs], [b for _, b in stairs], color=hex_color("good"), linewidth=1.6,
              alpha=0.7, zorder=2)  # fmt: skip
    if front.baseline is not None:
        style = {"color": hex_color("baseline"), "linestyle": "--", "linewidth": 0.9, "alpha": 0.8}
        axes.axvline(front.baseline[0], **style)
        axes.axhline(front.baseline[1], **style)
    if front.wide:
        # plain round numbers
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        marks = Scale(low, high, 0.0, 1.0, log=True).ticks()
        axes.set_xticks(marks, [number(mark) for mark in marks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(plain_label(front.x.label), fontsize=8)
    axes.set_ylabel(plain_label(front.y.label), fontsize=8)
    axes.tick_params(labelsize=7.5)


def _mark(axes: Any, point: Point) -> None:
    """A point and the bars of its spread."""
    color, shape = hex_color(point.color), _MARKERS.get(point.shape, "s")
    axes.errorbar(
        point.x, point.y, xerr=_bar(point.x, point.x_range), yerr=_bar(point.y, point.y_range),
        ecolor=color + "70", elinewidth=1.1, color=color, marker=shape,
        markersize=9.5 if shape == "*" else 6.5, markeredgewidth=0.9,
        markerfacecolor="white" if point.hollow else color,
        markeredgecolor=color if point.hollow else "white", zorder=3,
    )  # fmt: skip


def _bar(at: float, ends: tuple[float, float] | None) -> list[list[float]] | None:
    """The spread as matplotlib wants it: lengths to both sides."""
    return None if ends is None else [[max(at - ends[0], 0.0)], [max(ends[1] - at, 0.0)]]


def _legend(axes: Any, front: Front) -> None:
    from matplotlib.lines import Line2D

    if len(front.keys) < 2:
        return
    marks = [
        Line2D([], [], linestyle="", marker=_MARKERS.get(key.shape, "s"), color=hex_color(key.color),
               markerfacecolor="none" if key.hollow else hex_color(key.color), markersize=5.5,
               label=plain_label(key.text))
        for key in front.keys
    ]  # fmt: skip
    axes.legend(handles=marks, fontsize=7, edgecolor="none", framealpha=0.8)


def _name(axes: Any, front: Front) -> None:
    """Labels beside their marks, clear of the marks and of other names."""
    pixels_per_point = DPI / 72

    def place(point: Point) -> tuple[float, float]:
        across, up = axes.transData.transform((point.x, point.y)) / pixels_per_point
        return float(across), -float(up)

    box = axes.get_window_extent()
    ends = [value / pixels_per_point for value in (box.x0, box.x1, -box.y1, -box.y0)]
    named = front.named()
    widths = [text_width(point.label, 8) for point in named]
    area = (ends[0], ends[1], ends[2], ends[3])
    places = place_labels([place(p) for p in named], [place(p) for p in front.points], widths, area)
    for point, (left, base) in zip(named, places, strict=True):
        at = place(point)
        axes.annotate(plain_label(point.label), (point.x, point.y),
                      xytext=(left - at[0], at[1] - base), textcoords="offset points", fontsize=7.5,
                      color=hex_color(point.color), fontweight="bold", zorder=5)  # fmt: skip
