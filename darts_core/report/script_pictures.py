"""The pictures of a search of a user's script, as SVG: every one carries its key and its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.report.blocks import Section, card, legend, pair
from darts_core.report.html import Markup
from darts_core.report.slices import slices
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.timeline import TRIAL_KEY, timeline
from darts_core.report.trials import (
    Trial,
    best_so_far,
    importance_bars,
    parallel,
    trial_curves,
)
from darts_core.report.trials_front import search_front
from darts_core.study.results import Goals, Row, row_values, search_rows

__all__ = ["as_trials", "pictures_section"]


def as_trials(rows: Sequence[Row], goals: Goals) -> list[Trial]:
    """The trials of a search as the pictures take them; a stopped one has its last value."""
    trials = []
    for number, row in enumerate(search_rows(rows)):
        values = row_values(row, goals)
        trials.append(
            Trial(
                number=number if len({r.get("step") for r in rows}) > 1 else int(row["number"]),
                state=str(row.get("state")),
                params=row["config"],
                value=values[0] if values else None,
                values=tuple(values or ()),
                is_baseline=bool(row.get("is_baseline")),
            )
        )
    return trials


def pictures_section(
    rows: Sequence[Row],
    goals: Goals,
    found: Mapping[str, Any],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    shares: Mapping[str, float],
) -> Section | None:
    """Best so far, front, every trial's curve, parallel coordinates, importance, slices, workers."""
    if not goals:
        return None
    trials = as_trials(rows, goals)
    metric, maximize = goals[0]["metric"], goals[0]["mode"] == "max"
    label = f"{metric.replace('_', ' ')} ({'higher' if maximize else 'lower'} is better)"
    best = found.get("best") or {}
    numbers = {row["trial_id"]: trial for row, trial in zip(search_rows(rows), trials, strict=True)}
    chosen = numbers.get(best.get("trial_id"))
    drawn_curves = {
        numbers[name].number: [(float(x), y) for x, y in points]
        for name, points in curves.items()
        if name in numbers
    }
    own, others = ("baseline", "your configuration"), ("none", "a trial")
    so_far = best_so_far(trials, maximize=maximize, label=label, percent=False)
    so_far += legend(("searched", "best so far"), own, others, ("pool", "stopped early"))
    pick = chosen.number if chosen else None
    lines = trial_curves(drawn_curves, pick, label=label, percent=False, unit="iteration")
    lines += legend(("searched", "the best trial"), others) if lines else ""
    body = pair(card(so_far, title="Best so far"), card(lines, title="Every trial's curve"))
    front = search_front(
        rows, goals, title="Objectives of every trial", gains=found.get("gain", ())
    )
    if front is not None:
        body += card(front_svg(front, width=1060) + key_html([front]), title="Front")
    beside = parallel(trials, maximize=maximize, label=label, percent=False)
    beside += (
        legend(("pruned", "the best trial"), ("searched", "a trial, stronger the better"))
        if beside
        else ""
    )
    body += card(beside, title="Parallel coordinates")
    body += pair(
        card(importance_bars(shares), title=f"Importance for {metric.replace('_', ' ')}"),
        card(_workers(rows), title="Workers over time"),
    )
    body += _slices(trials, label)
    return Section("results", "Results", body) if body else None


def _workers(rows: Sequence[Row]) -> Markup:
    drawn = timeline(rows)
    return drawn + legend(*TRIAL_KEY) if drawn else drawn


def _slices(trials: Sequence[Trial], label: str) -> Markup:
    drawn = slices(trials, label=label)
    key = legend(("searched", "a trial"), ("baseline", "your configuration"))
    return pair(*(card(picture + key, title=name) for name, picture in drawn))
