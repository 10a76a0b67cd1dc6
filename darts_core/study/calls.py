"""Independent calls on a cluster: the elements of a multirun, the trainings of finalists.

Each is one number given to one picklable function. A call whose node or process dies is made again, so it
must go on from what it finds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from darts_core.errors import TuneError
from darts_core.settings import SlurmQueue
from darts_core.study.launch import RelaunchLimit
from darts_core.study.preemption import Preemption
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.slurm_jobs import Jobs, Requeued, failure_of
from darts_core.study.slurm_queue import executor_of, time_limit

__all__ = ["run_calls"]

Result = TypeVar("Result")
# a task whose node or process was killed is run again so many times
_RETRIES = 5
_LOOK_SECONDS = 0.5


def run_calls(
    place: RayCluster | SlurmQueue,
    call: Callable[[int], Result],
    count: int,
    folder: Path,
    *,
    look: Callable[[], None] = lambda: None,
) -> list[Result]:
    """`call(0)` to `call(count - 1)` as tasks of Ray or as an array of Slurm; the results in order.

    Args:
        place: where.
        call: picklable, with what it needs.
        count: of calls.
        folder: for submitit's files; on Slurm all nodes see it.
        look: called now and then while they run; may raise, which ends them.

    Raises:
        TuneError: the cluster cannot be reached, a call raised one, or nodes keep dying.
    """
    if isinstance(place, RayCluster):
        return _on_ray(place, call, count, look)
    return _on_slurm(place, call, count, folder, look)


def _on_ray(
    cluster: RayCluster, call: Callable[[int], Result], count: int, look: Callable[[], None]
) -> list[Result]:
    with cluster.connected() as ray:
        remote = ray.remote(
            num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus, max_retries=_RETRIES, max_calls=1
        )(_called)
        sent = ray.put(call)
        running = [remote.remote(sent, number) for number in range(count)]
        try:
            while ray.wait(running, num_returns=count, timeout=_LOOK_SECONDS)[1]:
                look()
            return list(ray.get(running))
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, TuneError) else error from None
        except ray.exceptions.RayError as error:
            raise TuneError(
                f"A call was lost on Ray {_RETRIES + 1} times ({type(error).__name__}); run the same "
                "command to continue."
            ) from error
        except BaseException:
            for task in running:
                ray.cancel(task, force=True)
            raise


def _called(call: Callable[[int], Any], number: int) -> Any:
    """One call, in a process of some node."""
    return call(number)


@dataclass(frozen=True)
class CallJob(Requeued):
    """What a job runs: one call, which stops at its next checkpoint when the job is told to leave."""

    call: Callable[[int], Any]
    grace_seconds: float

    def __call__(self, number: int) -> Any:
        """The call's result."""

        def ask() -> None:
            signal.raise_signal(signal.SIGTERM)

        with Preemption(self.grace_seconds, ask).watched() as preemption:
            try:
                return self.call(number)
            except KeyboardInterrupt:
                preemption.leave()
                raise


def _on_slurm(
    queue: SlurmQueue,
    call: Callable[[int], Result],
    count: int,
    folder: Path,
    look: Callable[[], None],
) -> list[Result]:
    jobs = Jobs(queue, executor_of(queue, folder / "slurm", time_limit(queue)))
    # of a command that was killed: two runs of a call must not meet in its folder
    jobs.earlier()
    jobs.cancel(wait=True)
    body, limit = CallJob(call, queue.grace_seconds), RelaunchLimit()
    results: dict[int, Result] = {}
    try:
        number_of = dict(zip(jobs.add(body, range(count)), range(count), strict=True))
        while len(results) < count:
            time.sleep(_LOOK_SECONDS)
            look()
            for job in jobs.drop_ended():
                number = number_of.pop(job)
                how = failure_of(job)
                if how is None:
                    results[number] = job.result()
                elif "TuneError: " in how:
                    raise TuneError(how.partition("TuneError: ")[2])
                else:
                    limit.death(len(results), how)
                    number_of[jobs.add(body, [number])[0]] = number
    finally:
        jobs.cancel()
    return [results[number] for number in range(count)]
