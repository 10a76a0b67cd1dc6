"""Making a script's job, and starting what `jobs` starts: it says what, and waits where asked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.autosearch.request import Request, create
from darts_core.report.tables import neutral
from darts_core.store import control
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version

__all__ = ["create_job", "follow", "start_version"]


def _forecast(answer: Mapping[str, Any]) -> str:
    notes = [f"Note: {neutral(note, 500)}." for note in answer.get("notes") or ()]
    return "\n".join([*notes, str(answer.get("forecast", ""))])


def start_version(store: Store, version: Version, answer: Mapping[str, Any], *, wait: bool) -> int:
    """Print the forecast of a version that was just made, and start it."""
    print(_forecast(answer))
    return follow(store, version, control.launch(store, version), "started", wait=wait)


def follow(
    store: Store, version: Version, process: Any, word: str, *, wait: bool, log: Path | None = None
) -> int:
    """Say what was started and how to look at it; with `wait`, wait for its end and say that too.

    `log` is what it prints, where that lies outside of the version.
    """
    print(f"{version.label} {word} (process {process.pid}).")
    if word == "started":
        root = shlex.quote(neutral(store.root, 4000))
        print(f"Look at it with: darts-core jobs --root {root} show {version.job}")
    if not wait:
        return 0
    sys.stdout.flush()  # into `| tee` it would be seen at the end, hours later
    status = control.wait(process, version)
    if not version.path.is_dir():
        print(f"{version.label} had nothing to keep and is gone.")
        if log is not None and process.returncode:
            print(neutral(control.last_words(log, process.returncode), 1000))
        return status
    message = neutral(version.command().get("message") or "", 1000)
    print(f"{version.label}: {version.state()}. {message}")
    return status


def create_job(
    store: Store, job: str, description: str, request: Request
) -> tuple[Version, dict[str, Any]]:
    """Make a job and its first version; a refused request leaves no empty job behind."""
    store.create_job(job, description, kind=SCRIPT)
    try:
        return create(store, job, request)
    except BaseException:
        if not store.versions(job):
            store.delete_job(job)
        raise
