"""The elements of a multirun as jobs of Slurm."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from typing import Any

from hydra.core.utils import JobReturn

from darts_core.errors import TuneError
from darts_core.settings import SlurmQueue
from darts_core.study.launch import RelaunchLimit
from darts_core.study.preemption import Preemption
from darts_core.study.slurm_jobs import Jobs, failure_of
from darts_core.study.slurm_queue import executor_of, time_limit
from hydra_plugins.darts_sweeper._elements import Elements, packed_elements

__all__ = ["run_elements"]

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class ElementJob:
    """What a job runs: one element, which stops at its next checkpoint when the job is told to leave."""

    elements: Elements
    grace_seconds: float

    def __call__(self, place: int) -> JobReturn:
        """The element's result."""

        def ask() -> None:
            signal.raise_signal(signal.SIGTERM)

        with Preemption(self.grace_seconds, ask).watched() as preemption:
            try:
                return self.elements(place)
            except KeyboardInterrupt:
                preemption.leave()
                raise

    def checkpoint(self, place: int) -> Any:
        """submitit's: what is queued again in this job's place."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, place)


def run_elements(queue: SlurmQueue, *multirun: Any) -> list[JobReturn]:
    """The elements of a multirun (what `packed_elements` takes); their results in order.

    Raises:
        TuneError: see `SlurmLauncher.launch`.
    """
    with packed_elements(*multirun, "Slurm") as (elements, folder):
        jobs = Jobs(queue, executor_of(queue, folder / "slurm", time_limit(queue)))
        # of a command that was killed: two runs of an element must not meet in its folder
        jobs.earlier()
        jobs.cancel(wait=True)
        body, limit = ElementJob(elements, queue.grace_seconds), RelaunchLimit()
        results: dict[int, JobReturn] = {}
        try:
            place_of = dict(
                zip(jobs.add(body, range(len(elements))), range(len(elements)), strict=True)
            )
            while len(results) < len(elements):
                time.sleep(_LOOK_SECONDS)
                for job in jobs.drop_ended():
                    place = place_of.pop(job)
                    how = failure_of(job)
                    if how is None:
                        results[place] = job.result()
                    elif "TuneError: " in how:
                        raise TuneError(how.partition("TuneError: ")[2])
                    else:
                        limit.death(len(results), how)
                        place_of[jobs.add(body, [place])[0]] = place
        finally:
            jobs.cancel()
        return [results[place] for place in range(len(elements))]
