"""A study's workers as jobs of Slurm: one array, each job a worker that takes trials until none is left.

The books lie in the study's folder or database, which the nodes see. A job that is preempted or meets its
time limit saves its trial, is queued again and goes on; one that dies leaves its trial to the others and
is replaced. Jobs do not depend on the command that queued them: when that is killed they work on, and the
same command finds them again.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from darts_core.processors import threads_asked_for
from darts_core.settings import SlurmQueue
from darts_core.study.claim import Claim
from darts_core.study.launch import Ends, RelaunchLimit, check_failures
from darts_core.study.ledger import Ledger
from darts_core.study.preemption import Preemption
from darts_core.study.records import TrialRecord
from darts_core.study.runner import Decide, Objective, Runner, pack, runner_of, start_fork_server
from darts_core.study.slurm_jobs import Jobs, Requeued, failure_of
from darts_core.study.slurm_queue import executor_of, time_limit
from darts_core.study.spec import StudySpec
from darts_core.study.worker import work

__all__ = ["SlurmWorker", "run_on_slurm"]

log = logging.getLogger("darts_core")

_LOOK_SECONDS = 1.0


class _LeavingRunner:
    """Leaves between two epochs, when the trial has just saved what it has."""

    def __init__(self, runner: Runner, preemption: Preemption) -> None:
        self._runner, self._preemption = runner, preemption

    def run(self, claim: Claim, decide: Decide) -> tuple[str, Any]:
        """See `Runner`."""

        def judged(epoch: int, row: dict[str, float]) -> str | None:
            reason = decide(epoch, row)
            if reason is None:
                self._preemption.leave()
            return reason

        return self._runner.run(claim, judged)

    def close(self) -> None:
        """See `Runner`."""
        self._runner.close()


@dataclass(frozen=True)
class SlurmWorker(Requeued):
    """What a job runs: a worker of the study.

    Args:
        spec: the study.
        packed: the objective.
        grace_seconds: between the signal and the end of the job.
        cpus: threads of a trial where OMP_NUM_THREADS says nothing.
    """

    spec: StudySpec
    packed: bytes
    grace_seconds: float
    cpus: int

    def __call__(self, index: int) -> int:
        """How many trials this job ended."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        if not threads_asked_for():  # the number of a quota is of where the job was queued from
            os.environ["OMP_NUM_THREADS"] = str(self.cpus)
        objective = pickle.loads(self.packed)  # what its own study packed
        preemption = Preemption(self.grace_seconds)
        with preemption.ignored():
            if not hasattr(objective, "runner"):
                start_fork_server(objective)
        with preemption.watched():
            runner = _LeavingRunner(runner_of(objective, self.spec.wanted), preemption)
            return work(self.spec, runner, on_trial=lambda _: preemption.leave())


def run_on_slurm(
    ledger: Ledger,
    objective: Objective,
    workers: int,
    queue: SlurmQueue,
    *,
    on_trial: Callable[[TrialRecord], None] | None = None,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run trials in up to `workers` jobs until none is left.

    Args:
        ledger: the study, in a folder or database that the nodes see.
        objective: picklable; the nodes have its module.
        workers: how many jobs.
        queue: what each job gets.
        on_trial: called here with each trial that ends.
        look: called now and then; may raise, which ends the jobs.

    Raises:
        TuneError: too many failed trials, jobs keep dying, or Slurm cannot be used here.
    """
    body = SlurmWorker(ledger.spec, pack(objective), queue.grace_seconds, queue.cpus)
    ends = Ends(ledger, on_trial)
    minutes = time_limit(queue, ledger.spec.budget, workers)
    jobs, limit = Jobs(queue, executor_of(queue, ledger.folder / "slurm", minutes)), RelaunchLimit()
    jobs.earlier()
    try:
        missing = workers - len(jobs.all)
        if missing > 0:
            jobs.add(body, range(missing))
            log.info("%d jobs queued (%s)", missing, jobs.all[-1].job_id)
        while ledger.unfinished():
            time.sleep(_LOOK_SECONDS)
            look()
            ends.tell()
            for job in jobs.drop_ended():
                how = failure_of(job)
                if how is None or not ledger.unfinished():
                    continue
                check_failures(ledger)
                limit.death(len(ends.seen), how)
                log.warning("a job ended before its time (%s); another takes its place", how)
                jobs.add(body, range(1))
            if not jobs.all and ledger.unfinished():
                if ledger.held():
                    break
                # the last one left while another's trial was running, and that one died since
                jobs.add(body, range(1))
    finally:
        jobs.cancel()
    ends.tell()
    check_failures(ledger)
