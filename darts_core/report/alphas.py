"""Mixing weights over a search: a heat map per edge, the mean weight of each operation, of each option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darts_core.report.charts import Line, line_chart
from darts_core.report.html import Markup
from darts_core.report.palette import op_colors, series_colors
from darts_core.report.rows import finite
from darts_core.report.svg import drawing, rect, tag, text, text_width

__all__ = [
    "AlphaHistory",
    "alpha_history",
    "edge_names",
    "heat_maps",
    "leading_edges",
    "mean_weights",
]

_DASHES = (None, "6 3", "2 3", "8 3 2 3")
_MOST_COLUMNS = 48


class AlphaHistory:
    """Weights of one cell kind, or of one labelled choice, over epochs.

    Shapes: weights_TEK (epochs, edges, operations); a choice has one edge, and options for operations.
    """

    def __init__(
        self, kind: str, epochs: Sequence[float], weights_tek: NDArray[np.float64], ops: list[str],
        *, choice: bool = False,
    ) -> None:  # fmt: skip
        self.kind, self.epochs, self.weights, self.ops = kind, list(epochs), weights_tek, ops
        self.choice = choice
        self.edges = edge_names(weights_tek.shape[1])


def edge_names(count: int) -> list[str]:
    """Names `source→node` of the edges of a cell in node-major order.

    Which cell has that many edges is worked out from the number: with two inputs 2, 5, 9, 14 ... edges,
    with one input 1, 3, 6, 10 ...; any other number gives plain numbers.
    """
    for inputs in (2, 1):
        names: list[str] = []
        node = 0
        while len(names) < count:
            states = [f"in {i + 1}" if inputs == 2 else "in" for i in range(inputs)]
            states += [str(j if inputs == 2 else j + 1) for j in range(node)]
            target = node if inputs == 2 else node + 1
            names += [f"{state} → {target}" for state in states]
            node += 1
        if len(names) == count:
            return names
    return [f"edge {i}" for i in range(count)]


def _matrix(value: Any) -> NDArray[np.float64] | None:
    """`value` as a finite two-dimensional array, or None."""
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return matrix if matrix.ndim == 2 and matrix.size and np.isfinite(matrix).all() else None


def alpha_history(
    rows: Sequence[Mapping[str, Any]],
    ops: Sequence[Any] | None = None,
    options: Mapping[str, Sequence[Any]] | None = None,
) -> list[AlphaHistory]:
    """The weights in a search's metric rows (`alphas: {kind: [[...]]}`), one history a cell kind.

    Rows whose shape differs from the last one's (a space that shrank) are left out.

    Args:
        rows: metric rows with `epoch` and `alphas`.
        ops: names of the columns; numbers are used when there is no name for each.
        options: the same by label, of a space of choices.
    """
    found: dict[str, list[tuple[float, NDArray[np.float64]]]] = {}
    for index, row in enumerate(rows):
        alphas = row.get("alphas")
        for kind, value in alphas.items() if isinstance(alphas, Mapping) else ():
            matrix = _matrix(value)
            if matrix is not None:
                epoch = finite(row.get("epoch"))
                found.setdefault(str(kind), []).append((index if epoch is None else epoch, matrix))
    result = []
    for kind, items in found.items():
        shape = items[-1][1].shape
        kept = [(epoch, matrix) for epoch, matrix in items if matrix.shape == shape]
        choice = kind in (options or {})
        names = [str(op) for op in (options[kind] if options and choice else ops or ())]
        if len(names) != shape[1]:
            names = [f"{'option' if choice else 'operation'} {i}" for i in range(shape[1])]
        weights = np.stack([m for _, m in kept])
        result.append(AlphaHistory(kind, [e for e, _ in kept], weights, names, choice=choice))
    return result


def _columns(history: AlphaHistory) -> list[int]:
    """Indices of at most `_MOST_COLUMNS` epochs, first and last included."""
    count = len(history.epochs)
    chosen = np.linspace(0, count - 1, min(count, _MOST_COLUMNS)).round().astype(int)
    return sorted({int(i) for i in chosen})


def _strip(
    shares: NDArray[np.float64], x: float, y: float, cell_w: float, cell_h: float, color: str
) -> str:
    """One operation's row of a map: neighbouring columns of the same shade are one rectangle.

    Shapes: shares [columns], 0..1. Sixteen shades keep a page with hundreds of rows small.
    """
    shades = np.round(shares * 15).astype(int)
    starts = [0, *(np.flatnonzero(np.diff(shades)) + 1).tolist(), len(shades)]
    runs: dict[int, list[str]] = {}
    for start, stop in pairwise(starts):
        if shades[start]:
            left, width = x + start * cell_w, (stop - start) * cell_w
            runs.setdefault(int(shades[start]), []).append(
                f"M{left:.1f} {y:.1f}h{width:.1f}v{cell_h:.1f}h{-width:.1f}z"
            )
    return "".join(
        tag("path", d="".join(steps), class_=color, fill_opacity=round(shade / 15, 2))
        for shade, steps in runs.items()
    )


def heat_maps(history: AlphaHistory) -> Markup:
    """One small map an edge: operations down, epochs across, darker for a larger weight.

    The operation that leads at the end is named under each map and outlined.
    """
    columns = _columns(history)
    names_w = max(text_width(op, 10) for op in history.ops) + 8
    per_row = min(len(history.edges), 7)
    map_w = (1060 - names_w) / per_row - 16
    cell_w, cell_h = map_w / len(columns), 12.5
    map_h = cell_h * len(history.ops)
    tile_h = map_h + 50
    # twice the uniform weight at least is full tone, so that an undecided cell looks undecided
    top = max(float(history.weights.max()), 2.0 / len(history.ops))
    colors = op_colors(history.ops)
    body = []
    for index, edge in enumerate(history.edges):
        x = names_w + (index % per_row) * (map_w + 16)
        y = 24 + (index // per_row) * tile_h
        last = int(np.argmax(history.weights[-1, index]))
        body.append(text(x, y - 8, edge, class_="edge-name"))
        body.append(rect(x - 0.5, y - 0.5, map_w + 1, map_h + 1, class_="map-frame"))
        for k, op in enumerate(history.ops):
            if index % per_row == 0:
                body.append(text(x - 8, y + k * cell_h + 9.5, op, class_="map-op end"))
            shares = np.clip(history.weights[columns, index, k] / top, 0.0, 1.0)
            body.append(_strip(shares, x, y + k * cell_h, cell_w, cell_h, f"fill-{colors[op][0]}"))
        body.append(
            rect(
                x - 1,
                y + last * cell_h - 0.5,
                map_w + 2,
                cell_h + 1,
                class_="map-lead",
                tip=f"{edge}: {history.ops[last]} leads with {history.weights[-1, index, last]:.3f}",
            )
        )
        lead = f"{history.ops[last]} {history.weights[-1, index, last]:.2f}"
        body.append(text(x, y + map_h + 13, lead, class_=f"lead t-{colors[history.ops[last]][0]}"))
    rows = -(-len(history.edges) // per_row)
    width = names_w + per_row * (map_w + 16)
    return drawing(width, 18 + rows * tile_h, "".join(body),
                   label=f"Mixing weights of the {history.kind} cell: one map an edge",
                   class_="chart heat")  # fmt: skip


def mean_weights(history: AlphaHistory) -> Markup:
    """Mean weight of each operation over all edges of the cell, or of each option, against epochs."""
    means = history.weights.mean(axis=1)
    colors = op_colors(history.ops)
    if history.choice:  # options have no families
        named = series_colors(len(history.ops))
        colors = {op: (name, 0) for op, name in zip(history.ops, named, strict=True)}
    lines = [
        Line(op, list(zip(history.epochs, means[:, k].tolist(), strict=True)), colors[op][0],
             dash=_DASHES[colors[op][1] % len(_DASHES)])
        for k, op in enumerate(history.ops)
    ]  # fmt: skip
    title, label = f"{history.kind} cell: mean weight of each operation", "mean weight over edges"
    if history.choice:
        title, label = f"{history.kind}: weight of each option", "weight"
    return line_chart(lines, x_label="epoch", y_label=label, title=title)


def leading_edges(history: AlphaHistory) -> Markup:
    """Weight of the operation that ends first on each of the six most decided edges."""
    final = history.weights[-1]
    order = np.argsort(-final.max(axis=1))[:6]
    colors = op_colors(history.ops)
    used: dict[str, int] = {}
    lines = []
    for edge in order:
        k = int(np.argmax(final[edge]))
        family = colors[history.ops[k]][0]
        dash = _DASHES[used.get(family, 0) % len(_DASHES)]
        used[family] = used.get(family, 0) + 1
        points = list(zip(history.epochs, history.weights[:, edge, k].tolist(), strict=True))
        lines.append(Line(f"{history.edges[edge]}  {history.ops[k]}", points, family, dash=dash))
    title = f"{history.kind} cell: leading operation of the most decided edges"
    return line_chart(
        lines, x_label="epoch", y_label="weight of the leading operation", title=title
    )
