"""Results of a version, read from its trial folders: rows, front, best, gain against the baseline.

An objective is a mapping with `metric`, `mode` ("max" or "min") and `tolerance`. The same functions
judge a finished and a running search. No trial data is trusted: rows that do not fit are left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.errors import DartsError, JobError
from darts_core.reading import is_number, read_json, regular_file
from darts_core.study.judge import doubts, figure, gain, stats, verdict
from darts_core.study.pareto import pareto_mask, signs

__all__ = [
    "best_row",
    "figure",
    "front",
    "gain",
    "objectives",
    "read_rows",
    "row_values",
    "search_rows",
    "summary",
    "trials_folder",
]

_TAIL_BYTES = 2**16
# of a trial's row, whatever of it is there
_MAPPINGS = {"values", "metrics", "additional_data"}
_TEXTS = ("state", "phase", "step")
_NUMBERS = {
    "time_total_s", "earlier_seconds", "cpu_seconds", "earlier_cpu_seconds", "ended", "acc", "latency",
    "training_iteration", "peak_mib",
}  # fmt: skip
Row = dict[str, Any]
Goals = Sequence[Mapping[str, Any]]


def trials_folder(version: str | Path) -> Path:
    """Where a version's trials lie."""
    return Path(version) / "autosearch" / "trials"


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except DartsError:
        return None


def objectives(version: str | Path) -> list[dict[str, Any]]:
    """The objectives of a version, the first one counting most.

    Raises:
        JobError: the version's search was never prepared.
    """
    found = _read(Path(version) / "autosearch" / "objectives.json")
    if not isinstance(found, list) or not found:
        raise JobError(f"{version} holds no prepared search; run it first.")
    return found


def read_rows(version: str | Path) -> list[Row]:
    """One row a trial, finished or running, in the order of their numbers."""
    rows = []
    folder = trials_folder(version)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        row, record = _read(path / "result.json"), _read(path / "trial.json")
        open_row = {**record, "values": {}, "metrics": {}} if isinstance(record, dict) else {}
        if not isinstance(row, dict):
            row = {**open_row, **_so_far(path, open_row), "state": "running", "done": False}
        elif "config" not in row:
            # the books ended it: no runner was left to write a row
            row = {**open_row, "state": "failed", "reason": row.get("reason"), "done": True}
        row.pop("ledger", None)
        if isinstance(row.get("number"), int) and isinstance(row.get("config"), dict):
            rows.append({**_sound(row), "trial_id": path.name, "folder": str(path)})
    return sorted(rows, key=lambda row: (row.get("phase") != "search", row["number"]))


def _sound(row: Row) -> Row:
    """The row if what is counted with is of its kind; else a failed trial's, without what is not.

    Fields that are missing or null are left to whoever reads them.
    """
    known = {name: value for name, value in row.items() if value is not None}
    wrong = [name for name in _MAPPINGS & {*known} if not isinstance(known[name], dict)]
    wrong += [name for name in _NUMBERS & {*known} if not is_number(known[name])]
    if not isinstance(known.get("seed", 0), int):
        wrong.append("seed")
    seen = known.get("reward_range", [])
    if not (isinstance(seen, list) and all(map(is_number, seen))):
        wrong.append("reward_range")
    wrong += [name for name in _TEXTS if not isinstance(known.get(name, ""), str)]
    kept = {
        name: value
        for name, value in row.items()
        if name not in wrong and (name in known or name not in _MAPPINGS)
    }
    kept = {"state": "failed", "values": {}, "metrics": {}, **kept}
    if wrong:
        reason = f"its files hold what no trial writes: {', '.join(sorted(wrong))}"
        kept |= {"state": "failed", "reason": reason, "done": True}
    return kept


def _so_far(folder: Path, record: Mapping[str, Any]) -> Row:
    """What a running trial has reported, how long that took, and about how long the rest will.

    The time ends with the last report: whoever was cut off hours ago has not run until now.
    """
    try:
        reports = regular_file(folder / "reports.jsonl")
        seconds = max(0.0, reports.stat().st_mtime - (folder / "trial.json").stat().st_mtime)
        with reports.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = stream.read().splitlines()
    except (OSError, DartsError):
        return {}
    found: Row = {"metrics": {}, "training_iteration": 0, "time_total_s": round(seconds, 1)}
    for line in lines:
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            continue  # cut at the beginning of the tail, or being written
        if not isinstance(report, dict) or not isinstance(report.get("metrics"), dict):
            continue
        number = report.get("iteration")
        if isinstance(number, int) and number > 0:
            found["training_iteration"] = number
            found["metrics"].update(
                {str(k): v for k, v in report["metrics"].items() if isinstance(v, (int, float))}
            )
    most, done = record.get("max_iterations"), found["training_iteration"]
    if isinstance(most, int) and 0 < done <= most:
        found["time_left_s"] = round(seconds / done * (most - done), 1)
    return {**found, "values": dict(found["metrics"])}


def search_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that took part in the search: not the confirming runs."""
    return [row for row in rows if row.get("phase", "search") == "search"]


def row_values(row: Row, goals: Goals) -> list[float] | None:
    """The objective values of a usable trial, or None (failed, running, or a value missing)."""
    if row.get("state") not in ("done", "stopped"):
        return None
    values = [row.get("values", {}).get(goal["metric"]) for goal in goals]
    if not all(map(is_number, values)):
        return None
    return [float(v) for v in values] if all(math.isfinite(v) for v in values) else None


def _score(value: float, goal: Mapping[str, Any]) -> float:
    return value if goal["mode"] == "max" else -value


def front(rows: Sequence[Row], goals: Goals) -> list[Row]:
    """The rows that no other row beats in every objective, best in the first objective first.

    A trial that was stopped early stands beside complete ones with what it had half-way, its time included:
    as for `best_row`, it counts only where none is complete.
    """
    usable = [(row, values) for row in rows if (values := row_values(row, goals)) is not None]
    usable = [pair for pair in usable if pair[0]["state"] == "done"] or usable
    if not usable:
        return []
    costs = np.array([values for _, values in usable]) * signs([goal["mode"] for goal in goals])
    kept = [
        (list(cost), row)
        for cost, (row, _), on in zip(costs, usable, pareto_mask(costs), strict=True)
        if on
    ]
    return [row for _, row in sorted(kept, key=lambda item: item[0])]


def best_row(rows: Sequence[Row], goals: Goals) -> Row | None:
    """The trial to take: within the first objective's tolerance of the best, the best in the next one,
    and so on. Complete trials go before stopped ones. None when no trial is usable.
    """
    usable = [row for row in rows if row_values(row, goals) is not None]
    complete = [row for row in usable if row["state"] == "done"]
    left = complete or usable
    for goal in goals:
        if not left:
            return None
        scores = [_score(row["values"][goal["metric"]], goal) for row in left]
        # the epsilon keeps 0.95 - 0.02 from missing 0.93 by a rounding error
        limit = max(scores) - float(goal.get("tolerance", 0.0)) - 1e-12
        left = [row for row, score in zip(left, scores, strict=True) if score >= limit]
    # among equals, the later objectives decide once more without tolerance, then what the user has already,
    # then the earliest trial
    final = sorted(
        left,
        key=lambda row: (
            [-_score(row["values"][g["metric"]], g) for g in reversed(goals)],
            # in a nested search each inner one begins with a number 0
            not row.get("is_baseline"),
            row["number"],
        ),
    )
    return final[0] if final else None


def summary(version: str | Path) -> dict[str, Any]:
    """Best trial, baseline, gain, front and cost of a version as far as it has come."""
    goals = objectives(version)
    every = read_rows(version)
    rows = search_rows(every)
    confirm = [row for row in every if row.get("phase") == "confirm"]
    searched = [row for row in every if row.get("phase") != "confirm"]
    best = best_row(rows, goals)
    baseline = next((row for row in rows if row.get("is_baseline")), None)
    usable = baseline is not None and row_values(baseline, goals) is not None
    fresh = _of_these(confirm, {"best": best, "baseline": baseline})
    gains = gain(best, baseline, fresh, goals) if best and baseline and usable else []
    doubt = doubts([r for r in rows if r.get("state") == "done"], best, goals)
    return {
        "objectives": goals,
        "best": best,
        "baseline": baseline,
        "gain": gains,
        "verdict": verdict(best, baseline if usable else None, rows, gains, doubt),
        "doubt": doubt,
        "test": _test_metrics(fresh),
        "front": [row["trial_id"] for row in front(rows, goals)],
        "cost": {
            "search": _cost(searched, baseline),
            # what the user's own training would not have cost anyway
            "besides_yours": _cost([r for r in searched if not r.get("is_baseline")], baseline),
            "confirm": _cost(confirm, baseline),
        },
        "trials": {
            state: sum(row.get("state") == state for row in rows)
            for state in ("done", "stopped", "failed", "cancelled", "running")
        },
    }


def _cost(rows: Sequence[Row], baseline: Row | None) -> dict[str, float | None]:
    """Time by the clock and by the processor, each also as a multiple of trial 0's.

    Other work on the machine stretches the clock; the processor's time it hardly moves.
    """

    def total(key: str, before: str) -> tuple[float, float | None]:
        # attempts that failed, or were cut off by a stop, count too
        spent = sum(float(row.get(key) or 0.0) + float(row.get(before) or 0.0) for row in rows)
        unit = float(baseline.get(key) or 0.0) if baseline is not None else 0.0
        return spent, spent / unit if unit else None

    seconds, trainings = total("time_total_s", "earlier_seconds")
    processor_seconds, processor_trainings = total("cpu_seconds", "earlier_cpu_seconds")
    return {
        "seconds": seconds,
        "trainings": trainings,
        "processor_seconds": processor_seconds,
        "processor_trainings": processor_trainings,
    }


def _of_these(confirm: Sequence[Row], sides: Mapping[str, Row | None]) -> list[Row]:
    """The confirming runs of these configurations: a resumed search may have another winner than the one
    that it confirmed before, whose runs stay until the new winner's take their folders.
    """
    return [
        row
        for row in confirm
        if (own := sides.get(str(row.get("confirms")))) is not None
        and row["config"] == own["config"]
    ]


def _test_metrics(confirm: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Metrics named `test_...` of the confirming runs, of the winner and of the user's configuration."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in confirm:
        merged = {**row.get("metrics", {}), **row.get("additional_data", {})}
        for name, value in merged.items():
            if name.startswith("test") and is_number(value) and row.get("state") == "done":
                values.setdefault(name, {}).setdefault(str(row.get("confirms")), []).append(value)
    return {
        name: {side: stats(found) for side, found in sides.items()}
        for name, sides in values.items()
    }
