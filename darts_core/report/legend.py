"""Plotting marks, and the legend that says what they stand for."""

from __future__ import annotations

from collections.abc import Iterable

from darts_core.report.front import Key
from darts_core.report.html import Markup, render
from darts_core.report.svg import line, tag

__all__ = ["legend", "mark", "series_shape"]

# one a series; "star" is the baseline's
_SERIES_SHAPES = ("circle", "square", "diamond", "triangle", "hexagon", "pentagon", "cross")

_SHAPES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "diamond": [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
    "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
    "hexagon": [(-0.6, -1), (0.6, -1), (1.15, 0), (0.6, 1), (-0.6, 1), (-1.15, 0)],
    "pentagon": [(0, -1.15), (1.1, -0.35), (0.68, 0.95), (-0.68, 0.95), (-1.1, -0.35)],
    "star": [(0, -1.5), (0.38, -0.45), (1.45, -0.45), (0.6, 0.2), (0.9, 1.25), (0, 0.62),
             (-0.9, 1.25), (-0.6, 0.2), (-1.45, -0.45), (-0.38, -0.45)],
    "cross": [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
              (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
}  # fmt: skip


def series_shape(index: int) -> str:
    """The shape of a series; where the colours begin anew each has another one than before."""
    count = len(_SERIES_SHAPES)
    return _SERIES_SHAPES[(index + index // count) % count]


def mark(shape: str, x: float, y: float, size: float, **attributes: object) -> str:
    """A plotting mark centred at (x, y): a circle or one of the other shapes."""
    if shape == "circle":
        return tag("circle", cx=x, cy=y, r=size, **attributes)
    corners = _SHAPES.get(shape, _SHAPES["square"])
    points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
    return tag("polygon", points=points, **attributes)


def legend(keys: Iterable[Key]) -> Markup:
    """The keys as HTML, in their order; a key of the shape "line" stands for a line."""
    items = []
    for key in keys:
        look = f"hollow s-{key.color}" if key.hollow else f"fill-{key.color}"
        if key.shape == "line":
            shape = line(0, 8, 16, 8, class_=f"series s-{key.color}")
        else:
            shape = mark(key.shape, 8, 8, 5, class_=look)
        svg = tag("svg", shape, viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")
        items.append((Markup(svg), key.text))
    return render("key", items=items) if items else Markup()
