"""Who is running a trial: one small file a trial, renewed while its worker lives.

Journal storage cannot tell a running trial from one whose process was killed. A lease names host,
process and the process's start time (process numbers are used again), and carries a beat for readers
on other hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from optuna.exceptions import UpdateFinishedTrialError

from darts_core.errors import ResumeError
from darts_core.runlog import read_json, replacing
from darts_core.store.procs import identity, is_alive
from darts_core.study.optuna_private import attr_of, set_attrs

__all__ = [
    "FileLeases",
    "Lease",
    "LeaseWatch",
    "Leases",
    "StoredLeases",
    "host_name",
    "process_start",
]

LEASE_FILE = "lease.json"
BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


def host_name() -> str:
    """A name that only processes which see each other's process numbers share."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()[:8])
    except OSError:
        parts.append("-")
    try:
        parts.append(os.readlink("/proc/self/ns/pid").split("[")[-1].rstrip("]"))
    except OSError:
        parts.append("-")
    return ":".join(parts)


def process_start(pid: int) -> str | None:
    """When process `pid` of this host started; None when there is no such process."""
    try:
        who = identity(pid)
    except ProcessLookupError:
        return None
    # a killed process whose parent has not waited for it yet is dead all the same
    return who.start if is_alive(who) else None


@dataclass
class Lease:
    """The claim of one worker on one trial.

    `seconds` and `epochs` are what the trial has used so far, over all its sittings; `attempt`
    counts sittings from 1; `epochs_before` is `epochs` at the start of this sitting; `idle` counts
    the sittings in a row in which the trial's own process died without reporting anything new. With
    `to_the_end` no rung pauses the trial any more. `folder` is where this sitting keeps its files.
    """

    host: str = field(default_factory=host_name)
    pid: int = field(default_factory=os.getpid)
    start: str | None = field(default_factory=lambda: process_start(os.getpid()))
    beat: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    seconds: float = 0.0
    epochs: int = 0
    attempt: int = 1
    epochs_before: int = 0
    idle: int = 0
    to_the_end: bool = False
    folder: str = ""

    def successor(self, *, died: bool = False) -> Lease:
        """The lease of the next sitting of the same trial, held by this process.

        Args:
            died: the trial's own process ended before its time while its worker lived. Whatever ended
                the worker, the study or the host is no fault of the trial and is not counted.
        """
        idle = 0 if self.epochs > self.epochs_before else self.idle + died
        return Lease(
            seconds=self.seconds,
            epochs=self.epochs,
            epochs_before=self.epochs,
            attempt=self.attempt + 1,
            idle=idle,
            to_the_end=self.to_the_end,
            folder=self.folder,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the beat of this moment."""
        self.beat = time.time()
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any) -> Lease | None:
        """The lease in a record; None when it holds none: a lease that cannot be read protects nothing."""
        try:
            return cls(**content)
        except TypeError:
            return None


class Leases(Protocol):
    """Where the leases of a study's trials are kept."""

    def read(self, number: int) -> Lease | None:
        """The lease of a trial, or None."""

    def write(self, number: int, lease: Lease) -> None:
        """Renew a trial's lease."""

    def remove(self, number: int) -> None:
        """Forget a trial's lease."""


@dataclass(frozen=True)
class FileLeases:
    """One file a trial, in the trial's folder: for a study whose journal lies beside them."""

    folder_of: Callable[[int], Path]

    def _path(self, number: int) -> Path:
        return self.folder_of(number) / LEASE_FILE

    def read(self, number: int) -> Lease | None:
        """The lease of a trial, or None."""
        if not self._path(number).is_file():
            return None
        for _ in range(2):
            # on NFS, what another host replaces while it is read cannot be read; the next time it is new
            with contextlib.suppress(ResumeError):
                return Lease.from_dict(read_json(self._path(number)))
        return None

    def write(self, number: int, lease: Lease) -> None:
        """Renew a trial's lease."""
        # a power cut ends what it stands for, and a torn one is none
        with replacing(self._path(number), forced=False) as stream:
            stream.write(json.dumps(lease.to_dict(), indent=2).encode())

    def remove(self, number: int) -> None:
        """Forget a trial's lease."""
        self._path(number).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredLeases:
    """An attribute of each trial in the study's database: for jobs that share nothing else."""

    study: Any

    def read(self, number: int) -> Lease | None:
        """The lease of a trial, or None."""
        content = attr_of(self.study, number, "lease")
        return Lease.from_dict(content) if content else None

    def write(self, number: int, lease: Lease) -> None:
        """Renew a trial's lease; one that has ended keeps its last."""
        with contextlib.suppress(UpdateFinishedTrialError):
            set_attrs(self.study, number, {"lease": lease.to_dict()})

    def remove(self, number: int) -> None:
        """Nothing: the trial is told next, and no lease of an ended trial is ever read."""


class LeaseWatch:
    """Tells live leases from dead ones.

    On this host the process table decides at once. For another host, a lease is dead when its beat
    has not moved for `STALE_SECONDS` of our own clock: clocks of two hosts are never compared.
    """

    def __init__(self, stale_seconds: float = STALE_SECONDS) -> None:
        self.stale_seconds = stale_seconds
        self._host = host_name()
        self._seen: dict[str, tuple[float, float]] = {}

    def forgive(self) -> None:
        """Wait anew for the beat of each lease: nobody could renew one meanwhile."""
        now = time.monotonic()
        self._seen = {token: (beat, now) for token, (beat, _) in self._seen.items()}

    def alive(self, lease: Lease | None) -> bool:
        """Whether the worker that holds `lease` still runs."""
        # who lets go of a trial leaves a lease without a start
        if lease is None or lease.start is None:
            return False
        if lease.host == self._host:
            return process_start(lease.pid) == lease.start
        now = time.monotonic()
        beat, since = self._seen.get(lease.token, (lease.beat, now))
        if beat != lease.beat:
            since = now
        self._seen[lease.token] = (lease.beat, since)
        return now - since <= self.stale_seconds

    def give_up(self, numbers: Iterable[int], leases: Leases) -> None:
        """Let go of those leases whose workers are gone, so that a claim takes the trials over at once."""
        for number in numbers:
            lease = leases.read(number)
            if lease is not None and lease.start is not None and not self.alive(lease):
                lease.start = None
                leases.write(number, lease)
