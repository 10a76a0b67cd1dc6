"""The store: `root/<job>/<version>/`, told by its marker files.

The folders are the truth. A version appears by one rename or one file, so a reader never sees half of
one. What creates, numbers or removes jobs and versions does so under one lock of the root.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.store.locks import FileLock
from darts_core.store.names import check_name, free_name, is_name, next_version, version_order
from darts_core.store.procs import Identity, identity, is_alive
from darts_core.store.record import (
    JOB_RECORD,
    SCRIPT,
    read_job,
    read_record,
    write_job,
    write_record,
)
from darts_core.store.sweep import sweep_job, temporary_name
from darts_core.store.version import Version

__all__ = ["Store"]

log = logging.getLogger("darts_core")
SAVED = ".params"  # the folder of saved parameters in the root
Record = dict[str, Any]
VersionRecord = tuple[Version, Record]


def _in_use(version: Version) -> JobError:
    running = version.running()
    state = "in use" if running is None else f"{version.state(running)} ({running})"
    return JobError(
        f"{version.label} is {state}; stop it first with darts-core jobs stop {version.label}."
    )


@cache
def _say_closed(folder: Path) -> None:
    """Once: the live page lists the jobs again and again."""
    log.warning("left out: you may not read %s", folder)


class Store:
    """All jobs below one root folder."""

    def __init__(self, root: str | Path = "runs") -> None:
        self.root = Path(root).expanduser().resolve()

    @property
    def lock(self) -> FileLock:
        """Held for the moments in which a job or version is made, numbered or removed."""
        return FileLock(self.root / ".locks" / "store.lock")

    def job_folder(self, job: str) -> Path:
        """The folder of a job, checked to lie directly in the root.

        Raises:
            JobError: the name is not allowed or the folder is a link to elsewhere.
        """
        path = self.root / check_name(job)
        if path.is_symlink():
            raise JobError(
                f"{path} is a link; a job's folder must lie in {self.root} itself. Use another name."
            )
        return path

    def keeps(self, folder: str | Path) -> bool:
        """Whether a folder lies in a version, or in saved parameters: it goes with these."""
        try:
            parts = Path(folder).resolve().relative_to(self.root).parts
        except ValueError:
            return False
        if len(parts) < 3:
            return False
        try:
            return parts[0] == SAVED or read_record(self.root / parts[0] / parts[1]) is not None
        except JobError:  # a newer program's
            return True

    def job_record(self, job: str) -> dict[str, Any]:
        """A job's kind, description and time of creation.

        Raises:
            JobError: there is no such job.
        """
        content = self._job_record(job)
        if content is None:
            near = [name for name in self.jobs() if name.startswith(job[:3])]
            hint = f" Did you mean {', '.join(near[:3])}?" if near else ""
            raise JobError(
                f"There is no job {job!r} in {self.root}.{hint} See darts-core jobs list."
            )
        return content

    def _job_record(self, job: str) -> dict[str, Any] | None:
        self.job_folder(job)
        return next((record for _, record, _ in self.items(job)), None)

    def _names(self, folder: Path) -> list[str]:
        """The folders in `folder` that could be jobs or versions; links are not."""
        try:
            with os.scandir(folder) as entries:
                return [
                    e.name for e in entries if is_name(e.name) and e.is_dir(follow_symlinks=False)
                ]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def jobs(self) -> list[str]:
        """The names of all jobs, sorted."""
        return [name for name, _, _ in self.items()]

    def items(self, job: str | None = None) -> Iterator[tuple[str, Record, list[VersionRecord]]]:
        """Every job (or one) with its record and its versions', each file read once; sorted by name.

        Of every job those that may not be read are left out, and the log says so.
        """
        for name in sorted(self._names(self.root)) if job is None else [job]:
            record = read_job(self.root / name)
            try:
                versions = self.records(name)
            except PermissionError:
                if job is not None:
                    raise
                _say_closed(self.root / name)
                continue
            if record is None and versions:
                # pipelines of schema 1 wrote no job.json
                first = versions[0][1]
                record = {"kind": first["kind"], "created": first["created"], "description": ""}
            if record is not None:
                yield name, record, versions

    def records(self, job: str, *, strict: bool = False) -> list[VersionRecord]:
        """The versions of a job with their records, oldest first; those of a newer program are left out.

        Raises:
            JobError: with `strict`, one of a newer program.
        """
        folder = self.job_folder(job)
        found = []
        for name in sorted(self._names(folder), key=version_order):
            try:
                record = read_record(folder / name)
            except JobError:
                if strict:
                    raise
                continue
            if record is not None:
                found.append((Version(folder / name), record))
        return found

    def versions(self, job: str, *, strict: bool = False) -> list[Version]:
        """The versions of a job, oldest first (see `records`)."""
        return [version for version, _ in self.records(job, strict=strict)]

    def version(self, job: str, name: str | None = None) -> Version:
        """One version of a job, the newest when unnamed. `job` may also be `job/V001`.

        Raises:
            JobError: there is no such job or version.
        """
        if name is None and "/" in job:
            job, _, name = job.partition("/")
        record = self.job_record(job)
        found = self.versions(job)
        if name is not None:
            wanted = [version for version in found if version.name == name]
            if not wanted:
                known = ", ".join(version.name for version in found) or "none"
                raise JobError(f"The job {job!r} has no version {name[:20]!r}; it has {known}.")
            return wanted[0]
        if not found:
            how = f"jobs create --name {job}" if record["kind"] == SCRIPT else f"job={job}"
            raise JobError(f"The job {job!r} has no version any more; begin it anew with {how}.")
        return found[-1]

    def require_kind(self, job: str, kind: str, how: str = "job=") -> None:
        """Refuse a command of another kind: a job has one.

        Raises:
            JobError: the job is of another kind; the sentence offers a free name.
        """
        known = self._job_record(job)
        if known is not None and known["kind"] != kind:
            raise JobError(
                f"The job {job!r} in {self.root} is a {known['kind']}, and a job has one kind; this is a "
                f"{kind}. Use {how}{free_name(self.root, job)}, which is free."
            )

    def create_job(self, job: str, description: str = "", *, kind: str) -> None:
        """Make a job's folder and marker; a job whose versions were all deleted is begun anew.

        Of several processes that make the same job at once, one wins.

        Raises:
            JobError: the name is taken, by a job or by a folder that is not ours.
        """
        folder = self.job_folder(job)
        self._make(self.root)
        with self.lock.held(30.0):
            self.require_kind(job, kind, "--name ")
            known = read_job(folder)
            if self.versions(job) or self._in_the_making(known):
                raise JobError(
                    f"The job {job!r} exists already; use jobs new-version {job}, or "
                    f"--name {free_name(self.root, job)}."
                )
            if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise JobError(f"{folder} exists and is not a job; use another --name or --root.")
            self._make(folder)
            self._write_job(job, kind, description, creator=identity().to_dict())

    @staticmethod
    def _in_the_making(known: Mapping[str, Any] | None) -> bool:
        """Whether another living process is about to make this job's first version."""
        maker = Identity.from_dict((known or {}).get("creator"))
        return maker is not None and maker != identity() and is_alive(maker)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise JobError(
                f"{folder} is a file; name another folder with --root (or out=)."
            ) from None
        except NotADirectoryError:
            raise JobError(
                f"{folder} cannot be made below a file; name another folder with --root (or out=)."
            ) from None

    def _write_job(self, job: str, kind: str, description: str, **details: Any) -> None:
        content = {"name": job, "description": str(description)[:10_000], "created": time.time()}
        write_job(self.job_folder(job), kind, **{**content, **details})

    def edit_job(self, job: str, description: str) -> None:
        """Change a job's description."""
        self.job_record(job)  # the lock would make the folder of a mistyped root
        with self.lock.held(30.0):
            known = self.job_record(job)
            self._write_job(job, known["kind"], description, created=known.get("created"))

    @contextlib.contextmanager
    def new_version(self, job: str, record: dict[str, Any]) -> Iterator[Path]:
        """A folder to fill; when the block ends without an error it becomes the job's next version.

        `record` (see `record.new_record`) is read when the block ends, so the block may add to it; its
        `name` is set to the version's then.
        """
        folder = self.job_folder(job)
        sweep_job(folder)
        temporary = folder / temporary_name("new")
        temporary.mkdir(parents=True)
        try:
            yield temporary
            write_record(temporary, record)
            self._publish(job, temporary, record)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _publish(self, job: str, temporary: Path, record: dict[str, Any]) -> None:
        with self.lock.held(30.0):
            known = self._job_record(job)
            if known is None:
                raise JobError(
                    f"The job {job!r} was deleted while its version was made; try again."
                )
            folder = self.job_folder(job)
            name = next_version(folder)
            temporary.rename(folder / name)
            if "creator" in known:
                kept = {k: known.get(k) for k in ("created", "description")}
                self._write_job(
                    job, known["kind"], kept["description"] or "", created=kept["created"]
                )
        record["name"] = name

    def delete_version(self, version: Version) -> None:
        """Delete a version that is not running, and what was exported of it from the live page.

        A copy of one that runs in another folder may go. Only a folder with our marker, and its own one of
        exports, is touched.

        Raises:
            JobError: it runs, bears no marker, or lies outside the root.
        """
        version.record()
        if version.path.resolve().parent.parent != self.root:
            raise JobError(f"{version.path} does not lie in {self.root}; nothing was deleted.")
        lock = version.lock
        if version.in_use() or not lock.try_acquire():
            raise _in_use(version)
        try:
            self._delete_exports(version)
            # out of sight in one step, so that no reader meets a half-deleted version
            doomed = version.path.with_name(temporary_name("deleted"))
            version.path.rename(doomed)
        finally:
            lock.release()
        shutil.rmtree(doomed)

    @staticmethod
    def _delete_exports(version: Version) -> None:
        """A version that is made later may bear its name: these files would pass for that one's."""
        place = version.exports
        linked = any(path.is_symlink() for path in (place, place.parent, place.parent.parent))
        if linked or not place.is_dir():
            return
        shutil.rmtree(place)
        with contextlib.suppress(OSError):  # other versions of the job have theirs there
            place.parent.rmdir()

    def check_ended(self, name: str) -> None:
        """Refuse a job (`job`) or version (`job/V001`) that may not be deleted.

        Raises:
            JobError: it is not there, or runs.
        """
        if "/" in name:
            version = self.version(name)
            if version.in_use():
                raise _in_use(version)
            return
        self.job_record(name)
        live = [v.name for v in self.versions(name) if v.in_use()]
        if live:
            raise JobError(
                f"The job {name!r} has running versions ({', '.join(live)}); stop them first with "
                f"darts-core jobs stop {name}."
            )

    def delete_job(self, job: str) -> None:
        """Delete a job with all its versions; refuses while one runs.

        Files in the job's folder that are not ours stay, and with them the folder.
        """
        self.check_ended(job)
        for version in self.versions(job):
            self.delete_version(version)
        folder = self.job_folder(job)
        with self.lock.held(30.0):
            sweep_job(folder)
            self.drop_if_empty(job)

    def drop_if_empty(self, job: str) -> None:
        """Remove the folder of a job without versions, unless it holds what is not ours.

        Whoever calls it holds the store's lock.
        """
        folder = self.job_folder(job)
        if self.versions(job) or not folder.is_dir():
            return
        own = {JOB_RECORD, ".lock"}
        if {entry.name for entry in folder.iterdir()} <= own:
            for name in own:
                (folder / name).unlink(missing_ok=True)
            folder.rmdir()
        elif read_job(folder) is not None:
            (folder / JOB_RECORD).unlink()
