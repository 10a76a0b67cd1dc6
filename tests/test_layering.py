"""Who may import whom: the table of docs/architecture.md, held against every import in the code."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {
    "registry", "errors", "credentials", "architecture", "runlog", "checkpoint", "reading", "reading_yaml",
    "callbacks", "compiling", "control_groups", "copies", "device", "layout", "loggers", "memory", "metric",
    "modes", "named_inputs", "processors", "sample_inputs", "settings",
}  # fmt: skip

# layer -> the layers that it may import, beside the leaves and itself
ALLOWED: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "darts_kernels": set(),
    "distributed": set(),
    "ops": {"darts_kernels"},
    "tasks": set(),
    "data": {"tasks"},
    "augment": set(),
    "relax": set(),
    "spaces": {"ops"},
    "supernet": {"ops", "spaces", "relax", "darts_kernels"},
    "models": {"ops", "spaces", "supernet"},
    "latency": {"spaces", "ops"},
    "penalties": {"latency"},
    "train": {"data", "tasks", "augment", "supernet", "models", "distributed"},
    "strategies": {
        "supernet",
        "data",
        "tasks",
        "augment",
        "relax",
        "latency",
        "penalties",
        "spaces",
    },
    "search": {
        "strategies",
        "supernet",
        "data",
        "tasks",
        "augment",
        "relax",
        "latency",
        "penalties",
        "spaces",
        "train",  # of finalists
        "study",
        "distributed",
    },
    "prune": {"train", "tasks", "latency", "supernet", "models"},
    "elastic": {
        "models",
        "data",
        "tasks",
        "augment",
        "supernet",
        "train",
        "latency",
        "prune",
        "relax",
        "penalties",
        "distributed",
    },
    "export": {"data", "tasks", "train", "latency", "darts_kernels", "supernet"},
    "store": set(),
    "study": {"store", "augment"},
    "report": {"store", "study"},
}
_BELOW_BENCH = {*ALLOWED}
ALLOWED["bench"] = {*_BELOW_BENCH} - {"store", "study", "prune", "elastic"}
ALLOWED["autosearch"] = {*_BELOW_BENCH, "bench"}
ALLOWED["stages"] = {*_BELOW_BENCH, "bench", "autosearch"}
ALLOWED["web"] = {"store", "study", "report", "autosearch"}
# circles that are still to be split: remove a row when it is (the test insists)
OPEN_CIRCLES: set[frozenset[str]] = set()
TOP = {"api", "cli", "commands", "crash", "testing", "__init__"}
HYDRA = {"stages", "cli", "commands"}


def _files() -> list[tuple[str, Path]]:
    """(layer, file) of every module."""
    found = []
    for path in sorted((ROOT / "darts_core").rglob("*.py")):
        parts = path.relative_to(ROOT / "darts_core").with_suffix("").parts
        found.append((parts[0], path))
    found += [("darts_kernels", p) for p in sorted((ROOT / "kernels").rglob("*.py"))]
    return found


def _modules() -> dict[str, Path]:
    """Dotted name -> file of every module."""
    found = {}
    for _, path in _files():
        root = ROOT / "kernels" if path.is_relative_to(ROOT / "kernels") else ROOT
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path) -> Iterator[str]:
    """Dotted names imported anywhere in the file, also inside functions."""
    for module, names in _imported(path):
        if module == "darts_core" and names:
            yield from (f"darts_core.{name}" for name in names)
        else:
            yield module


@functools.cache
def _imported(path: Path) -> list[tuple[str, list[str]]]:
    """(module, names taken from it) of every import, also inside functions; each file is parsed once.

    Blocks under `if TYPE_CHECKING:` are left out: they name a type and import nothing.
    """
    tree = ast.parse(path.read_text())
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for part in node.body
        for inner in ast.walk(part)
    }
    found: list[tuple[str, list[str]]] = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", [alias.name for alias in node.names]))
    return found


def _graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that it imports; a name taken from a package is its module."""
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for own, path in modules.items():
        graph[own] = set()
        for module, names in _imported(path):
            inside = {f"{module}.{name}" for name in names} & set(modules)
            # `from package import module, thing` reads the module, and the package for the thing
            graph[own] |= inside
            if len(inside) < max(len(names), 1) and module in modules:
                graph[own].add(module)
        graph[own].discard(own)
    return graph


def _circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """Groups of modules each of which reaches each other (Tarjan's strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for target in graph[module]:
            if target not in number:
                visit(target)
            if target in path:
                lowest[module] = min(lowest[module], lowest[target])
        if lowest[module] == number[module]:
            start = path.index(module)
            if len(path) - start > 1:
                found.add(frozenset(path[start:]))
            del path[start:]

    for module in graph:
        if module not in number:
            visit(module)
    return found


def _layer(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] == "darts_kernels":
        return "darts_kernels"
    return parts[1] if parts[0] == "darts_core" and len(parts) > 1 else None


def test_every_import_points_up_the_table() -> None:
    wrong = []
    for layer, path in _files():
        if layer in TOP:
            continue
        assert layer in ALLOWED, f"{path} lies in a layer that the table does not have"
        for name in _imports(path):
            target = _layer(name)
            if target is None or target == layer or (target in LEAVES and layer != "darts_kernels"):
                continue
            if target not in ALLOWED[layer]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_two_files_import_each_other() -> None:
    circles = _circles(_graph())
    new = [" <-> ".join(sorted(circle)) for circle in circles - OPEN_CIRCLES]
    assert not new, "circles between files:\n" + "\n".join(new)
    gone = [" <-> ".join(sorted(circle)) for circle in OPEN_CIRCLES - circles]
    assert not gone, "no circle any more, remove from OPEN_CIRCLES:\n" + "\n".join(gone)


def test_a_circle_is_found_however_long() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"a", "e"}}
    assert _circles(graph) == {frozenset("abc")}
    graph["e"] = {"d"}
    assert _circles(graph) == {frozenset("abc"), frozenset("de")}


def test_hydra_is_imported_in_the_top_layers_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for layer, path in _files()
        for name in _imports(path)
        # the native job file's references between fields are OmegaConf's
        if name.split(".")[0] in (("hydra",) if layer == "autosearch" else ("hydra", "omegaconf"))
        and layer not in HYDRA
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", ["report", "study", "store", "errors", "registry"])
def test_layers_that_run_without_torch_do_not_import_it_at_the_top(layer: str) -> None:
    wrong = []
    for own, path in _files():
        if own != layer:
            continue
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name}: {n}" for n in names if n.split(".")[0] == "torch"]
    assert not wrong, "\n".join(wrong)


def test_spaces_hold_no_modules() -> None:
    wrong = [
        f"{path.name}: {name}"
        for layer, path in _files()
        for name in _imports(path)
        if layer == "spaces" and name.split(".")[0] == "torch"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_documented_packages_are_those_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text[text.index("| package |") : text.index("`tests/test_layering.py`")]
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    named = {name.strip("/") for cell in first for name in re.findall(r"`([^`]+)`", cell)}
    there = {layer for layer, _ in _files()} - {"__init__", "darts_kernels"}
    assert named - {"kernels/darts_kernels"} == there
