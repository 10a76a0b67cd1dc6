"""Text from outside made inert: for HTML pages and for the terminal.

Names of jobs, operations, trials, metrics and files come from users and their code. On a page they
could open a tag; in a terminal they could move the cursor, recolour, hide or forge lines.
"""

from __future__ import annotations

import html
import unicodedata
from typing import Any

__all__ = ["html_text", "markup_text", "plain_text"]

# characters that reorder or hide the text around them ("Trojan source"): shown, never obeyed
_INVISIBLE = frozenset("\u00ad\u061c\u180e\u2028\u2029\ufeff") | {
    chr(code)
    for block in (range(0x200B, 0x2010), range(0x202A, 0x202F), range(0x2060, 0x2070))
    for code in block
}
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _visible(character: str) -> str:
    """`character` itself when it only prints, its escape sequence as text otherwise."""
    if character in _NAMED:
        return _NAMED[character]
    if character in _INVISIBLE or unicodedata.category(character) in ("Cc", "Cs", "Co"):
        code = ord(character)
        if code <= 0xFF:
            return f"\\x{code:02x}"
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


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
    shown = "".join(c if c in keep else _visible(c) for c in cut)
    return shown + ("…" if len(text) > limit else "")


def markup_text(value: Any, *, limit: int = 300, lines: bool = False) -> str:
    """`plain_text` that also survives rich's console markup: `[red]` is printed, not obeyed."""
    from rich.markup import escape

    return escape(plain_text(value, limit=limit, lines=lines))


def html_text(value: Any, *, limit: int = 300, lines: bool = False) -> str:
    """`plain_text` for HTML and SVG, as element content or inside a quoted attribute."""
    return html.escape(plain_text(value, limit=limit, lines=lines), quote=True)
