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


def test_a_benchmark_that_needs_another_is_started_as_a_module() -> None:
    """`python benchmarks/NAME.py` finds the others only where the checkout itself is installed."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.py")]
    named = {
        name
        for page in pages
        if page.name != "CHANGELOG.md"
        for name in re.findall(r"python\s+benchmarks/(\w+)\.py", page.read_text(encoding="utf-8"))
    }
    assert "jobs_list" in named
    code = {name: (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8") for name in named}
    lost = [n for n, text in code.items() if "\nfrom benchmarks" in text]
    assert [name for name in lost if "sys.path" not in code[name]] == []
