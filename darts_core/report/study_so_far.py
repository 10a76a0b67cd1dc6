"""A study that has not ended yet, from its trials' own folders: its result comes with its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.report.read import StageRun, mapping_at
from darts_core.report.rows import finite
from darts_core.study.records import Constraint, meets

__all__ = ["study_so_far"]


def study_so_far(stage: StageRun) -> Mapping[str, Any]:
    """What is known of a study: its result, else the `objectives` and `trials` that there are by now.

    A trial without a result is called unfinished: whether it runs, waits, or was left by a kill, its folder
    does not tell.
    """
    if "trials" in stage.result:
        return stage.result
    folders = stage.folder / "trials"
    names = sorted(path.name for path in folders.iterdir()) if folders.is_dir() else []
    about = mapping_at(stage.folder / "study.json", [])
    given, bounds = about.get("objectives"), _bounds(about.get("constraints"))
    trials = [_trial(folders / name, bounds) for name in names if name.isdigit()]
    # [[name, direction], ...]
    pairs = given if isinstance(given, list) else []
    goals = {str(p[0]): str(p[1]) for p in pairs if isinstance(p, list) and len(p) == 2}
    found = {"trials": [trial for trial in trials if trial], "objectives": goals}
    return {**stage.result, **{name: value for name, value in found.items() if value}}


def _bounds(given: Any) -> list[Constraint]:
    """The constraints of a study: metric, sign and bound of each."""
    rows = [row for row in given if isinstance(row, list)] if isinstance(given, list) else []
    return [
        (str(row[0]), str(row[1]), bound)
        for row in rows
        if len(row) == 3 and (bound := finite(row[2])) is not None
    ]


def _feasible(metrics: Any, bounds: Sequence[Constraint]) -> bool:
    """Whether an ended trial keeps the constraints; one that they cannot be judged by does not."""
    found = metrics if isinstance(metrics, Mapping) else {}
    return all(
        (value := finite(found.get(bound[0]))) is not None
        and meets({bound[0]: value}, [bound])[0] <= 0
        for bound in bounds
    )


def _trial(folder: Path, bounds: Sequence[Constraint]) -> dict[str, Any]:
    """One trial as a study's result lists it; empty where its settings are not written yet."""
    settings = mapping_at(folder / "config.yaml", [])
    if not isinstance(settings.get("params"), dict):
        return {}
    ended = mapping_at(folder / "result.json", [])
    values = ended.get("values")
    values = values if isinstance(values, list) else []
    return {
        "number": int(folder.name),
        "params": settings["params"],
        "state": str(ended.get("state") or "unfinished"),
        "value": finite(values[0]) if values else None,
        "values": values,
        "feasible": ended.get("state") != "complete" or _feasible(ended.get("metrics"), bounds),
    }
