"""The kernels' files import one another in one direction."""

import ast
import re
from pathlib import Path

import darts_kernels

FOLDER = Path(darts_kernels.__file__).parent


def imported(path: Path) -> set[str]:
    """Names of the package's files that a file imports anywhere, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("darts_kernels"):
            _, _, name = (node.module or "").partition(".")
            found |= {name} if name else {alias.name for alias in node.names}
    return found


def test_no_two_files_import_each_other_by_any_way():
    files = {path.stem: imported(path) for path in FOLDER.glob("*.py")}
    assert "cell_run" in files["partial"]
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way, name))
        if name not in done:
            for other in files.get(name, set()):
                follow(other, (*way, name))
            done.add(name)

    for name in files:
        follow(name, ())


def test_the_readme_names_every_file_and_every_reference():
    page = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in page.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`(\w+\.py)`", table))
    assert named == {path.name for path in FOLDER.glob("*.py")} - {"__init__.py"}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.py"))
    public = set(re.findall(r"^def ([a-z]\w*_reference)\(", sources, re.M))
    assert set(re.findall(r"`(\w+_reference)`", table)) == public
