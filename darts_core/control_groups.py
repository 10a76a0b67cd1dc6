"""The control groups that this process is in, as the kernel's files tell: a container's limits stand there.

A leaf: nothing else of the package is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["folders_of", "lines_of"]

_ROOT = Path("/")


def lines_of(file: str | Path) -> list[str]:
    """The lines of a file of the kernel, counted from the root; none where it is not there."""
    try:
        return (_ROOT / file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def folders_of(controller: str) -> Iterator[tuple[Path, int]]:
    """Folders of the groups of a controller ("memory", "cpu"), each with its version (1 or 2).

    Parents come, too, as they limit what is in them.
    """
    for line in lines_of("proc/self/cgroup"):
        _, _, group = line.partition(":")
        kinds, _, path = group.partition(":")
        if kinds and controller not in kinds.split(","):
            continue
        top = _ROOT / "sys/fs/cgroup" / (controller if kinds else "")
        place = top / path.lstrip("/")
        # in a container the path may be the host's, whose lower folders are not there
        for folder in (place, *place.parents):
            yield folder, 1 if kinds else 2
            if folder == top:
                break
