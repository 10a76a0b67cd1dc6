"""The end of a search under a budget: the network that is returned meets it as measured."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError
from darts_core.latency.networks import NetworkTimer
from darts_core.latency.within import Settled, within_budget
from darts_core.runlog import read_mapping, write_json
from darts_core.search import Doubt, SearchResult
from darts_core.spaces import SearchSpace
from darts_core.stages.timing import Stopwatch

__all__ = ["price_winner", "settle", "settled_once", "timed"]

log = logging.getLogger("darts_core")
_LOADINGS = 2


def settle(
    found: SearchResult,
    space: SearchSpace,
    penalties: Sequence[nn.Module],
    timer: NetworkTimer | None,
    judge: Callable[[Architecture], list[Doubt]],
) -> tuple[SearchResult, dict[str, Any]]:
    """`found` with an architecture within the budget, and the facts for `result.json`.

    Without a budget both are as they were: the facts state the expected cost alone, or nothing.

    Args:
        found: what the search ended with.
        space: of its architecture.
        penalties: those of the search.
        timer: of the networks' latency; None where the cost is a count, which is exact.
        judge: what the guards say of an architecture; a change adds no doubt.

    Raises:
        LatencyError: no network within 1.05 times a firm budget was found; states the fastest.
    """
    if not penalties:
        return found, {}
    penalty: Any = penalties[-1]
    cost, budget = penalty.cost, getattr(penalty, "budget", None)
    facts: dict[str, Any] = {
        "unit": cost.unit,
        "found": cost.of(found.architecture),
        "budget": budget,
    }
    log.info("expected cost of the network found: %.3f %s", facts["found"], cost.unit)
    if budget is None:
        return found, {"cost": facts}
    allowed = {doubt.guard for doubt in found.doubts}
    take = cost.of if timer is None else timed(timer)
    try:
        settled = within_budget(
            found.architecture,
            {kind: np.asarray(w) for kind, w in found.weights.items()},
            space,
            cost,
            budget,
            take,
            lambda architecture: {doubt.guard for doubt in judge(architecture)} <= allowed,
        )
    except LatencyError as error:
        if penalty.firm:
            raise
        log.warning("what the search aims at is missed; its pick stays. %s", error)
        missed = {"name": "budget", "message": f"Its pick stays although it is missed. {error}"}
        return found, {
            "cost": {**facts, "measured": take(found.architecture)},
            "warnings": [missed],
        }
    facts |= {
        "found": cost.of(settled.architecture),
        "measured": settled.measured,
        "pick": found.architecture.text(),
        "steps": settled.steps,
        "disturbed": timer.disturbed if timer is not None else 0,
    }
    warnings = _warnings(facts, settled, found.architecture, timed=timer is not None)
    found = _with(found, settled.architecture, judge)
    return found, {"cost": facts, "warnings": warnings}


def settled_once(
    path: Path,
    found: SearchResult,
    judge: Callable[[Architecture], list[Doubt]],
    measure: Callable[[], tuple[SearchResult, dict[str, Any]]],
    clock: Callable[[], AbstractContextManager[Stopwatch]],
) -> tuple[SearchResult, dict[str, Any]]:
    """What `measure` settles, its seconds added, kept in `path` where there was a budget to be met.

    A search that is called again goes on with the network beside which its finalists were chosen: times
    differ from one sitting to the next, and so might the network that they settle for.

    Args:
        path: the file.
        found: what the search ended with.
        judge: what the guards say of an architecture.
        measure: calls `settle`.
        clock: times it.
    """
    known = read_mapping(path) if path.is_file() else {}
    if known.get("of") == found.architecture.to_dict():
        pick = _with(found, Architecture.from_dict(known["architecture"], source=str(path)), judge)
        return replace(pick, seconds=pick.seconds + float(known["seconds"])), dict(known["facts"])
    with clock() as watch:
        pick, facts = measure()
    if facts.get("cost", {}).get("budget") is not None:
        content = {
            "schema_version": 1,
            "of": found.architecture.to_dict(),
            "architecture": pick.architecture.to_dict(),
            "seconds": watch.seconds,
            "facts": facts,
        }
        write_json(path, content)
    return replace(pick, seconds=pick.seconds + watch.seconds), facts


def _with(
    found: SearchResult, architecture: Architecture, judge: Callable[[Architecture], list[Doubt]]
) -> SearchResult:
    """`found` with another architecture, and what is doubted of that."""
    if architecture == found.architecture:
        return found
    doubts = judge(architecture)
    told = {doubt.guard for doubt in doubts}
    doubts += [d for d in found.doubts if d.of_search and d.guard not in told]
    return replace(found, architecture=architecture, doubts=doubts)


def price_winner(
    costed: dict[str, Any],
    pick: SearchResult,
    found: SearchResult,
    penalties: Sequence[nn.Module],
    chosen: Mapping[str, Any],
) -> dict[str, Any]:
    """`costed` with the cost of the finalist that won, where it is not the pick that was settled.

    Args:
        costed: facts of `settle` about `pick`.
        pick: what was settled.
        found: what is returned.
        penalties: those of the search.
        chosen: facts about the finalists.
    """
    if "cost" not in costed or found.architecture == pick.architecture:
        return costed
    penalty: Any = penalties[-1]
    finalists = chosen["finalists"]
    facts = {**costed["cost"], "found": penalty.cost.of(found.architecture)}
    if facts["budget"] is not None:
        facts["measured"] = finalists["bracket"][finalists["winner"]]["cost"]
    return {**costed, "cost": facts}


def timed(timer: NetworkTimer) -> Callable[[Architecture], float]:
    """The mean over loadings: where a network's memory lies is part of its time."""
    return lambda architecture: statistics.mean(
        timer(architecture).median_ms for _ in range(_LOADINGS)
    )


def _warnings(
    facts: Mapping[str, Any], settled: Settled, pick: Architecture, *, timed: bool
) -> list[dict[str, str]]:
    how = "measured at" if timed else "costs"
    messages = []
    if settled.architecture != pick:
        first = settled.steps[0]["measured"]
        messages.append(
            f"the strongest operations missed the budget of {facts['budget']:g} {facts['unit']} "
            f"({how} {first:.3g}); the nearest network that meets it takes their place ({how} "
            f"{settled.measured:.3g})"
        )
    if facts["disturbed"]:
        messages.append(
            f"{facts['disturbed']} networks were timed beside other work; their times are less sure"
        )
    for message in messages:
        log.warning(message)
    return [{"name": "budget", "message": f"{message}."} for message in messages]
