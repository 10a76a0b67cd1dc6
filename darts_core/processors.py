"""How many processors this process may use, and one thread for each of them where a quota leaves few.

A leaf: torch is not imported for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from darts_core.control_groups import folders_of, lines_of

__all__ = ["keep_threads_within_quota", "threads_asked_for", "usable_processors"]

# MKL and OpenBLAS follow it, too, where they have no number of their own
_THREADS = "OMP_NUM_THREADS"
# the number that was set there for a quota: children inherit both, and nobody asked for it
_FOR_QUOTA = "DARTS_QUOTA_THREADS"


def usable_processors() -> int:
    """Processors that this process may run on, at most what the quota of a container gives; at least 1.

    Half a processor counts as one. A container with `--cpus=2` sees all processors of its host, and is held
    still for the rest of each tenth of a second once it has used up two of them.
    """
    return min([_allowed(), *(max(1, math.ceil(quota)) for quota in _quotas())])


def keep_threads_within_quota() -> None:
    """Where a quota leaves fewer processors than are seen, set as many threads, unless a number is set.

    Call it before torch is imported. More threads than the quota wait for each other while the container is
    held still, which takes several times as long.
    """
    usable = usable_processors()
    if usable < _allowed() and not os.environ.get(_THREADS):
        os.environ[_THREADS] = os.environ[_FOR_QUOTA] = str(usable)


def threads_asked_for() -> str:
    """OMP_NUM_THREADS as a person or a launcher set it; "" where nobody did, or a quota alone."""
    number = os.environ.get(_THREADS, "")
    return "" if number == os.environ.get(_FOR_QUOTA) else number


def _allowed() -> int:
    # macOS and Windows bind no process to cores
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Processors that each group gives."""
    for folder, version in folders_of("cpu"):
        yield from _quota_in(folder, version)


def _quota_in(folder: Path, version: int) -> Iterator[float]:
    """One number, or none where the group has no limit."""
    if version == 2:
        words = " ".join(lines_of(folder / "cpu.max")[:1]).split()
    else:
        words = [
            *lines_of(folder / "cpu.cfs_quota_us")[:1],
            *lines_of(folder / "cpu.cfs_period_us")[:1],
        ]
    # "max" and -1 are no limit
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]) > 0:
        yield int(words[0]) / int(words[1])
