"""Named series of points as lines: learning curves, best so far, as a PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from darts_core.report.palette import hex_color, series_colors
from darts_core.report.png_figure import new_figure, only_data, plain_label, plain_title, save_png

__all__ = ["lines_png"]


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
    axes.set_title(plain_title(title), fontsize=9, loc="left")
    axes.tick_params(labelsize=7.5)
    if 1 < len(series) <= 12:
        axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    return save_png(figure, path)
