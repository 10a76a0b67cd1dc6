"""The versions of a job as a tree: which was made from which, how each ended and what it reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from darts_core.report.html import Markup
from darts_core.report.svg import drawing, number, path, tag, text

__all__ = ["version_lines", "version_tree"]

_STEP, _ROW = 26.0, 26.0
_COLORS = {"succeeded": "good", "failed": "bad", "stopped": "warn", "interrupted": "warn"}


def version_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each version with its depth, children behind their parent, in the order of the rows.

    Args:
        rows: mappings with `version` and `parent`; a parent that is gone makes a root.
    """
    names = {row["version"] for row in rows}
    below: dict[Any, list[Mapping[str, Any]]] = {}
    for row in rows:
        parent = row.get("parent")
        known = parent in names and parent != row["version"]
        below.setdefault(parent if known else None, []).append(row)
    waiting = [(0, row) for row in reversed(below.pop(None, []))]
    while waiting:
        depth, row = waiting.pop()
        yield depth, row
        waiting += [(depth + 1, child) for child in reversed(below.pop(row["version"], []))]
    # a record that names its own descendant as its parent
    for left in below.values():
        yield from ((0, row) for row in left)


def version_tree(rows: Sequence[Mapping[str, Any]], *, here: str = "") -> Markup:
    """The tree as SVG, "" for a single version without a description.

    Args:
        rows: mappings with `version`, `parent`, `state`, `metric`, `value`,
            `version_description`.
        here: the version whose page it is.
    """
    if len(rows) < 2 and not any(row.get("version_description") for row in rows):
        return Markup()
    places: dict[str, tuple[float, float]] = {}
    body = []
    for index, (depth, row) in enumerate(version_lines(rows)):
        at = (14 + min(depth, 12) * _STEP, 16 + index * _ROW)
        places[row["version"]] = at
        parent = places.get(str(row.get("parent")))
        if parent is not None and parent != at:
            corner = (parent[0], at[1])
            body.append(
                path([(parent[0], parent[1] + 6), corner, (at[0] - 6, at[1])], class_="axis")
            )
        color = _COLORS.get(str(row["state"]), "accent")
        body.append(tag("circle", cx=at[0], cy=at[1], r=5.0, class_=f"fill-{color}"))
        name = f"{row['version']}{' (this page)' if row['version'] == here else ''}"
        body.append(text(at[0] + 12, at[1] + 4, name, class_="label"))
        body.append(text(200 + 12 * _STEP / 2, at[1] + 4, _line(row), class_="fill-soft"))
    return drawing(1060, 16 + len(places) * _ROW, "".join(body), label="Versions of the job")


def _line(row: Mapping[str, Any]) -> str:
    """State, value and description of a version in one line."""
    parts = [str(row["state"])]
    if isinstance(row.get("value"), (int, float)):
        parts.append(f"{row.get('metric')} {number(float(row['value']), 4)}")
    if row.get("version_description"):
        parts.append(str(row["version_description"]))
    return " · ".join(parts)
