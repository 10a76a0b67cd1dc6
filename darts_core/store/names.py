"""What a job and a version may be called, free names to offer, and how a command is given a name or place."""

from __future__ import annotations

import re
from pathlib import Path

from darts_core.errors import JobError

__all__ = ["check_name", "free_name", "is_name", "next_version", "quoted", "version_order"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")
_NUMBERED = re.compile(r"V(\d{3,9})")


def is_name(name: object) -> bool:
    """Whether `name` can be the name of a job or version, which is one folder's name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def check_name(name: str, kind: str = "job") -> str:
    """`name` itself when it is usable as a folder name.

    Raises:
        JobError: it is empty or too long, could leave its root folder, or looks like an option.
    """
    if not is_name(name):
        raise JobError(
            f"The {kind} name {str(name)[:80]!r} is not allowed; use 1 to 120 letters, digits and "
            ". _ + = - , beginning with a letter or digit."
        )
    return name


def free_name(root: Path, job: str) -> str:
    """`job-2`, `job-3` ...: the first that no job in `root` bears."""
    number = 2
    while (root / f"{job[:110]}-{number}").exists():
        number += 1
    return f"{job[:110]}-{number}"


def quoted(text: str) -> str:
    """`text` as a value in Hydra's override grammar, whatever characters it has."""
    # a backslash counts as one only in front of a quote; elsewhere it stands for itself
    escaped = re.sub(r"(\\*)('|\Z)", lambda m: 2 * m[1] + (r"\'" if m[2] else ""), text)
    return f"'{escaped}'"


def _number(name: str) -> int | None:
    match = _NUMBERED.fullmatch(name)
    return int(match[1]) if match else None


def version_order(name: str) -> tuple[int, str]:
    """Sorts versions oldest first: those with names of the user's own, then V001, V002 ..."""
    number = _number(name)
    return (-1 if number is None else number, name)


def next_version(folder: Path) -> str:
    """The name after the highest numbered entry in a job's folder, whatever that entry is."""
    entries = folder.iterdir() if folder.is_dir() else iter(())
    numbers = [number for entry in entries if (number := _number(entry.name)) is not None]
    return f"V{max(numbers, default=0) + 1:03d}"
