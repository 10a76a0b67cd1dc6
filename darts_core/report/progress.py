"""How far a running version is: trials of a search, epochs of a stage, and about how long the rest takes."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from darts_core.errors import DartsError
from darts_core.report.read import STAGES, StageRun, read_stage
from darts_core.report.rows import finite
from darts_core.runlog import read_yaml
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version

__all__ = ["Progress", "progress"]

_PACE = 10  # the last epochs, whose time tells that of the rest


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units (None where nobody knows how many), and the seconds that the rest takes."""

    done: int
    total: int | None
    unit: str
    seconds_left: float | None = None

    @property
    def share(self) -> float | None:
        """Between 0 and 1."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def text(self) -> str:
        """`7 of 19 trials`, `epoch 3`."""
        return (
            f"{self.done} of {self.total} {self.unit}" if self.total else f"{self.done} {self.unit}"
        )


def progress(version: Version, record: Mapping[str, Any]) -> Progress | None:
    """How far a version's newest command is; None where nothing can be told."""
    if record["kind"] != SCRIPT:
        return _epochs(version.path)
    ended, total = _ended(version.path), _planned(version.path)
    done = len(ended)
    if not done and total is None:
        return None
    commands: list[Mapping[str, Any]] = list(record["commands"].values())
    command = commands[-1] if commands else {}
    # it runs since its state changed: a search that was resumed began earlier, and stood still since
    begun = finite(command.get("changed")) or finite(command.get("started"))
    left = None
    if begun and total and done <= total:
        lately = sum(when >= begun for when in ended)
        left = max(0.0, time.time() - begun) / lately * (total - done) if lately else None
    return Progress(done, total, "trials", left)


def _ended(folder: Path) -> list[float]:
    """When each trial that has ended did so."""
    found: list[float] = []
    with contextlib.suppress(OSError), os.scandir(folder / "autosearch" / "trials") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                found.append(os.stat(os.path.join(entry.path, "result.json")).st_mtime)
    return found


def _planned(folder: Path) -> int | None:
    """Trials of the plan, the user's own and the confirming runs among them."""
    with contextlib.suppress(DartsError, OSError):
        plan = read_yaml(folder / "autosearch" / "config.yaml")
        searched = _searched(plan) if isinstance(plan, Mapping) else None
        if searched is not None:
            return searched + 2 * int(plan.get("confirm_seeds") or 0)
    return None


def _searched(plan: Mapping[str, Any]) -> int | None:
    """Trials of the search at most, the user's own among them."""
    algorithm, samples = plan.get("algorithm"), plan.get("num_samples")
    if algorithm == "differentiable_search":
        return 3  # the user's own, the supernet's, and that of what it finds
    if algorithm == "elastic_search":
        options = plan.get("algorithm_options")
        points = options.get("points") if isinstance(options, Mapping) else None
        return 2 + points if isinstance(points, int) else None
    points = _points(plan)
    if algorithm == "grid_search" or not isinstance(samples, int):
        return points
    return samples + 1 if points is None else min(samples + 1, points)


def _points(plan: Mapping[str, Any]) -> int | None:
    """The points of a finite space, and the user's own where it lies outside; None for an endless one."""
    own, dimensions = plan.get("baseline"), plan.get("dimensions")
    own = own if isinstance(own, Mapping) else {}
    points, outside = 1, False
    for name, values in dimensions.items() if isinstance(dimensions, Mapping) else ():
        if isinstance(values, list):
            points *= len(values)
            outside |= name in own and own[name] not in values
            continue
        whole = values if isinstance(values, Mapping) and values.get("int") else {}
        low, high = finite(whole.get("low")), finite(whole.get("high"))
        if low is None or high is None:
            return None
        points *= int(high - low) + 1
        value = finite(own.get(name))
        outside |= value is not None and not low <= value <= high
    return points + outside if dimensions else None


def _epochs(folder: Path) -> Progress | None:
    """Epochs of the stage that was written to last; of a study its trials."""
    newest, when = None, -1.0
    for name in STAGES:
        with contextlib.suppress(OSError):
            # the epochs of a study are in the folders of its trials
            written = "trials" if name == "tune" else "metrics.jsonl"
            changed = (folder / name / written).stat().st_mtime
            if changed > when:
                newest, when = name, changed
    if newest is None:
        return None
    stage = read_stage(folder / newest)
    if newest == "tune":
        return _begun(stage)
    total = stage.setting(newest, "epochs")
    done, total = len(stage.metrics), total if isinstance(total, int) else None
    if not done and total is None:
        return None
    left = _left(stage.metrics, total) if total else None
    return Progress(done, total, f"epochs of {newest}", left)


def _begun(study: StageRun) -> Progress | None:
    """The trials that a study has begun: those that wait at a rung end together, when all are drawn."""
    done = sum(entry.name.isdigit() for entry in os.scandir(study.folder / "trials"))
    # the sweeper may have a budget of its own, which the configuration of its app does not tell
    own = (study.folder / "config.hash").is_file()
    total = study.setting("tune", "trials") if own else None
    total = total if isinstance(total, int) else None
    return Progress(done, total, "trials of tune") if done or total else None


def _left(rows: Sequence[Mapping[str, Any]], total: int) -> float | None:
    """The seconds of the other epochs at the pace of the last ones; None where the rows tell no pace.

    Not those since the command began: it may have run other stages before, or have been stopped for a night.
    """
    timed = [row for row in rows[-_PACE - 1 :] if finite(row.get("time")) is not None]
    times = [float(row["time"]) for row in timed]
    # what an epoch took itself, val with it, bounds what passed between two rows: a stop may lie there
    own = [finite(row.get("seconds")) for row in timed[1:]]
    each = [
        after - before if most is None else min(after - before, 2.0 * most)
        for (before, after), most in zip(pairwise(times), own, strict=True)
    ]
    if not each:
        each = [s for row in rows[-1:] if (s := finite(row.get("seconds"))) is not None]
    if not each or not 0 < len(rows) <= total:
        return None
    pace = max(0.0, statistics.median(each))
    # what has passed of the running epoch, as far as it is one
    begun = min(max(0.0, time.time() - times[-1]), pace) if times else 0.0
    return max(0.0, pace * (total - len(rows)) - begun)
