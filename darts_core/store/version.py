"""One version of a job: its marker, its state, the process that runs it, its lock.

A state says "running" only as long as exactly the recorded process lives.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.errors import JobError, ResumeError
from darts_core.runlog import read_json, write_json
from darts_core.store.locks import FileLock
from darts_core.store.procs import Identity, identity, is_alive

__all__ = ["JOB_KIND", "LIVE", "SCHEMA_VERSION", "STATES", "VERSION_KIND", "Version", "marker"]

SCHEMA_VERSION = 1
JOB_KIND, VERSION_KIND = "darts-core job", "darts-core job version"
STATES = ("queued", "running", "succeeded", "failed", "stopped", "interrupted")
LIVE = ("queued", "running")
_START_SECONDS = 60.0  # a launched process has this long to write its own record


def marker(path: Path, kind: str) -> dict[str, Any] | None:
    """The content of a marker file of ours, or None when it is none."""
    try:
        content = read_json(path)
    except (ResumeError, OSError):
        # also a plain file where a folder would stand, or one that may not be read
        return None
    return content if isinstance(content, dict) and content.get("kind") == kind else None


@dataclass(frozen=True)
class Version:
    """One version's folder."""

    path: Path

    @property
    def name(self) -> str:
        """`V001` and so on."""
        return self.path.name

    @property
    def job(self) -> str:
        """The job it belongs to."""
        return self.path.parent.name

    def record(self) -> dict[str, Any]:
        """What the version was created with.

        Raises:
            JobError: the folder bears no marker of ours, or one of a newer program.
        """
        content = marker(self.path / "version.json", VERSION_KIND)
        if content is None:
            raise JobError(f"{self.path} is not a version of a job (its version.json is missing).")
        if content.get("schema_version", 0) > SCHEMA_VERSION:
            raise JobError(f"{self.path} was written by a newer darts-core; update the program.")
        return content

    def state_record(self) -> dict[str, Any]:
        """The last written state with its process, times and message."""
        with contextlib.suppress(ResumeError):
            content = read_json(self.path / "state.json")
            if isinstance(content, dict):
                return content
        return {"state": "interrupted"}

    def state(self) -> str:
        """The state as of now: `interrupted` when the recorded process is gone."""
        content = self.state_record()
        state = content.get("state")
        if state not in STATES:
            return "interrupted"
        if state not in LIVE:
            return str(state)
        if self.process() is not None:
            return str(state)
        recent = time.time() - float(content.get("changed") or 0.0) < _START_SECONDS
        starting = state == "queued" and recent and not content.get("process")
        return "queued" if starting and not (self.path / "launch.json").exists() else "interrupted"

    def process(self) -> Identity | None:
        """The living process that runs this version, or None."""
        candidates = [self.state_record().get("process")]
        with contextlib.suppress(ResumeError):
            launch = read_json(self.path / "launch.json")
            candidates.append(launch.get("process") if isinstance(launch, dict) else None)
        for candidate in candidates:
            who = Identity.from_dict(candidate)
            if is_alive(who):
                return who
        return None

    def set_state(self, state: str, **details: Any) -> None:
        """Write a new state; a live one carries this process's identity."""
        if state not in STATES:
            raise JobError(f"Unknown state {state!r}; use one of {', '.join(STATES)}.")
        old = self.state_record()
        content = {
            "schema_version": SCHEMA_VERSION,
            "created": old.get("created"),
            "started": old.get("started"),
            "ended": None,
            "message": None,
            **details,
            "state": state,
            "changed": time.time(),
        }
        if state == "running" and not content["started"]:
            content["started"] = time.time()
        if state not in LIVE:
            content["ended"] = time.time()
        write_json(self.path / "state.json", content)

    def own_process(self) -> dict[str, Any]:
        """This process's identity, for `set_state(process=...)`."""
        return identity().to_dict()

    @property
    def lock(self) -> FileLock:
        """The lock that whoever runs this version holds."""
        return FileLock(self.path / ".lock")

    @property
    def stop_file(self) -> Path:
        """Present while a stop is wanted."""
        return self.path / "stop"
