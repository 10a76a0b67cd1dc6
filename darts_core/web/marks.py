"""Whether something has changed: a mark of a version's folder, of the whole store; stats alone are read."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from darts_core.errors import DartsError
from darts_core.store.jobs import Store
from darts_core.store.version import Version

__all__ = ["store_mark", "version_mark"]

# what a version's page does not show, or what looking at it writes
_SKIPPED = {
    "code",
    "config",
    "output",
    "checkpoint",
    "pictures",
    "studies",
    "summary.json",
    "report.html",
}
_DEPTH = 4
_LIST_SECONDS = 30
_MARKED = ("version.json", "description.txt", "log.txt", "job.log")


def _walk(folder: str, depth: int) -> Iterator[str]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    ended = any(entry.name == "result.json" for entry in entries)
    for entry in entries:
        name = entry.name
        if name in _SKIPPED or name.startswith(".") or name.endswith(".tmp"):
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                # a finished trial changes no more
                if depth and not (ended and "trials" in folder):
                    yield from _walk(entry.path, depth - 1)
            else:
                known = entry.stat(follow_symlinks=False)
                yield f"{entry.path}:{known.st_mtime_ns}:{known.st_size}"
        except OSError:
            continue


def _digest(parts: Iterator[str]) -> str:
    found = blake2b(digest_size=9)
    for part in parts:
        found.update(part.encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def version_mark(version: Version, beside: Path | None = None) -> str:
    """A text that differs when anything that the version's page shows has changed.

    `beside` is a folder elsewhere whose files the page lists, too.
    """

    def parts() -> Iterator[str]:
        yield from _walk(str(version.path), _DEPTH)
        if beside is not None:
            yield from _walk(str(beside), _DEPTH)
        try:
            # a killed process writes nothing
            yield version.state()
        except (DartsError, OSError):
            yield "gone"
        yield str(_stat(version.path.parent / "job.json"))

    return _digest(parts())


def store_mark(store: Store) -> str:
    """A text that differs when a job or version came, went or went on; and twice a minute."""

    def parts() -> Iterator[str]:
        yield str(int(time.time()) // _LIST_SECONDS)
        for job in _folders(store.root):
            yield f"{job.name}:{_stat(job / 'job.json')}"
            for version in _folders(job):
                yield f"{version.name}:" + ":".join(str(_stat(version / name)) for name in _MARKED)

    return _digest(parts())


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as found:
            names = sorted(e.name for e in found if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []
    return [path / name for name in names]


def _stat(path: Path) -> tuple[int, int]:
    try:
        known = path.stat()
    except OSError:
        return (0, 0)
    return (known.st_mtime_ns, known.st_size)
