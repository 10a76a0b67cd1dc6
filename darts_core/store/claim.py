"""Which version a command gets: the one with the same settings while it is unfinished, else the next."""

from __future__ import annotations

import contextlib
import errno
import logging
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, JobError
from darts_core.store import procs
from darts_core.store.jobs import Store
from darts_core.store.locks import FileLock
from darts_core.store.names import check_name, next_version
from darts_core.store.record import (
    RECORD,
    new_record,
    read_job,
    read_record,
    write_job,
    write_record,
)
from darts_core.store.sweep import sweep_job, sweep_unrecorded, sweep_version, temporary_name
from darts_core.store.version import Version

__all__ = ["Claim", "claim"]

log = logging.getLogger("darts_core")
_PLACES = ("out", "job", "version")
# what a version has before anything is computed in it
_MARKS = {RECORD, ".lock", "log.txt", "job.log", "launch.json", "summary.json", "stop"}
_FRESH = {
    *_MARKS,
    "config.yaml",
    "config.hash",
    "environment.json",
    "policy.yaml",
    "multirun.yaml",
    "forecast.json",
    "data.json",
    "overrides.yaml",
    "widths.json",
    "mirrors.json",
    "counted.json",
}
# folders of the version in which a command computes, beside the one of its own name
_BESIDE = {"tune": ("policy",), "bench": ("trained", "given")}
# whether what a record tells of a command is the beginning of the one that claims
Begins = Callable[[Mapping[str, Any]], bool]


@dataclass
class Claim:
    """A command's hold on a version, until `release` or the end of the process."""

    store: Store
    version: Version
    command: str
    resumes: bool
    finished: bool
    lock: FileLock

    @property
    def path(self) -> Path:
        """The version's folder."""
        return self.version.path

    def finish(self, message: str | None = None) -> None:
        """Note that this command has succeeded."""
        self.version.set_state("succeeded", self.command, message=message)
        self.finished = True

    def give_up(self, state: str, message: str) -> None:
        """Note how the command ended without success; a claim under which nothing was computed goes."""
        if not self.forget():
            self.version.set_state(state, self.command, message=message)

    def forget(self) -> bool:
        """Undo a claim under which nothing was computed; False when something was, or it was there before.

        A folder goes only if this claim made its record and it holds no more than configurations.
        """
        if self.resumes:
            return False
        with self.store.lock.held(30.0):
            gone = _undo(self.version, self.command, self.lock)
            # whoever is last takes the job away, unless somebody has said something about it
            if gone and not (read_job(self.path.parent) or {}).get("description"):
                self.store.drop_if_empty(self.version.job)
        return gone

    def release(self) -> None:
        """Let other processes use this version."""
        self.lock.release()


def _undo(version: Version, command: str, lock: FileLock) -> bool:
    """Take a command out of a version, and the version with it when nothing else was run there.

    False, and nothing is touched, when more than configurations was written. Whoever calls it holds `lock`,
    the version's, and the store's; with the version its lock goes.
    """
    names = (command, *_BESIDE.get(command, ()))
    stages = [version.path / name for name in names]
    # the pipeline, multiruns and seeds have folders of several stages or elements
    elements = [place for name in names for place in version.path.glob(f"[0-9]*/{name}")]
    spread = command == "run" or bool(elements) or any(version.path.glob("seed*"))
    places = [version.path] if spread else stages
    inside = sorted((path for place in places for path in place.rglob("*")), reverse=True)
    if any(p.is_symlink() or (p.is_file() and p.name not in _FRESH) for p in inside):
        return False
    for path in inside:
        if path.is_dir():
            path.rmdir()
        elif path.name not in _MARKS or path.parent != version.path:
            path.unlink()
    for stage in stages:
        if stage.is_dir():
            stage.rmdir()
    record = version.record()
    record["commands"].pop(command, None)
    write_record(version.path, record)
    if not record["commands"] and {p.name for p in version.path.iterdir()} <= _MARKS:
        # NFS keeps a folder in which a file is open, as the lock's is: it is closed first. What stays for the
        # sake of an open log is swept by a later command
        doomed = version.path.with_name(temporary_name("deleted"))
        version.path.rename(doomed)
        lock.release()
        shutil.rmtree(doomed, ignore_errors=True)
    return True


def _sweep_empty(store: Store, job: str) -> None:
    """Remove versions whose only command was killed before it computed anything (its hold is gone).

    Whoever calls it holds the store's lock.
    """
    for version, record in store.records(job):
        names = list(record["commands"])
        if len(names) != 1 or version.state() != "interrupted":
            continue
        lock = version.lock
        if lock.try_acquire():
            try:
                sweep_version(version.path)
                _undo(version, names[0], lock)
            finally:
                lock.release()


def _make(store: Store, folder: Path) -> None:
    """Make `folder` (the root, or a job's folder in it)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise ConfigError(
            f"out={str(store.root)!r}: the folder {folder} cannot be made ({error.strerror}); choose "
            "another."
        ) from error


def _choose(
    store: Store, job: str, command: str, stamp: str, version: str | None, begins: Begins
) -> Path:
    """The folder for this command: the newest with the same hash, else a new one."""
    folder = store.root / job
    if version is not None:
        known = (read_record(folder / version) or {"commands": {}})["commands"].get(command)
        # an empty record is what a claim that was killed half way wrote
        if known and known.get("config_hash") != stamp and not begins(known):
            raise ConfigError(
                f"{folder / version} holds {command}/ with other settings (hash "
                f"{known.get('config_hash')}, now {stamp}); leave version= out to take the next "
                "one, or repeat the settings in its config.yaml."
            )
        return folder / version
    for existing in reversed(store.versions(job, strict=True)):
        if existing.command(command).get("config_hash") == stamp:
            return existing.path
    return folder / next_version(folder)


def _words(overrides: object) -> list[str]:
    """Overrides without the place of the results."""
    known = overrides if isinstance(overrides, list) else []
    return [t for t in map(str, known) if t.lstrip("+").partition("=")[0] not in _PLACES]


def _name_unfinished(store: Store, job: str, command: str, details: Mapping[str, Any]) -> None:
    """Say that the same command line has an unfinished version under other settings.

    Its settings were resolved by an older program, whose defaults were others: it is not what would run
    now, and its checkpoint fits those settings alone.
    """
    for version in store.versions(job):
        known = version.command(command)
        same = _words(known.get("overrides")) == _words(details.get("overrides"))
        if known and same and version.state(command) in ("failed", "stopped", "interrupted"):
            log.warning(
                "%s holds an unfinished %s of this command line, whose defaults were others (they stand in "
                "its config.yaml): it is left as it is. Repeat those settings to go on with it, or delete "
                "it with %s.",
                version.label,
                command,
                _jobs("delete", version),
            )


def _name_begun(store: Store, job: str, command: str, begins: Begins) -> None:
    """Say which version holds the beginning of this command, which is computed anew in another one."""
    for version, record in reversed(store.records(job)):
        if begins(record["commands"].get(command) or {}):
            log.warning(
                "%s holds the beginning of this command: with version=%s it goes on there and computes "
                "only what is new.",
                version.label,
                version.name,
            )
            return


def _jobs(verb: str, version: Version) -> str:
    """The command line of a verb of `jobs`, which looks in `runs` unless it is told where."""
    root = version.path.parent.parent.resolve()
    place = "" if root == Path("runs").resolve() else f" --root {shlex.quote(str(root))}"
    return f"darts-core jobs{place} {verb} {version.label}"


def _lock(version: Version) -> FileLock:
    """The held lock of `version`.

    Raises:
        ConfigError: another process holds it.
    """
    lock = version.lock
    if lock.try_acquire():
        return lock
    holder = "another process"
    with contextlib.suppress(JobError):
        running = version.running()
        who = version.process(running) if running else None
        holder = f"process {who.pid}" if who is not None else holder
    raise ConfigError(
        f"{version.path} is in use by {holder}; wait for it, stop it with {_jobs('stop', version)}, or name "
        "another version=."
    )


def claim(
    out: str | Path,
    job: str,
    *,
    kind: str,
    command: str,
    stamp: str,
    version: str | None = None,
    details: Mapping[str, Any] | None = None,
    begins: Begins = lambda known: False,
) -> Claim:
    """Choose the version of `job` for this command and configuration, lock it, note what runs.

    Args:
        out: root of all runs.
        job: name of the job, one folder below `out`.
        kind: what this command runs; a job has one kind.
        command: console command, e.g. `search`; versions are compared command by command.
        stamp: hash of the resolved configuration.
        version: forces one version; None takes the newest with the same hash, or the next number.
        details: kept beside the hash (the program with its arguments, the overrides as typed).
        begins: whether a command with other settings, as it is recorded, is the beginning of this one, which
            may then go on in the forced version.

    Raises:
        JobError: a name is not allowed, leads out of the root, or the job is of another kind.
        ConfigError: another process holds the version, or the forced version holds other settings of
            this command.
    """
    store = Store(out)
    folder = store.job_folder(job)
    if version is not None:
        check_name(version, "version")
    _make(store, store.root)
    with store.lock.held():
        makes_job = read_job(folder) is None
        try:
            store.require_kind(job, kind)
            # under the lock, as a deletion removes it under the lock
            _make(store, folder)
            sweep_job(folder)
            sweep_unrecorded(folder)
            if version is None:
                _sweep_empty(store, job)
            path = _choose(store, job, command, stamp, version, begins)
            if version is None and not path.exists():
                _name_unfinished(store, job, command, details or {})
                _name_begun(store, job, command, begins)
            if path.is_symlink():
                raise JobError(f"version={path.name!r} is a link out of {folder}; choose another.")
            made = Version(path)
            path.mkdir(exist_ok=True)
            lock = _lock(made)
        except BaseException:
            if makes_job:
                store.drop_if_empty(job)
            raise
        try:
            return _note(store, made, kind, command, stamp, details or {}, lock)
        except BaseException:
            lock.release()
            sweep_unrecorded(folder)
            if makes_job:
                store.drop_if_empty(job)
            raise


def _runs_elsewhere(known: Mapping[str, Any]) -> bool:
    """Whether a command runs although its version's lock is ours: this folder is a copy, made meanwhile."""
    who = procs.Identity.from_dict(known.get("process"))
    if known.get("state") != "running" or who == procs.identity():
        return False
    return procs.is_alive(who)


def _note(
    store: Store,
    version: Version,
    kind: str,
    command: str,
    stamp: str,
    details: Mapping[str, Any],
    lock: FileLock,
) -> Claim:
    """Write the command into the version's record, and the kind into the job's."""
    record = read_record(version.path)
    fresh = record is None
    record = record or new_record(kind)
    if read_job(version.path.parent) is None:
        write_job(version.path.parent, kind, name=version.job, description="")
    known = record["commands"].get(command)
    # of a command that this one goes on from, the rest is to be computed
    same_settings = known is not None and known.get("config_hash") == stamp
    finished = known is not None and same_settings and known.get("state") == "succeeded"
    mine = Claim(store, version, command, bool(known), finished, lock)
    if finished:
        sweep_version(version.path)
    else:
        if known is not None and known.get("mark") and not _runs_elsewhere(known):
            # what a killed command left would write into the folders used now
            procs.end_tree(None, str(known["mark"]), grace_seconds=0.5, limit_seconds=5.0)
        sweep_version(version.path)
        if fresh:
            record["commands"][command] = {}
            write_record(version.path, record)
        version.stop_file.unlink(missing_ok=True)
        # what was typed is what a reader may type again: `jobs resume` adds where it is; settings that are
        # not hashed may have been added by hand, such as allow_doubtful=true
        typed = (known or {}).get("overrides")
        same = typed is not None and _words(typed) == _words(details.get("overrides", typed))
        kept = {"overrides": typed} if same else {}
        version.set_state("running", command, config_hash=stamp, **{**details, **kept})
    return mine
