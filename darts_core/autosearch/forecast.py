"""What a plan will cost, before and after its first report."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.autosearch.boot_file import check_boot_file
from darts_core.autosearch.catalogue import SUPERNETS
from darts_core.autosearch.command_line import boot_file_of, with_data
from darts_core.autosearch.process import TrialProcess
from darts_core.autosearch.reports import objective_value
from darts_core.autosearch.spec import SearchPlan, SearchSpec
from darts_core.autosearch.trials import UserCode, Workshop
from darts_core.errors import JobError
from darts_core.report.tables import neutral, span
from darts_core.store.code import copy_code, links_note
from darts_core.store.keeper import start_keeper
from darts_core.study.engines import Elsewhere
from darts_core.study.metric_names import less_is_better
from darts_core.study.ray_cluster import RayCluster

__all__ = ["dry_run", "forecast_text", "plan_notes", "trainings"]

# numbers to everybody but YAML, which wants a point and a sign
_EXPONENT = re.compile(r"([-+]?\d+\.?\d*)[eE]([-+]?)(\d+)")
# the whole network, the smallest and two between, in steps of the whole one
_ELASTIC_STEP = 2.5


def trainings(plan: SearchPlan) -> tuple[float, float]:
    """The cost in trainings without early stopping, and of the confirming runs.

    A supernet counts as the share of the iterations it is trained for; a step of an elastic network runs
    four. A budget caps the first number.
    """
    search = float(plan.trial_count())
    for step in plan.steps:
        if step.algorithm == "differentiable_search" and step.max_iterations is not None:
            search -= 1.0 - float(step.algorithm_options["supernet_share"])
        if step.algorithm == "elastic_search" and step.max_iterations is not None:
            options = step.algorithm_options
            tuned = max(1, int(options["fine_tuning"])) / step.max_iterations
            search -= 1.0 - _ELASTIC_STEP * float(options["elastic_share"])
            search -= int(options["points"]) * max(0.0, 1.0 - tuned)
    limits = [s.limits.trainings for s in _bounded(plan) if s.limits.trainings is not None]
    return min([search, *limits]), 2.0 * plan.last.confirm_seeds


def _bounded(plan: SearchPlan) -> list[SearchSpec]:
    """The steps that a budget ends; one with a supernet runs its few trials, each needed by the next."""
    return [step for step in plan.steps if step.algorithm not in SUPERNETS]


def forecast_text(plan: SearchPlan, training_seconds: float | None = None) -> str:
    """The forecast as a sentence; with the length of one training also in time."""
    search, extra = trainings(plan)
    capped = any(s.limits.trainings == search for s in _bounded(plan))
    text = (
        f"Forecast: up to {plan.trial_count()} trials (yours first), {search:.3g} trainings"
        f"{' (capped by the budget)' if capped else ''}, and {extra:g} to confirm the winner on fresh seeds: "
        f"{search + extra:.3g} in all, if none takes longer than yours."
    )
    retries = max(step.limits.retries for step in plan.steps)
    if retries:
        text += f" A trial that fails is tried again up to {retries} times, which comes on top."
    if training_seconds is not None:
        workers = max(s.at_once(1.0) for s in plan.steps)
        # the first trial runs alone; in a nested search that of each configuration of the first file
        alone = min(search, plan.steps[0].total_trials() if plan.mode == "nested" else 1)
        searching = (alone + (search - alone) / workers) * training_seconds
        # the budget of minutes ends the search; the confirming runs come on top, one at a time
        caps = [s.limits.seconds for s in _bounded(plan) if s.limits.seconds is not None]
        total = min([searching, *caps]) + extra * training_seconds
        text += f" One training takes about {span(training_seconds)}: about {span(total)} in all"
        text += f" with {workers} at a time" if workers > 1 else ""
        text += (
            f" (the search ends after {span(min(caps))})" if caps and min(caps) < searching else ""
        )
        text += "."
    return text


def plan_notes(
    plan: SearchPlan, devices: Sequence[str], place: Elsewhere | None = None
) -> list[str]:
    """What the user should know before the plan runs on `devices`, or on a cluster, a sentence each."""
    notes = []
    for step in plan.steps:
        for name in step.stand_ins():
            notes.append(
                f"no value of your own is known for {name!r}: "
                f"{step.baseline_configuration()[name]!r} stands in for trial 0; name it with "
                f"general.baseline, a default, or --arg {name}=VALUE"
            )
    notes += [note for step in plan.steps for note in _numbers_as_texts(step)]
    for objective in dict.fromkeys(o for step in plan.steps for o in step.objectives):
        if objective.mode == "max" and less_is_better(objective.metric):
            notes.append(
                f"larger values of {objective.metric!r} count as the better ones (mode: max); set mode: min "
                "if smaller ones are"
            )
    notes += [n for step in plan.steps if step.algorithm in SUPERNETS for n in _of_supernet(step)]
    notes += [n for step in plan.steps if step.algorithm == "grid_search" for n in _of_grid(step)]
    # in a nested search the last file alone says how trials run
    run = plan.steps[-1:] if plan.mode == "nested" else plan.steps
    notes += dict.fromkeys(n for s in run if s.algorithm not in SUPERNETS for n in _of_ends(s))
    notes += _idle_devices(plan, devices) if place is None else []
    wanted = max(step.gpu_per_trial for step in plan.steps)
    here = _gpus_here(wanted, devices) if place is None else _gpus_there(wanted, place)
    return [*notes, f"the job file states {wanted} GPU(s) a trial, but {here}"] if here else notes


def _of_supernet(step: SearchSpec) -> list[str]:
    """What of a job file does not count for the few trials of a supernet."""
    own = [d.name for d in step.dimensions if d.name != step.algorithm_options["setting"]]
    given = {
        "scheduler": step.scheduler != "FIFOScheduler",
        "max_concurrent": step.max_concurrent > 1,
        "save_model_count": step.save_model_count is not None,
    }
    given["num_samples"] = step.num_samples != SearchSpec.num_samples
    passed_over = [name for name, there in given.items() if there]
    notes = []
    if own:
        notes.append(
            f"{step.algorithm} searches the network alone, with your own values of {', '.join(own)}; give a "
            "second job file (--config) that searches these"
        )
    if passed_over:
        notes.append(
            f"{step.algorithm} runs its few trials one by one to their ends and keeps their models, whatever "
            f"the job file says of {', '.join(passed_over)}"
        )
    if step.limits.trainings or step.limits.seconds:
        notes.append(f"a budget does not end {step.algorithm}: its trials need each other")
    return notes


def _of_grid(step: SearchSpec) -> list[str]:
    """That a grid is run whole, where the job file names fewer trials (the default is no wish)."""
    points, given = step.points, step.num_samples
    if points is None or given >= points or given == SearchSpec.num_samples:
        return []
    return [
        f"grid_search runs all {points} combinations, not the {given} trials that are asked for; use "
        "random_search for fewer"
    ]


def _of_ends(step: SearchSpec) -> list[str]:
    """What of a job file ends no trial: a scheduler or a number of iterations that never has its turn."""
    given = {
        step.scheduler: step.scheduler != "FIFOScheduler",
        "max_iterations": step.max_iterations is not None,
    }
    named = [name for name, there in given.items() if there]
    sources = [item.get("file") for item in step.metrics if item["name"] == step.reward]
    if sources and None not in sources:  # one that is printed, too, closes iterations
        told = (
            f"{step.reward} is read from {sources[0]} when the script has ended, so no trial ends"
        )
        return [f"{told} earlier by {' or '.join(named)}"] if named else []
    begin = step.scheduler_options.get("grace_period", 0)
    # the last iteration is a full training, which nothing stops
    last = min(
        (step.max_iterations or math.inf) - 1, step.scheduler_options.get("max_t") or math.inf
    )
    if begin <= last:
        return []
    remedy = "lower grace_period" if last else "one iteration is a full training"
    return [
        f"{step.scheduler} stops no trial: it looks at one from iteration {begin} (grace_period) on, and the "
        f"last look would be at {last}; {remedy}"
    ]


def _idle_devices(plan: SearchPlan, devices: Sequence[str]) -> list[str]:
    """That devices are locked which no trial will use."""
    searching = [step.max_concurrent for step in plan.steps if step.algorithm not in SUPERNETS]
    most, named = max(searching, default=1), len(devices)
    if named <= most:
        return []
    remedy = f"set max_concurrent: {named}, or name fewer" if searching else "name one alone"
    return [
        f"of the {named} devices only {', '.join(devices[:most])} will be used, as {most} trial(s) run at a "
        f"time; {remedy}"
    ]


def _numbers_as_texts(step: SearchSpec) -> list[str]:
    """Choices that code reads as text though a number was meant; a command line has texts alone."""
    notes = []
    for dimension in () if step.metrics else step.dimensions:
        texts = (choice for choice in dimension.choices if isinstance(choice, str))
        found = next(filter(None, map(_EXPONENT.fullmatch, texts)), None)
        if found is not None:
            number = f"{found[1]}{'' if '.' in found[1] else '.0'}e{found[2] or '+'}{found[3]}"
            notes.append(
                f"to YAML the value {found[0]} of {dimension.name!r} is a text, which your code gets; write "
                f"{number} where you mean a number"
            )
    return notes


def _gpus_here(wanted: int, devices: Sequence[str]) -> str:
    """What is less than the GPUs that a job file states for a trial; "" for nothing."""
    if wanted and not any(device.startswith("cuda") for device in devices):
        return f"the job runs on {', '.join(devices)}; name GPUs with --devices cuda:0"
    if wanted > 1:
        return "a trial sees one GPU of this machine; run it on a cluster (--ray, --slurm) for more"
    return ""


def _gpus_there(wanted: int, place: Elsewhere) -> str:
    """The same of a cluster."""
    if isinstance(place, RayCluster):
        given, where, name = place.num_gpus, "--ray", "num_gpus"
    else:
        given, where, name = float(place.gpus), "--slurm", "gpus"
    return f"{where} gives it {given:g}; write {name}: {wanted} there" if given < wanted else ""


def dry_run(plan: SearchPlan, request: Mapping[str, Any], *, limit_seconds: float = 600.0) -> str:
    """Run the user's `train()` with the user's own configuration to its first report; returns the forecast.

    Nothing is kept. `root` in the request is the folder of all jobs, which is no code.

    Raises:
        JobError: it fails, or reports nothing.
    """
    source = Path(request["code"]).expanduser()
    if not source.is_dir():
        raise JobError(f"There is no code folder {request['code']!r}; name one with --code.")
    entry = request.get("entry") or "train"
    boot_file = boot_file_of([s.command for s in plan.steps], request.get("boot_file") or "")
    needs = None if plan.steps[0].metrics else entry
    boot_file = check_boot_file(source, boot_file, needs=needs)
    data, root = _data(request), request.get("root")
    spec, skip = plan.steps[0], Path(root).resolve() if root else None
    folder = Path(tempfile.mkdtemp(prefix="darts-dry-run-"))
    # for the trial of a dry run that is killed, as an impatient Ctrl-C does
    keeper, said = start_keeper(folder.name), ""
    try:
        copy_code(source, folder / "code", skip=skip)
        note = links_note(source, skip=skip)
        said = f" Note: {neutral(note, 500)}." if note else ""
        own = with_data(request.get("arguments") or {}, data)
        code = UserCode(
            folder / "code",
            folder / "code" / boot_file,
            tuple(f"--{name}={value}" for name, value in own.items()),
            entry=entry,
            python=_python(request),
        )
        workshop = Workshop(
            folder, code, devices=request.get("devices") or ["cpu"], mark=folder.name
        )
        spec = replace(spec, max_iterations=None)
        return _measure(plan, spec, workshop, limit_seconds) + said
    except JobError as error:
        raise JobError(f"{error}{said}") from error.__cause__
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        keeper.kill()
        keeper.wait()


def _python(request: Mapping[str, Any]) -> str | None:
    """The interpreter, named absolutely."""
    python = request.get("python")
    # no resolve(): a virtual environment's python is a link that must stay one
    return str(Path(python).expanduser().absolute()) if python else None


def _data(request: Mapping[str, Any]) -> str | None:
    """The data, named absolutely: the trial has a working folder of its own."""
    data = request.get("data")
    if data is None:
        return None
    path = Path(data).expanduser().absolute()
    if not path.exists():
        raise JobError(f"--data {data} does not exist; name an existing path.")
    return str(path)


def _measure(plan: SearchPlan, spec: Any, workshop: Workshop, limit_seconds: float) -> str:
    process = workshop.start(spec, 0, plan.baseline_configuration(), step="dry-run")
    moments: list[float] = []
    try:
        while process.outcome is None and len(moments) < 2:
            moments += [process.seconds] * len(process.poll()["iterations"])
            if process.seconds > limit_seconds:
                process.end_now("stopped", f"no report within {limit_seconds:.0f} s")
            # a second report tells the pace better than the first, which holds the start-up
            if len(moments) == 1 and process.seconds > moments[0] * 3 + 5:
                break
            time.sleep(0.01)
    finally:
        # after Ctrl-C too: a training that nobody waits for must not go on
        process.end_now("stopped", "the dry run has seen enough")
    reports, outcome = process.reader.reports, process.outcome
    if not reports.iterations and not reports.final:
        reason = outcome.reason if outcome else ""
        raise JobError(
            f"The dry run saw no report ({reason or 'train() returned'}); {_last_lines(process)}"
        )
    if outcome is not None and outcome.state == "failed":
        raise JobError(
            f"The dry run failed after its first report ({outcome.reason}); {_last_lines(process)}"
        )
    # a nested search is judged by its last file alone
    judge = plan.steps[0] if plan.mode == "serial" else plan.last
    missing = [
        o.metric for o in judge.objectives if objective_value(o.metric, reports, 0.0) is None
    ]
    if outcome is not None and outcome.state == "done" and missing:
        raise JobError(
            f"The dry run trained to its end and reported no usable {', '.join(missing)}, which the job file "
            f"optimises, so each trial would fail; {_last_lines(process)}"
        )
    last = reports.iterations[0] if reports.iterations else (1, {})
    text = f"First report: {last[1] or {'acc': reports.final.get('acc')}} after {span(process.seconds)}.\n"
    iterations = plan.last.max_iterations
    if outcome is not None and outcome.state == "done":
        return text + forecast_text(plan, process.seconds)
    if iterations is None or not moments:
        return text + forecast_text(plan) + " Set max_iterations for a forecast in time."
    pace = moments[1] - moments[0] if len(moments) > 1 else moments[0]
    return text + forecast_text(plan, moments[0] + pace * (iterations - 1))


def _last_lines(process: TrialProcess) -> str:
    """The end of a trial's log, in a sentence."""
    text = (process.folder / "log.txt").read_text(errors="replace", encoding="utf-8")
    return f"last lines: {neutral(' | '.join(text.splitlines()[-3:]), 600)}"
