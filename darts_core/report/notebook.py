"""A version as a piece of HTML for a notebook's cell: headline, pictures, tables; no script."""

from __future__ import annotations

import re
from pathlib import Path

from darts_core.report.html import Markup, render
from darts_core.report.script_content import Curves
from darts_core.report.style import style_sheet
from darts_core.report.versions import content_of

__all__ = ["notebook_html"]

_SHOWN = (
    "state",
    "result",
    "results",
    "contest",
    "elements",
    "methods",
    "seeds",
    "agreement",
    "curves",
    "architecture",
    "search",
    "tune",
    "shrink",
    "train",
    "trials",
    "cost",
)


def notebook_html(folder: str | Path, *, curves: Curves | None = None) -> str:
    """What `report.html` tells of a version, as long as a cell of a notebook takes it.

    The style sheet is bound to this piece, so that it changes nothing else of the notebook.

    Raises:
        ConfigError: the folder holds nothing to report.
    """
    content = content_of(folder, curves=curves)
    return render(
        "notebook",
        title=content.title,
        crumb=content.crumb,
        lead=content.lead,
        tiles=content.tiles,
        sections=[part for part in content.sections if part.key in _SHOWN],
        style=Markup(_bound(style_sheet())),
    )


def _bound(sheet: str) -> str:
    """The rules of a style sheet within `.darts-core` alone."""
    sheet = re.sub(r"/\*.*?\*/", "", sheet, flags=re.S)
    # `@scope` would say it in one line, and not every notebook's browser knows it
    own = re.sub(r"(^|[{}])\s*([^@{}]+)\{", _rule, sheet)
    return re.sub(r"\n+", "\n", own)


def _rule(found: re.Match[str]) -> str:
    names = []
    for name in found[2].split(","):
        name = name.strip()
        if name in (":root", "html", "body"):
            names.append(".darts-core")
        else:
            names.append(f".darts-core {name}")
    return f"{found[1]}{','.join(names)}{{"
