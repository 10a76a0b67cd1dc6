"""The pictures of a search of a user's script, as SVG: every one carries its key and its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.report.blocks import Section, callout, card, pair
from darts_core.report.html import Markup
from darts_core.report.metric_units import metric_label
from darts_core.report.slices import slices
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.timeline import timeline
from darts_core.report.trials import (
    Trial,
    best_so_far,
    importance_bars,
    parallel,
    trial_curves,
)
from darts_core.report.trials_front import search_front
from darts_core.study.result_table import row_names
from darts_core.study.results import Goals, Row, row_values, search_rows

__all__ = ["as_trials", "pictures_section"]


def as_trials(rows: Sequence[Row], goals: Goals) -> list[Trial]:
    """The trials of a search as the pictures take them; a stopped one has its last value."""
    trials = []
    names = dict(zip((row["trial_id"] for row in rows), row_names(rows), strict=True))
    several = len({row.get("step") for row in rows}) > 1
    for number, row in enumerate(search_rows(rows)):
        values = row_values(row, goals)
        # one that was stopped early has the first objective alone
        first = row_values(row, goals[:1])
        trials.append(
            Trial(
                number=number if several else int(row["number"]),
                state=str(row.get("state")),
                params=row["config"],
                value=first[0] if first else None,
                values=tuple(values or ()),
                is_baseline=bool(row.get("is_baseline")),
                label=names[row["trial_id"]],
            )
        )
    return trials


def pictures_section(
    rows: Sequence[Row],
    goals: Goals,
    found: Mapping[str, Any],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    shares: Mapping[str, float],
    pauses: Sequence[tuple[float, float]] = (),
) -> Section | None:
    """Best so far, front, every trial's curve, parallel coordinates, importance, slices, workers."""
    if not goals:
        return None
    trials = as_trials(rows, goals)
    metric, maximize = goals[0]["metric"], goals[0]["mode"] == "max"
    label = metric_label(metric, goals[0]["mode"])
    numbers = {row["trial_id"]: trial for row, trial in zip(search_rows(rows), trials, strict=True)}
    chosen, own = (
        numbers.get((found.get(side) or {}).get("trial_id", "")) for side in ("best", "baseline")
    )
    drawn_curves = {
        numbers[name].number: [(float(x), y) for x, y in points]
        for name, points in curves.items()
        if name in numbers
    }
    body = _disturbed(rows) + pair(
        card(
            best_so_far(trials, maximize=maximize, label=label, percent=False), title="Best so far"
        ),
        card(
            trial_curves(
                drawn_curves,
                chosen.number if chosen else None,
                own=own.number if own else None,
                name=chosen.name if chosen else "",
                label=label,
                percent=False,
                maximize=maximize,
                x_label="iteration",
            ),
            title="Every trial's curve",
        ),
    )
    front = search_front(
        rows, goals, title="Objectives of every trial", gains=found.get("gain", ())
    )
    if front is not None:
        body += card(front_svg(front, width=1060) + key_html([front]), title="Front")
    body += card(
        parallel(trials, maximize=maximize, label=label, percent=False),
        title="Parallel coordinates",
    )
    body += pair(
        card(importance_bars(shares), title=f"Importance for {metric.replace('_', ' ')}"),
        card(timeline(rows, pauses), title="Workers over time"),
    )
    body += pair(*(card(drawn, title=name) for name, drawn in slices(trials, label=label)))
    return Section("results", "Results", body) if body else None


def _disturbed(rows: Sequence[Row]) -> Markup:
    """The warning about timings that other work disturbed, where everybody sees it."""
    named = row_names(rows)
    flagged = [name for name, row in zip(named, rows, strict=True) if row.get("latency_flag")]
    if not flagged:
        return Markup()
    shown = ", ".join(flagged[:12]) + (" …" if len(flagged) > 12 else "")
    return callout(
        f"Other work on the machine disturbed the latency of {len(flagged)} of {len(rows)} trials ({shown}); "
        "compare it with care, or search again on a quiet machine."
    )
