"""Where the trials of a study run: in this process, in local processes, on Ray, or as jobs of Slurm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from darts_core.errors import TuneError
from darts_core.settings import SlurmQueue
from darts_core.study.launch import left, run_workers
from darts_core.study.ledger import Ledger
from darts_core.study.on_ray import run_on_ray
from darts_core.study.on_slurm import run_on_slurm
from darts_core.study.ray_cluster import RayCluster, cluster_of
from darts_core.study.records import TrialRecord
from darts_core.study.resources import spare_gpu_memory
from darts_core.study.runner import CallableRunner, ChildRunner, Objective
from darts_core.study.slurm_queue import queue_of
from darts_core.study.worker import work

__all__ = ["Elsewhere", "elsewhere", "run_trials"]

Elsewhere = RayCluster | SlurmQueue


def elsewhere(
    ray: RayCluster | Mapping[str, Any] | None, slurm: SlurmQueue | Mapping[str, Any] | None
) -> Elsewhere | None:
    """The cluster that trials run on; None for this machine.

    Raises:
        TuneError: both are given, or a value is out of range.
    """
    if ray is not None and slurm is not None:
        raise TuneError("Trials run on Ray or on Slurm: give one of the two.")
    if ray is not None:
        return cluster_of(ray)
    return None if slurm is None else queue_of(slurm)


def run_trials(
    ledger: Ledger,
    objective: Objective,
    workers: int,
    place: Elsewhere | None = None,
    *,
    isolate: bool = False,
    on_trial: Callable[[TrialRecord], None] | None = None,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Run trials, up to `workers` at a time, until none is left, on other hosts that share the study neither.

    Args:
        ledger: the study.
        objective: picklable, but for one worker in this process.
        workers: how many.
        place: see `elsewhere`.
        isolate: one worker here runs each trial in a process of its own, too.
        on_trial: called in this process with the record of each trial that ends.
        look: called now and then while trials run on a cluster; may raise, which ends them.

    Raises:
        TuneError: see `run_on_ray`, `run_on_slurm` and `run_workers`.
    """
    before = -1
    while left(ledger):
        ended = sum(trial.state.is_finished() for trial in ledger.trials())
        if ended == before:
            return  # no worker finds a point that was not tried
        before = ended
        _run_once(ledger, objective, workers, place, isolate, on_trial, look)


def _run_once(
    ledger: Ledger,
    objective: Objective,
    workers: int,
    place: Elsewhere | None,
    isolate: bool,
    on_trial: Callable[[TrialRecord], None] | None,
    look: Callable[[], None],
) -> None:
    """Run trials until there is none to claim."""
    if place is not None or workers > 1 or isolate:
        spare_gpu_memory()
    if isinstance(place, RayCluster):
        run_on_ray(ledger, objective, workers, place, on_trial=on_trial, look=look)
    elif place is not None:
        run_on_slurm(ledger, objective, workers, place, on_trial=on_trial, look=look)
    elif workers == 1:
        kind = ChildRunner if isolate else CallableRunner
        work(ledger.spec, kind(objective, ledger.spec.wanted), on_trial=on_trial)
    else:
        run_workers(ledger, objective, workers, on_trial=on_trial)
