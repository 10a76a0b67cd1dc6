"""docs/security.md promises nothing without a test: each row names one, and it exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = [
    line for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| from outside"))
]  # fmt: skip
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("row", ROWS)
def test_every_promise_names_a_test_that_exists(row: str) -> None:
    found = _TEST.findall(row)
    assert found, "this row names no test"
    for file, name in found:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in known, f"{file} has no {name}"


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) > 20
    assert len(_TEST.findall(PAGE)) >= len(ROWS)
