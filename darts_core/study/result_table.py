"""The result table of a version: which columns there are, and the order of its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.reading import is_number
from darts_core.study.metric_names import ACCURACY, SAME_METRIC, less_is_better
from darts_core.study.results import Goals, Row

__all__ = ["result_table", "row_names"]

_BEFORE = ("#", "trial_id", "step", "phase", "seed", "state")
_BEHIND = (
    "iterations", "time_total_s", "time_left_s", "model_path", "additional_data", "latency_flag", "reason",
)  # fmt: skip


def result_table(
    rows: Sequence[Row], goals: Goals, sort: str | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the result table, best first by the metric named (any metric, or a setting).

    A setting called like a column of the table's own, such as `step`, stands in `config.step`.
    """
    rows = [{**row, "config": {_own(name): v for name, v in row["config"].items()}} for row in rows]
    settings = sorted({name for row in rows for name in row["config"]})
    metrics = [goal["metric"] for goal in goals]
    extra = sorted({n for row in rows for n in row.get("metrics", {})} - set(metrics))
    if not set(ACCURACY) & {*metrics, *extra}:
        # the final accuracy of a search that optimises something else
        extra.append("acc")
    if "latency" not in (*metrics, *extra):
        extra.append("latency")
    data = {n for row in rows for n in _numbers(row.get("additional_data"))}
    if sort in data and sort not in (*metrics, *extra, *settings):
        extra.append(str(sort))
    columns = [*_BEFORE, *metrics, *extra, *settings, *_BEHIND]
    table = []
    names = row_names(rows)
    for row, name in zip(rows, names, strict=True):
        cells = {
            **_numbers(row.get("additional_data")),
            "acc": row.get("acc"),
            "latency": row.get("latency"),
            **row.get("metrics", {}),
            **row["config"],
            **row.get("values", {}),
        }
        table.append(
            {
                **{c: cells.get(c) for c in (*metrics, *extra, *settings)},
                "#": name,
                **{c: row.get(c) for c in ("trial_id", "step", "phase", "seed", "state", "time_total_s",
                                           "time_left_s", "model_path", "additional_data", "latency_flag",
                                           "reason")},
                "iterations": row.get("training_iteration"),
            }
        )  # fmt: skip
    if sort is not None or goals:
        key, mode = _sort_key(sort, goals, columns)
        table = _sorted(table, key, largest_first=mode == "max")
    return [c for c in columns if any(r[c] not in (None, "", {}) for r in table)], table


def _sorted(
    table: Sequence[dict[str, Any]], key: str, *, largest_first: bool
) -> list[dict[str, Any]]:
    """By the numbers of a column; behind them its words by the alphabet, then what has no value."""
    numbers, words, lost = [], [], []
    for row in table:
        value = row.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            numbers.append((float(value), row))
        elif isinstance(value, str) and value:
            words.append((value.lower(), row))
        else:
            # NaN too, with which nothing compares
            lost.append(row)
    numbers.sort(key=lambda pair: pair[0], reverse=largest_first)
    words.sort(key=lambda pair: pair[0])
    return [row for _, row in numbers] + [row for _, row in words] + lost


def _own(name: str) -> str:
    return f"config.{name}" if name in (*_BEFORE, *_BEHIND) else name


def row_names(rows: Sequence[Row]) -> list[str]:
    """A short name for each trial that stands for no other: its number, behind that of its step where
    there are several (`2.0`); `c1`, `c2` ... for confirming runs. A star marks the user's configuration.
    """
    searched = [row for row in rows if row.get("phase") != "confirm"]
    steps = sorted({str(row.get("step")) for row in searched})
    confirming = [row for row in rows if row.get("phase") == "confirm"]
    confirming.sort(key=lambda row: (row.get("seed") or 0, row["number"]))
    names = []
    for row in rows:
        if row.get("phase") == "confirm":
            name, own = f"c{confirming.index(row) + 1}", row.get("confirms") == "baseline"
        else:
            step = f"{steps.index(str(row.get('step'))) + 1}." if len(steps) > 1 else ""
            name, own = f"{step}{row['number']}", bool(row.get("is_baseline"))
        names.append(f"{name}*" if own else name)
    return names


def _numbers(data: Any) -> dict[str, float]:
    """The numbers of a trial's additional data."""
    found = data.items() if isinstance(data, Mapping) else ()
    return {k: v for k, v in found if is_number(v)}


def _sort_key(sort: str | None, goals: Goals, columns: Sequence[str]) -> tuple[str, str]:
    modes = {goal["metric"]: goal["mode"] for goal in goals}
    if sort is None:
        return goals[0]["metric"], goals[0]["mode"]
    for candidate in (sort, *SAME_METRIC.get(sort, ())):
        if candidate in columns:
            low = "latency" in candidate or less_is_better(candidate)
            default = "min" if low else "max"
            return candidate, modes.get(candidate, default)
    raise JobError(f"There is no column {sort!r} to sort by; there are {', '.join(columns)}.")
