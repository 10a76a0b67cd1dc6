"""The jobs that a study or a multirun has in Slurm's queue: added, looked for, cancelled."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import ResumeError, TuneError
from darts_core.runlog import read_json, read_mapping, write_json
from darts_core.settings import SlurmQueue
from darts_core.study.slurm_queue import job_name

__all__ = ["Jobs", "Requeued", "cancel_left", "failure_of"]

log = logging.getLogger("darts_core")

_LOOK_SECONDS = 0.1
_ASK_SECONDS = 15.0
_CANCEL_SECONDS = 60.0
# what stands around the trace in an error of submitit
_RULE = "-" * 22


class Requeued:
    """What a job calls with one number: its place."""

    def checkpoint(self, number: int) -> Any:
        """submitit's: what is queued again in this job's place."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, number)


class Jobs:
    """The jobs of a study: queued, looked for, cancelled.

    Args:
        queue: what each of them gets.
        executor: submitit's.
    """

    def __init__(self, queue: SlurmQueue, executor: Any) -> None:
        self._queue, self._executor = queue, executor
        self._file = Path(executor.folder) / "jobs.json"
        self._there: set[str] | None = None
        self._asked = -_ASK_SECONDS
        self.all: list[Any] = []

    def earlier(self) -> None:
        """Find the jobs that an earlier command queued and that are still there."""
        if self._queue.cluster == "slurm" and self._file.is_file():
            make = self._executor.job_class
            known = read_json(self._file)["jobs"]
            self.all = [make(folder=self._executor.folder, job_id=number) for number in known]
            self.drop_ended()
            if self.all:
                log.info("%d jobs of an earlier command work on", len(self.all))

    def add(self, body: Any, places: Sequence[int]) -> list[Any]:
        """Queue `body(place)` for each of the places, as one array; the jobs.

        Raises:
            TuneError: Slurm refuses them.
        """
        try:
            made = list(self._executor.map_array(body, places))
        except Exception as error:  # submitit raises sbatch's words in kinds of its own
            raise TuneError(f"Slurm does not take the jobs ({_last_line(error)}).") from error
        self.all += made
        self._asked = time.monotonic()
        known = {"jobs": [job.job_id for job in self.all], "cluster": self._queue.cluster}
        known["name"] = job_name(self._queue)
        write_json(
            self._file, {"schema_version": 1, **known, "folder": str(self._file.parent.resolve())}
        )
        return made

    def drop_ended(self) -> list[Any]:
        """Forget the jobs that are neither queued nor running any more; these."""
        alive = [job for job in self.all if not job.paths.result_pickle.exists()]
        if self._queue.cluster == "local":
            alive = [job for job in alive if job.get_info()["jobState"] == "RUNNING"]
        elif alive:
            there = self._queued()
            alive = [job for job in alive if there is None or job.job_id in there]
        gone = [job for job in self.all if job not in alive]
        self.all = alive
        return gone

    def _queued(self) -> set[str] | None:
        """The user's jobs, asked now and then; None while Slurm does not answer or was not asked yet."""
        if time.monotonic() - self._asked >= _ASK_SECONDS:
            self._asked = time.monotonic()
            self._there = _in_the_queue()
            return self._there
        return None

    def cancel(self, *, wait: bool = False) -> None:
        """End what is left: workers let go of their trials first.

        Args:
            wait: until Slurm knows none of them any more.

        Raises:
            TuneError: one does not end.
        """
        self._asked = -_ASK_SECONDS
        self.drop_ended()
        local = self._queue.cluster == "local"
        if local:
            for job in self.all:
                job.cancel()
        elif self.all:
            _scancel([job.job_id for job in self.all])
        end = time.monotonic() + _CANCEL_SECONDS
        while (local or wait) and self.all:
            if time.monotonic() > end:
                if wait:
                    raise TuneError(f"Job {self.all[0].job_id} of an earlier command does not end.")
                return
            time.sleep(_LOOK_SECONDS)
            self._asked = min(self._asked, time.monotonic() - _ASK_SECONDS + 1)
            self.drop_ended()


def cancel_left(version: Path) -> str:
    """Cancel the jobs that a command of a version has left in Slurm's queue; a sentence of them, "" of none.

    It cancels them itself; one that is killed cannot. Of a copy of the folder they are not.
    """
    numbers: list[str] = []
    names: set[str] = set()
    for path in sorted(version.glob("**/slurm/jobs.json")):
        known: dict[str, Any] = {}
        with contextlib.suppress(ResumeError):  # in a user's code, too, a file may be called so
            known = read_mapping(path)
        if known.get("cluster") == "slurm" and known.get("folder") == str(path.parent.resolve()):
            numbers += map(str, known["jobs"])
            names.add(known["name"])
    if not numbers:
        return ""
    try:
        # by name too: another cluster, or Slurm set up anew, may have given a number to another job
        alive = "--states=PENDING,CONFIGURING,RUNNING,SUSPENDED"
        there = _in_the_queue(alive, f"--name={','.join(sorted(names))}")
        numbers = [number for number in numbers if there is None or number in there]
        if there is not None and numbers:
            _scancel(numbers)
    except FileNotFoundError:
        there = None
    if there is None:
        return (
            "Slurm does not answer here, and jobs of it may work on; end them where it does:  scancel "
            + " ".join(numbers)
        )
    return f"Its jobs in Slurm's queue ({', '.join(numbers)}) are cancelled." if numbers else ""


def _in_the_queue(*which: str) -> set[str] | None:
    """The user's jobs; None while Slurm does not answer."""
    # not `sacct`, which needs the accounting database
    command = ["squeue", "--me", "--noheader", "--array", "--format=%i", *which]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    return set(done.stdout.split()) if done.returncode == 0 else None


def _scancel(numbers: Sequence[str]) -> None:
    # a job ignores what `scancel` sends first, and would work on until it is killed
    for how in (["--signal=INT"], []):
        subprocess.run(["scancel", *how, *numbers], capture_output=True)


def _last_line(error: object) -> str:
    """The last line of an error's text, without submitit's own."""
    parts = str(error).split(_RULE)
    lines = (parts[1] if len(parts) > 2 else parts[0]).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def failure_of(job: Any) -> str | None:
    """Why a job ended before its time; None when it ended well."""
    if job.paths.result_pickle.exists():
        error = job.exception()
        return None if error is None else _last_line(error)
    return f"job {job.job_id} left no result; {_last_line(job.stderr() or 'and no word')}"
