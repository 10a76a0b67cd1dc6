"""Reading a trial's reports. User code can write anything into that file, so nothing in it is trusted."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.autosearch.contract import (
    MAX_LINE_BYTES,
    MAX_METRICS,
    METRIC_NAME,
    harmless,
)
from darts_core.errors import ResumeError
from darts_core.runlog import read_json
from darts_core.study.metric_names import names_of

__all__ = [
    "Metrics",
    "ReportReader",
    "Reports",
    "failed_after",
    "iterations_of",
    "objective_value",
    "reports_of",
]

MAX_FILE_BYTES = 64 * 2**20
Metrics = dict[str, float | int | None]


def _finite(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return int(value)
    # an integer of hundreds of digits has no float to compare with
    if isinstance(value, int):
        return value if abs(value) < 10**300 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _metrics(content: Any) -> Metrics:
    """Named finite numbers; null stands for NaN and infinity and replaces what was known before."""
    if not isinstance(content, Mapping):
        return {}
    result: Metrics = {}
    for name, value in list(content.items())[:MAX_METRICS]:
        number = _finite(value)
        if METRIC_NAME.fullmatch(name) and (number is not None or value is None):
            result[name] = number
    return result


def _flag(row: Mapping[str, Any]) -> str:
    return str(row.get("latency_flag") or "")[:200]


class Reports:
    """What a trial has reported so far."""

    def __init__(self) -> None:
        self.iterations: list[tuple[int, Metrics]] = []
        self.final: dict[str, Any] = {}
        # of each iteration with a latency, the newest last
        self.flags: dict[int, str] = {}
        self.ignored = 0

    @property
    def last(self) -> Metrics:
        """The newest value of every metric."""
        merged: Metrics = {}
        for _, metrics in self.iterations:
            merged.update(metrics)
        return merged

    @property
    def latency_flag(self) -> str:
        """Why the latency that counts, the final report's or else the newest, was disturbed; "" if not."""
        names = self.final.get("additional_data", {})
        own = self.final.get("latency") is not None or any("latency" in name for name in names)
        return str(self.final["latency_flag"]) if own else next(reversed(self.flags.values()), "")

    def add(self, row: Any) -> tuple[int, Metrics] | None:
        """Take one decoded line; returns the iteration it was, if it was one."""
        if not isinstance(row, dict):
            self.ignored += 1
            return None
        if row.get("kind") == "model":
            path = row.get("model_path")
            self.final["model_path"] = path if isinstance(path, str) else None
            return None
        if row.get("kind") == "final":
            data = row.get("additional_data")
            path = row.get("model_path")
            self.final = {
                "acc": _finite(row.get("acc")),
                "latency": _finite(row.get("latency")),
                "latency_flag": _flag(row),
                "model_path": path if isinstance(path, str) else None,
                # deep nesting would exhaust the stack of whoever walks it
                "additional_data": harmless(data) if isinstance(data, dict) else {},
            }
            return None
        number, metrics = row.get("iteration"), _metrics(row.get("metrics"))
        if row.get("kind") != "iteration" or not isinstance(number, int) or number < 1:
            self.ignored += 1
            return None
        self.iterations.append((number, metrics))
        if any("latency" in name for name in metrics):
            self.flags[number] = _flag(row)
        return number, metrics


class ReportReader:
    """Reads new lines of a growing `reports.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reports = Reports()
        self._offset = 0
        self._rest = b""

    def new_iterations(self) -> list[tuple[int, Metrics]]:
        """The iterations that were reported since the last call."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                chunk = stream.read(4 * 2**20)
        except OSError:
            return []
        self._offset += len(chunk)
        if self._offset > MAX_FILE_BYTES:
            self.reports.ignored += 1
            return []
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest, self.reports.ignored = b"", self.reports.ignored + 1
        found = []
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                self.reports.ignored += 1
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                self.reports.ignored += 1
                continue
            iteration = self.reports.add(row)
            if iteration is not None:
                found.append(iteration)
        return found

    def rest(self) -> list[tuple[int, Metrics]]:
        """The same up to the end of the file, which one call does not always reach."""
        found: list[tuple[int, Metrics]] = []
        before = -1
        while before < self._offset <= MAX_FILE_BYTES:
            before = self._offset
            found += self.new_iterations()
        return found


def reports_of(folder: Path) -> Reports:
    """What a trial has reported in all its attempts: the iterations before the one where the next went on.

    An attempt that began again from the first iteration replaces what earlier ones reported; one that
    reported no iteration had none left to do, and leaves the final result as it was.
    """
    earlier = sorted(folder.glob("reports.*.jsonl"), key=lambda path: (len(path.name), path.name))
    kept = Reports()
    for path in [*earlier, folder / "reports.jsonl"]:
        reader = ReportReader(path)
        reader.rest()
        found = reader.reports
        kept.ignored += found.ignored
        if found.iterations:
            begun = found.iterations[0][0]
            kept.iterations = [item for item in kept.iterations if item[0] < begun]
            kept.iterations += found.iterations
            kept.flags = {n: flag for n, flag in kept.flags.items() if n < begun} | found.flags
            kept.final = {}
        kept.final = {**kept.final, **found.final}
    return kept


def failed_after(folder: Path, reports: Reports, most: int | None) -> int | None:
    """The iteration behind which the attempt failed that the reports of a trial (`reports_of`) end with.

    None where that leaves the result whole: nothing was left to do (the final result or iteration `most` had
    been reported), or the attempt was cut off from outside rather than failed.
    """
    last = reports.iterations[-1][0] if reports.iterations else None
    if last is None or "acc" in reports.final or (most is not None and last >= most):
        return None
    for path in folder.glob("result.*.json"):
        with contextlib.suppress(ResumeError, AttributeError):
            row = read_json(path)
            if row.get("state") == "failed" and row.get("training_iteration") == last:
                return last
    return None


def iterations_of(folder: Path) -> list[tuple[int, Metrics]]:
    """The iterations of a trial, of all its attempts (see `reports_of`)."""
    return reports_of(folder).iterations


def objective_value(name: str, reports: Reports, seconds: float) -> float | int | None:
    """The value of an objective: the final report first, then the newest iteration that had it.

    `acc`, `accuracy` and `mean_accuracy` name the same thing, so do `latency` and `latency_ms`;
    `time_total_s` is the trial's training time.
    """
    final, last = reports.final, reports.last
    extra, names = final.get("additional_data", {}), names_of(name)
    for candidate in names:
        # a final accuracy that is NaN is the result too: what came before does not stand for it
        if candidate == "acc" and candidate in final:
            return _finite(final[candidate])
        if candidate == "latency" and final.get(candidate) is not None:
            return _finite(final[candidate])
        if candidate in extra and _finite(extra[candidate]) is not None:
            return _finite(extra[candidate])
    reported = (last[candidate] for candidate in names if candidate in last)
    return next(reported, seconds if name == "time_total_s" else None)
