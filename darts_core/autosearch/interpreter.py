"""Whether the interpreter named with --python can run the trials: asked once, before a job is made.

What a trial itself needs is the standard library. What the user's code imports from this package may need
more (torch for `searchable`, PyYAML for `Augment`), so those imports are tried there.
"""

from __future__ import annotations

import ast
import atexit
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from itertools import islice
from pathlib import Path

from darts_core.errors import JobError
from darts_core.reading import read_bytes
from darts_core.store.code import python_files
from darts_core.store.procs import OWN_FIRST

__all__ = ["check_interpreter", "package_imports", "package_path"]

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 120.0
_FILES = 200
# what a lazily loaded name imports on its first use
_LATER = {
    "searchable": "import darts_core.supernet.module_supernet",
    "latency_ms": "import darts_core.latency.measure",
    **dict.fromkeys(
        ("elastic", "backward"), "import darts_core.autosearch.elastic_family, torch_pruning"
    ),
}
_guard = threading.Lock()
_made: list[str] = []


def package_path(python: str | None) -> str:
    """The folder in PYTHONPATH by which an interpreter finds this package.

    For another interpreter it holds this package alone: an installed one lies among all packages of this
    environment, which would be imported in place of those that the other interpreter has of its own.

    Args:
        python: the interpreter; None is this one.
    """
    if python is None or Path(python).expanduser().absolute() == Path(sys.executable).absolute():
        return str(_ROOT)
    with _guard:
        # whoever tidies the folder for temporary files may have taken it
        if not _made or not Path(_made[0], "darts_core").is_dir():
            _made[:] = [_alone()]
        return _made[0]


def _alone() -> str:
    """A folder of links to this package and its kernels, gone with this process."""
    folder = tempfile.mkdtemp(prefix="darts-core-package-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in ("darts_core", "darts_kernels"):
        spec = importlib.util.find_spec(name)
        places = spec.submodule_search_locations if spec is not None else None
        if places:
            Path(folder, name).symlink_to(Path(places[0]).resolve())
    return folder


def package_imports(code: Path) -> list[str]:
    """The import statements of this package in the user's Python files, each once."""
    found: dict[str, None] = {}
    for path in islice(python_files(code), _FILES):
        try:
            tree = ast.parse(read_bytes(path, JobError))
        except (JobError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # whoever imports that file is told by its trial
        ours = _names_of_autosearch(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("darts_core"):
                for alias in node.names:
                    found[f"from {node.module} import {alias.name}"] = None
                    if node.module == "darts_core.autosearch" and alias.name in _LATER:
                        found[_LATER[alias.name]] = None
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names if a.name.startswith("darts_core")]
                found.update(dict.fromkeys(f"import {name}" for name in names))
            elif (
                isinstance(node, ast.Attribute)
                and node.attr in _LATER
                and getattr(node.value, "id", getattr(node.value, "attr", None)) in ours
            ):
                found[f"from darts_core.autosearch import {node.attr}"] = None
                found[_LATER[node.attr]] = None
    return list(found)


def _names_of_autosearch(tree: ast.AST) -> set[str]:
    """What a file calls `darts_core.autosearch`: `loss.backward()` is not ours."""
    imports = (n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom)))
    aliases = (a for node in imports for a in node.names if a.name.endswith("autosearch"))
    return {"autosearch", *(a.asname for a in aliases if a.asname)}


def check_interpreter(python: str, code: Path) -> None:
    """Raise unless `python` is an interpreter that can run the trials of this code.

    Raises:
        JobError: it cannot be started, is no Python, or lacks what the code needs of this package.
    """
    path = Path(python).expanduser()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise JobError(f"--python {python} is no program that can be started; name an interpreter.")
    statements = ["import darts_core.autosearch.trial_main", *package_imports(code)]
    if not _tried(path, "\n".join(statements)):
        return
    for statement in statements:
        problem = _tried(path, statement)
        if problem:
            raise JobError(
                f"--python {python} cannot run {statement!r}, which "
                f"{'every trial' if 'trial_main' in statement else 'your code'} needs ({problem}); install "
                "what is missing there, or name another interpreter."
            )


def _tried(python: Path, statement: str) -> str:
    """What went wrong with a statement in another interpreter; "" for nothing."""
    environment = {**os.environ, "PYTHONPATH": package_path(str(python))}
    try:
        done = subprocess.run(
            [str(python.absolute()), "-c", f"{OWN_FIRST}\n{statement}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS:.0f} s"
    except OSError as error:
        return str(error)
    return (done.stderr.strip().splitlines() or ["it failed"])[-1] if done.returncode else ""
