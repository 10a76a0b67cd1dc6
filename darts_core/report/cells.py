"""Drawings of an architecture: one graph a cell kind, or the labelled choices as a list."""

from __future__ import annotations

from itertools import pairwise

from darts_core.architecture import Architecture, CellChoice
from darts_core.report.html import Markup, render
from darts_core.report.layout import Box, CellLayout, layout_cell
from darts_core.report.palette import op_family
from darts_core.report.svg import drawing, rect, tag, text

__all__ = ["architecture_html", "cell_svg", "curve", "legend_html"]

_MOST_STATES, _MOST_EDGES = 40, 160

_FAMILY_TEXT = {
    "sep": "separable convolution",
    "dil": "dilated convolution",
    "conv": "convolution",
    "pool": "pooling",
    "skip": "skip connection",
    "none": "no connection",
    "other": "other operation",
}


def curve(layout: CellLayout, stops: list[str]) -> str:
    """The path data of a line through boxes: level where it meets one, smooth in between."""
    boxes = [layout.boxes[key] for key in stops]
    points = [(boxes[0].x + boxes[0].width / 2, boxes[0].y)]
    points += [(box.x, box.y) for box in boxes[1:-1]]
    points.append((boxes[-1].x - boxes[-1].width / 2, boxes[-1].y))
    # level at both ends; at a placeholder the line points from the last one to the next
    slopes = [0.0] * len(points)
    for i in range(1, len(points) - 1):
        (x0, y0), (_, y1), (x2, y2) = points[i - 1 : i + 2]
        turning = (y1 - y0) * (y2 - y1) <= 0
        slopes[i] = 0.0 if turning else (y2 - y0) / (x2 - x0)
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for i, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        reach = (x1 - x0) * 0.45
        parts.append(
            f"C{x0 + reach:.1f} {y0 + reach * slopes[i]:.1f} "
            f"{x1 - reach:.1f} {y1 - reach * slopes[i + 1]:.1f} {x1:.1f} {y1:.1f}"
        )
    return " ".join(parts)


def _box_svg(box: Box, *, dead: bool) -> str:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    if box.kind == "op":
        family = op_family(box.label)
        shape = rect(left, top, box.width, box.height, rx=14, class_=f"op f-{family}")
        label = text(box.x, box.y + 4, box.label, class_=f"op-text t-{family}")
        return tag("g", shape + label, class_="ghost" if dead else None)
    radius = box.height / 2 if box.kind == "node" else 8
    shape = rect(left, top, box.width, box.height, rx=radius, class_=f"state {box.kind}")
    return shape + text(box.x, box.y + 4.5, box.label, class_="state-text")


def cell_svg(cell: CellChoice, *, title: str) -> Markup:
    """One cell as an SVG graph: inputs left, nodes, an operation's box on each edge, output right.

    Edges that carry `none` are drawn thin and dashed.
    """
    layout = layout_cell(cell)
    lines, boxes = [], []
    for link in layout.links:
        family = op_family(link.op) if link.op else "concat"
        lines.append(tag("path", d=curve(layout, link.stops), class_=f"edge e-{family}"))
    for box in layout.boxes.values():
        if box.kind != "way":
            boxes.append(_box_svg(box, dead=box.kind == "op" and op_family(box.label) == "none"))
    body = "".join(lines + boxes)
    return drawing(
        layout.width,
        layout.height,
        body,
        label=f"Graph of the {title}",
        class_="cell",
        most=min(1.3, 1060 / layout.width) * layout.width,
    )


def legend_html(ops: set[str]) -> Markup:
    """A key of the operation families that occur in `ops`."""
    families = [family for family in _FAMILY_TEXT if family in {op_family(op) for op in ops}]
    return render(
        "key",
        items=[(Markup('<i class="dot d-{}"></i>').format(f), _FAMILY_TEXT[f]) for f in families],
    )


def architecture_html(architecture: Architecture) -> Markup:
    """All cells of an architecture with a colour key; labelled choices as a table."""
    cells = []
    for kind, cell in architecture.cells:
        title = f"{kind} cell" if kind != "cell" else "cell"
        small = cell.states <= _MOST_STATES and len(cell.edges) <= _MOST_EDGES
        cells.append((kind, title, cell_svg(cell, title=title) if small else Markup()))
    ops = {op for _, cell in architecture.cells for _, _, op in cell.edges}
    return render(
        "architecture",
        cells=cells,
        key=legend_html(ops) if cells else Markup(),
        choices=architecture.choices,
    )
