"""Copies of user code and files: hashed, bounded, never through links that lead outside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from darts_core.errors import JobError
from darts_core.store.record import read_job

__all__ = [
    "copy_code",
    "copy_model",
    "inside",
    "kept_files",
    "links_note",
    "model_file",
    "numbered",
    "python_files",
]

MAX_FILES = 5_000
MAX_BYTES = 200 * 2**20
_SKIPPED = {
    ".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache",
    ".ruff_cache", ".ipynb_checkpoints",
}  # fmt: skip
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")  # what a virtual one holds, whatever it is called


def inside(path: str | Path, folder: str | Path) -> Path | None:
    """The real path when it really lies in `folder` (links resolved), else None."""
    try:
        real, root = Path(path).resolve(strict=True), Path(folder).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    return real if real != root and real.is_relative_to(root) else None


def _foreign(folder: Path) -> bool:
    """Whether a folder among code is none: a cache, version control, a virtual environment, a job."""
    if folder.name in _SKIPPED or any(os.path.exists(folder / name) for name in _ENVIRONMENT):
        return True
    return read_job(folder) is not None  # a folder of the user's own may hold a file of that name


def python_files(root: Path) -> Iterator[Path]:
    """The Python files of a code folder, those at its top before all others; nothing hidden is looked at."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        own = (n for n in names if n[0] != "." and n != "site-packages" and not _foreign(here / n))
        names[:] = sorted(own)
        yield from (here / n for n in sorted(files) if n.endswith(".py") and n[0] != ".")


def _folders(root: Path, skip: Path | None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Each folder whose files are code, with its links to folders and its files."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        own = [
            n for n in names if n not in _SKIPPED and (skip is None or (here / n).resolve() != skip)
        ]
        linked = sorted(n for n in own if (here / n).is_symlink())
        names[:] = sorted(n for n in own if n not in linked and not _foreign(here / n))
        yield here, linked, sorted(files)


def _leads_outside(path: Path, root: Path) -> bool:
    return path.is_symlink() and inside(path, root) is None


def _is_code(path: Path) -> bool:
    return path.is_file() and not path.name.endswith((".pyc", ".pyo"))


def _meant(link: Path, root: Path, skip: Path | None) -> Path | None:
    """The folder of the code that a link to a folder stands for; None where that is no code, or holds it."""
    real = inside(link, root)
    if real is None or link.parent.is_relative_to(real):
        return None
    if skip is not None and real.is_relative_to(skip):
        return None
    parts = real.relative_to(root).parts
    places = [root.joinpath(*parts[: n + 1]) for n in range(len(parts))]
    return None if any(map(_foreign, places)) else real


class _Plan:
    """What of a code folder is copied, and which links are not.

    A link to a folder of the code becomes a folder with the same files, one level deep: links in it are not
    followed, so that no circle of links is endless, and none that goes beyond the limits.

    Attributes:
        files: (file, its place in the copy).
        bytes: of all of them.
        left: links, below the folder.
    """

    def __init__(self, root: Path, skip: Path | None) -> None:
        self.root, self.skip = root, skip
        self.files, left, links = self._found(root, root)
        self.bytes = _bytes(self.files)
        for link in links:
            real = _meant(link, root, skip)
            if real is None:
                left.append(link)
                continue
            more, out, nested = self._found(real, link)
            size = _bytes(more)
            if len(self.files) + len(more) > MAX_FILES or self.bytes + size > MAX_BYTES:
                left.append(link)
            else:
                self.files, self.bytes = [*self.files, *more], self.bytes + size
                left += [*out, *nested]
        # a copy of the copy has the same hash
        self.files.sort(key=lambda file: _order(file[1]))
        self.left = sorted(path.relative_to(root).as_posix() for path in left)

    def _found(self, top: Path, at: Path) -> tuple[list[tuple[Path, Path]], list[Path], list[Path]]:
        """(files below `top` as if it lay `at`, links out of the code, links to folders)."""
        files: list[tuple[Path, Path]] = []
        out: list[Path] = []
        links: list[Path] = []
        for here, linked, names in _folders(top, self.skip):
            place = at / here.relative_to(top)
            links += [place / name for name in linked]
            for name in names:
                if _leads_outside(here / name, self.root):
                    out.append(place / name)
                elif _is_code(here / name):
                    files.append((here / name, (place / name).relative_to(self.root)))
            if len(files) > MAX_FILES:  # a folder that is no code may hold millions
                break
        return files, out, links


def _order(place: Path) -> tuple[tuple[bool, str], ...]:
    """Sorts as a walk goes: the files of a folder first, then its folders."""
    last = len(place.parts) - 1
    return tuple((number < last, name) for number, name in enumerate(place.parts))


def _bytes(files: list[tuple[Path, Path]]) -> int:
    total = 0
    for path, _ in files:
        with contextlib.suppress(FileNotFoundError):  # as below
            total += path.stat().st_size
    return total


def links_note(source: str | Path, *, skip: Path | None = None) -> str | None:
    """Which links `copy_code` leaves out, and what to do about it; None where there are none."""
    left = _Plan(Path(source).expanduser().resolve(), skip).left
    if not left:
        return None
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    return (
        "links out of the code folder are not copied, nor those to a folder around them, within a linked "
        "folder or beyond the limits; where the code needs them, put the files in their place, or name data "
        f"with --data: {', '.join(left[:3])}{more}"
    )


def copy_code(source: str | Path, target: Path, *, skip: Path | None = None) -> str:
    """Copy a code folder and return its hash (12 hex digits over names and contents).

    Caches, version control, virtual environments, job folders and links that lead outside are left out; a
    link to a folder of the code becomes a copy of that folder (see `links_note` for those that do not).

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
    plan = _Plan(root, skip)
    if len(plan.files) > MAX_FILES or plan.bytes > MAX_BYTES:
        raise JobError(
            f"The code folder {root} holds more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB; "
            "keep data elsewhere (--data) and name the folder of the code alone."
        )
    if not plan.files:
        raise JobError(f"The code folder {root} holds no files; name the folder of the boot file.")
    digest = hashlib.sha256()
    for path, relative in plan.files:
        destination = target / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            # a .env that its owner alone may read stays so, and a program can still be started
            rights = path.stat().st_mode & 0o777 | 0o600
            os.close(os.open(destination, os.O_WRONLY | os.O_CREAT, rights))
            shutil.copyfile(path, destination)
        except FileNotFoundError:
            destination.unlink(missing_ok=True)
            continue  # a training that runs there has renamed or removed it since: its checkpoint, say
        # a file name may hold bytes that are no text
        name = str(relative).encode(errors="surrogateescape")
        digest.update(name + b"\0" + destination.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def numbered(number: int, path: Path) -> str:
    """The name of a job file's copy: its place in the order, then its own name without an older number."""
    return f"{number}-{re.sub(r'^([0-9]+-)+', '', path.name) or path.name}"


def kept_files(folder: Path, names: object) -> list[Path]:
    """The copies of job files in `folder` that a record names; None names none.

    Raises:
        JobError: a name is none of a file right there, which links are not.
    """
    listed: object = [] if names is None else names
    if isinstance(listed, list) and all(
        isinstance(n, str)
        and n not in ("", "..")
        and Path(n).name == n
        and not (folder / n).is_symlink()
        for n in listed
    ):
        return [folder / name for name in listed]
    raise JobError(
        f"The job files {str(names)[:200]} are no files right in {folder}: its record is damaged; make the "
        "job anew with jobs create."
    )


def model_file(trial_folder: str | Path, model_path: object) -> Path | None:
    """The model a trial reported, when it is a file or folder that really lies in the trial's output.

    A path given relative is taken from the output folder; of an absolute one what lies behind that folder's
    name, which may have been moved or copied since. Links are not followed out of it.
    """
    if not isinstance(model_path, str) or not model_path or "\0" in model_path:
        return None
    folder = Path(trial_folder)
    output = folder / "output"
    # the trial may have put a link in the place of its own folders
    if folder.is_symlink() or output.is_symlink():
        return None
    parts, here = Path(model_path).parts, (folder.name, output.name)
    ends = [n + 2 for n in range(len(parts) - 2) if parts[n : n + 2] == here]
    # an absolute path replaces the left side
    candidate = output.joinpath(*parts[ends[-1] :]) if ends else output / model_path
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
