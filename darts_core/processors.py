"""How many processors this process may use, and one thread for each of them.

A leaf: torch is not imported for it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from darts_core.control_groups import folders_of, lines_of

__all__ = ["THREAD_VARIABLES", "keep_threads_within_quota", "usable_processors"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
    if usable < _allowed() and not os.environ.get("OMP_NUM_THREADS"):
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(usable))


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
