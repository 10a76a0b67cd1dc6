"""One version of a job: its record, the state of each command in it, the process that runs one, its lock.

A state says "running" (or "queued") only as long as exactly the recorded process lives; no date is asked.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.errors import DartsError, JobError, ResumeError
from darts_core.reading import read_text
from darts_core.runlog import read_json, write_json, write_text
from darts_core.store.locks import FileLock
from darts_core.store.procs import Identity, identity, is_alive
from darts_core.store.record import LIVE, STATES, read_record, write_record

__all__ = ["Version"]

_LAUNCH = "launch.json"
# a file of its own: the marker belongs to whoever runs a command, a description may change meanwhile
_DESCRIPTION = "description.txt"
_LONGEST = 10_000


@dataclass(frozen=True)
class Version:
    """One version's folder."""

    path: Path

    @property
    def name(self) -> str:
        """`V001` and so on, or what `version=` said."""
        return self.path.name

    @property
    def job(self) -> str:
        """The job it belongs to."""
        return self.path.parent.name

    @property
    def label(self) -> str:
        """`job/V001`, as the commands take it."""
        return f"{self.job}/{self.name}"

    def record(self) -> dict[str, Any]:
        """The marker's content: kind, parent, time of creation, commands.

        Raises:
            JobError: the folder bears no marker of ours, or one of a newer program.
        """
        content = read_record(self.path)
        if content is None:
            raise JobError(f"{self.path} is not a version of a job (its version.json is missing).")
        return content

    @property
    def kind(self) -> str:
        """What runs in it: `pipeline`, `script` ..."""
        return str(self.record()["kind"])

    @property
    def description(self) -> str:
        """What somebody wrote about this version; "" for nothing."""
        with contextlib.suppress(DartsError, OSError):
            return read_text(self.path / _DESCRIPTION)[:_LONGEST]
        return ""

    def describe(self, text: str) -> None:
        """Keep a description of this version; an empty one takes it away.

        Raises:
            JobError: the folder bears no marker of ours.
        """
        self.record()
        if text:
            write_text(self.path / _DESCRIPTION, text[:_LONGEST])
        else:
            (self.path / _DESCRIPTION).unlink(missing_ok=True)

    def newest(self) -> str | None:
        """The command that was started last, or None."""
        return next(reversed(self.record()["commands"]), None)

    def command(self, name: str | None = None) -> dict[str, Any]:
        """The record of a command (the newest by default); empty when it was never started."""
        commands = self.record()["commands"]
        found = commands.get(next(reversed(commands), None) if name is None else name)
        return dict(found) if found is not None else {}

    def state(self, name: str | None = None) -> str:
        """A command's state as of now (the newest's by default): `interrupted` when its process is gone."""
        name = name or self.newest() or ""
        return self.state_of(name, self.command(name))

    def state_of(self, name: str, command: Mapping[str, Any]) -> str:
        """The state as of now of a command whose record is at hand."""
        state = command.get("state")
        if state not in STATES:
            return "interrupted"
        return str(state) if state not in LIVE or self._process(name, command) else "interrupted"

    def running(self) -> str | None:
        """The command that is queued or running, or None."""
        return self._last(*LIVE)

    def unfinished(self) -> str | None:
        """The newest command that has ended without success, or left something to run again; or None."""
        return self._last("failed", "stopped", "interrupted", left=True)

    def _last(self, *states: str, left: bool = False) -> str | None:
        """The newest command that is in one of the states, or has succeeded with something left."""
        for name, command in reversed(self.record()["commands"].items()):
            state = self.state_of(name, command)
            if state in states or (left and state == "succeeded" and command.get("left")):
                return str(name)
        return None

    def process(self, name: str | None = None) -> Identity | None:
        """The living process that runs a command (the newest by default), or None."""
        name = name or self.newest() or ""
        return self._process(name, self.command(name))

    def _process(self, name: str, command: Mapping[str, Any]) -> Identity | None:
        candidates = [command.get("process")]
        with contextlib.suppress(ResumeError):
            launch = read_json(self.path / _LAUNCH)
            if isinstance(launch, dict) and launch.get("command") in (None, name):
                candidates.append(launch.get("process"))
        for candidate in candidates:
            who = Identity.from_dict(candidate)
            if is_alive(who):
                return who
        return None

    def elsewhere(self) -> Identity | None:
        """The process that runs in another folder, of which this one is a copy made meanwhile; else None.

        Raises:
            JobError: the file system offers no locks.
        """
        name, lock = self.running(), self.lock
        if name is None or not lock.try_acquire():  # whoever runs in this folder holds it
            return None
        try:
            # one that is queued may not have come to take it
            who = self.process(name) if self.state(name) == "running" else None
            return None if who == identity() else who
        finally:
            lock.release()

    def in_use(self) -> bool:
        """Whether a command is queued or runs in this folder.

        Raises:
            JobError: the file system offers no locks.
        """
        return self.running() is not None and self.elsewhere() is None

    def set_state(self, state: str, name: str | None = None, **details: Any) -> None:
        """Write a command's new state (the newest's by default); a live one names this process.

        Whoever calls it holds the version's lock. `details` (message, process, program ... and `left`,
        whether something may be run again) replace what stood there; a command that becomes queued or
        running is the newest from now on.

        Raises:
            JobError: the state is unknown, or the version has no command.
        """
        if state not in STATES:
            raise JobError(f"Unknown state {state!r}; use one of {', '.join(STATES)}.")
        record = self.record()
        name = name or next(reversed(record["commands"]), None)
        if name is None:
            raise JobError(f"{self.label} has no command yet.")
        now = time.time()
        live = state in LIVE
        command = {
            "started": None,
            **record["commands"].get(name, {}),
            "message": None,
            "left": None,
            "process": identity().to_dict() if live else None,
            "ended": None if live else now,
            **details,
            "state": state,
            "changed": now,
        }
        if state == "running" and not command["started"]:
            command["started"] = now
        if live:
            record["commands"].pop(name, None)
        record["commands"][name] = command
        write_record(self.path, record)

    def note_launch(self, name: str, who: Identity | None) -> None:
        """Keep who was started for a command until it says so itself; None forgets it."""
        path = self.path / _LAUNCH
        if who is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, {"command": name, "process": who.to_dict()})

    @property
    def lock(self) -> FileLock:
        """The lock that whoever runs a command in this version holds."""
        return FileLock(self.path / ".lock")

    @property
    def exports(self) -> Path:
        """Where the live page exports its best to; it goes with the version."""
        return self.path.parent.parent / ".exports" / self.job / self.name

    @property
    def stop_file(self) -> Path:
        """Present while a stop is wanted."""
        return self.path / "stop"
