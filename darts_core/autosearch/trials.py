"""The trials of one version: starting them on devices, recording their results, counting the cost."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from darts_core.autosearch.boot_file import seed_option
from darts_core.autosearch.command_line import BUILT_IN, command_line, parse_command
from darts_core.autosearch.costs import Account, attempt, earlier, set_aside
from darts_core.autosearch.process import BY_COMMAND, Outcome, TrialProcess
from darts_core.autosearch.reports import (
    Metrics,
    Reports,
    failed_after,
    iterations_of,
    objective_value,
    reports_of,
)
from darts_core.autosearch.spec import SearchSpec
from darts_core.errors import ResumeError
from darts_core.runlog import plain, read_json, write_json
from darts_core.store.code import model_file
from darts_core.study.engines import Elsewhere
from darts_core.study.metric_names import under_names
from darts_core.study.resources import visible_gpus
from darts_core.study.results import read_rows, trials_folder

__all__ = [
    "GIVEN_GPU",
    "Row",
    "StopWanted",
    "UserCode",
    "Workshop",
    "clear_of_other_settings",
    "gpu_name",
    "trial_id",
]

SCHEMA_VERSION = 1
# the device of a trial on a cluster's node, which has shown it the GPUs that are its own
GIVEN_GPU = "cuda:given"
_RESTARTS = 3  # of a single trial whose process was killed from outside
log = logging.getLogger("darts_core")

Row = dict[str, Any]


def trial_id(mark: str, step: str, phase: str, seed: int, number: int) -> str:
    """Eight hex digits that stay the same when the version is resumed."""
    return hashlib.sha256(f"{mark}/{step}/{phase}/{number}/{seed}".encode()).hexdigest()[:8]


def gpu_name(device: str) -> str | None:
    """What a trial's CUDA_VISIBLE_DEVICES is on `device`: None leaves it as it is, "" shows no GPU.

    `cuda:1` is the second of the GPUs that this process sees, which the driver may call otherwise.
    """
    if device == GIVEN_GPU:
        return None
    if not device.startswith("cuda"):
        return ""
    index, seen = int(device.partition(":")[2] or 0), visible_gpus()
    return seen[index] if index < len(seen) else str(index)


def clear_of_other_settings(folder: Path, configuration: Row) -> None:
    """Remove output, checkpoint and reports from a trial's folder where they are another configuration's.

    A resumed search that finds a better trial confirms it in the folder of the winner before it, whose
    checkpoint is nothing to go on from.
    """
    if not (folder / "trial.json").is_file():
        return
    try:
        known = read_json(folder / "trial.json")
    except ResumeError:
        return
    now = json.loads(json.dumps(plain(configuration)))
    if not isinstance(known, dict) or known.get("config", now) == now:
        return
    for path in (folder / "output", folder / "checkpoint"):
        # a trial may have put a link in the place of its folder
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    for path in folder.glob("reports*.jsonl"):
        path.unlink()


class StopWanted(Exception):
    """The version is to stop; its trials have been ended."""


@dataclass(frozen=True)
class UserCode:
    """Where the user's code lies and how it is called."""

    code_dir: Path
    boot_file: Path
    arguments: tuple[str, ...] = ()
    entry: str = "train"
    evaluate: str = "eval"
    python: str | None = None
    older: bool = False  # the version was made by an older program, see `parse_file`

    @cached_property
    def seed_option(self) -> str | None:
        """The option by which the script takes its seed, if it has one."""
        return seed_option(self.boot_file)


class Workshop:
    """Starts trials of a version and turns their ends into result rows.

    Args:
        version: the version's folder.
        code: the user's code.
        devices: devices that trials take in turn, e.g. ("cuda:0", "cuda:1").
        mark: of the version; trials' names follow from it.
        process_mark: the mark of all processes that are started here; the version's own by default.
        stop_wanted: says whether the whole version should stop.
        metrics: objectives of other steps, recorded too so that steps can be compared.
    """

    def __init__(
        self,
        version: Path,
        code: UserCode,
        *,
        devices: Sequence[str] = ("cpu",),
        mark: str,
        process_mark: str | None = None,
        stop_wanted: Callable[[], bool] = lambda: False,
        metrics: Sequence[str] = (),
    ) -> None:
        self.version = Path(version).resolve()
        self.code = code
        self.devices = tuple(devices)
        self.mark, self._process_mark = mark, process_mark or mark
        self.metrics = tuple(metrics)
        self.account = Account()
        # whether trials' folders go somewhere else when they have ended
        self.moves = False
        # where trials run if not here, and what does `run_one` there
        self.place: Elsewhere | None = None
        self.there: Callable[[SearchSpec, int, dict[str, Any], dict[str, Any]], Row] | None = None
        self.running: list[TrialProcess] = []
        # called now and then by whoever waits for trials
        self.tick: Callable[[], object] = lambda: None
        # set when the other workers of a step are to end too
        self.aborted = threading.Event()
        self._asked = stop_wanted
        self._lock = threading.Lock()
        self._workers: set[int] = set()

    def stop_wanted(self) -> bool:
        """Whether running trials are to be ended, so that the version stops."""
        return self.aborted.is_set() or self._asked()

    def log(self, text: str) -> None:
        """A line of the job's log."""
        log.info("%s", text)

    def log_iteration(self, trial_id: str, iteration: int, metrics: Metrics) -> None:
        """A line of a verbose job's log."""
        log.debug("trial %s iteration %d: %s", trial_id, iteration, metrics)

    def trial_id(self, step: str, phase: str, number: int, seed: int) -> str:
        """See `trial_id`."""
        return trial_id(self.mark, step, phase, seed, number)

    def known_rows(self, step: str, phase: str = "search") -> list[dict[str, Any]]:
        """Rows of an earlier run of this version, finished or cut off."""
        rows = read_rows(self.version)
        return [r for r in rows if r.get("step") == step and r.get("phase") == phase]

    def start(
        self,
        spec: SearchSpec,
        number: int,
        configuration: dict[str, Any],
        *,
        step: str,
        phase: str = "search",
        seed: int | None = None,
        folder: Path | None = None,
        **extra: Any,
    ) -> TrialProcess:
        """Start one trial and return its process; in its folder of the version, where no other is given."""
        seed = spec.seed if seed is None else seed
        name = self.trial_id(step, phase, number, seed)
        folder = folder or trials_folder(self.version) / name
        folder.mkdir(parents=True, exist_ok=True)
        set_aside(folder)
        clear_of_other_settings(folder, configuration)
        with self._lock:
            worker = next(i for i in range(len(self._workers) + 1) if i not in self._workers)
            self._workers.add(worker)
        device = self.devices[worker % len(self.devices)]
        record = {
            "schema_version": SCHEMA_VERSION,
            "trial_id": name,
            "number": number,
            "step": step,
            "phase": phase,
            "attempt": attempt(folder),
            "config": configuration,
            "boot_file": str(self.code.boot_file),
            "module": parse_command(spec.command).module if spec.command else "",
            "code_dir": str(self.code.code_dir),
            "entry": self.code.entry,
            "evaluate": self.code.evaluate,
            "output_dir": str(folder / "output"),
            "checkpoint_dir": str(folder / "checkpoint"),
            "seed": seed,
            "device": "cuda:0" if device.startswith("cuda") else device,
            "worker_index": worker,
            "threads": spec.cpu_per_trial,
            "max_iterations": spec.max_iterations,
            "metrics": list(spec.metrics),
            "model_file": spec.model_file,
            "reward": spec.reward,
            **extra,
        }
        record["arguments"] = command_line(
            spec.arguments,
            spec.command,
            self.code.arguments,
            configuration,
            {name: record[name] for name in BUILT_IN if name in record},
            self.code.seed_option,
            older=self.code.older,
        )
        process = TrialProcess(
            record,
            folder,
            limits=spec.limits,
            mark=self._process_mark,
            python=self.code.python,
            visible=gpu_name(device),
        )
        process.start()
        self.running.append(process)
        return process

    def collect(self, spec: SearchSpec, process: TrialProcess) -> Row:
        """The result row of an ended trial; its time is spent."""
        outcome = process.outcome
        if outcome is None:
            raise RuntimeError("collect() was called for a trial that still runs")
        row = self._row(spec, process, outcome)
        with self._lock:
            self.running.remove(process)
            self._workers.discard(process.record["worker_index"])
            if process.record["phase"] != "confirm":
                self.account.spent_seconds += outcome.seconds
        log.info(
            "trial %s (%s #%d) %s%s",
            row["trial_id"],
            row["step"],
            row["number"],
            row["state"],
            f": {row['reason']}" if row["reason"] else "",
        )
        return row

    def keep(self, row: Row, folder: Path | None = None) -> None:
        """Write a row that the books do not write; into `folder`, where its trial lies elsewhere."""
        folder = folder or trials_folder(self.version) / row["trial_id"]
        write_json(folder / "result.json", row)

    def _row(self, spec: SearchSpec, process: TrialProcess, outcome: Outcome) -> dict[str, Any]:
        reports, record = process.reader.reports, process.record
        values, taken, against = self._values(spec, reports, outcome), False, ""
        if outcome.state == "done" and None in [values[o.metric] for o in spec.objectives]:
            # one that goes on from a checkpoint of the last iteration has nothing new to report
            reports, against = self._of_all_attempts(process)
            taken = reports is not process.reader.reports
            values = self._values(spec, reports, outcome)
        state, reason = outcome.state, outcome.reason
        missing = [o.metric for o in spec.objectives if values[o.metric] is None]
        # a supernet is judged by what it finds, so it may end before its report()
        if state == "done" and missing and record["phase"] != "supernet":
            state = "failed"
            reason = (
                f"it reported no usable {', '.join(missing)}; call reporter({missing[0]}=...) or "
                f"report(acc, latency=..., additional_data={{...}}){against}"
            )
        first = spec.objectives[0]
        every = (under_names(m, (first.metric,)) for _, m in iterations_of(process.folder))
        shown = [metrics.get(first.metric) for metrics in every]
        seen = [value for value in shown if value is not None]
        best = (max(seen) if first.mode == "max" else min(seen)) if seen else values[first.metric]
        kept = ("trial_id", "number", "step", "phase", "attempt", "config", "seed", "device",
                "worker_index", "is_baseline", "confirms")  # fmt: skip
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: record[name] for name in kept if name in record},
            "state": state,
            "reason": reason,
            "done": True,
            "pid": process.pid,
            "values": values,
            "reward_attr": first.metric,
            "best_reward": best,
            "reward_range": [len(seen), min(seen), max(seen)] if seen else None,
            "metrics": reports.last,
            "training_iteration": reports.iterations[-1][0] if reports.iterations else 0,
            "time_total_s": round(outcome.seconds, 4),
            "peak_mib": round(outcome.peak_mib, 1),
            "cpu_seconds": round(process.cpu_seconds, 2),
            **earlier(process.folder),
            # whether an earlier attempt's reports are the result, as this one had nothing left to do
            **({"taken_over": True} if taken else {}),
            "acc": reports.final.get("acc"),
            "latency": reports.final.get("latency"),
            "latency_flag": reports.latency_flag,
            "model_path": self._model_path(process.folder, reports.final.get("model_path")),
            "additional_data": reports.final.get("additional_data", {}),
            "ignored_reports": reports.ignored,
            "ended": time.time(),
        }

    def _of_all_attempts(self, process: TrialProcess) -> tuple[Reports, str]:
        """The reports of a trial that ended well without a result of its own, and what speaks against earlier
        ones, in words: those of an attempt that failed half-way are no result.
        """
        own, every = process.reader.reports, reports_of(process.folder)
        failed = failed_after(process.folder, every, process.record["max_iterations"])
        if failed is not None and not own.iterations:
            told = (
                f"; an earlier attempt failed after iteration {failed}, which may not be its last"
            )
            return own, told
        if (every.iterations, every.final) == (own.iterations, own.final):
            return own, ""
        log.warning(
            "trial %s ended without a result of its own: what an earlier attempt reported is taken for it",
            process.record["trial_id"],
        )
        return every, ""

    def _values(
        self, spec: SearchSpec, reports: Reports, outcome: Outcome
    ) -> dict[str, float | int | None]:
        """The objectives of this step and of the others."""
        names = (*[o.metric for o in spec.objectives], *self.metrics)
        return {name: objective_value(name, reports, outcome.seconds) for name in names}

    def _model_path(self, folder: Path, reported: Any) -> Any:
        """The model that a trial reported; beside its output, where the folder is about to move."""
        found = model_file(folder, reported) if self.moves else None
        return reported if found is None else str(found.relative_to((folder / "output").resolve()))

    def run_one(
        self, spec: SearchSpec, number: int, configuration: dict[str, Any], **options: Any
    ) -> Row:
        """Run one trial to its end, alone; returns its row.

        A sitting that was killed is begun again; one that failed, as often as the limits allow.

        Raises:
            StopWanted: a stop was asked for.
        """
        if self.there is not None:
            row = self.there(spec, number, configuration, options)
            if row["phase"] != "confirm":
                self.account.spent_seconds += float(row["time_total_s"])
            self.keep(row)
            return row
        restarts, retries = _RESTARTS, spec.limits.retries
        while True:
            row = self._sitting(spec, number, configuration, options)
            killed = row["state"] == "killed"
            if killed:
                # what cut it off is no fault of its own, so long as it is begun again
                row["state"] = "cancelled" if restarts else "failed"
            self.keep(row)
            if killed and restarts:
                restarts -= 1
            elif row["state"] == "failed" and not killed and retries:
                retries -= 1
                self.log(f"trial {row['trial_id']} is tried again ({retries} tries left)")
            else:
                return row

    def _sitting(
        self, spec: SearchSpec, number: int, configuration: dict[str, Any], options: dict[str, Any]
    ) -> Row:
        process = self.start(spec, number, configuration, **options)
        with self.ending(spec, process):
            while process.outcome is None:
                self.look()
                process.poll()
                if (process.folder / "stop").exists():
                    process.ask_to_stop("stopped", BY_COMMAND)
                time.sleep(0.02)
        return self.collect(spec, process)

    def look(self) -> None:
        """Called now and then by who waits for trials.

        Raises:
            StopWanted: a stop was asked for.
        """
        self.tick()
        if self.stop_wanted():
            raise StopWanted

    @contextlib.contextmanager
    def ending(self, spec: SearchSpec, process: TrialProcess) -> Iterator[None]:
        """End the trial with what ends the block before its time: a stop, a worker that leaves its node."""
        try:
            yield
        except BaseException:
            self.cancel(process, "the job was stopped")
            self.keep(self.collect(spec, process), process.folder)
            raise

    def cancel(self, process: TrialProcess, reason: str) -> None:
        """End a running trial: asked first, forced within seconds."""
        process.ask_to_stop("cancelled", reason)
        deadline = time.monotonic() + 1.5
        while process.outcome is None and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.02)
        process.end_now("cancelled", reason)
