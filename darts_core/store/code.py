"""Copies of user code and files: hashed, bounded, never through links that lead outside."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from darts_core.errors import JobError
from darts_core.store.record import read_job

__all__ = ["copy_code", "copy_model", "inside", "links_note", "model_file", "numbered"]

MAX_FILES = 5_000
MAX_BYTES = 200 * 2**20
_SKIPPED = {
    ".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache",
    ".ruff_cache", ".ipynb_checkpoints",
}  # fmt: skip


def inside(path: str | Path, folder: str | Path) -> Path | None:
    """The real path when it really lies in `folder` (links resolved), else None."""
    try:
        real, root = Path(path).resolve(strict=True), Path(folder).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return real if real != root and real.is_relative_to(root) else None


def _folders(root: Path, skip: Path | None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder whose files are code, with its links to folders and its files."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        own = [
            n for n in names if n not in _SKIPPED and (skip is None or (here / n).resolve() != skip)
        ]
        linked = sorted(n for n in own if (here / n).is_symlink())
        # a folder of the user's own may hold a file of that name
        names[:] = sorted(n for n in own if n not in linked and read_job(here / n) is None)
        yield here, linked, sorted(files)


def _leads_outside(path: Path, root: Path) -> bool:
    return path.is_symlink() and inside(path, root) is None


def _files(root: Path, skip: Path | None) -> Iterator[Path]:
    for here, _, files in _folders(root, skip):
        for name in files:
            path = here / name
            if _leads_outside(path, root):
                continue
            if path.is_file() and not name.endswith((".pyc", ".pyo")):
                yield path


def links_note(source: str | Path, *, skip: Path | None = None) -> str | None:
    """Which links `copy_code` leaves out, and what to do about it; None where there are none."""
    root, found = Path(source).expanduser().resolve(), []
    for here, linked, files in _folders(root, skip):
        left = [*linked, *(n for n in files if _leads_outside(here / n, root))]
        found += [(here / name).relative_to(root).as_posix() for name in left]
    if not found:
        return None
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        "links to folders, and links out of the code folder, are not copied; where the code needs them, put "
        f"the files in their place, or name data with --data: {', '.join(found[:3])}{more}"
    )


def copy_code(source: str | Path, target: Path, *, skip: Path | None = None) -> str:
    """Copy a code folder and return its hash (12 hex digits over names and contents).

    Caches, version control, virtual environments, job folders, links to folders and links that lead outside
    are left out (see `links_note`).

    Args:
        source: the user's folder.
        target: a folder that does not exist yet.
        skip: a folder to leave out (the store's root).

    Raises:
        JobError: there is no such folder, or it is too large to be code.
    """
    root = Path(source).expanduser().resolve()
    if not root.is_dir():
        raise JobError(f"There is no code folder {source}; name an existing folder with --code.")
    digest, count, total = hashlib.sha256(), 0, 0
    for path in _files(root, skip):
        count += 1
        total += path.stat().st_size
        if count > MAX_FILES or total > MAX_BYTES:
            raise JobError(
                f"The code folder {root} holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB; "
                "keep data elsewhere (--data) and name the folder of the code alone."
            )
        relative = path.relative_to(root)
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, destination)
        digest.update(str(relative).encode() + b"\0" + destination.read_bytes() + b"\0")
    if count == 0:
        raise JobError(f"The code folder {root} holds no files; name the folder of the boot file.")
    return digest.hexdigest()[:12]


def numbered(number: int, path: Path) -> str:
    """The name of a job file's copy: its place in the order, then its own name without an older number."""
    return f"{number}-{re.sub(r'^([0-9]+-)+', '', path.name) or path.name}"


def model_file(trial_folder: str | Path, model_path: object) -> Path | None:
    """The model a trial reported, when it is a file or folder that really lies in the trial's output.

    A path given relative is taken from the output folder. Links are not followed out of it.
    """
    if not isinstance(model_path, str) or not model_path or "\0" in model_path:
        return None
    folder = Path(trial_folder)
    output = folder / "output"
    # the trial may have put a link in the place of its own folders
    if folder.is_symlink() or output.is_symlink():
        return None
    candidate = output / model_path  # an absolute path replaces the left side
    if candidate.is_symlink():
        return None
    return inside(candidate, output)


def copy_model(model: Path, folder: Path) -> Path:
    """Copy a model that `model_file` found, a file or a folder, into `folder`; returns its new path."""
    target = folder / model.name
    if model.is_dir():
        # links inside a model folder could lead anywhere: they are copied as links
        shutil.copytree(model, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copyfile(model, target)
    return target
