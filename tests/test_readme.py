"""The README tells the truth: its Python runs and prints what it says, and its links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from darts_core.ops import OPS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_python_example_prints_what_its_comments_say() -> None:
    example = next(block for block in blocks("python") if "Supernet" in block)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example, "README.md", "exec"), {})
    printed = said.getvalue().splitlines()
    assert printed[0] == "[(14, 8), (14, 8)]"
    assert printed[1].startswith("Genotype(normal=[(")
    assert printed[2] == "Count(params=3349342, macs=528359040)"
    for line in (printed[0], printed[2]):
        assert f"# {line}" in example


def test_the_operation_of_the_example_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    example = next(block for block in blocks("python") if "register_op" in block)
    (name,) = re.findall(r'@register_op\("(\w+)"', example)
    assert name not in OPS
    try:
        exec(compile(example, "README.md", "exec"), {"__name__": "my_nas"})
        assert name in OPS
    finally:
        OPS._entries.pop(name, None)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
