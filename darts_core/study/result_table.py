"""The result table of a version: which columns there are, and the order of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.study.results import Goals, Row

__all__ = ["result_table"]

_ACCURACY = ("acc", "accuracy", "mean_accuracy")
_ALIASES = {**dict.fromkeys(_ACCURACY, _ACCURACY), "latency": ("latency_ms",)}


def result_table(
    rows: Sequence[Row], goals: Goals, sort: str | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of the result table, best first by the metric named (any metric, or a setting)."""
    settings = sorted({name for row in rows for name in row["config"]})
    metrics = [goal["metric"] for goal in goals]
    extra = sorted({n for row in rows for n in row.get("metrics", {})} - set(metrics))
    if not set(_ACCURACY) & {*metrics, *extra}:
        # the final accuracy of a search that optimises something else
        extra.append("acc")
    if "latency" not in (*metrics, *extra):
        extra.append("latency")
    data = {n for row in rows for n in _numbers(row.get("additional_data"))}
    if sort in data and sort not in (*metrics, *extra, *settings):
        extra.append(str(sort))
    columns = ["#", "trial_id", "step", "phase", "seed", "state", *metrics, *extra, *settings, "iterations",
               "time_total_s", "model_path", "additional_data", "latency_flag", "reason"]  # fmt: skip
    table = []
    for row in rows:
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
                "#": f"{row['number']}*" if row.get("is_baseline") else str(row["number"]),
                **{c: row.get(c) for c in ("trial_id", "step", "phase", "seed", "state", "time_total_s",
                                           "model_path", "additional_data", "latency_flag", "reason")},
                "iterations": row.get("training_iteration"),
            }
        )  # fmt: skip
    if sort is not None or goals:
        key, mode = _sort_key(sort, goals, columns)
        lost = [r for r in table if not isinstance(r.get(key), (int, float))]
        kept = [r for r in table if isinstance(r.get(key), (int, float))]
        kept.sort(key=lambda r: float(str(r[key])), reverse=mode == "max")
        table = kept + lost
    return [c for c in columns if any(r[c] not in (None, "", {}) for r in table)], table


def _numbers(data: Any) -> dict[str, float]:
    """The numbers of a trial's additional data."""
    found = data.items() if isinstance(data, Mapping) else ()
    return {k: v for k, v in found if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _sort_key(sort: str | None, goals: Goals, columns: Sequence[str]) -> tuple[str, str]:
    modes = {goal["metric"]: goal["mode"] for goal in goals}
    if sort is None:
        return goals[0]["metric"], goals[0]["mode"]
    for candidate in (sort, *_ALIASES.get(sort, ())):
        if candidate in columns:
            default = "min" if "latency" in candidate or "loss" in candidate else "max"
            return candidate, modes.get(candidate, default)
    raise JobError(f"There is no column {sort!r} to sort by; there are {', '.join(columns)}.")
