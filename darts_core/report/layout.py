"""Where the parts of a cell's graph go: a layered drawing from left to right.

States and operations are both boxes: an operation gets a box of its own on the way from its source to
its target, so that no label ever lies on a line or on another label. Lines that pass a column get a
placeholder there, and the order within each column is improved by the barycentre heuristic.

Source: Sugiyama, Tagawa, Toda 1981, Methods for visual understanding of hierarchical system structures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from darts_core.architecture import CellChoice
from darts_core.report.svg import text_width

__all__ = ["Box", "CellLayout", "Link", "layout_cell"]

_ROW = 44.0
_GAP = 46.0
_MARGIN = 14.0


@dataclass
class Box:
    """A state, an operation, or a placeholder (`kind` "way") with its centre and size in pixels."""

    key: str
    kind: str
    label: str
    column: int
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0


@dataclass
class Link:
    """A line through the boxes `stops` (first and last are real); `op` is its operation or ""."""

    stops: list[str]
    op: str


@dataclass
class CellLayout:
    """The finished drawing: boxes by key, lines, and the picture's size in pixels."""

    boxes: dict[str, Box] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def _state_names(cell: CellChoice) -> dict[int, str]:
    """What a state is called in the drawing."""
    inputs = cell.inputs
    names = {0: "input"} if inputs == 1 else {}
    if inputs == 2:
        names = {0: "c[k−2]", 1: "c[k−1]"}
    elif inputs > 2:
        names = {i: f"input {i}" for i in range(inputs)}
    for state in range(inputs, cell.states):
        names[state] = str(state - inputs + (1 if inputs == 1 else 0))
    return names


def _depths(cell: CellChoice) -> list[int]:
    """Longest path from any input to each state."""
    depth = [0] * cell.states
    for source, target, _ in sorted(cell.edges, key=lambda edge: edge[1]):
        depth[target] = max(depth[target], depth[source] + 1)
    return depth


def _add_box(layout: CellLayout, key: str, kind: str, label: str, column: int) -> None:
    if kind == "op":
        width, height = text_width(label, 12.0) + 26, 28.0
    elif kind == "way":
        width, height = 0.0, 6.0
    else:
        width, height = max(34.0, text_width(label, 13.0) + 20), 34.0
    layout.boxes[key] = Box(key, kind, label, column, width, height)


def _add_link(layout: CellLayout, source: str, target: str, op: str = "") -> None:
    """Join two boxes, with a placeholder in every column between them."""
    stops = [source]
    first, last = layout.boxes[source].column, layout.boxes[target].column
    for column in range(first + 1, last):
        key = f"way-{source}-{target}-{column}"
        _add_box(layout, key, "way", "", column)
        stops.append(key)
    layout.links.append(Link([*stops, target], op))


def _order(layout: CellLayout) -> list[list[Box]]:
    """Boxes by column, ordered so that lines cross little."""
    columns: list[list[Box]] = [[] for _ in range(1 + max(b.column for b in layout.boxes.values()))]
    for box in layout.boxes.values():
        columns[box.column].append(box)
    before: dict[str, list[str]] = {key: [] for key in layout.boxes}
    after: dict[str, list[str]] = {key: [] for key in layout.boxes}
    for link in layout.links:
        for left, right in pairwise(link.stops):
            before[right].append(left)
            after[left].append(right)
    best, fewest = [list(column) for column in columns], _crossings(columns, after)
    for sweep in range(12):
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for index in range(len(columns)) if forward else reversed(range(len(columns))):
            place = {box.key: i for column in columns for i, box in enumerate(column)}
            own = {box.key: i for i, box in enumerate(columns[index])}
            columns[index].sort(
                key=lambda box: (
                    sum(place[k] for k in neighbours[box.key]) / len(neighbours[box.key])
                    if neighbours[box.key]
                    else own[box.key]
                )
            )
        crossings = _crossings(columns, after)
        if crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
    return best


def _crossings(columns: list[list[Box]], after: dict[str, list[str]]) -> int:
    """How many pairs of lines between neighbouring columns cross."""
    place = {box.key: i for column in columns for i, box in enumerate(column)}
    total = 0
    for column in columns:
        pairs = [(place[box.key], place[key]) for box in column for key in after[box.key]]
        for i, (a, b) in enumerate(pairs):
            total += sum((a - c) * (b - d) < 0 for c, d in pairs[i + 1 :])
    return total


def _room(upper: Box, lower: Box) -> float:
    """Distance that two neighbours of a column keep; lines passing by may lie close together."""
    if upper.kind == "way" and lower.kind == "way":
        return 14.0
    if "way" in (upper.kind, lower.kind):
        return 30.0
    return _ROW


def _place(column: list[Box], wanted: list[float]) -> None:
    """Put boxes near their wanted heights, in order and apart: pool neighbours that would collide.

    Least squares with order constraints (pool adjacent violators) after the gaps are taken out.
    """
    offsets = [0.0]
    for upper, lower in pairwise(column):
        offsets.append(offsets[-1] + _room(upper, lower))
    blocks: list[list[float]] = []  # [sum of targets, members]
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append([want - offset, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, members = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += members
    levels = [total / members for total, members in blocks for _ in range(int(members))]
    for box, level, offset in zip(column, levels, offsets, strict=True):
        box.y = level + offset


def _heights(layout: CellLayout, columns: list[list[Box]]) -> None:
    """Give every box its height: straight lines first, even spacing where nothing pulls."""
    joined: dict[str, list[tuple[str, float]]] = {key: [] for key in layout.boxes}
    for link in layout.links:
        for left, right in pairwise(link.stops):
            # long lines should run straight, so placeholders pull each other most
            pull = 4.0 if layout.boxes[left].kind == layout.boxes[right].kind == "way" else 1.0
            joined[left].append((right, pull))
            joined[right].append((left, pull))
    for column in columns:
        _place(column, [(i - (len(column) - 1) / 2) * _ROW for i in range(len(column))])
    for _ in range(30):
        for column in columns:
            wanted = []
            for box in column:
                near = joined[box.key]
                weight = sum(pull for _, pull in near)
                wanted.append(
                    sum(layout.boxes[k].y * pull for k, pull in near) / weight if near else box.y
                )
            _place(column, wanted)


def layout_cell(cell: CellChoice) -> CellLayout:
    """Boxes and lines of one cell, inputs left, output right, in pixels from the top left corner.

    A cell whose output is one state ends in that state; otherwise a box joins the concatenated ones.
    """
    layout = CellLayout()
    names, depth = _state_names(cell), _depths(cell)
    single = len(cell.concat) == 1 and cell.concat[0] == cell.states - 1
    for state in range(cell.states):
        kind = "input" if state < cell.inputs else "node"
        if single and state == cell.concat[0]:
            kind, names[state] = "output", "output"
        _add_box(layout, f"s{state}", kind, names[state], 2 * depth[state])
    for index, (source, target, op) in enumerate(cell.edges):
        key = f"op{index}"
        _add_box(layout, key, "op", op, 2 * depth[target] - 1)
        _add_link(layout, f"s{source}", key, op)
        _add_link(layout, key, f"s{target}", op)
    if not single:
        _add_box(layout, "out", "output", "c[k]", 2 * max(depth) + 1)
        for state in cell.concat:
            _add_link(layout, f"s{state}", "out")
    columns = _order(layout)
    _heights(layout, columns)
    x = _MARGIN
    for column in columns:
        width = max(box.width for box in column)
        for box in column:
            box.x = x + width / 2
        x += width + _GAP
    layout.width = x - _GAP + _MARGIN
    top = min(box.y - box.height / 2 for box in layout.boxes.values()) - _MARGIN
    for box in layout.boxes.values():
        box.y -= top
    layout.height = max(box.y + box.height / 2 for box in layout.boxes.values()) + _MARGIN
    return layout
