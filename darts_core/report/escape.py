"""Text from outside made inert: for HTML pages and for the terminal.

Names of jobs, operations, trials, metrics and files come from users and their code. On a page they
could open a tag; in a terminal they could move the cursor, recolour, hide or forge lines.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from markupsafe import escape

__all__ = ["html_text", "plain_text"]

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _visible(character: str) -> str:
    """`character` itself when it only prints, its escape sequence as text otherwise."""
    if character in _NAMED:
        return _NAMED[character]
    # controls, lone surrogates, private and unassigned ones, and all that reorders or hides the text
    # around it ("Trojan source") are shown, never obeyed
    category = unicodedata.category(character)
    if category[0] != "C" and category not in ("Zl", "Zp"):
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plain_text(value: Any, *, limit: int = 300, lines: bool = False) -> str:
    r"""`value` as one line of printable text of at most `limit` characters.

    Control characters, lone surrogates and direction overrides appear as escapes (`\x1b`), so the
    result can be printed, logged, or given to `rich.text.Text` (which parses no markup).

    Args:
        value: anything; `str()` is taken of it.
        limit: characters kept; a longer text ends in an ellipsis.
        lines: keep line breaks and tabs (for logs and tracebacks).
    """
    keep = "\n\t" if lines else ""
    text = str(value)
    cut = text[:limit]
    # what is printable as a whole holds nothing to be shown as an escape; most texts are
    shown = cut if cut.isprintable() else "".join(c if c in keep else _visible(c) for c in cut)
    return shown + ("…" if len(text) > limit else "")


def html_text(value: Any, *, limit: int = 300) -> str:
    """`plain_text` for HTML and SVG, as element content or inside a quoted attribute."""
    return str(escape(plain_text(value, limit=limit)))
