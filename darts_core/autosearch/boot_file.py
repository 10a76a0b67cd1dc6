"""The file that a trial starts: what can be said about it without running it."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from darts_core.errors import JobError
from darts_core.reading import read_bytes
from darts_core.store.code import python_files

__all__ = ["check_boot_file", "mentions", "seed_option"]

_SEED = re.compile(r"--(random|manual|global|rng|torch)?[-_]?seed", re.IGNORECASE)


def check_boot_file(code: Path, boot_file: str, *, needs: str | None) -> str:
    """The boot file relative to the code folder, as the copy of that folder has it.

    Args:
        code: the user's folder.
        boot_file: in it; also named by a whole path.
        needs: the function that it has to have, if any.

    Raises:
        JobError: it does not lie there, is no Python, or lacks the function.
    """
    path = code / boot_file
    if not boot_file or not path.is_file() or not path.resolve().is_relative_to(code.resolve()):
        raise JobError(
            f"There is no boot file {boot_file!r} in the code folder {code}; name it relative to --code."
        )
    try:
        tree = ast.parse(read_bytes(path, JobError))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise JobError(f"The boot file {boot_file} is not valid Python ({error}).") from error
    names: set[str] = set()
    functions: dict[str, list[str]] = {}
    for node in _of_the_module(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.FunctionDef):
            # what a decorator makes of it (`@hydra.main`, `@click.command`) may be called without arguments
            functions[node.name] = [] if node.decorator_list else _required(node.args)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(t.id for t in targets if isinstance(t, ast.Name))
    if needs is not None:
        _check_function(boot_file, needs, names, functions)
    # a link in the code stays one; the folder itself may have been named through a link
    relative = os.path.relpath(path, code)
    return str(path.resolve().relative_to(code.resolve())) if relative[:2] == ".." else relative


def _check_function(
    boot_file: str, needs: str, names: set[str], functions: Mapping[str, Sequence[str]]
) -> None:
    """Raise unless the module has the function, which needs no arguments."""
    if needs not in names and "*" not in names:
        raise JobError(
            f"The boot file {boot_file} has no function {needs}(); define it, without arguments, name "
            "another with --entry, or give general.metrics with regular expressions to run the file as "
            "a script."
        )
    if functions.get(needs):
        raise JobError(
            f"{needs}({', '.join(functions[needs])}) in {boot_file} needs arguments, which a trial does "
            "not have; name a function without any with --entry (often main), or give general.metrics "
            "to run the file as a script."
        )


def _of_the_module(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Statements whose names are the module's own: also those inside `try`, `if` and `with`."""
    for node in nodes:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.expr)):
            yield from _of_the_module(ast.iter_child_nodes(node))


def seed_option(boot_file: Path) -> str | None:
    """The option by which a script takes its seed, as its parser names it; None when it has none.

    Read from the calls `add_argument("--seed", ...)` and `option("--seed", ...)`, without running it.
    """
    try:
        tree = ast.parse(read_bytes(boot_file, JobError))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = called or (node.func.id if isinstance(node.func, ast.Name) else "")
        if called not in ("add_argument", "option"):
            continue
        names = [a.value for a in node.args if isinstance(a, ast.Constant)]
        found = [n for n in names if isinstance(n, str) and _SEED.fullmatch(n)]
        if found:
            return found[0]
    return None


def mentions(code: Path, name: str) -> bool:
    """Whether any Python file of the code names an argument, with dashes or underscores."""
    wanted = {name, name.replace("-", "_"), name.replace("_", "-")}
    for path in python_files(code):
        try:
            text = read_bytes(path, JobError).decode("utf-8", "replace")
        except JobError:
            return True  # what cannot be read may mention anything
        if any(re.search(rf"(?<!\w)(?<!\w-){re.escape(word)}(?![\w-])", text) for word in wanted):
            return True
    return False


def _required(arguments: ast.arguments) -> list[str]:
    """The arguments without which a function cannot be called."""
    positional = [*arguments.posonlyargs, *arguments.args]
    left = positional[: len(positional) - len(arguments.defaults)]
    keywords = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [a.arg for a in left] + [a.arg for a, default in keywords if default is None]
