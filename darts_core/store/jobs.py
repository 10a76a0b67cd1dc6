"""The job store: `root/<job>/<version>/`, told by its marker files, its states, its safe deletion.

The folders are the truth. A version appears by one rename, so a reader never sees half of one. A state
says "running" only as long as exactly the recorded process lives.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.runlog import write_json
from darts_core.store.version import (
    JOB_KIND,
    LIVE,
    SCHEMA_VERSION,
    STATES,
    VERSION_KIND,
    Version,
    marker,
)

__all__ = ["LIVE", "STATES", "JobStore", "Version", "check_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"V\d{3,6}")


def check_name(name: str, kind: str = "job") -> str:
    """`name` itself when it is usable as a folder name.

    Raises:
        JobError: it could leave its root folder, or looks like an option.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.endswith("."):
        raise JobError(
            f"The {kind} name {str(name)[:80]!r} is not allowed; use up to 64 letters, digits, '.', '_' "
            "and '-', beginning with a letter or digit."
        )
    return name


class JobStore:
    """All jobs below one root folder."""

    def __init__(self, root: str | Path = "runs") -> None:
        self.root = Path(root).expanduser().resolve()

    def job_folder(self, job: str) -> Path:
        """The folder of a job, checked to lie directly in the root.

        Raises:
            JobError: the name is not allowed or the folder is a link to elsewhere.
        """
        path = self.root / check_name(job)
        if path.is_symlink():
            raise JobError(f"{path} is a link; a job's folder must lie in {self.root} itself.")
        return path

    def job_record(self, job: str) -> dict[str, Any]:
        """What a job was created with.

        Raises:
            JobError: there is no such job.
        """
        content = marker(self.job_folder(job) / "job.json", JOB_KIND)
        if content is None:
            near = [name for name in self.jobs() if name.startswith(job[:3])]
            hint = f" Did you mean {', '.join(near[:3])}?" if near else ""
            raise JobError(
                f"There is no job {job!r} in {self.root}.{hint} See darts-core jobs list."
            )
        return content

    def jobs(self) -> list[str]:
        """The names of all jobs, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(
            entry.name
            for entry in self.root.iterdir()
            if _NAME.fullmatch(entry.name)
            and not entry.is_symlink()
            and marker(entry / "job.json", JOB_KIND) is not None
        )

    def versions(self, job: str) -> list[Version]:
        """The versions of a job, oldest first."""
        folder = self.job_folder(job)
        if not folder.is_dir():
            return []
        found = [
            Version(entry)
            for entry in folder.iterdir()
            if _VERSION.fullmatch(entry.name)
            and not entry.is_symlink()
            and marker(entry / "version.json", VERSION_KIND) is not None
        ]
        return sorted(found, key=lambda version: (len(version.name), version.name))

    def version(self, job: str, name: str | None = None) -> Version:
        """One version of a job, the newest when unnamed. `job` may also be `job/V001`.

        Raises:
            JobError: there is no such job or version.
        """
        if name is None and "/" in job:
            job, _, name = job.partition("/")
        self.job_record(job)
        found = self.versions(job)
        if name is not None:
            wanted = [version for version in found if version.name == name]
            if not wanted:
                known = ", ".join(version.name for version in found) or "none"
                raise JobError(f"The job {job!r} has no version {name[:20]!r}; it has {known}.")
            return wanted[0]
        if not found:
            raise JobError(f"The job {job!r} has no version; make one with jobs new-version.")
        return found[-1]

    def create_job(self, job: str, description: str = "") -> None:
        """Make a job's folder and marker; a job whose versions were all deleted is begun anew.

        Raises:
            JobError: the name is taken, by a job or by a folder that is not ours.
        """
        folder = self.job_folder(job)
        ours = marker(folder / "job.json", JOB_KIND) is not None
        if ours and self.versions(job):
            raise JobError(
                f"The job {job!r} exists already; use jobs new-version {job} or another --name."
            )
        if not ours and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise JobError(f"{folder} exists and is not a job; use another --name or --root.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(
                f"{folder} cannot be made ({error.strerror}); name another folder with --root."
            ) from None
        self._write_job(job, description, time.time())

    def _write_job(self, job: str, description: str, created: float) -> None:
        write_json(
            self.job_folder(job) / "job.json",
            {
                "kind": JOB_KIND,
                "schema_version": SCHEMA_VERSION,
                "name": job,
                "description": str(description)[:10_000],
                "created": created,
            },
        )

    def edit_job(self, job: str, description: str) -> None:
        """Change a job's description."""
        self._write_job(job, description, float(self.job_record(job).get("created") or 0.0))

    @contextlib.contextmanager
    def new_version(self, job: str, record: Mapping[str, Any]) -> Iterator[Path]:
        """A folder to fill; when the block ends without an error it becomes the job's next version.

        `record` is read when the block ends, so the block may add to it. The number of the version is
        known only then: find it by the `mark` in the record.
        """
        folder = self.job_folder(job)
        temporary = folder / f".new-{uuid.uuid4().hex[:12]}"
        temporary.mkdir(parents=True)
        try:
            yield temporary
            content = {
                "mark": uuid.uuid4().hex,
                **record,
                "kind": VERSION_KIND,
                "schema_version": SCHEMA_VERSION,
                "created": time.time(),
            }
            write_json(temporary / "version.json", content)
            write_json(
                temporary / "state.json",
                {
                    "schema_version": SCHEMA_VERSION,
                    "state": "queued",
                    "created": time.time(),
                    "changed": time.time(),
                },
            )
            self._publish(job, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _publish(self, job: str, temporary: Path) -> None:
        folder = self.job_folder(job)
        numbers = [int(e.name[1:]) for e in folder.iterdir() if _VERSION.fullmatch(e.name)]
        number = max(numbers, default=0) + 1
        while True:
            try:
                # fails when another command took the number first: the target is not empty then
                os.rename(temporary, folder / f"V{number:03d}")
                return
            except OSError:
                if not (folder / f"V{number:03d}").exists():
                    raise
                number += 1

    def delete_version(self, version: Version) -> None:
        """Delete a version that is not running; only a folder with our marker is touched.

        Raises:
            JobError: it runs, bears no marker, or lies outside the root.
        """
        version.record()
        if version.path.resolve().parent.parent != self.root:
            raise JobError(f"{version.path} does not lie in {self.root}; nothing was deleted.")
        lock = version.lock
        if version.state() in LIVE or not lock.try_acquire():
            raise JobError(
                f"{version.job}/{version.name} is {version.state()}; stop it first with "
                f"darts-core jobs stop {version.job}/{version.name}."
            )
        try:
            # out of sight in one step, so that no reader meets a half-deleted version
            doomed = version.path.with_name(f".deleted-{uuid.uuid4().hex[:12]}")
            version.path.rename(doomed)
        finally:
            lock.release()
        shutil.rmtree(doomed)

    def delete_job(self, job: str) -> None:
        """Delete a job with all its versions; refuses while one runs.

        Files in the job's folder that are not ours stay, and with them the folder.
        """
        self.job_record(job)
        versions = self.versions(job)
        live = [v.name for v in versions if v.state() in LIVE]
        if live:
            raise JobError(
                f"The job {job!r} has running versions ({', '.join(live)}); stop them first with "
                f"darts-core jobs stop {job}."
            )
        for version in versions:
            self.delete_version(version)
        folder = self.job_folder(job)
        (folder / "job.json").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
