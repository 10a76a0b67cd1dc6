"""Pieces of HTML that several sections share: sections, tables, figures of speech for numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from darts_core.report.escape import html_text
from darts_core.report.rows import finite
from darts_core.report.svg import number

__all__ = ["Section", "card", "count_text", "duration", "pair", "percent", "plain_table", "records"]


@dataclass(frozen=True)
class Section:
    """One titled part of the page; `key` is its anchor, `body` finished HTML."""

    key: str
    title: str
    body: str
    note: str = ""

    def html(self) -> str:
        """The section as HTML; title and note are escaped here."""
        note = f'<p class="note">{html_text(self.note, limit=2000)}</p>' if self.note else ""
        return (
            f'<section id="{html_text(self.key)}"><h2>{html_text(self.title)}</h2>'
            f"{note}{self.body}</section>"
        )


def card(content: str, *, title: str = "") -> str:
    """A framed piece of the page, or "" for no content."""
    head = f"<h3>{html_text(title)}</h3>" if title else ""
    return f'<div class="card">{head}<div class="scroll">{content}</div></div>' if content else ""


def pair(*cards: str) -> str:
    """Cards side by side where the window is wide enough."""
    kept = [item for item in cards if item]
    return f'<div class="pair">{"".join(kept)}</div>' if kept else ""


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


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as a percentage, or a dash."""
    return "–" if value is None else f"{value * 100:.{digits}f} %"


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
        return ", ".join(f"{key}={value_text(item)}" for key, item in list(value.items())[:12])
    if isinstance(value, (list, tuple)):
        return ", ".join(value_text(item) for item in value[:12]) + (
            " …" if len(value) > 12 else ""
        )
    return str(value)


def plain_table(items: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """A two-column table of names and values, both escaped."""
    pairs = items.items() if isinstance(items, Mapping) else items
    rows = "".join(
        f"<tr><th scope=row>{html_text(key)}</th><td>{html_text(value_text(value))}</td></tr>"
        for key, value in pairs
    )
    return f'<div class="scroll"><table class="plain">{rows}</table></div>' if rows else ""


def records(items: Sequence[Mapping[str, Any]], *, most: int = 40) -> str:
    """A table of mappings: one column a key that occurs, in order of first appearance."""
    rows = [item for item in items if isinstance(item, Mapping)][:most]
    keys = list(dict.fromkeys(str(key) for row in rows for key in row))[:12]
    if not rows or not keys:
        return ""
    head = "".join(f"<th scope=col>{html_text(key.replace('_', ' '))}</th>" for key in keys)
    body = "".join(
        "<tr>"
        + "".join(f"<td>{html_text(value_text(row.get(key)))}</td>" for key in keys)
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
