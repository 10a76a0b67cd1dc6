"""Names of temporary files and folders, and removing those whose maker is dead.

A name carries its maker's process id and start: only who lives may still need it. Dates are not asked,
a clock may jump.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import uuid
from pathlib import Path

import psutil

from darts_core.store.locks import FileLock
from darts_core.store.procs import identity

__all__ = ["sweep_job", "sweep_unrecorded", "sweep_version", "temporary_name"]

_FOLDER = re.compile(r"\.(new|deleted)-(?:(\d+)-(\w+-\w+-\w+)-)?[0-9a-f]{12}")
# what runlog.replacing writes before it renames, and an export, whose readers go by the ending; beside large
# ONNX files stand those of their weights, `.onnx.data`
_FILE = re.compile(r"\..+\.(\d+)\.tmp(?:\.\w+){0,2}")


def _maker(pid: int | None = None) -> str:
    """Start, boot and host of a process, as they stand in a name."""
    who = identity(pid)
    return "-".join(re.sub(r"\W", "_", part) for part in (who.start, who.boot, platform.node()))


def temporary_name(purpose: str) -> str:
    """`.new-...` or `.deleted-...`: a name for a folder of this process."""
    return f".{purpose}-{os.getpid()}-{_maker()}-{uuid.uuid4().hex[:12]}"


def _abandoned(purpose: str, pid: str | None, maker: str | None) -> bool:
    if pid is None or maker is None:
        # an older program's, whose maker is not known: what was to be deleted may go
        return purpose == "deleted"
    if not maker.endswith("-" + re.sub(r"\W", "_", platform.node())):
        return False  # another host's, of which nothing can be said from here
    try:
        return _maker(int(pid)) != maker
    except ProcessLookupError:
        return True


def sweep_job(folder: Path) -> None:
    """Remove half-made and half-deleted versions, and half-written files, of dead processes."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for entry in list(os.scandir(folder)):
        match = _FOLDER.fullmatch(entry.name)
        if match and entry.is_dir(follow_symlinks=False) and _abandoned(*match.groups()):
            shutil.rmtree(entry.path, ignore_errors=True)
    _sweep_files(str(folder), [entry.name for entry in os.scandir(folder)])


def sweep_unrecorded(folder: Path) -> None:
    """Remove versions that were locked but never got a record: its write failed, or its process was killed.

    One that holds anything else stays. Whoever calls it holds the store's lock.
    """
    for entry in list(os.scandir(folder)):
        if not entry.is_dir(follow_symlinks=False):
            continue
        files = {file.name for file in os.scandir(entry.path)}
        if ".lock" not in files or not all(n == ".lock" or _FILE.fullmatch(n) for n in files):
            continue
        lock = FileLock(Path(entry.path) / ".lock")
        if lock.try_acquire():
            lock.release()
            shutil.rmtree(entry.path, ignore_errors=True)


def sweep_version(folder: Path) -> None:
    """Remove temporary files of dead processes below a version whose lock the caller holds."""
    for place, _, files in os.walk(folder):
        _sweep_files(place, files)


def _sweep_files(place: str, names: list[str]) -> None:
    for name in names:
        match = _FILE.fullmatch(name)
        if match and not psutil.pid_exists(int(match[1])):
            with contextlib.suppress(OSError):
                (Path(place) / name).unlink()
