"""Pieces of HTML that several sections share: sections, tables, figures of speech for numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darts_core.report.html import Markup, render
from darts_core.report.rows import finite
from darts_core.report.svg import number

__all__ = [
    "Section",
    "callout",
    "card",
    "count_text",
    "details",
    "duration",
    "pair",
    "percent",
    "plain_table",
    "records",
]

_MOST_ROWS, _MOST_COLUMNS = 1000, 60


@dataclass(frozen=True)
class Section:
    """One titled part of the page; `key` is its anchor. Title and note are escaped by the page."""

    key: str
    title: str
    body: Markup
    note: str = ""


def card(content: Markup, *, title: str = "") -> Markup:
    """A framed piece of the page, or nothing for no content."""
    return render("card", content=content, title=title) if content else Markup()


def pair(*cards: Markup) -> Markup:
    """Cards side by side where the window is wide enough."""
    kept = Markup().join(item for item in cards if item)
    return Markup('<div class="pair">{}</div>').format(kept) if kept else kept


def callout(content: object, tone: str = "") -> Markup:
    """A remark in a frame; `tone` is "", "ok" or "bad"."""
    return render("callout", content=content, tone=tone)


def details(summary: object, content: Markup) -> Markup:
    """Something folded away behind a line."""
    return render("details", summary=summary, content=content)


def count_text(value: float | None) -> str:
    """A count in short: 3.35 M, 528 M, 25.9 k."""
    if value is None:
        return "–"
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= limit:
            return f"{number(value / limit)}{unit}"
    return number(value)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: 42 s, 3 min 12 s, 2 h 5 min."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{number(seconds, 2)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def percent(value: float | None) -> str:
    """A fraction as a whole percentage, or a dash."""
    return "–" if value is None else f"{value * 100:.0f} %"


def value_text(value: Any) -> str:
    """Any JSON value as short text: numbers rounded, lists joined, mappings as key=value."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    known = finite(value)
    if known is not None:
        return f"{value:,}" if isinstance(value, int) else number(known, 4)
    if isinstance(value, Mapping):
        shown = ", ".join(f"{key}={value_text(item)}" for key, item in list(value.items())[:12])
        return shown + (" …" if len(value) > 12 else "")
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(item) for item in value[:12]) + (
            " …" if len(value) > 12 else ""
        )
    return str(value)


def plain_table(items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Markup:
    """A two-column table of names and values."""
    pairs = items.items() if isinstance(items, Mapping) else items
    rows = [(key, value_text(value)) for key, value in pairs]
    return render("names", rows=rows) if rows else Markup()


def records(items: Sequence[Mapping[str, Any]]) -> Markup:
    """A table of mappings: one column a key that occurs, in order of first appearance.

    What a page cannot bear (behind 1000 rows or 60 columns) is counted below the table.
    """
    every = [item for item in items if isinstance(item, Mapping)]
    known = list(dict.fromkeys(str(key) for row in every for key in row))
    rows, keys = every[:_MOST_ROWS], known[:_MOST_COLUMNS]
    if not keys:
        return Markup()
    table = render(
        "records",
        columns=[key.replace("_", " ") for key in keys],
        rows=[[value_text(row.get(key)) for key in keys] for row in rows],
    )
    counts = ((len(rows), len(every), "rows"), (len(keys), len(known), "columns"))
    cut = [f"{shown} of {of_all} {what}" for shown, of_all, what in counts if shown < of_all]
    return table + (Markup('<p class="note">{}.</p>').format(", ".join(cut)) if cut else "")
