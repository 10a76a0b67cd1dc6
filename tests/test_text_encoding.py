"""Text is UTF-8 whatever the locale: no call of ours leaves the encoding to the machine it runs on."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from darts_core.autosearch import __main__ as engine
from darts_core.study import table

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("darts_core", "hydra_plugins", "kernels", "benchmarks", "examples")
# whose `open` is not the text one: these name their encoding differently or give bytes
_OTHER_OPEN = {"os", "bz2", "Image", "zipfile", "tarfile", "archive", "webbrowser"}


def locale_calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls that read or write text without naming an encoding."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not any(k.arg == "encoding" for k in node.keywords):
            found = _method(node) if isinstance(node.func, ast.Attribute) else _function(node)
            if found or any(map(_decodes, node.keywords)):
                yield node


def _decodes(keyword: ast.keyword) -> bool:
    value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
    return keyword.arg in ("text", "universal_newlines") and value is True


def _function(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "open" and not _binary(node, 1)


def _method(node: ast.Call) -> bool:
    assert isinstance(node.func, ast.Attribute)
    owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    name = node.func.attr
    return (
        (name == "write_text" and owner != "runlog")
        or (name == "read_text" and not node.args)
        or (name == "fdopen" and not _binary(node, 1))
        or (name == "open" and owner not in _OTHER_OPEN and _opens_text(node))
    )


def _opens_text(node: ast.Call) -> bool:
    if node.args and not isinstance(node.args[0], ast.Constant):
        # gzip.open(path, mode): bytes unless the mode says text
        return len(node.args) > 1 and "t" in str(getattr(node.args[1], "value", ""))
    return not _binary(node, 0)


def _binary(node: ast.Call, place: int) -> bool:
    modes = [node.args[place]] if len(node.args) > place else []
    modes += [k.value for k in node.keywords if k.arg == "mode"]
    return any(isinstance(m, ast.Constant) and "b" in str(m.value) for m in modes)


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("p.read_text()", 1), ("p.read_text('utf-8')", 0), ("p.read_text(encoding='utf-8')", 0),
        ("p.write_text(x)", 1), ("open(p)", 1), ("open(p, 'rb')", 0), ("open(p, 'w')", 1),
        ("p.open()", 1), ("p.open('a')", 1), ("p.open('rb')", 0), ("os.open(p, 0)", 0),
        ("gzip.open(p)", 0), ("gzip.open(p, 'rt')", 1), ("os.fdopen(h, 'w')", 1),
        ("subprocess.run(c, text=True)", 1), ("subprocess.run(c, text=True, encoding='utf-8')", 0),
    ],
)  # fmt: skip
def test_the_search_finds_what_it_should(code: str, count: int) -> None:
    assert len(list(locale_calls(ast.parse(code)))) == count


def test_every_text_names_its_encoding() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for place in PLACES
        for path in sorted((ROOT / place).rglob("*.py"))
        for call in locale_calls(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == [], "add encoding='utf-8'"


@pytest.mark.parametrize("program", [engine, table])
def test_the_other_programs_print_utf8_under_another_locale(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`jobs` reads the engine's answers and `job.log` as UTF-8; Latin-1 has another `ß`, and no `漢`."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="latin-1"))
    monkeypatch.setattr(engine, "_algorithms", lambda: print("Grüße, 漢字") or 0)
    found = {"trials": [], "objectives": {}}
    monkeypatch.setattr(table, "read_mapping", lambda _: found)
    monkeypatch.setattr(table, "to_csv", lambda _: "Grüße, 漢字\n")
    words = ["algorithms"] if program is engine else [str(tmp_path), "--csv"]
    assert program.main(words) == 0
    sys.stdout.flush()
    assert printed.getvalue() == "Grüße, 漢字\n".encode()


def test_commands_read_and_write_utf8_under_an_ascii_locale(tmp_path: Path) -> None:
    """A search, a training and a list, with UTF-8 in their files, where the locale knows ASCII only."""
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    own = tmp_path / "conf" / "strategy"
    own.mkdir(parents=True)
    shipped = (ROOT / "conf" / "strategy" / "first_order.yaml").read_text(encoding="utf-8")
    lines = [line for line in shipped.splitlines() if not line.startswith("description:")]
    text = "\n".join([*lines, 'description: "Grüße, 漢字"', ""])
    (own / "mine.yaml").write_text(text, encoding="utf-8")

    # one process for both, as each loads torch
    code = """
import json, sys
from darts_core.cli import main

for words in json.loads(sys.argv[1]):
    if status := main(words):
        sys.exit(status)
    if words[0] == "search":
        with open("runs/a/V001/search/architecture.yaml", "a", encoding="utf-8") as found:
            print("# \\u00e9 \\u6f22", file=found)
"""

    def command(
        *words: str, program: tuple[str, ...] = ("-m", "darts_core.cli")
    ) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *program, *words],
            cwd=tmp_path, env=environment, capture_output=True, timeout=300,
        )  # fmt: skip
        return done.returncode, (done.stdout + done.stderr).decode("utf-8")

    search = [
        "search", "--config-dir", str(tmp_path / "conf"), "strategy=mine", "space=nasbench201", "job=a",
        "data=digits", "data.limit=200", "search.epochs=1",
        "search.finalists=1", "search.channels=4", "search.layers=1",
        "search.batch_size=16",
    ]  # fmt: skip
    found = tmp_path / "runs" / "a" / "V001" / "search" / "architecture.yaml"
    train = [
        "train", "architecture=" + str(found), "job=b", "data=digits", "data.limit=200",
        "train.epochs=1", "train.channels=4", "train.layers=1", "train.batch_size=16",
    ]  # fmt: skip
    status, said = command(json.dumps([search, train]), program=("-c", code))
    assert status == 0, said
    assert found.read_text(encoding="utf-8").endswith("# é 漢\n")
    assert (tmp_path / "runs" / "b" / "V001" / "train" / "model.pt").is_file()
    status, said = command("list", "strategies", "--config-dir", str(tmp_path / "conf"))
    assert status == 0
    assert "Grüße, 漢字" in said
    status, said = command("search", "--config-dir", str(tmp_path / "conf"), "strategy=mien")
    assert status == 2
    assert "mine" in said
