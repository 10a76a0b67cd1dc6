"""Running one version of a job from its folder: lock, device, plan, states, summary, notification."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from darts_core.autosearch.command_line import with_data
from darts_core.autosearch.elsewhere import run_there
from darts_core.autosearch.forecast import plan_notes
from darts_core.autosearch.multi import confirm, run_plan
from darts_core.autosearch.plan_files import build_plan
from darts_core.autosearch.process import TrialProcess
from darts_core.autosearch.request import COMMAND, made_by_older
from darts_core.autosearch.spec import SearchPlan
from darts_core.autosearch.trials import StopWanted, UserCode, Workshop
from darts_core.errors import JobError, sentence_of
from darts_core.report.job_summary import summarize
from darts_core.runlog import environment, write_json, write_yaml
from darts_core.store import procs
from darts_core.store.code import copy_model, kept_files, model_file
from darts_core.store.jobs import Store
from darts_core.store.keeper import start_keeper
from darts_core.store.locks import FileLock, device_lock_path
from darts_core.store.notify import notify
from darts_core.store.sweep import sweep_version
from darts_core.store.version import Version
from darts_core.study.engines import elsewhere
from darts_core.study.results import read_rows as _read_rows
from darts_core.study.results import search_rows, summary

__all__ = ["load_plan", "plan_of", "prepare", "run_version"]

_RESOURCE_SECONDS = 1.0
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
log = logging.getLogger("darts_core")


def apply_budget(plan: SearchPlan, budget: Mapping[str, float]) -> SearchPlan:
    """The plan with limits from the command line (`trainings`, `seconds`) on every step."""
    known: dict[str, Any] = {
        k: float(v) for k, v in budget.items() if k in ("trainings", "seconds")
    }
    steps = tuple(replace(s, limits=replace(s.limits, **known)) for s in plan.steps)
    return replace(plan, steps=steps)


def load_plan(version: Path, request: Mapping[str, Any]) -> SearchPlan:
    """The plan of a version from its own copies of the job files.

    Raises:
        ConfigError, JobError: they are wrong, or the request names others.
    """
    files = kept_files(version / "config", request.get("config_files") or None)
    return plan_of(request, files, version / "code", older=made_by_older(request))


def plan_of(
    request: Mapping[str, Any], files: Sequence[str | Path], code: Path, *, older: bool = False
) -> SearchPlan:
    """The plan of a request whose job files and code lie here; see `parse_file` for `older` and errors."""
    arguments = dict(request.get("arguments") or {})
    if arguments.get("config_path") and not files:
        arguments["config_path"] = str(code / arguments["config_path"])
    plan = build_plan(
        files,
        arguments=with_data(arguments, request.get("data")),
        mode=request.get("multi"),
        settings=request.get("settings") or {},
        older=older,
    )
    return apply_budget(plan, request.get("budget") or {})


def prepare(version: Path, plan: SearchPlan) -> None:
    """Write the resolved plan, its objectives and the environment into the version."""
    folder = version / "autosearch"
    folder.mkdir(exist_ok=True)
    write_json(folder / "objectives.json", [asdict(o) for o in plan.last.objectives])
    write_yaml(folder / "config.yaml", plan.summary())
    write_json(folder / "environment.json", environment())


class _Resources:
    """Appends the use of processor, memory and GPU of the running trials, at most once a second."""

    def __init__(self, path: Path, workshop: Workshop) -> None:
        self.path = path
        self.workshop = workshop
        self._last = time.monotonic()
        self._counted: dict[TrialProcess, float] = {}
        on_gpu = any("cuda" in device for device in workshop.devices)
        self._tool = shutil.which("nvidia-smi") if on_gpu else None

    def sample(self) -> None:
        now = time.monotonic()
        passed = now - self._last
        if passed < _RESOURCE_SECONDS:
            return
        running = list(self.workshop.running)
        cpu = self._processor_seconds(running)
        row = {
            "time": round(time.time(), 2),
            "trials": len(running),
            "cpu_cores": round(cpu / passed, 2),
            "memory_mib": round(sum(p.rss_mib for p in running), 1),
            "gpu": self._gpu(),
        }
        self._last = now
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")

    def _processor_seconds(self, running: Sequence[TrialProcess]) -> float:
        """Processor time since the last sample, of trials that have ended meanwhile too."""
        spent = 0.0
        for process in {*self._counted, *running}:
            spent += max(0.0, process.cpu_seconds - self._counted.get(process, 0.0))
            self._counted[process] = process.cpu_seconds
            if process.outcome is not None and process not in running:
                del self._counted[process]
        return spent

    def _gpu(self) -> list[dict[str, float]] | None:
        if self._tool is None:
            return None
        query = "--query-gpu=utilization.gpu,memory.used"
        try:
            done = subprocess.run(
                [self._tool, query, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=2,
                encoding="utf-8",
                errors="replace",
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        rows = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1]
        # a GPU that shares the host's memory, or is cut into parts, says [N/A]
        return [
            {"percent": float(a), "memory_mib": float(b)}
            for a, b in rows
            if a.strip().isdigit() and b.strip().isdigit()
        ]


class _Runner:
    def __init__(self, store: Store, version: Version, *, detached: bool) -> None:
        self.detached = detached
        self.store = store
        self.version = version
        command = version.command(COMMAND)
        self.mark = str(command.get("mark") or "")
        self.request: dict[str, Any] = command["request"]
        # of a search that succeeded all the same
        self.failed_confirming = 0

    def stop_wanted(self) -> bool:
        return self.version.stop_file.exists()

    def state(self, state: str, **details: Any) -> None:
        self.version.set_state(state, COMMAND, **details)
        with contextlib.suppress(OSError):  # whoever lists the version works it out again
            summarize(self.version)
        notify(self.request.get("notify"), state, self.version)

    def wait_for_devices(self) -> list[FileLock] | None:
        """The devices' locks, in a fixed order so that two jobs cannot wait for each other."""
        locks: list[FileLock] = []
        if self.request.get("ray") or self.request.get("slurm"):
            return locks  # the cluster shares out its own
        devices = self.request.get("devices") or ["cpu"]
        try:
            # by their locks: `cpu` and `cpu:0` name one device, which must not be waited for twice
            for path in sorted({device_lock_path(self.store.root, device) for device in devices}):
                lock = FileLock(path)
                if not lock.acquire(stop=self.version.stop_file.exists, poll_seconds=0.1):
                    break
                locks.append(lock)
            else:
                return locks
        except BaseException:
            # Ctrl-C while it waits: this process may be a notebook's kernel, which lives on
            _release(locks)
            raise
        _release(locks)
        return None

    def search(self) -> dict[str, Any]:
        path = self.version.path
        plan = load_plan(path, self.request)
        prepare(path, plan)
        if self.detached:
            log.setLevel(_LEVELS[max(step.verbose for step in plan.steps)])
        place = elsewhere(self.request.get("ray"), self.request.get("slurm"))
        for note in plan_notes(plan, self.request.get("devices") or ["cpu"], place):
            log.warning("%s", note)
        own = with_data(self.request.get("arguments") or {}, self.request.get("data"))
        code = UserCode(
            code_dir=path / "code",
            boot_file=path / "code" / self.request["boot_file"],
            arguments=tuple(f"--{name}={value}" for name, value in own.items()),
            entry=self.request.get("entry") or "train",
            evaluate=self.request.get("evaluate") or "eval",
            python=self.request.get("python"),
            older=made_by_older(self.request),
        )
        workshop = Workshop(
            path,
            code,
            devices=self.request.get("devices") or ["cpu"],
            mark=self.mark,
            stop_wanted=self.stop_wanted,
            metrics=tuple({o.metric for step in plan.steps for o in step.objectives}),
        )
        if place is not None:
            workshop.place, workshop.there = place, partial(run_there, workshop, place)
        workshop.tick = _Resources(path / "autosearch" / "resources.jsonl", workshop).sample
        best = run_plan(plan, workshop)
        if best is None:
            raise JobError("No trial gave a usable result; see the trials' log.txt.")
        if plan.last.confirm_seeds:
            yours = [r for r in search_rows(_read_rows(path)) if r.get("is_baseline")]
            baseline = yours[0] if yours and yours[0]["state"] == "done" else None
            self.failed_confirming = confirm(plan, workshop, best, baseline)
        result = summary(path)
        write_json(path / "autosearch" / "result.json", {"schema_version": 1, **result})
        return result

    def said(self, verdict: str) -> dict[str, Any]:
        """The message of a search that succeeded, and whether something of it may be run again."""
        if not self.failed_confirming:
            return {"message": verdict}
        left = (
            f"Confirming runs that failed are not counted: {self.failed_confirming}; jobs resume "
            f"{self.version.label} runs them again."
        )
        log.warning("%s", left)
        return {"message": f"{verdict} {left}", "left": True}

    def deliver(self, result: Mapping[str, Any]) -> None:
        """Copy the result table and the best model into the folder named with --output."""
        target = self.request.get("output")
        if not target:
            return
        folder = Path(target) / f"{self.version.job}-{self.version.name}"
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "result.json", result)
        best = result["best"]
        model = model_file(
            self.version.path / "autosearch" / "trials" / best["trial_id"], best["model_path"]
        )
        if model is not None:
            copy_model(model, folder)


def _release(locks: Sequence[FileLock]) -> None:
    for held in locks:
        held.release()


def run_version(store: Store, version: Version, *, detached: bool = False) -> int:
    """Run a version to its end; returns 0 for succeeded, 1 for failed or stopped.

    Raises:
        JobError: another process runs it.
    """
    lock = version.lock
    if not lock.try_acquire():
        raise JobError(
            f"{version.job}/{version.name} is being run by another process; wait for it."
        )
    sweep_version(version.path)
    runner = _Runner(store, version, detached=detached)
    if detached:
        procs.adopt_orphans()
    keeper = start_keeper(runner.mark)
    try:
        # trials that outlived a killed runner would write into the folders used now
        procs.end_tree(None, runner.mark, grace_seconds=0.5, limit_seconds=5.0)
        runner.state("queued")
        locks: list[FileLock] = []
        try:
            found = runner.wait_for_devices()
            if found is None:
                runner.state("stopped", message="stopped while waiting for its device")
                return 1
            locks = found
            runner.state("running")
            result = runner.search()
            runner.deliver(result)
            if result["doubt"]:
                runner.state("failed", message=result["verdict"])
                return 1
            runner.state("succeeded", **runner.said(result["verdict"]))
            return 0
        except StopWanted:
            runner.state("stopped", message="stopped by command")
            return 1
        except KeyboardInterrupt:
            # Ctrl-C, a shutdown: nobody asked to stop the job as such
            runner.state("interrupted", message="ended by a signal; resume it with jobs resume")
            raise
        except Exception as error:
            told = sentence_of(error)
            # a disk that takes no state either must not hide what went wrong
            with contextlib.suppress(OSError):
                runner.state("failed", message=told or f"{type(error).__name__}: {error}")
            if told is None or not detached:
                raise
            print(f"darts-core: {told}", file=sys.stderr)
            return 1
        finally:
            procs.end_tree(None, runner.mark, grace_seconds=0.5, limit_seconds=5.0)
            if detached:
                # this process has no other children than what trials left
                procs.end_children()
            _release(locks)
    finally:
        keeper.kill()
        keeper.wait()
        lock.release()
