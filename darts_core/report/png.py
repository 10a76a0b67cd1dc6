"""Pictures as PNG, for TensorBoard, the README and job folders. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.report.alphas import edge_names
from darts_core.report.escape import plain_text
from darts_core.report.front import (
    baseline_row,
    label_text,
    place_labels,
    runtime_shape,
    series_of,
)
from darts_core.report.layout import Box, CellLayout, layout_cell
from darts_core.report.palette import hex_color, kind_color, op_family
from darts_core.report.pareto import accuracy_latency_front, comparable_rows, loaded_rows
from darts_core.report.rows import ModelRow
from darts_core.report.svg import Scale, number, text_width
from darts_core.runlog import write_bytes

__all__ = [
    "alpha_image",
    "cell_image",
    "cell_png",
    "front_png",
    "new_figure",
    "only_data",
    "plain_label",
    "save_png",
]

_DPI = 150
_MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^",
    "hexagon": "H", "pentagon": "p", "star": "*", "cross": "P",
}  # fmt: skip


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of that size in inches, free of any global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_label(value: Any, limit: int = 60) -> str:
    """Text that matplotlib prints as it is: no control characters, no mathematics between dollars."""
    return plain_text(value, limit=limit).replace("$", r"\$")


def save_png(figure: Any, path: str | Path) -> Path:
    """Write the figure to `path` as a whole file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
    return Path(path)


def _pixels(figure: Any) -> NDArray[np.uint8]:
    """The figure as an image. Shapes: [height, width, 3]."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def only_data(axes: Any) -> None:
    """Only what carries data: no frame on top and right, a pale grid behind."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=hex_color("line"), linewidth=0.7)
    axes.set_axisbelow(True)


def _draw_box(axes: Any, box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    family = op_family(box.label)
    op, node = box.kind == "op", box.kind == "node"
    edge = hex_color(family) if op else hex_color("ink" if node else "faint")
    face = hex_color("ink") if node else hex_color("sunken" if not op else "surface")
    radius = box.height / 2 if op or node else 7
    axes.add_patch(
        FancyBboxPatch(
            (box.x - box.width / 2 + radius, box.y - box.height / 2 + radius),
            box.width - 2 * radius,
            box.height - 2 * radius,
            boxstyle=f"round,pad={radius}",
            facecolor=face,
            edgecolor=edge,
            linewidth=1.3,
            zorder=3,
        )
    )
    color = hex_color("surface") if node else edge if op else hex_color("ink")
    axes.text(box.x, box.y, plain_label(box.label, 40), ha="center", va="center_baseline",
              fontsize=7.5 if op else 8.5, color=color, fontweight="bold", zorder=4)  # fmt: skip


def _draw_cell(axes: Any, layout: CellLayout) -> None:
    """Boxes and smooth lines of one cell in the coordinates of its layout."""
    for link in layout.links:
        boxes = [layout.boxes[key] for key in link.stops]
        xs = [boxes[0].x + boxes[0].width / 2, *(b.x for b in boxes[1:-1]),
              boxes[-1].x - boxes[-1].width / 2]  # fmt: skip
        ys = [box.y for box in boxes]
        # a cosine from stop to stop is level where it meets a box
        share = (1 - np.cos(np.linspace(0, np.pi, 24))) / 2
        line_x = np.concatenate([np.linspace(a, b, 24) for a, b in pairwise(xs)])
        line_y = np.concatenate([a + (b - a) * share for a, b in pairwise(ys)])
        family = op_family(link.op) if link.op else ""
        axes.plot(
            line_x,
            line_y,
            color=hex_color(family) if family else hex_color("faint"),
            linewidth=1.5 if family not in ("", "none") else 0.9,
            linestyle="--" if family == "none" else "-",
            alpha=1.0 if family else 0.6,
            zorder=2,
        )
    for box in layout.boxes.values():
        if box.kind != "way":
            _draw_box(axes, box)
    axes.set_xlim(0, layout.width)
    axes.set_ylim(layout.height, 0)
    axes.set_aspect("equal")
    axes.axis("off")


def _cell_figure(architecture: Architecture) -> Any:
    if not architecture.cells:
        lines = [f"{plain_label(k)} = {plain_label(v)}" for k, v in architecture.choices]
        figure = new_figure(6, 0.4 + 0.22 * len(lines))
        figure.text(0.05, 0.95, "\n".join(lines), va="top", fontsize=9)
        return figure
    layouts = [(kind, layout_cell(cell)) for kind, cell in architecture.cells]
    width = max(layout.width for _, layout in layouts) / 92
    heights = [layout.height / 92 + 0.3 for _, layout in layouts]
    figure = new_figure(width, sum(heights))
    parts = figure.subplots(len(layouts), 1, squeeze=False, height_ratios=heights)
    for axes, (kind, layout) in zip(parts[:, 0], layouts, strict=True):
        _draw_cell(axes, layout)
        axes.set_title(
            f"{plain_label(kind)} cell" if kind != "cell" else "cell", loc="left", fontsize=9
        )
    figure.subplots_adjust(
        left=0.01, right=0.99, bottom=0.01, top=1 - 0.25 / sum(heights), hspace=0.12
    )
    return figure


def cell_png(architecture: Architecture, path: str | Path) -> Path:
    """Draw the cells (or the labelled choices) of `architecture` into a PNG file."""
    return save_png(_cell_figure(architecture), path)


def cell_image(architecture: Architecture) -> NDArray[np.uint8]:
    """The drawing of `cell_png` as an array for `SummaryWriter.add_image(dataformats="HWC")`.

    Shapes: [height, width, 3], 0..255.
    """
    return _pixels(_cell_figure(architecture))


def alpha_image(
    weights: Mapping[str, ArrayLike], ops: Sequence[str], *, title: str = ""
) -> NDArray[np.uint8]:
    """Mixing weights of one epoch as a heat map a cell kind: edges down, operations across.

    Shapes: each of `weights` [edges, operations] -> [height, width, 3], 0..255.
    """
    tables = {kind: np.asarray(value, dtype=np.float64) for kind, value in weights.items()}
    edges = max(table.shape[0] for table in tables.values())
    figure = new_figure(1.4 + 3.0 * len(tables), 1.7 + 0.2 * edges)
    parts = figure.subplots(1, len(tables), squeeze=False)[0]
    for axes, (kind, table) in zip(parts, tables.items(), strict=True):
        axes.imshow(
            table, cmap="Blues", vmin=0.0, vmax=max(float(table.max()), 1e-9), aspect="auto"
        )
        names = [plain_label(op, 24) for op in ops] if len(ops) == table.shape[1] else None
        axes.set_xticks(range(table.shape[1]), names, rotation=60, ha="right", fontsize=7)
        axes.set_yticks(range(table.shape[0]), edge_names(table.shape[0]), fontsize=7)
        axes.set_title(f"{plain_label(kind)} {plain_label(title)}".strip(), fontsize=8, loc="left")
        axes.spines[:].set_visible(False)
    figure.tight_layout()
    return _pixels(figure)


def front_png(rows: Sequence[ModelRow], path: str | Path, *, batch: int | None = None) -> Path:
    """Test accuracy against latency, one panel a batch size: error bars, baseline, Pareto front.

    Times taken under foreign load are hollow marks outside the front.

    Raises:
        LatencyError: the rows come from several devices or data sets.
        ConfigError: no row has both an accuracy and a time.
    """
    sizes = [batch] if batch else sorted({size for row in rows for size in row.latency})
    panels = [
        (size, kept)
        for size in sizes
        if (kept := [*comparable_rows(rows, size), *loaded_rows(rows, size)])
    ]
    if not panels:
        raise ConfigError(
            "No row has both a test accuracy and a latency, so there is no front to draw; run "
            "`darts-core bench what=models`."
        )
    figure = new_figure(5.2 * len(panels), 3.9)
    parts = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (size, kept) in zip(parts, panels, strict=True):
        _draw_front(axes, kept, size)
    figure.tight_layout()
    for axes, (size, kept) in zip(parts, panels, strict=True):
        _name_models(axes, kept, size)
    return save_png(figure, path)


def _draw_front(axes: Any, rows: Sequence[ModelRow], batch: int) -> None:
    only_data(axes)
    for row in rows:
        time, mean = row.latency[batch], 100 * (row.accuracy_mean or 0.0)
        low = time.median_ms - (time.q05_ms or time.median_ms)
        high = (time.q95_ms or time.median_ms) - time.median_ms
        color = hex_color(kind_color(row.kind))
        if time.flagged:
            axes.plot(time.median_ms, mean, marker=_MARKERS[runtime_shape(row.runtime)], markersize=6.5,
                      markerfacecolor="none", markeredgecolor=color, alpha=0.7, linestyle="")  # fmt: skip
            continue
        axes.errorbar(time.median_ms, mean, xerr=[[max(low, 0)], [max(high, 0)]],
                      yerr=100 * (row.accuracy_std or 0.0), ecolor=color + "70", elinewidth=1.1,
                      color=color, marker=_MARKERS[runtime_shape(row.runtime)], markersize=6.5,
                      markeredgecolor="white", markeredgewidth=0.8, zorder=3)  # fmt: skip
    front = accuracy_latency_front(rows, batch)
    axes.step([r.latency[batch].median_ms for r in front],
              [100 * (r.accuracy_mean or 0.0) for r in front],
              where="post", color=hex_color("good"), linewidth=1.6, alpha=0.7, zorder=2)  # fmt: skip
    base = baseline_row(rows, batch)
    if base is not None:
        style = {"color": hex_color("baseline"), "linestyle": "--", "linewidth": 0.9, "alpha": 0.8}
        axes.axvline(base.latency[batch].median_ms, **style)
        axes.axhline(100 * (base.accuracy_mean or 0.0), **style)
    _latency_axis(axes, [row.latency[batch].median_ms for row in rows])
    axes.set_xlabel(f"latency at batch {batch}, ms per batch", fontsize=8)
    axes.set_ylabel("test accuracy, %", fontsize=8)
    axes.tick_params(labelsize=7.5)


def _latency_axis(axes: Any, times: Sequence[float]) -> None:
    """Plain round numbers on the time axis, logarithmic over a wide range."""
    if max(times) / min(times) > 4:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        marks = Scale(low, high, 0.0, 1.0, log=True).ticks()
        axes.set_xticks(marks, [number(mark) for mark in marks])
        axes.set_xticks([], minor=True)


def _name_models(axes: Any, rows: Sequence[ModelRow], batch: int) -> None:
    """Each model's name near its fastest mark, clear of the marks and of other names."""
    pixels_per_point = _DPI / 72

    def point(row: ModelRow) -> tuple[float, float]:
        data = (row.latency[batch].median_ms, 100 * (row.accuracy_mean or 0.0))
        across, up = axes.transData.transform(data) / pixels_per_point
        return float(across), -float(up)

    box = axes.get_window_extent()
    ends = [value / pixels_per_point for value in (box.x0, box.x1, -box.y1, -box.y0)]
    first = [own[0] for own in series_of(rows, batch)]
    widths = [text_width(label_text(row), 8) for row in first]
    area = (ends[0], ends[1], ends[2], ends[3])
    places = place_labels([point(r) for r in first], [point(r) for r in rows], widths, area)
    for row, (left, base) in zip(first, places, strict=True):
        at = point(row)
        axes.annotate(plain_label(label_text(row)),
                      (row.latency[batch].median_ms, 100 * (row.accuracy_mean or 0.0)),
                      xytext=(left - at[0], at[1] - base), textcoords="offset points", fontsize=7.5,
                      color=hex_color(kind_color(row.kind)), fontweight="bold", zorder=5)  # fmt: skip
