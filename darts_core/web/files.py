"""The files of a version that may be downloaded. A request names one of this list; it is never a path."""

from __future__ import annotations

import os
from pathlib import Path

from darts_core.store.version import Version

__all__ = ["files_of"]

_MOST, _DEPTH = 2000, 5
_LEFT_OUT = {"code", "studies", "pictures", "checkpoint", "launch.json", "trials", "version.json"}


def files_of(version: Version) -> dict[str, Path]:
    """Name within the version -> file: results, configurations, models; links lead nowhere here."""
    found = _below(version.path, "", _DEPTH)
    if version.exports.is_dir() and not version.exports.is_symlink():
        exported = _below(version.exports, "", _DEPTH)
        found |= {f"export/{name}": path for name, path in exported.items()}
    return dict(list(found.items())[:_MOST])


def _below(folder: Path, prefix: str, depth: int) -> dict[str, Path]:
    found: dict[str, Path] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return found
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _LEFT_OUT or entry.is_symlink():
            continue
        if entry.is_dir():
            if depth:
                found |= _below(Path(entry.path), f"{prefix}{_shown(entry.name)}/", depth - 1)
        elif entry.is_file():
            found[f"{prefix}{_shown(entry.name)}"] = Path(entry.path)
        if len(found) > _MOST:
            break
    return found


def _shown(name: str) -> str:
    r"""A name as an address can hold it: bytes of it that are no UTF-8 stand as `\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
