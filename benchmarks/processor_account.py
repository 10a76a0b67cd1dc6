"""Processor seconds of everything that a program starts, daemons and what is no child of it included.

A control group of its own counts them (Linux, cgroup v2); it takes root, or a delegated group.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_PATIENCE = 50


def _group() -> Path | None:
    """The folder of this process's own group in the cgroup v2 tree."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    roots = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    paths = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    return Path(roots[0]) / paths[0].lstrip("/") if roots and paths else None


@contextlib.contextmanager
def processor_account() -> Iterator[Callable[[], float] | None]:
    """Count from now on; a function that tells the seconds so far, or None where there can be no group."""
    try:
        outer = _group()
        if outer is None:
            raise OSError
        group = outer / f"account-{os.getpid()}"
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")

        def seconds() -> float:
            lines = (group / "cpu.stat").read_text(encoding="utf-8").splitlines()
            return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6

        yield seconds
    finally:
        # what still ends goes back with this process
        for _ in range(_PATIENCE):
            for pid in (group / "cgroup.procs").read_text(encoding="utf-8").split():
                with contextlib.suppress(OSError):
                    (outer / "cgroup.procs").write_text(pid, encoding="utf-8")
            with contextlib.suppress(OSError):
                group.rmdir()
                break
