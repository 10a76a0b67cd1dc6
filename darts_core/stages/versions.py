"""Versions of a job, `<out>/<job>/V001`, `V002` ...: which one a command gets, and its lock.

A version holds `version.json`: for each command run in it, the hash of its configuration, the
overrides it was given, and when it finished. The same command with the same hash goes on in its
version; another hash takes the next one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from darts_core.errors import ConfigError, ResumeError
from darts_core.runlog import read_json, write_json

__all__ = ["Version", "claim", "newest", "safe_name"]

SCHEMA_VERSION = 1
RECORD = "version.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,119}")
# what a version has before anything is computed in it
_MARKS = {RECORD, ".lock", "log.txt"}
_FRESH = {*_MARKS, "config.yaml", "config.hash", "environment.json", "policy.yaml", "multirun.yaml"}
_NUMBERED = re.compile(r"V(\d{3,})")


def safe_name(kind: str, name: str) -> str:
    """`name` itself, when it can be one folder's name.

    Raises:
        ConfigError: it is empty, too long, holds a separator, or starts with a dot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{kind}={name!r} cannot name a folder: use 1 to 120 letters, digits and . _ + = - , "
            "beginning with a letter or digit."
        )
    return name


@dataclass
class Version:
    """One claimed version of a job; the lock is held until `release` (or the process ends)."""

    path: Path
    command: str
    resumes: bool
    finished: bool
    lock: IO[str] | None = None

    def finish(self) -> None:
        """Note in `version.json` that this command is done here."""
        record = _read_record(self.path)
        record["commands"][self.command]["finished"] = time.time()
        write_json(self.path / RECORD, record)
        self.finished = True

    def forget(self) -> None:
        """Undo a claim under which nothing was computed: the next try may use other settings here.

        A folder goes only if this claim made its record and it holds no more than configurations.
        """
        if self.resumes:
            return
        stage = self.path / self.command
        # the pipeline, multiruns and seeds have folders of several stages or elements
        elements = [*self.path.glob(f"[0-9]*/{self.command}"), *self.path.glob("seed*")]
        spread = self.command == "run" or bool(elements)
        inside = sorted((self.path if spread else stage).rglob("*"), reverse=True)
        if any(p.is_symlink() or (p.is_file() and p.name not in _FRESH) for p in inside):
            return
        for path in inside:
            if path.is_dir():
                path.rmdir()
            elif path.name not in _MARKS:
                path.unlink()
        if stage.is_dir():
            stage.rmdir()
        record = _read_record(self.path)
        record["commands"].pop(self.command, None)
        write_json(self.path / RECORD, record)
        if not record["commands"] and {p.name for p in self.path.iterdir()} <= _MARKS:
            for name in _MARKS:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def release(self) -> None:
        """Let other processes use this version."""
        if self.lock is not None:
            self.lock.close()
            self.lock = None


def _read_record(path: Path) -> dict[str, Any]:
    if not (path / RECORD).exists():
        return {"schema_version": SCHEMA_VERSION, "commands": {}}
    record = read_json(path / RECORD)
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("commands"), dict)
        or record.get("schema_version", 0) > SCHEMA_VERSION
    ):
        raise ResumeError(
            f"{path / RECORD} is not one of ours or was written by a newer program; use another "
            "version= or move the folder away."
        )
    return record


def newest(out: str | Path, job: str) -> str | None:
    """The name of the newest numbered version of `job`, or None."""
    found = _versions(Path(out) / safe_name("job", job))
    return found[0].name if found else None


def _versions(job: Path) -> list[Path]:
    """The numbered version folders of `job`, newest first."""
    found = []
    for path in job.iterdir() if job.is_dir() else ():
        match = _NUMBERED.fullmatch(path.name)
        if match and path.is_dir():
            found.append((int(match.group(1)), path))
    return [path for _, path in sorted(found, reverse=True)]


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, waiting for it: choosing a version takes milliseconds."""
    with path.open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _lock(version: Path) -> IO[str]:
    """The held lock of `version`.

    Raises:
        ConfigError: another process holds it.
    """
    stream = (version / ".lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.seek(0)
        holder = stream.read().strip() or "unknown"
        stream.close()
        raise ConfigError(
            f"{version} is in use by process {holder}; wait for it, stop it, or name another "
            "version=."
        ) from None
    stream.truncate(0)
    stream.write(f"{os.getpid()}\n")
    stream.flush()
    return stream


def _choose(job: Path, command: str, stamp: str, version: str | None) -> Path:
    """The folder for this command: the newest with the same hash, else a new one."""
    if version is not None:
        known = _read_record(job / version)["commands"].get(command)
        if known is not None and known.get("config_hash") != stamp:
            raise ConfigError(
                f"{job / version} holds a {command} with other settings (hash "
                f"{known.get('config_hash')}, now {stamp}); leave version= out to take the next "
                "one, or repeat the settings in its config.yaml."
            )
        return job / version
    existing = _versions(job)
    for path in existing:
        known = _read_record(path)["commands"].get(command)
        if known is not None and known.get("config_hash") == stamp:
            return path
    number = int(existing[0].name[1:]) + 1 if existing else 1
    return job / f"V{number:03d}"


def claim(
    out: str | Path,
    job: str,
    *,
    command: str,
    stamp: str,
    version: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> Version:
    """Choose the version of `job` for this command and configuration, lock it, note what runs.

    Args:
        out: root of all runs.
        job: name of the job, one folder below `out`.
        command: console command, e.g. `search`; versions are compared command by command.
        stamp: hash of the resolved configuration.
        version: forces one version; None takes the newest with the same hash, or the next number.
        details: kept beside the hash (the overrides as typed).

    Raises:
        ConfigError: a name is unsafe, another process holds the version, or the forced version
            holds other settings of this command.
    """
    root = Path(out).resolve()
    folder = root / safe_name("job", job)
    if version is not None:
        safe_name("version", version)
    if folder.resolve() != folder or not folder.resolve().is_relative_to(root):
        raise ConfigError(f"job={job!r} leads out of {root} through a link; choose another job=.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ConfigError(
            f"out={str(out)!r}: the folder {folder} cannot be made ({error.strerror}); choose another."
        ) from error
    with _exclusive(folder / ".lock"):
        path = _choose(folder, command, stamp, version)
        if path.resolve() != path:
            raise ConfigError(f"version={path.name!r} is a link out of {folder}; choose another.")
        path.mkdir(exist_ok=True)
        lock = _lock(path)
        record = _read_record(path)
        known = record["commands"].get(command)
        if known is None:
            known = {"config_hash": stamp, "started": time.time(), "finished": None}
            record["commands"][command] = {**known, **(details or {})}
            write_json(path / RECORD, record)
            return Version(path, command, resumes=False, finished=False, lock=lock)
    return Version(path, command, resumes=True, finished=bool(known.get("finished")), lock=lock)
