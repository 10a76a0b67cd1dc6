"""Plain scatter and line pictures as PNG: any two numbers with their front, named series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.report.palette import hex_color, series_colors
from darts_core.report.pareto import pareto_mask
from darts_core.report.png import new_figure, only_data, plain_label, save_png
from darts_core.report.rows import finite

__all__ = ["lines_png", "scatter_png"]


def scatter_png(
    points: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    x: str,
    y: str,
    x_direction: str = "min",
    y_direction: str = "max",
    baseline: Mapping[str, Any] | None = None,
    diagonal: bool = False,
    title: str = "",
) -> Path:
    """Any two numbers of `points` against each other with their Pareto front, into a PNG file.

    Args:
        points: mappings with the two numbers and optionally `name`; others are left out.
        path: where the picture goes.
        x: key of the horizontal number.
        y: key of the vertical number.
        x_direction: "min" or "max" (which side is better), or "" for a plot without a front.
        y_direction: the same for `y`.
        baseline: a point to mark with a cross of dashed lines.
        diagonal: draw y = x (predicted against measured).
        title: stands above the picture.
    """
    kept = [(a, b, str(p.get("name") or "")) for p in points
            if (a := finite(p.get(x))) is not None and (b := finite(p.get(y))) is not None]  # fmt: skip
    figure = new_figure(5.4, 4.0)
    axes = figure.subplots()
    only_data(axes)
    axes.scatter([a for a, _, _ in kept], [b for _, b, _ in kept], s=22, color=hex_color("searched"),
                 alpha=0.75, edgecolors="white", linewidths=0.5, zorder=3)  # fmt: skip
    if kept and x_direction and y_direction:
        signs = np.array(
            [1.0 if x_direction == "min" else -1.0, 1.0 if y_direction == "min" else -1.0]
        )
        mask = pareto_mask(np.array([(a, b) for a, b, _ in kept]) * signs)
        front = sorted(item for item, on in zip(kept, mask, strict=True) if on)
        axes.plot([a for a, _, _ in front], [b for _, b, _ in front], color=hex_color("good"),
                  linewidth=1.5, marker="o", markersize=5, zorder=4)  # fmt: skip
        for a, b, name in front[:20]:
            axes.annotate(plain_label(name, 24), (a, b), xytext=(5, 5), fontsize=7,
                          textcoords="offset points", color=hex_color("soft"))  # fmt: skip
    if baseline is not None:
        for draw, value in (
            (axes.axvline, finite(baseline.get(x))),
            (axes.axhline, finite(baseline.get(y))),
        ):
            if value is not None:
                draw(value, color=hex_color("baseline"), linestyle="--", linewidth=0.9)
    if diagonal and kept:
        ends = [min(min(a, b) for a, b, _ in kept), max(max(a, b) for a, b, _ in kept)]
        axes.plot(ends, ends, color=hex_color("faint"), linewidth=0.9, linestyle=":")
    axes.set_xlabel(plain_label(x.replace("_", " ")), fontsize=8)
    axes.set_ylabel(plain_label(y.replace("_", " ")), fontsize=8)
    axes.set_title(plain_label(title, 90), fontsize=9, loc="left")
    axes.tick_params(labelsize=7.5)
    figure.tight_layout()
    return save_png(figure, path)


def lines_png(
    series: Mapping[str, Sequence[tuple[float, float]]],
    path: str | Path,
    *,
    x: str,
    y: str,
    steps: bool = False,
    title: str = "",
) -> Path:
    """Named series of points (best so far, learning curves) as lines, into a PNG file."""
    figure = new_figure(5.4, 3.6)
    axes = figure.subplots()
    only_data(axes)
    for color, (name, points) in zip(series_colors(len(series)), series.items(), strict=True):
        axes.plot([a for a, _ in points], [b for _, b in points], color=hex_color(color), linewidth=1.5,
                  label=plain_label(name), drawstyle="steps-post" if steps else "default")  # fmt: skip
    axes.set_xlabel(plain_label(x), fontsize=8)
    axes.set_ylabel(plain_label(y), fontsize=8)
    axes.set_title(plain_label(title, 90), fontsize=9, loc="left")
    axes.tick_params(labelsize=7.5)
    if 1 < len(series) <= 12:
        axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return save_png(figure, path)
