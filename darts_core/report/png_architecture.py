"""Cells and mixing weights as PNG files, and as arrays for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from darts_core.architecture import Architecture
from darts_core.report.alphas import edge_names
from darts_core.report.layout import Box, CellLayout, layout_cell
from darts_core.report.palette import hex_color, op_family
from darts_core.report.png_figure import new_figure, pixels, plain_label, save_png

__all__ = ["alpha_image", "cell_image", "cell_png"]


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
    return pixels(_cell_figure(architecture))


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
    return pixels(figure)
