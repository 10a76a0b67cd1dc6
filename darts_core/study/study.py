"""`run_study`: the front door. Opens or continues a study, runs workers, sums up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.credentials import keep_password, masked
from darts_core.errors import TuneError
from darts_core.runlog import write_json, write_text, write_yaml
from darts_core.settings import SlurmQueue
from darts_core.study.accounts import failure_summary, imported
from darts_core.study.budget import Budget
from darts_core.study.engines import elsewhere, run_trials
from darts_core.study.importance import importance
from darts_core.study.ledger import Ledger
from darts_core.study.optuna_private import add_stored
from darts_core.study.pareto import pareto_mask, signs
from darts_core.study.ray_cluster import RayCluster
from darts_core.study.records import IS_BASELINE, OUTSIDE, StudyResult, TrialRecord, flat_rows
from darts_core.study.resources import device_of, device_share
from darts_core.study.runner import Objective, leave_unguarded
from darts_core.study.space import check_params
from darts_core.study.spec import StudySpec
from darts_core.study.warm_start import add_knowledge

__all__ = ["open_study", "run_study", "summarize"]

log = logging.getLogger("darts_core")
_TRIALS = "trials.csv"


def run_study(
    objective: Objective,
    space: Mapping[str, Any],
    *,
    folder: str | Path,
    trials: int | None = None,
    epochs: int | None = None,
    device_seconds: float | None = None,
    trainings: float | None = None,
    training_seconds: float | None = None,
    epochs_per_trial: int | None = None,
    workers: int = 1,
    isolate: bool | None = None,
    slots: int | None = None,
    warm_start: str | Path | None = None,
    on_trial: Callable[[TrialRecord], None] | None = None,
    ray: RayCluster | Mapping[str, Any] | None = None,
    slurm: SlurmQueue | Mapping[str, Any] | None = None,
    **options: Any,
) -> StudyResult:
    """Tune `objective` over `space` until the budget is spent; the same call again continues.

    A finished trial is counted once however often the study is killed and continued; an interrupted
    one goes on under its number with its folder as it was.

    Args:
        objective: called with a `TrialHandle`; returns a number, or a mapping of metric names to
            numbers. With several workers it must be picklable: a function at the top level of a
            module, a `functools.partial` of one, or an instance of a module's class. In a script the call
            then stands under `if __name__ == "__main__":`, as the processes import it.
        space: name -> `{low, high, log, step}` or `{choices}`, each with an optional `when`.
        folder: holds `study.journal`, `trials/NNNN/`, `study.json`, `best.yaml`.
        trials: budget in trials.
        epochs: budget in reported epochs of all trials, which must report some where no other limit stands.
        device_seconds: budget in seconds of all trials, added over workers.
        trainings: the same in multiples of `training_seconds`.
        training_seconds: device-seconds of one training of the final network.
        epochs_per_trial: of an unpruned trial, for the forecast and for Hyperband.
        workers: how many trials run at once. One runs in this process, more in processes.
        slots: how many trials the devices can run at once without sharing one; by default the visible
            GPUs, else the processors. More workers than that share the device's seconds.
        isolate: run each trial in a process of its own also with one worker.
        warm_start: folder or storage URL of another study over the same dimensions with the same
            objectives, whose complete trials are added as knowledge (they count neither as trials nor for
            the best). Of a database with several studies `URL#NAME` names one.
        on_trial: called in this process with the record of each trial that has ended.
        ray: run the trials on a Ray cluster, `workers` at a time (see `darts_core.study.ray_cluster`).
        slurm: run the workers as jobs of Slurm (see `darts_core.settings.SlurmQueue`).
        options: sampler ("tpe"), pruner ("default": ASHA for one objective, none for several),
            seed (0), direction ("maximize"), metric ("val_accuracy"), objectives (name ->
            direction, for several), constraints (name -> "<= bound"), enqueue (settings to run
            first, or next in a study that goes on, in order), baseline (the user's own setting:
            trial 0, never stopped; one that lacks a value of the space is tried first, and is none),
            storage (URL; None is a journal file), study_name (in a database; by default from the
            folder), subject (what is tuned, in words: a study in a database that was begun with other
            words is refused),
            epochs_setting (the setting of `space` that says how many epochs a trial has, if one does),
            artifacts (a path or `s3://`-like URL that all hosts reach: trials' files for whoever goes on
            with them, where hosts have no folder in common),
            max_failure_share (0.5),
            max_restarts (3: of a trial whose process dies without anything new to report).

    Raises:
        TuneError: the description cannot work, the storage belongs to another study, too many
            trials failed, none was completed, or the budget counts epochs alone and no trial reports one.
    """
    leave_unguarded()
    if workers < 1:
        raise TuneError(f"tune.workers={workers} must be at least 1.")
    budget = Budget(trials, epochs, device_seconds, trainings, training_seconds, epochs_per_trial)
    options["storage"] = keep_password(options.get("storage"))
    place = elsewhere(ray, slurm)
    # a cluster gives each trial its own processors and GPUs
    share = device_share(workers, slots, device_of(objective)) if place is None else 1.0
    options["device_share"] = share
    spec = StudySpec.make(space, budget, folder=folder, **options)
    ledger = open_study(spec, warm_start=warm_start)
    forecast = announce(ledger, workers)
    if ledger.unfinished():
        run_trials(ledger, objective, workers, place, isolate=bool(isolate), on_trial=on_trial)
    return summarize(ledger, forecast)


def open_study(
    spec: StudySpec, *, warm_start: str | Path | None = None, known: Sequence[Any] = ()
) -> Ledger:
    """Open or make the study; settings to be tried first wait in it (the baseline of a new one is trial 0).

    One that goes on is given those that it does not hold yet.

    Args:
        spec: the study.
        warm_start: another study, whose complete trials are knowledge of a new one.
        known: Optuna's trials that a new study begins with, in the order of their numbers.

    Raises:
        TuneError: the storage is in use by another study's space, or the sampler or pruner refuses an option.
    """
    # what it refuses is said here, before anything is made, and not by each worker
    spec.check_options()
    ledger = Ledger(spec)
    with ledger.books.held():
        new = not ledger.study.user_attrs.get("ready")
        if new:
            for trial in known if not ledger.trials() else ():
                add_stored(ledger.study, trial)
            if spec.baseline is not None and not any(
                trial.user_attrs.get(IS_BASELINE) for trial in ledger.trials()
            ):
                _enqueue(ledger, spec.baseline, {IS_BASELINE: True})
        # a step of a search has been given its one point when it began
        for params in spec.enqueue if new or not spec.distinct else ():
            _enqueue(ledger, params, {})
        if warm_start is not None and not new:
            _say_begun(ledger, warm_start)
        if new:
            if warm_start is not None:
                add_knowledge(ledger, warm_start)
            description = {**spec.identity(), "sampler": spec.sampler, "pruner": spec.pruner}
            write_json(
                spec.folder / "study.json",
                {
                    "schema_version": 1,
                    "seed": spec.seed,
                    "storage": spec.storage,
                    "study_name": spec.study_name,
                    **description,
                },
            )
            # last: what failed before it is made good by the next one who opens the study
            ledger.study.set_user_attr("ready", True)
    # how many points of a grid are to be run depends on what the study begins with
    again = new and spec.sampler["name"] == "grid" and not spec.distinct
    return Ledger(spec) if again else ledger


def _say_begun(ledger: Ledger, warm_start: str | Path) -> None:
    """Say that a study which goes on takes up no other one, unless it began with one."""
    if not any(imported(trial) for trial in ledger.trials()):
        log.warning(
            "warm_start=%s does not count: the study in %s has begun without it, and goes on; give another "
            "folder for a study that begins with those trials",
            masked(str(warm_start)),
            ledger.folder,
        )


def _enqueue(ledger: Ledger, params: Mapping[str, Any], attrs: dict[str, Any]) -> None:
    """Let a setting wait for its trial, unless it does already. One outside the space is run all the same."""
    space = ledger.spec.space
    if all(name in space and space[name].contains(value) for name, value in params.items()):
        stored = check_params(params, space)
        ledger.study.enqueue_trial(stored, user_attrs=attrs, skip_if_exists=not attrs)
    elif not any(t.user_attrs.get(OUTSIDE) == dict(params) for t in ledger.trials()):
        log.info("the setting %s lies outside the space; it is run all the same", dict(params))
        ledger.study.enqueue_trial({}, user_attrs={**attrs, OUTSIDE: dict(params)})


def announce(ledger: Ledger, workers: int) -> dict[str, Any]:
    """Log what the study will use at most and what it goes on from; the forecast."""
    ledger.books.run(ledger.books.look)
    forecast = ledger.spec.budget.forecast(workers)
    parts = []
    for key, unit in (
        ("trials", "trials"),
        ("epochs", "epochs"),
        ("device_seconds", "device-seconds"),
        ("trainings", "trainings"),
        ("wall_seconds", f"seconds with {workers} worker{'s' if workers > 1 else ''}"),
    ):
        if forecast[key] is not None:
            parts.append(f"{forecast[key]:.4g} {unit}")
    log.info("forecast (without early stopping): at most %s", ", ".join(parts))
    done = sum(t.state.is_finished() and not imported(t) for t in ledger.trials())
    if done:
        log.info("the study in %s goes on with %d finished trials", ledger.folder, done)
    return forecast


def summarize(ledger: Ledger, forecast: dict[str, Any] | None = None) -> StudyResult:
    """The result of a study as it stands; writes `best.yaml` and `result`-ready numbers.

    Raises:
        TuneError: no trial was completed.
    """
    trials = ledger.trials()
    own = [t for t in trials if not imported(t)]
    records = tuple(ledger.record(t) for t in own)
    first, goal = next(iter(ledger.spec.objectives.items()))
    goals = list(ledger.spec.objectives.values())
    best = best_of(records, goals)
    if best is None:
        summary = failure_summary(own)
        cause = f": {summary}" if summary else "; all were pruned, or the budget was too small"
        if any(record.state == "complete" for record in records):
            cause = (
                f"; none of the complete ones meets the constraints: see {_left(ledger, records)}"
            )
        raise TuneError(
            f"No trial of the study in {ledger.folder} ended with a usable value{cause}."
        )
    spent = ledger.spent(trials)
    budget = ledger.spec.budget
    cost: dict[str, Any] = dict(vars(spent))
    if budget.training_seconds:
        cost["trainings"] = spent.device_seconds / budget.training_seconds
    assert best.value is not None
    result = StudyResult(
        trials=records,
        objectives=dict(ledger.spec.objectives),
        best_number=best.number,
        best_value=best.value,
        best_params=best.params,
        front=front_of(records, goals),
        spent=cost,
        forecast=forecast or budget.forecast(1),
        ended=ledger.ended(trials) or "stopped before the budget was spent",
        device_seconds=spent.device_seconds,
        baseline=next((r for r in records if r.is_baseline), None),
        importance=_importance(records, goal),
    )
    best_file = {"number": best.number, first: best.value, "params": best.params}
    write_yaml(ledger.folder / "best.yaml", best_file)
    # of a time when no trial met the constraints: a result lists them from now on
    (ledger.folder / _TRIALS).unlink(missing_ok=True)
    used = (
        f"{spent.trials} trials, {spent.epochs} epochs, {spent.device_seconds:.1f} device-seconds"
    )
    log.info("real cost: %s; best is trial %d with %s %.6g", used, best.number, first, best.value)
    _say_untried(records)
    return result


def _say_untried(records: Sequence[TrialRecord]) -> None:
    """Say which settings were given to be tried, and were not."""
    waiting = [str(record.number) for record in records if record.state == "waiting"]
    if waiting:
        log.warning(
            "the budget ended before the settings of trial%s %s were tried; the same command with a larger "
            "one tries them",
            "s" if len(waiting) > 1 else "",
            ", ".join(waiting),
        )


def _left(ledger: Ledger, records: Sequence[TrialRecord]) -> Path:
    """The file in which all trials stand with what they are constrained by, where none may be taken."""
    # here, as the file is run as a program, too
    from darts_core.study.table import to_csv

    objectives = tuple(ledger.spec.objectives)
    limited = [name for name, _, _ in ledger.spec.constraints if name not in objectives]
    path = ledger.folder / _TRIALS
    write_text(path, to_csv(flat_rows(records, objectives, limited)))
    return path


def best_of(records: Sequence[TrialRecord], goals: Sequence[str]) -> TrialRecord | None:
    """The complete, feasible trial with the best first objective, of equals the best in the next one and so
    on: it is on the front. The earliest among equals in all.
    """
    able = [r for r in records if r.state == "complete" and r.feasible and r.value is not None]
    costs = signs(goals)
    return min(able, key=lambda r: (*(costs * r.values).tolist(), r.number), default=None)


def front_of(records: Sequence[TrialRecord], goals: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the complete, feasible trials that no other one beats in every objective."""
    able = [r for r in records if r.state == "complete" and r.feasible]
    if not able:
        return ()
    mask = pareto_mask(np.array([r.values for r in able]) * signs(goals))
    return tuple(record.number for record, on in zip(able, mask, strict=True) if on)


def _importance(records: Sequence[TrialRecord], goal: str) -> dict[str, float]:
    """Share of the first objective's variation that each dimension explains; empty where unknown."""
    done = [(r.params, r.value) for r in records if r.state == "complete" and r.value is not None]
    return importance([p for p, _ in done], [v for _, v in done], maximize=goal == "maximize")
