import html
import re

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_core.report.escape import html_text, plain_text
from darts_core.report.html import Markup, render

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\x1b[2J\x1b[31mred",
    "a\rforged line\nb",
    "[bold red]markup[/]",
    "[link=https://example.com]x[/link]",
    "\u202egnp.exe",
    "zero\u200bwidth",
    "lone \ud800 surrogate",
    "back\\[red]slash",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_prints_as_itself(text: str) -> None:
    shown = plain_text(text)
    assert shown == "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    assert shown.isprintable()


@pytest.mark.parametrize("text", HOSTILE)
def test_html_has_no_tag_and_no_quote(text: str) -> None:
    shown = html_text(text)
    assert not set("<>\"'") & set(shown)
    assert html.unescape(shown) == plain_text(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_template_prints_hostile_text_as_text(text: str) -> None:
    drawn = render("names", rows=[(text, text)])
    assert drawn.count("<t") == 4  # table, row, name, value
    for cell in re.findall(r">([^<>]+)</t[hd]>", drawn):
        assert cell == html_text(text)
    # only what is said to be finished HTML is printed as it is
    assert "<b>x</b>" in render("callout", content=Markup("<b>x</b>"), tone="")
    assert "<b>" not in render("callout", content="<b>x</b>", tone='" onload="')
    assert '" onload="' not in render("callout", content="x", tone='" onload="')


def test_a_template_that_names_nothing_fails_instead_of_printing_nothing() -> None:
    with pytest.raises(jinja2.UndefinedError, match="content"):
        render("callout", tone="")


@settings(max_examples=60, deadline=None)
@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = plain_text(text)
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert "<" not in html_text(text)


def test_length_is_limited_and_lines_can_be_kept() -> None:
    assert plain_text("x" * 500, limit=10) == "x" * 10 + "…"
    assert plain_text("a\nb\x07", lines=True) == "a\nb\\x07"
    assert plain_text("a\tb") == "a\\tb"
