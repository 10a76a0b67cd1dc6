"""A training script read without running it: its options, what it prints, its networks.

Options come from the calls of its parser, metrics from the texts that it prints, networks from its module
classes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from darts_core.autosearch.boot_file import seed_option
from darts_core.commands.jobs.suggest import Suggestion, log_lines, suggest
from darts_core.errors import JobError
from darts_core.reading import MAX_LINES, is_number, read_bytes
from darts_core.store.code import python_files

__all__ = ["Network", "Script", "read_script"]

_FILES = 50
_PLACE = re.compile(r"%%|%[-+#0 ]*\d*(?:\.\d+)?[diufeEgGs]")
# an option that ends in `epochs` and has one of these words counts others than those of a training
_OTHER_EPOCHS = {"warmup", "warm", "decay", "cooldown", "patience", "start", "freeze", "swa", "lr", "restart",
                 "save", "log", "eval", "val", "test", "check", "between", "per"}  # fmt: skip


@dataclass
class Network:
    """A module class, and what would make it searchable."""

    layers: list[tuple[int, str, str]] = field(default_factory=list)  # line, layer, its width
    made: tuple[str, int, str] | None = None  # file, line and call that build it
    takes: str = "(C, H, W)"  # one input's shape, as far as its first layer tells


@dataclass
class Script:
    """What a training script shows without being run."""

    boot_file: str
    options: dict[str, float] = field(default_factory=dict)  # numeric options with their defaults
    # options that take some values alone, the default first; [] where these cannot be read
    choices: dict[str, list[float] | list[str]] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)  # name -> the flag as it is written
    seed: str | None = None
    metrics: list[Suggestion] = field(default_factory=list)
    networks: dict[str, Network] = field(default_factory=dict)
    model_file: str = (
        ""  # what it saves into its working folder, its name a constant or an option's default
    )
    epochs: int | None = None  # the default of the option that says how many there are


def _sources(folder: Path) -> list[Path]:
    """The first Python files of a folder that are the user's own."""
    return list(islice(python_files(folder), _FILES))


def _tree(path: Path) -> ast.Module | None:
    try:
        return ast.parse(read_bytes(path, JobError))
    except (JobError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _boot_file(folder: Path) -> Path:
    """The script that is started: it guards `__main__` or has a parser; the best-known name first."""
    names = ("main.py", "train.py", "run.py")
    found = []
    for path in sorted(folder.glob("*.py")):
        # an editor's lock is a hidden link to nowhere
        if path.name[0] == "." or not path.is_file():
            continue
        text = read_bytes(path, JobError).decode("utf-8", "replace")
        if (
            "__main__" in text
            or "parse_args(" in text
            or "parse_known_args(" in text
            or path.name in names
        ):
            found.append(path)
    if not found:
        raise JobError(
            f"{folder} holds no script at its top that parses arguments or guards __main__; write the job "
            "file from a template: darts-core jobs template list."
        )
    return min(found, key=lambda p: (names.index(p.name) if p.name in names else 9, p.name))


def _text(node: ast.expr) -> str | None:
    """A printed expression with 0.5 in every place that is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "0.5" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod):
        return _filled(_text(node.left) or "")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_text(node.left) or '0.5'}{_text(node.right) or '0.5'}"
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
    ):
        return re.sub(r"\{[^{}]*\}", "0.5", _text(node.func.value) or "")
    return None


def _filled(text: str) -> str:
    """A text with 0.5 in each place of the `%` kind."""
    return _PLACE.sub(lambda found: "%" if found[0] == "%%" else "0.5", text)


def _printed(tree: ast.Module) -> list[str]:
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in ("print", "write", "info"):
            parts = [_text(argument) or "0.5" for argument in node.args]
            if (
                _called(node) == "info"
                and len(parts) > 1
                and isinstance(node.args[0], ast.Constant)
                and _PLACE.search(parts[0])
            ):
                parts = [_filled(parts[0])]  # a logger fills the others in
            lines += " ".join(parts).splitlines()
    return lines


def _epochs(options: Mapping[str, float]) -> int | None:
    """The default of the option that says how many epochs a training has."""
    for name, value in options.items():
        words = re.split(r"[\W_]+", name.lower())
        if name.endswith("epochs") and value >= 1 and _OTHER_EPOCHS.isdisjoint(words):
            return int(value)
    return None


def _options(tree: ast.Module, script: Script) -> None:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = _called(node)
        if called not in ("add_argument", "option"):
            continue
        names = [a.value for a in node.args if isinstance(a, ast.Constant)]
        long = [n for n in names if isinstance(n, str) and n.startswith("--")]
        values = {k.arg: k.value for k in node.keywords if k.arg}
        default = values.get("default")
        value = default.value if isinstance(default, ast.Constant) else None
        if not long:
            continue
        name = long[0][2:].replace("-", "_")
        allowed = _allowed(values.get("choices"), value)
        kind = values.get("type")
        if is_number(value) and isinstance(kind, ast.Name) and kind.id == "float":
            value = float(value)  # type=float, default=1
        if is_number(value):
            script.options[name], script.flags[name] = value, long[0]
        if "choices" in values:
            script.choices[name], script.flags[name] = allowed, long[0]


def _allowed(choices: ast.expr | None, default: object) -> list[Any]:
    """The texts, or the numbers, that an option takes, its default first; nothing where that is not told."""
    if not isinstance(choices, ast.List | ast.Tuple):
        return []
    found = [part.value for part in choices.elts if isinstance(part, ast.Constant)]
    alike = all(isinstance(v, str) for v in found) or all(is_number(v) for v in found)
    if len(found) < len(choices.elts) or not alike or default not in found:
        return []
    return [default, *(value for value in found if value != default)]


def read_script(folder: Path, log: Path | None = None) -> Script:
    """What the script in a folder shows; metrics from a log that it printed, where there is one.

    Raises:
        JobError: there is no script in it.
    """
    if not folder.is_dir():
        raise JobError(f"There is no folder {folder}; name the folder of your training script.")
    boot = _boot_file(folder)
    script = Script(boot.name, seed=seed_option(boot))
    tree = _tree(boot)
    if tree is None:
        raise JobError(f"{boot} is not valid Python; nothing can be proposed for it.")
    _options(tree, script)
    if log is not None:
        lines = log_lines(read_bytes(log, JobError, limit=MAX_LINES))
    else:
        trees = [_tree(path) for path in _sources(folder)]
        lines = [line for found in trees if found for line in _printed(found)]
    script.metrics = suggest(lines)
    script.epochs = _epochs(script.options)
    script.networks = _networks(folder)
    script.model_file = _saved(tree)
    return script


def _networks(folder: Path) -> dict[str, Network]:
    """The module classes of a folder, with their layers of a constant width and where they are built."""
    trees = {path: _tree(path) for path in _sources(folder)}
    found: dict[str, Network] = {}
    for tree in trees.values():
        for node in ast.walk(tree or ast.Module([], [])):
            if isinstance(node, ast.ClassDef) and any(
                "Module" in ast.unparse(b) for b in node.bases
            ):
                found[node.name] = Network(_layers(node), takes=_takes(node))
    for path, tree in trees.items():
        for node in ast.walk(tree or ast.Module([], [])):
            if isinstance(node, ast.Call) and _called(node) in found:
                place = (path.relative_to(folder).as_posix(), node.lineno, ast.unparse(node))
                found[_called(node)].made = found[_called(node)].made or place
    inner = {
        _called(call)
        for tree in trees.values()
        for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, ast.ClassDef) and node.name in found
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
    }
    # a block that only other networks are made of is no network to search by itself
    return {name: network for name, network in found.items() if name not in inner} or found


def _takes(network: ast.ClassDef) -> str:
    """The shape of one input by the first layer: a number of values, a series, or an image."""
    layers = [n for n in ast.walk(network) if isinstance(n, ast.Call)]
    layers.sort(key=lambda node: (node.lineno, node.col_offset))
    first = next((_called(n) for n in layers if _called(n).startswith(("Conv", "Linear"))), "")
    return {"Linear": "(VALUES,)", "Conv1d": "(C, T)"}.get(first, "(C, H, W)")


def _saved(tree: ast.Module) -> str:
    """The file of `torch.save(..., FILE)`: a text, or the default of the option that it is."""
    texts: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in ("add_argument", "option"):
            default = next((k.value for k in node.keywords if k.arg == "default"), None)
            for name in node.args:
                if isinstance(name, ast.Constant) and isinstance(default, ast.Constant):
                    texts[str(name.value).lstrip("-").replace("-", "_")] = default.value
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) == "torch.save"
            and len(node.args) > 1
        ):
            place = node.args[1]
            file = texts.get(place.attr) if isinstance(place, ast.Attribute) else None
            if isinstance(place, ast.Constant):
                file = place.value
            if isinstance(file, str) and re.fullmatch(r"[\w.-]+\.\w+", file):
                return file
    return ""


def _layers(network: ast.ClassDef) -> list[tuple[int, str, str]]:
    """Convolutions and linear layers whose output width is a known number of 8 or more, as written.

    A linear layer that stands last is taken for the network's output, whose width is not a choice.
    """
    known: dict[str, int] = {}
    for node in ast.walk(network):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            given = node.args.args[len(node.args.args) - len(node.args.defaults) :]
            for argument, value in zip(given, node.args.defaults, strict=True):
                if isinstance(value, ast.Constant) and isinstance(value.value, int):
                    known[argument.arg] = value.value
    calls = [
        node for node in ast.walk(network) if isinstance(node, ast.Call) and len(node.args) > 1
    ]
    layers = [n for n in calls if _called(n).startswith("Conv") or _called(n) == "Linear"]
    layers.sort(key=lambda node: (node.lineno, node.col_offset))
    if layers and _called(layers[-1]) == "Linear":
        layers.pop()
    return [
        (node.lineno, ast.unparse(node), ast.unparse(node.args[1]))
        for node in layers
        if (_whole(node.args[1], known) or 0) >= 8
    ]


def _whole(node: ast.expr, known: Mapping[str, int]) -> int | None:
    """A whole number that an expression stands for: a constant, an argument's default, a product of these."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _whole(node.left, known), _whole(node.right, known)
        return left * right if left is not None and right is not None else None
    return None
