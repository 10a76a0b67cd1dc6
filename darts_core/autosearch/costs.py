"""What trials cost: the account of a plan over its steps, and a trial's time over all its attempts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.errors import ResumeError
from darts_core.runlog import read_json

__all__ = ["Account", "attempt", "earlier", "seconds_of", "set_aside"]


@dataclass
class Account:
    """What the search has cost, in seconds and in trainings (trial 0's time); `spent_before` is the part of
    the steps that have ended.
    """

    unit_seconds: float | None = None
    spent_seconds: float = 0.0
    spent_before: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    def trainings(self, running_seconds: float = 0.0) -> float | None:
        """The cost so far as a multiple of trial 0's training; None before it has finished."""
        if not self.unit_seconds:
            return None
        return (self.spent_seconds + running_seconds) / self.unit_seconds


def attempt(folder: Path) -> int:
    """How many times this trial has been started, this time included."""
    if not (folder / "trial.json").exists():
        return 1
    try:
        return int(read_json(folder / "trial.json").get("attempt", 0)) + 1
    except (ResumeError, ValueError, TypeError, AttributeError):
        return 2


def set_aside(folder: Path) -> None:
    """Keep the result of an earlier attempt under a number: its time was spent too."""
    result = folder / "result.json"
    if result.exists():
        result.rename(folder / f"result.{len(list(folder.glob('result.*.json'))) + 1}.json")


def earlier(folder: Path) -> dict[str, float]:
    """What the earlier attempts of a trial took."""
    spent = {"earlier_seconds": 0.0, "earlier_cpu_seconds": 0.0}
    for path in folder.glob("result.*.json"):
        with contextlib.suppress(ResumeError, ValueError, TypeError, AttributeError):
            row = read_json(path)
            spent["earlier_seconds"] += float(row.get("time_total_s") or 0.0)
            spent["earlier_cpu_seconds"] += float(row.get("cpu_seconds") or 0.0)
    return spent


def seconds_of(row: Mapping[str, Any]) -> float:
    """All the time a trial took, with attempts that failed or were cut off."""
    return float(row.get("time_total_s") or 0.0) + float(row.get("earlier_seconds") or 0.0)
