"""The front of a search by trials as data: its first two objectives against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.report.front import YOURS, Axis, Front, Key, Point
from darts_core.report.metric_units import metric_label
from darts_core.report.svg import number
from darts_core.report.trials import Trial
from darts_core.study.result_table import row_names
from darts_core.study.results import Goals, Row, row_values, search_rows

__all__ = ["SEED_MARKS", "YOURS", "fresh_seeds", "search_front", "trials_front"]

# side of a gain -> its name and colour
SEED_MARKS = {"baseline": (YOURS, "baseline"), "best": ("the pick", "pruned")}
Gains = Sequence[Mapping[str, Any]]


def trials_front(trials: Sequence[Trial], goals: Sequence[tuple[str, bool]]) -> Front | None:
    """The front of a study; None without a complete trial or a second objective.

    What breaks a constraint is hollow and outside the front.

    Args:
        trials: with `values`, one an objective.
        goals: (name, is-maximised) of each objective.
    """
    points = []
    for trial in trials:
        pair = trial.values[:2]
        if trial.complete and len(pair) == 2 and pair[0] is not None and pair[1] is not None:
            points.append(
                _point(
                    f"trial {trial.number}",
                    pair[1],
                    pair[0],
                    baseline=trial.is_baseline,
                    counts=trial.feasible,
                    hollow=not trial.feasible,
                )
            )
    return _front("Objectives of every trial", goals, points, "outside the constraints")


def search_front(
    rows: Sequence[Row], goals: Goals, *, title: str = "", gains: Gains = ()
) -> Front | None:
    """The front of a job's search; None without a usable trial or a second objective.

    A trial that was stopped early is hollow, and outside the front unless none is complete. With `gains`, the
    means over the fresh seeds stand there with their spread, beside the front.
    """
    points = []
    whole = any(row["state"] == "done" and row_values(row, goals[:2]) for row in search_rows(rows))
    names = dict(zip((id(row) for row in rows), row_names(rows), strict=True))
    for row in search_rows(rows):
        values = row_values(row, goals[:2])
        if values is not None and len(values) == 2:
            points.append(
                _point(
                    f"trial {names[id(row)]}",
                    values[1],
                    values[0],
                    baseline=bool(row.get("is_baseline")),
                    counts=row["state"] == "done" or not whole,
                    hollow=row["state"] == "stopped",
                )
            )
    pairs = [(goal["metric"], goal["mode"] == "max") for goal in goals]
    seeds = _seed_points(goals, gains) if len(goals) > 1 and points else []
    return _front(title, pairs, [*points, *seeds], "stopped early")


def fresh_seeds(gains: Gains, metric: str) -> dict[str, tuple[float, float]]:
    """Mean and spread over the fresh seeds, of the pick and of the user's configuration."""
    for item in gains:
        if item["metric"] == metric and item["fresh_seeds"]:
            return {
                side: (item[side]["mean"], item[side]["std"] or 0.0)
                for side in ("baseline", "best")
            }
    return {}


def _point(
    name: str, x: float, y: float, *, baseline: bool, counts: bool = True, hollow: bool = False
) -> Point:
    return Point(
        x,
        y,
        label=YOURS if baseline else "",
        tip=f"{YOURS if baseline else name}: {number(y, 4)} at {number(x, 4)}",
        color="baseline" if baseline else "searched",
        shape="star" if baseline else "circle",
        counts=counts,
        hollow=hollow,
    )


def _seed_points(goals: Goals, gains: Gains) -> list[Point]:
    """The pick and the baseline over fresh seeds, mean and standard deviation."""
    up, across = (fresh_seeds(gains, goal["metric"]) for goal in goals[:2])
    points = []
    for side in across.keys() & up.keys():
        (x, wide), (y, tall) = across[side], up[side]
        name, color = SEED_MARKS[side]
        points.append(
            Point(
                x,
                y,
                tip=f"{name}, fresh seeds: {number(y, 4)} ± {number(tall)} at {number(x, 4)}",
                color=color,
                shape="square",
                counts=False,
                x_range=(x - wide, x + wide),
                y_range=(y - tall, y + tall),
            )
        )
    return sorted(points, key=lambda point: point.color)


def _front(
    title: str, goals: Sequence[tuple[str, bool]], points: Sequence[Point], hollow: str
) -> Front | None:
    if len(goals) < 2 or not points:
        return None
    y, x = (
        Axis(metric_label(name, "max" if up else "min"), "max" if up else "min")
        for name, up in goals[:2]
    )
    base = next((p for p in points if p.shape == "star"), None)
    keys = [Key("circle", "searched", "trial")]
    if any(point.hollow for point in points):
        keys.append(Key("circle", "searched", hollow, hollow=True))
    if base is not None:
        keys.append(Key("star", "baseline", YOURS))
    for name, color in SEED_MARKS.values():
        if any(p.shape == "square" and p.color == color for p in points):
            keys.append(Key("square", color, f"{name}, fresh seeds"))
    at = None if base is None else (base.x, base.y)
    return Front(title, x, y, tuple(points), baseline=at, keys=tuple(keys))
