"""`jobs init DIR`: reads a training script and proposes its job file; the person looks at it and keeps it.

Nothing is run: options come from the calls of its parser, metrics from the texts that it prints, networks
from its module classes.
"""

from __future__ import annotations

import argparse
import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.autosearch.boot_file import seed_option
from darts_core.commands.jobs.suggest import Suggestion, suggest
from darts_core.errors import JobError
from darts_core.reading import MAX_LINES, read_bytes
from darts_core.report.tables import neutral
from darts_core.store.jobs import Store

__all__ = ["Script", "proposal", "read_script"]

# settings that are worth a search, by a part of their name, with the factor to either side
_WORTH = {"lr": 10, "learning": 10, "decay": 10, "wd": 10, "momentum": 0, "dropout": 0, "smoothing": 0,
          "hidden": 2, "width": 2, "gamma": 0}  # fmt: skip
_FILES = 50
_GOOD = ("val_acc", "valid_acc", "acc", "accuracy", "val_loss", "valid_loss", "loss")
_PLACE = re.compile(r"%[-+#0 ]*\d*(?:\.\d+)?([diufeEgGs])")


@dataclass
class Script:
    """What a training script shows without being run."""

    boot_file: str
    options: dict[str, float] = field(default_factory=dict)  # numeric options with their defaults
    flags: dict[str, str] = field(default_factory=dict)  # name -> the flag as it is written
    seed: str | None = None
    metrics: list[Suggestion] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)


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
        return _PLACE.sub("0.5", _text(node.left) or "").replace("%%", "%")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_text(node.left) or '0.5'}{_text(node.right) or '0.5'}"
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
    ):
        return re.sub(r"\{[^{}]*\}", "0.5", _text(node.func.value) or "")
    return None


def _printed(tree: ast.Module) -> list[str]:
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called(node) in ("print", "write", "info"):
            parts = [_text(argument) or "0.5" for argument in node.args]
            lines += " ".join(parts).splitlines()
    return lines


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
        if long and isinstance(value, (int, float)) and not isinstance(value, bool):
            name = long[0][2:].replace("-", "_")
            script.options[name], script.flags[name] = value, long[0]


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
        lines = read_bytes(log, JobError, limit=MAX_LINES).decode("utf-8", "replace").splitlines()
    else:
        trees = [_tree(path) for path in sorted(folder.rglob("*.py"))[:_FILES]]
        lines = [line for found in trees if found for line in _printed(found)]
    script.metrics = suggest(lines)
    for path in sorted(folder.rglob("*.py"))[:_FILES]:
        for node in ast.walk(_tree(path) or ast.Module([], [])):
            if isinstance(node, ast.ClassDef) and any(
                "Module" in ast.unparse(b) for b in node.bases
            ):
                script.networks.append(node.name)
    return script


def _range(name: str, default: float) -> dict[str, Any] | None:
    """The range to propose for an option, or None for one that is no matter of a search."""
    parts = re.split(r"[\W_]+", name.lower())
    factor = next((f for word, f in _WORTH.items() if word in parts), None)
    if factor is None or default <= 0:
        return None
    if factor:
        low, high = default / factor, default * factor
        whole = isinstance(default, int)
        kind = {"integer": True} if whole else {"log": True}
        return {
            "start": max(1, round(low)) if whole else low,
            "stop": round(high) if whole else high,
            **kind,
        }
    return {"start": default / 2, "stop": min((1.0 + default) / 2, 0.99)} if default < 1 else None


def proposal(script: Script) -> str:
    """The job file as text, with remarks on what to look at."""
    ranges = {n: r for n, d in script.options.items() if (r := _range(n, d))}
    good = sorted(
        script.metrics,
        # test figures are for the end, not for the choice
        key=lambda m: (
            m.name.lower().startswith("test"),
            next((i for i, g in enumerate(_GOOD) if m.name.lower().endswith(g)), len(_GOOD)),
        ),
    )
    words = [f"{script.flags[name]} {{{name}}}" for name in ranges]
    words += [f"{script.seed} {{seed}}"] if script.seed else []
    lines = ["# proposed from the script; look at every line before you keep it", "general:"]
    lines.append(f'  command: "python {" ".join([script.boot_file, *words])}"')
    if not script.seed:
        lines.append(
            "  # the script takes no seed: random, numpy and torch are seeded when it imports them"
        )
    lines.append("  metrics:")
    for item in good:
        quoted = neutral(item.regex, 500).replace("'", "''")
        lines.append(f"    - {{name: {item.name}, regex: '{quoted}'}}")
    if not good:
        lines.append(
            "    - {name: accuracy, regex: 'accuracy ([0-9.]+)'}  # what does your script print?"
        )
    lines.append("search_space:")
    lines.append("  - params:")
    for name, kept in ranges.items():
        shown = ", ".join(
            f"{k}: {str(v).lower() if v is True else f'{v:g}'}" for k, v in kept.items()
        )
        lines.append(
            f"      - {{type: continuous_param, name: {name}, {shown}, default: {script.options[name]:g}}}"
        )
    if not ranges:
        lines.append("      # no option looks worth a search; name one that your script has")
        lines.append(
            "      - {type: continuous_param, name: lr, start: 0.001, stop: 0.1, log: true}"
        )
    reward = good[0] if good else None
    mode = reward.mode if reward else "max"
    lines.append(
        f"search_algorithm: {{type: tpe_search, reward_attr: {reward.name if reward else 'accuracy'}, "
        f"mode: {mode}, num_samples: 20}}"
    )
    return "\n".join(lines)


def run_init(store: Store, args: argparse.Namespace) -> int:
    """`jobs init`."""
    script = read_script(Path(args.folder), Path(args.log) if args.log else None)
    text = proposal(script)
    if args.write:
        target = Path(args.write)
        if target.exists():
            raise JobError(f"{target} exists already; name another file with --write.")
        target.write_text(text + "\n", encoding="utf-8")
        print(f"Written to {target}; look at it, then:")
        code = neutral(args.folder)
        print(f"  darts-core jobs create --name NAME --code {code} --config {target} --dry-run")
    else:
        print(text)
    for name in script.networks[:3]:
        print(
            f"\n# to search the network {name} by gradient, mark choices in it and build it so:\n"
            "#   from darts_core import autosearch\n"
            "#   from darts_core.supernet.choices import LayerChoice, WidthChoice\n"
            '#   ... WidthChoice([8, 16, 32], label="width") behind a convolution with 32 channels ...\n'
            f"#   model = autosearch.searchable({name}(), (C, H, W))"
        )
    return 0
