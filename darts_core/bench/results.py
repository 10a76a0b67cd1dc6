"""Results files: one a run, with device, versions, command, repeats and spread beside every figure."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, ResumeError
from darts_core.report.escape import plain_text
from darts_core.report.rows import ModelRow
from darts_core.runlog import environment, processor_name, read_json, write_json

__all__ = ["Results", "command_line", "read_results", "slug", "write_results"]

SCHEMA_VERSION = 1
# letters of a name in a file's name
_LONGEST = 48
Row = Mapping[str, Any] | ModelRow


@dataclass(frozen=True)
class Results:
    """The content of one results file."""

    theme: str
    device: str
    created: str
    command: str
    environment: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def models(self) -> list[ModelRow]:
        """The rows as model rows.

        Raises:
            ResumeError: a row is not one of a model.
        """
        return [ModelRow.from_dict(row) for row in self.rows]


def slug(text: str) -> str:
    """`text` in lower case with anything but letters and digits as single hyphens, at most 48 long."""
    return _hyphened(text)[:_LONGEST].strip("-") or "unknown"


def _hyphened(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _own_slug(text: str) -> str:
    """As `slug`; of a longer text what is cut off counts as well, as the end may tell it from others."""
    if len(_hyphened(text)) <= _LONGEST:
        return slug(text)
    told = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{slug(text)[: _LONGEST - 9].strip('-')}-{told}"


def command_line(*, without: Collection[str] = ()) -> str:
    """The command of this process as it could be typed again; a program's absolute path is left out.

    Args:
        without: options of one value that say where this machine keeps things; both are left out.
    """
    given = Path(sys.argv[0] if sys.argv and sys.argv[0] else "python")
    program = given.name
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is not None and program in ("__main__.py", f"{module.name.rpartition('.')[-1]}.py"):
        program = "python -m " + module.name.removesuffix(".__main__")
    elif given.suffix == ".py":
        program = f"python {shlex.quote(program if given.is_absolute() else given.as_posix())}"
    words, typed = [], iter(sys.argv[1:])
    for word in typed:
        if word in without:
            next(typed, None)
        elif word.partition("=")[0] not in without:
            words.append(shlex.quote(word))
    return " ".join([program, *words])


def write_results(
    theme: str,
    rows: Sequence[Row],
    *,
    device: str | None = None,
    folder: str | Path = "benchmarks/results",
    command: str | None = None,
    notes: Mapping[str, Any] | None = None,
    name: str = "",
) -> Path:
    """Write `<theme>_<device>_<date>.json` into `folder`; returns its path.

    A second run on the same day gets a number, so that no result is overwritten; with `name` the file
    is `<theme>_<device>_<date>_<name>.json` and a later call replaces it (a run that grows).

    Args:
        theme: what was measured, for example models, step, kernels, tabular.
        rows: the records; model rows are written with their mean, std and n.
        device: the hardware, in words; this machine's processor and its cores by default.
        folder: where results are kept.
        command: how to repeat it; this process's command line by default.
        notes: anything else worth keeping (data, seeds, recipe).
        name: of a run that writes its results several times.

    Raises:
        ConfigError: there is no row.
    """
    if not rows:
        raise ConfigError(f"The results of {theme!r} hold no row; there is nothing to write.")
    device = device or f"{processor_name()} ({os.cpu_count()} cores)"
    stem = f"{slug(theme)}_{slug(device)}_{time.strftime('%Y-%m-%d')}"
    content = {
        "schema_version": SCHEMA_VERSION,
        "theme": theme,
        "device": device,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": command or command_line(),
        "environment": environment(),
        "notes": dict(notes or {}),
        "rows": [row.to_dict() if isinstance(row, ModelRow) else dict(row) for row in rows],
    }
    folder = Path(folder).expanduser()
    if name:
        path = folder / f"{stem}_{_own_slug(name)}.json"
        write_json(path, content)
        return path
    path = _free(folder, stem)
    try:
        write_json(path, content)
    finally:
        if path.stat().st_size == 0:  # nothing was written: the name is free again
            path.unlink()
    return path


def _free(folder: Path, stem: str) -> Path:
    """`<stem>.json` or the first numbered one that is free, taken: of runs side by side each gets its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        path = folder / (f"{stem}.json" if number == 1 else f"{stem}_{number}.json")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        break
    return path


def read_results(path: str | Path) -> Results:
    """The content of a results file.

    Raises:
        ResumeError: it is missing, damaged, or written by a newer program.
    """
    content = read_json(path)
    rows = content.get("rows") if isinstance(content, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ResumeError(f"{path} holds no list of rows; write it with `darts-core bench`.")
    version = content.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResumeError(
            f"{path} has schema_version {plain_text(version)}; this program reads up to "
            f"{SCHEMA_VERSION}. Update darts-core."
        )
    return Results(
        theme=str(content.get("theme") or ""),
        device=str(content.get("device") or ""),
        created=str(content.get("created") or ""),
        command=str(content.get("command") or ""),
        environment=dict(content.get("environment") or {}),
        rows=tuple(rows),
        notes=dict(content.get("notes") or {}),
        path=Path(path),
    )
