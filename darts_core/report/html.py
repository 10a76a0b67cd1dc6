"""HTML from the templates beside this file: whatever comes from outside is escaped on its way into one.

Every value that a template prints first passes `plain_text` (control characters, direction overrides) and
then jinja2's autoescape; only what is marked as finished HTML (`Markup`) is printed as it is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from darts_core.report.escape import plain_text

__all__ = ["Markup", "render"]

_LIMIT = 2000
"""Characters of a value that a page shows; a template may ask for fewer or more (`|text(limit)`)."""


class _Inert(str):
    """Text that is printable already and still to be escaped."""

    __slots__ = ()


def _text(value: Any, limit: int = _LIMIT, lines: bool = False) -> str:
    if isinstance(value, (Markup, _Inert)):
        return value
    return _Inert(plain_text(value, limit=limit, lines=lines))


@cache
def _environment(folders: tuple[Path, ...]) -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        finalize=_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["text"] = _text
    return found


def render(template: str, /, *, folders: tuple[Path, ...] = (), **values: Any) -> Markup:
    """The template `NAME.html` filled with `values`; `folders` are looked in before our own."""
    places = (*folders, Path(__file__).with_name("templates"))
    return Markup(_environment(places).get_template(f"{template}.html").render(**values))
