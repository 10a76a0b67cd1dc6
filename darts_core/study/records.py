"""What remains of a study: one record a trial and the study's result."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.errors import TuneError

__all__ = [
    "IS_BASELINE",
    "OUTSIDE",
    "PAUSED",
    "Constraint",
    "StudyResult",
    "TrialRecord",
    "check_constrained",
    "flat_rows",
    "meets",
    "parse_constraints",
    "paused",
    "record_of",
    "setting_columns",
    "violations_of",
]


# user attributes of trial 0: that it is the user's own configuration, and what that is where it lies
# outside the space (samplers learn nothing from such a point)
IS_BASELINE, OUTSIDE = "is_baseline", "outside_the_space"
# of a trial that waits at its rung: the reason; of one that has gone on from there: nothing
PAUSED = "paused"


def paused(trial: Any) -> str:
    """Why the Optuna trial waits at its rung; empty when it does not."""
    return str(trial.user_attrs.get(PAUSED) or "")


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    `state` is complete, pruned, fail, running, paused or waiting; `value` is the (first) objective, for a
    pruned trial the last one reported; `curve` maps epochs (from 0) to the objective; `reason` says
    why the trial ended; `seconds` is the device time over all its sittings.
    """

    number: int
    state: str
    params: dict[str, Any]
    value: float | None
    values: tuple[float, ...]
    metrics: dict[str, float]
    curve: dict[int, float]
    epochs: int
    seconds: float
    reason: str
    folder: Path
    feasible: bool = True
    is_baseline: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "number": self.number,
            "state": self.state,
            "params": self.params,
            "value": self.value,
            "values": list(self.values),
            "metrics": self.metrics,
            "curve": [[epoch, value] for epoch, value in sorted(self.curve.items())],
            "epochs": self.epochs,
            "device_seconds": round(self.seconds, 3),
            "reason": self.reason,
            "feasible": self.feasible,
            "is_baseline": self.is_baseline,
        }


@dataclass(frozen=True)
class StudyResult:
    """The outcome of `run_study`.

    `best_*` belong to the best complete, feasible trial of the first objective, of equals to the best of
    the next one; `front` lists the numbers of the trials that no other feasible one beats in every
    objective. `baseline` is trial 0 where that was the user's own configuration, and `gain` the difference
    to it. `spent` and `forecast` are dictionaries with trials, epochs, device_seconds.
    """

    trials: tuple[TrialRecord, ...]
    objectives: dict[str, str]
    best_number: int
    best_value: float
    best_params: dict[str, Any]
    front: tuple[int, ...]
    spent: dict[str, Any]
    forecast: dict[str, Any]
    ended: str
    device_seconds: float = 0.0
    baseline: TrialRecord | None = None
    importance: dict[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float | None:
        """How much better the best first objective is than the baseline's; None without a baseline's."""
        if self.baseline is None or self.baseline.value is None:
            return None
        sign = 1.0 if next(iter(self.objectives.values())) == "maximize" else -1.0
        return sign * (self.best_value - self.baseline.value)

    @property
    def best(self) -> TrialRecord:
        """The best trial's record."""
        return next(record for record in self.trials if record.number == self.best_number)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `result.json`."""
        return {
            "objectives": self.objectives,
            "best": self.best_params,
            "best_value": self.best_value,
            "best_number": self.best_number,
            "baseline_number": self.baseline.number if self.baseline else None,
            "baseline_value": self.baseline.value if self.baseline else None,
            "gain": self.gain,
            "front": list(self.front),
            "trials": [record.to_dict() for record in self.trials],
            "spent": self.spent,
            "forecast": self.forecast,
            "ended": self.ended,
            "importance": self.importance,
            "device_seconds": round(self.device_seconds, 3),
        }

    def rows(self) -> list[dict[str, Any]]:
        """See `flat_rows`."""
        return flat_rows(self.trials, tuple(self.objectives))


def flat_rows(
    trials: Sequence[TrialRecord], objectives: Sequence[str], metrics: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One flat row a trial, for CSV: number, state, objectives, epochs, seconds, parameters.

    Args:
        trials: of a study.
        objectives: names of the trials' values.
        metrics: others that each row shows.
    """
    names = sorted({name for record in trials for name in record.params})
    columns = setting_columns(names, (*objectives, *metrics))
    found = []
    for record in trials:
        row: dict[str, Any] = {"number": record.number, "state": record.state}
        for index, name in enumerate(objectives):
            row[name] = record.values[index] if index < len(record.values) else None
        row |= {name: record.metrics.get(name) for name in metrics}
        row |= {"epochs": record.epochs, "device_seconds": round(record.seconds, 3)}
        row |= {columns[name]: record.params.get(name) for name in names}
        found.append({**row, "reason": record.reason})
    return found


def setting_columns(names: Iterable[str], objectives: Iterable[str]) -> dict[str, str]:
    """The column of each setting in a flat table; one called like another column is `params.NAME`, such as a
    searched number of `epochs` beside those that a trial came to.
    """
    taken = {"number", "state", "epochs", "device_seconds", "reason", *objectives}
    return {name: f"params.{name}" if name in taken else name for name in names}


def record_of(trial: Any, space: Mapping[str, Any], folder: Path) -> TrialRecord:
    """The record of an Optuna trial."""
    attrs = trial.user_attrs
    # one that waits to be tried has its settings there alone
    stored = trial.params or trial.system_attrs.get("fixed_params", {})
    params = {name: space[name].decode(v) for name, v in stored.items() if name in space}
    params = dict(attrs.get(OUTSIDE) or params)
    values = tuple(trial.values or ())
    curve = {step - 1: value for step, value in trial.intermediate_values.items()}
    waits = trial.state.name == "RUNNING" and paused(trial)
    return TrialRecord(
        number=trial.number,
        state="paused" if waits else trial.state.name.lower(),
        params=params,
        value=values[0] if values else None,
        values=values,
        metrics=dict(attrs.get("metrics", {})),
        curve=curve,
        epochs=int(attrs.get("epochs", len(curve))),
        seconds=float(attrs.get("seconds", 0.0)),
        reason=str(attrs.get("reason", "")),
        folder=folder,
        feasible=all(v <= 0 for v in violations_of(trial)),
        is_baseline=bool(attrs.get(IS_BASELINE)),
    )


Constraint = tuple[str, str, float]


def parse_constraints(given: Mapping[str, Any] | None) -> tuple[Constraint, ...]:
    """`{"latency_ms": "<= 5"}` as (metric, "<=" or ">=", bound); a bare number is an upper bound.

    Raises:
        TuneError: malformed.
    """
    if given and not isinstance(given, Mapping):
        raise TuneError(
            f"The constraints are {given!r}; give each metric with a bound, such as {{params: '<= 5e5'}}."
        )
    found = []
    for name, text in (given or {}).items():
        sign, bound = "<=", text
        if isinstance(text, str):
            sign, bound = text.strip()[:2], text.strip()[2:]
        try:
            found.append((str(name), sign, float(bound)))
        except (TypeError, ValueError, OverflowError):
            sign = ""
        # against a bound that is no finite number, each trial would fail
        if sign not in ("<=", ">=") or not math.isfinite(found[-1][2]):
            raise TuneError(f"The constraint on {name} is {text!r}; write '<= 5.0' or '>= 0.9'.")
    return tuple(found)


def meets(metrics: Mapping[str, float], constraints: Sequence[Constraint]) -> list[float]:
    """How far each constraint is violated: 0 or below is met.

    Raises:
        TuneError: a constrained metric is missing.
    """
    violations = []
    for name, sign, bound in constraints:
        if name not in metrics:
            known = ", ".join(metrics) or "none"
            raise TuneError(
                f"The constraint {name!r} is missing from the trial's metrics ({known})."
            )
        gap = metrics[name] - bound
        violations.append(gap if sign == "<=" else -gap)
    return violations


def check_constrained(metrics: Mapping[str, float], constraints: Sequence[Constraint]) -> None:
    """Refuse metrics of an ended trial that constraints cannot be judged by.

    Raises:
        TuneError: a constrained metric is missing, NaN or infinite; names it.
    """
    gaps = meets(metrics, constraints)
    for (name, _, _), gap in zip(constraints, gaps, strict=True):
        if not math.isfinite(gap):
            raise TuneError(f"The constraint {name!r} is {metrics[name]!r}, not a finite number.")


def violations_of(trial: Any) -> list[float]:
    """What `meets` said of an ended Optuna trial."""
    return list(trial.user_attrs.get("violations", [0.0]))
