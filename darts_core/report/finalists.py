"""The bracket of a search's finalists: who proposed each, what it costs, how far it came."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.metric import Metric
from darts_core.report.blocks import card, details, duration, records
from darts_core.report.escape import plain_text
from darts_core.report.html import Markup
from darts_core.report.read import StageRun
from darts_core.report.rows import finite
from darts_core.report.svg import number

__all__ = ["finalists_html"]


def finalists_html(stage: StageRun) -> Markup:
    """The bracket as a table, the best first; nothing where there was none."""
    told, metric = stage.result.get("finalists"), stage.metric
    bracket = told.get("bracket") if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or not isinstance(bracket, Sequence) or not bracket:
        return Markup()
    rungs = [str(rung) for rung in told.get("rungs") or ()]
    places = [(place, row) for place, row in enumerate(bracket) if isinstance(row, Mapping)]
    places.sort(key=lambda item: (item[0] != told.get("winner"), *_far(item[1], rungs, metric)))
    spent = stage.result.get("cost")
    unit = plain_text(spent.get("unit") or "") if isinstance(spent, Mapping) else ""
    cost = f"expected cost, {unit}" if unit else "expected cost"
    table = records([_shown(place + 1, row, rungs, metric, cost) for place, row in places])
    texts = [{"no.": place + 1, "architecture": row.get("architecture")} for place, row in places]
    title = f"{len(places)} finalists, halved on val; the first was chosen"
    seeds, seconds = finite(told.get("seeds")), finite(told.get("device_seconds"))
    if seeds is not None and seconds is not None:
        each = f"mean of {number(seeds)} trainings each, " if seeds > 1 else ""
        title += f" ({each}{duration(seconds)} in all)"
    ties = Markup()
    if any("val_loss" in row for _, row in places):
        # else a chosen one stands without a word above another of a higher metric
        ties = Markup(
            '<p class="note">Within the standard error of the best, the loss decides.</p>'
        )
    return card(ties + table + details("Their architectures", records(texts)), title=title)


def _far(row: Mapping[str, Any], rungs: Sequence[str], metric: Metric) -> list[float]:
    """For sorting: what was reached at the rungs, the last one first."""
    reached = row.get(f"val_{metric.name}")
    known = reached if isinstance(reached, Mapping) else {}
    values = [finite(known.get(rung)) for rung in reversed(rungs)]
    return [math.inf if value is None else -metric.rating(value) for value in values]


def _shown(
    place: int, row: Mapping[str, Any], rungs: Sequence[str], metric: Metric, heading: str
) -> dict[str, Any]:
    reached = row.get(f"val_{metric.name}")
    known = reached if isinstance(reached, Mapping) else {}
    shown: dict[str, Any] = {"no.": place, "proposed by": row.get("source")}
    cost = finite(row.get("cost"))
    if cost is not None:
        shown[heading] = number(cost, 3)
    for rung in rungs:
        value = finite(known.get(rung))
        shown[f"val after {rung}"] = "" if value is None else metric.text(value)
    losses = row.get("val_loss")
    if rungs and isinstance(losses, Mapping):
        loss = finite(losses.get(rungs[-1]))
        shown[f"loss after {rungs[-1]}"] = "" if loss is None else number(loss, 3)
    return shown
