"""The README tells the truth: its Python runs and prints what it says."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
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


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("minor", [10, 11])
def test_make_makes_no_environment_of_an_older_python(tmp_path: Path, minor: int) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    python = tmp_path / "python3"
    told = f"import sys; sys.version_info = (3, {minor}, 0); exec(sys.argv[1])"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] || {{ echo "$@" >asked; exit 1; }}\n'
        f'exec "{sys.executable}" -S -c "{told}" "$2"\n'
    )
    python.chmod(0o755)
    # a first call that ended half way, as without Debian's python3-venv, left a Python without pip
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(python, tmp_path / ".venv" / "bin" / "python")
    # the tests may run below a make, which hands its own options on
    own = {k: v for k, v in os.environ.items() if "MAKE" not in k and k != "MFLAGS"}
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "install", "PYTHON=./python3"],
        cwd=tmp_path, env=own, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    asked = tmp_path / "asked"
    if minor == 10:
        assert "./python3 is Python 3.10, and 3.11 or newer is needed" in done.stderr
        assert "-m venv" not in (asked.read_text() if asked.exists() else "")
    else:
        assert asked.read_text() == "-m venv .venv\n"
