"""What a search ends with: the strategy's architecture, unless a guard speaks against it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from darts_core.architecture import Architecture
from darts_core.search.record import Candidate, doubts_about
from darts_core.search.state import SearchState
from darts_core.search.types import Doubt, Guard, GuardContext, GuardFinding, SearchResult

__all__ = ["outcome"]

log = logging.getLogger("darts_core")


def outcome(
    state: SearchState, guards: Sequence[Guard], context: GuardContext, steps: int
) -> SearchResult:
    """The result of a search that has ended.

    Args:
        state: of the search.
        guards: asked about the context's architecture.
        context: of the last epoch, with the architecture that the strategy ends with.
        steps: search steps taken.
    """
    final = Candidate(context.epoch, context.architecture, doubts_about(guards, context))
    for known in state.record.candidates[-1:]:
        # what stopped the search spoke against this very architecture
        if (known.epoch, known.architecture) == (final.epoch, final.architecture):
            for doubt in known.doubts:
                final.add(doubt)
    before = state.record.good() if state.stopped_by_guard else None
    chosen = before or state.record.choose(final)
    if final.doubts and not chosen.doubts and not state.stopped_by_guard:
        state.findings += [_put_aside(doubt, final.epoch, chosen.epoch) for doubt in final.doubts]
    history = state.history
    return SearchResult(
        architecture=chosen.architecture,
        history=history,
        seconds=state.seconds,
        steps=steps,
        findings=state.findings,
        val=history[-1].get(f"val_{context.bundle.task.metric.name}") if history else None,
        stopped=state.stopped,
        epoch=chosen.epoch if history else None,
        doubts=chosen.doubts,
        weights=_weights_after(state, chosen.epoch),
        earlier=_earlier(state, chosen),
    )


def _earlier(state: SearchState, chosen: Candidate) -> list[Architecture]:
    """The other architectures that no guard doubts, each once, the latest first."""
    good = [c.architecture for c in reversed(state.record.candidates) if not c.doubts]
    return [a for a in dict.fromkeys(good) if a != chosen.architecture]


def _weights_after(state: SearchState, epoch: int) -> dict[str, Any]:
    """The final mixing weights of an epoch; those of earlier ones are rounded as in the metrics."""
    if epoch + 1 != state.epoch:
        rows = [row for row in state.history if row["epoch"] == epoch]
        return dict(rows[-1]["alphas"]) if rows else {}
    return {kind: w.tolist() for kind, w in state.supernet.final_weights().items()}


def _put_aside(doubt: Doubt, epoch: int, instead: int) -> GuardFinding:
    """The finding for an ending that is not returned."""
    message = f"{doubt.message} Not returned; the architecture of epoch {instead} is."
    log.warning("guard %s at the end: %s", doubt.guard, message)
    return GuardFinding(doubt.guard, epoch, message)
