"""Ends what a killed job leaves behind: `python -m darts_core.store.keeper PID START BOOT MARK`.

A job ends its own trials; one that is killed cannot. This process waits for the job's end and then ends
everything that carries the job's mark. It is small, carries no mark itself, and ends with its work.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time

from darts_core.store import procs

__all__ = ["start_keeper"]

_LOOK_SECONDS = 0.2


def start_keeper(mark: str) -> subprocess.Popen[bytes]:
    """A keeper for this process; whoever ends the job in good order ends it with `kill()`."""
    who = procs.identity()
    environment = {k: v for k, v in os.environ.items() if k != procs.MARK}
    return subprocess.Popen(
        [*procs.program("darts_core.store.keeper"), str(who.pid), who.start, who.boot, mark],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _wait_for(who: procs.Identity) -> None:
    """Return when exactly this process is gone."""
    try:
        handle = procs.handle_of(who.pid)
    except ProcessLookupError:
        return
    if handle is None:
        while procs.is_alive(who):
            time.sleep(_LOOK_SECONDS)
        return
    try:
        if procs.is_alive(who):
            select.select([handle], [], [])
    finally:
        os.close(handle)


def main(argv: list[str]) -> int:
    """Wait, then end what is left; 0 when nothing is."""
    pid, start, boot, mark = argv
    _wait_for(procs.Identity(int(pid), start, boot))
    # what was started in the very last moment is found by the second look
    ended = procs.end_tree(None, mark, grace_seconds=0.0, limit_seconds=5.0)
    time.sleep(_LOOK_SECONDS)
    ended = procs.end_tree(None, mark, grace_seconds=0.0, limit_seconds=5.0) and ended
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
