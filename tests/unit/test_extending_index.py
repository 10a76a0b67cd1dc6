"""The index of docs/extending names every page, with the lines of its example."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "extending"
INDEX = (FOLDER / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| \[[^]]+\]\((\w+)\.md\) \| [^|]+ \| (\d+)(?: \+ (\d+))? \|", re.M)


def first_block(page: str, language: str) -> int | None:
    """The lines of a page's first block of a language; None where it has none."""
    text = (FOLDER / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"```{language}\n(.*?)```", text, re.S)
    return len(found[1].strip().splitlines()) if found else None


def test_every_page_has_a_row_with_the_lines_of_its_example() -> None:
    rows = {
        name: (int(lines), int(more) if more else None) for name, lines, more in ROW.findall(INDEX)
    }
    pages = {path.stem for path in FOLDER.glob("*.md")} - {"README"}
    assert rows == {
        page: (first_block(page, "python"), first_block(page, "yaml")) for page in pages
    }


def test_the_contract_tests_that_are_named_exist() -> None:
    from darts_core import testing

    named = set(re.findall(r"`(\w+Contract)`", INDEX))
    assert named == {name for name in testing.__all__ if name.endswith("Contract")}
