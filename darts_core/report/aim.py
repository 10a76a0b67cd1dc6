"""What a search aimed at, and whether it was met: on the search's page and under the headline."""

from __future__ import annotations

from collections.abc import Mapping

from darts_core.report.blocks import callout
from darts_core.report.escape import plain_text
from darts_core.report.html import Markup
from darts_core.report.read import StageRun
from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import number

__all__ = ["aim_html", "aim_searched", "aim_sentence", "aimed_batch"]

# as a search's own budget
_TOLERANCE = 1.05


def aim_html(stage: StageRun) -> Markup:
    """What the search aimed at and what its network takes; nothing where it aimed at no time."""
    aim = stage.result.get("aim")
    if not isinstance(aim, Mapping):
        return Markup()
    budget, taken = finite(aim.get("budget_ms")), finite(aim.get("found_ms"))
    share, whole = finite(aim.get("share")), finite(aim.get("latency_ms"))
    said = "No time was aimed at." if budget is None else f"Aimed at {number(budget)} ms"
    if budget is not None and share is not None and whole is not None:
        name = plain_text(str(aim.get("baseline")), limit=60)
        said += f", {number(share)}× of the {number(whole)} ms that {name} takes on this device"
    if budget is not None:
        said += "; the network found"
        said += " was not timed." if taken is None else f" takes {number(taken)} ms."
    missed = aim.get("missed")
    if missed:
        said += f" {plain_text(str(missed), limit=600)}"
    return callout(said, "ok" if aim.get("met") is True else "bad")


def aim_searched(stage: StageRun | None) -> str:
    """What the search aimed at and measured itself, where no later time counts; "" where it aimed at none."""
    aim = stage.result.get("aim") if stage is not None else None
    if not isinstance(aim, Mapping):
        return ""
    share, whole = finite(aim.get("share")), finite(aim.get("latency_ms"))
    taken = finite(aim.get("found_ms"))
    if share is None or not whole or taken is None:
        return ""
    name, ratio = plain_text(str(aim.get("baseline")), limit=60), number(taken / whole)
    return f" The search aimed at {number(share)}× of {name}'s time; its network took {ratio}×."


def aimed_batch(stage: StageRun | None) -> int | None:
    """The batch at which the search timed what it aimed at; None where it took the usual one."""
    batch = None if stage is None else finite(stage.setting("latency", "batch"))
    return None if batch is None else int(batch)


def aim_sentence(
    stage: StageRun | None, row: ModelRow, base: ModelRow | None, batch: int, where: str = ""
) -> str:
    """Whether the model `row` takes the part of its baseline's time that was aimed at; "" where none was.

    Args:
        stage: the search.
        row: the model.
        base: its baseline.
        batch: at which both are compared.
        where: names that batch, where the sentence before speaks of another.
    """
    aim = stage.result.get("aim") if stage is not None else None
    share = finite(aim.get("share")) if isinstance(aim, Mapping) else None
    if share is None or base is None:
        return ""
    taken = row.latency[batch].median_ms / base.latency[batch].median_ms
    if taken <= _TOLERANCE * share:
        return f" {number(share)}× of its time{where} was aimed at, {number(taken)}× is taken."
    return (
        f" {number(share)}× of its time{where} was aimed at and missed: {number(taken)}× is taken."
    )
