"""Telling the outside world that a job changed its state: a command, run without a shell."""

from __future__ import annotations

import logging
import shlex
import subprocess

from darts_core.errors import JobError
from darts_core.store.version import Version

__all__ = ["check_notify", "notify"]

_SECONDS = 30
log = logging.getLogger("darts_core")


def check_notify(command: str | None) -> list[str] | None:
    """The words of a `--notify` command.

    Raises:
        JobError: its quotes do not match or it is empty.
    """
    if command is None:
        return None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise JobError(
            f"--notify {command!r} cannot be split ({error}); close its quotes."
        ) from None
    if not words:
        raise JobError("--notify is empty; name a program with its arguments.")
    return words


def notify(words: list[str] | None, state: str, version: Version) -> bool:
    """Run the command with state, job, version and folder as further arguments; True when it exited 0.

    No shell sees it: `$`, `;` and `|` in the command are plain text to the program.
    """
    if not words:
        return False
    try:
        done = subprocess.run(
            [*words, state, version.job, version.name, str(version.path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("the --notify command failed: %s", error)
        return False
    if done.returncode:
        log.warning("the --notify command ended with status %d", done.returncode)
    return done.returncode == 0
