"""Text, JSON and CSV for the terminal. Names, metrics and data of users are neutralised on the way."""

from __future__ import annotations

import csv
import io
import json
import math
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.report.escape import plain_text
from darts_core.runlog import plain

_SENSIBLE_SECONDS = 30.0
_BARS = "▁▂▃▄▅▆▇█"

__all__ = ["clock", "cost_text", "neutral", "render", "short", "span", "sparkline", "zone"]


def neutral(value: Any, limit: int = 200) -> str:
    """`plain_text` as long as a table's cell or a line of the terminal takes it."""
    return plain_text(value, limit=limit)


def short(value: Any) -> str:
    """A value for a table cell."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.5g}"
    if isinstance(value, Mapping):
        return neutral(", ".join(f"{k}={short(v)}" for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return neutral(", ".join(short(v) for v in value))
    return neutral(value)


def clock(seconds: Any) -> str:
    """A time stamp as local date and time."""
    if not isinstance(seconds, (int, float)):
        return "-"
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # no time of a calendar, as in a damaged file
        return "-"


def zone() -> str:
    """How far the clock of this machine is from UTC now, as `UTC+01:00`."""
    offset = time.strftime("%z")
    return f"UTC{offset[:3]}:{offset[3:5]}"


def span(seconds: Any) -> str:
    """A duration as `1h02m`, `3m05s` or `4.2s`."""
    if not isinstance(seconds, (int, float)):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def sparkline(values: Sequence[Any]) -> str:
    """The course of some numbers as a line of small bars; empty for fewer than two."""
    known = [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    if len(known) < 2:
        return ""
    low, high = min(known), max(known)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in known)


def cost_text(cost: Mapping[str, Mapping[str, Any]]) -> str:
    """The cost of a search as a sentence: time, and trainings with and without the user's own."""
    text = span(cost["search"]["seconds"])
    times = cost["search"]["trainings"]
    if times is not None:
        text += f" = {times:.2f} trainings (the search {cost['besides_yours']['trainings']:.2f}, yours 1)"
        # the time of short trials is too coarse to compare
        if cost["search"]["processor_seconds"] >= _SENSIBLE_SECONDS:
            text += f", {cost['search']['processor_trainings']:.2f} by processor time"
    if cost["confirm"]["seconds"]:
        text += f"; confirming runs {span(cost['confirm']['seconds'])}"
    return text


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [[short(row.get(column)) for column in columns] for row in rows]
    heads = [neutral(column) for column in columns]
    lines = [heads, *cells]
    widths = [max(map(_columns, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(c + " " * (w - _columns(c)) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes: Chinese letters are two wide, accents have no room."""
    if text.isascii():
        return len(text)
    seen = [c for c in text if unicodedata.category(c) not in ("Mn", "Me")]
    return len(seen) + sum(unicodedata.east_asian_width(c) in "WF" for c in seen)


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_cell(column) for column in columns])
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    return stream.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (Mapping, list, tuple)):
        text = json.dumps(plain(value))
    else:
        text = neutral(value, 10_000)
    # a spreadsheet must not take a cell for a formula
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def render(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], form: str = "text", extra: Any = None
) -> str:
    """The rows as aligned text, CSV, or JSON (`extra` stands beside the rows there)."""
    if form == "json":
        content = list(rows) if extra is None else {**extra, "rows": list(rows)}
        # ASCII only: escape characters arrive as \\u001b, never raw
        return json.dumps(plain(content), indent=2, allow_nan=False)
    return _csv(columns, rows) if form == "csv" else _text(columns, rows)
