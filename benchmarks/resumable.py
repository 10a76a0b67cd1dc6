"""What jobs done in steps share: the word for "call again", how one is stopped, whose results are kept.

Nothing but the standard library is imported: on a machine that has never run us, packages may be missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["GRACE", "UNFINISHED", "run_until", "same_settings"]

UNFINISHED = 3
"""Exit status: something is left, call again."""
GRACE = 60.0
"""Seconds that a command has to save at most after it was asked to stop."""
_LAST = 5.0
"""Seconds before the end in which a command that should have stopped by itself is asked to."""


def run_until(
    command: Sequence[str],
    stop: float,
    end: float,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
) -> int:
    """Exit status of a command; UNFINISHED where it was stopped. Nothing that it started outlives it.

    A command with `{minutes}` among its words is told what is left until `stop` and stops by itself; it is
    signalled shortly before `end`. Any other is sent SIGTERM at `stop`, once: a second one would cut off what
    it is saving. Whatever is left of its process group at `end` is killed.

    Args:
        command: program and arguments.
        stop: when it has to begin to stop, on the clock of time.monotonic.
        end: when it must be gone, likewise.
        cwd: the folder that it runs in.
        env: its environment; that of this process by default.
    """
    minutes = max(0.1, (stop - time.monotonic()) / 60)
    itself = any("{minutes}" in word for word in command)
    words = [word.replace("{minutes}", f"{minutes:.2f}") for word in command]
    process = subprocess.Popen(words, cwd=cwd, env=env, process_group=0)
    try:
        asked = end - _LAST if itself else stop
        status = process.wait(max(1.0, asked - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as reason:
        _signal(process.pid, signal.SIGTERM)
        _wait_for_all(process, min(end, time.monotonic() + GRACE))
        if isinstance(reason, KeyboardInterrupt):
            raise
        return UNFINISHED
    _wait_for_all(process, min(end, time.monotonic() + _LAST))
    return status


def same_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Hold a folder of kept results to the settings that they were made with, noted in `settings.json`.

    A name that is noted for the first time takes the value that is given.

    Args:
        folder: of the results; made where it is missing.
        settings: name -> value, of what JSON can hold.

    Raises:
        SystemExit: a name is noted with another value; the sentence says which.
    """
    path = folder / "settings.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    given = json.loads(json.dumps(settings))
    for name, value in given.items():
        if known.get(name, value) != value:
            raise SystemExit(
                f"{folder} holds results of {name}={known[name]!r}, not {value!r}: repeat those "
                "settings, or give these a folder of their own."
            )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({**known, **given}, indent=1), encoding="utf-8")
    temporary.replace(path)


def _wait_for_all(process: subprocess.Popen[bytes], end: float) -> None:
    """Until the process and all that it started are gone; at `end` they are killed."""
    while time.monotonic() < end:
        # one that nobody has waited for yet would count as one of the group
        process.poll()
        if not _signal(process.pid, 0):
            return
        time.sleep(0.05)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: int) -> bool:
    """Whether there was anybody to signal."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False
