"""Guards that look at the found cells alone: skips, cells without trainable operations, near-ties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from darts_core.architecture import Architecture
from darts_core.search.types import Doubt, Guard, GuardContext, GuardFinding
from darts_core.settings import Bounds, bounded
from darts_core.spaces.confidence import NEAR_TIE, Decision, decisions
from darts_core.supernet.learns import learns

__all__ = ["NearTies", "SkipCount", "Trainable", "count_skips"]

# noise is what stands in for skips in RobustDARTS S4
_SKIPS = ("skip_connect", "noise")


class SkipCount(Guard):
    """Doubts a cell with more skips than a share of its edges; fires when that lasts.

    The first kind of cell counts: reduction cells are made of pools and skips in published networks too.

    Source: the criterion of DARTS+ (arXiv:1909.06035, section 3.3), with a budget relative to the
    number of edges instead of two skips.

    Args:
        share: largest share (0 to 1) of the kept edges that may be skips.
        patience: epochs in a row above the budget before it fires.
        after: share of the search's epochs that pass first; alphas begin at random, and with few
            operations many edges are skips by chance.
        stop: end the search when it fires and there is an architecture without doubts to go back to.

    Raises:
        ConfigError: a share is outside [0, 1] or the patience below 1.
    """

    name = "skips"

    @bounded(
        share=Bounds(low=0, high=1),
        patience=Bounds(low=1, high=1_000_000),
        after=Bounds(low=0, high=1),
    )
    def __init__(
        self, share: float = 0.5, patience: int = 3, after: float = 0.25, *, stop: bool = True
    ) -> None:
        self.share, self.patience, self.after, self.stop = share, patience, after, stop
        self.streak = 0
        self.skips: int | None = None

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """Count the skips of the architecture."""
        if not context.architecture.cells:
            return None
        skips, edges = count_skips(context.architecture)
        self.skips = skips
        budget = self._budget(edges)
        early = context.epoch < self.after * context.config.epochs
        self.streak = self.streak + 1 if skips > budget and not early else 0
        if self.streak < self.patience:
            return None
        kind = context.architecture.cells[0][0]
        return GuardFinding(
            self.name,
            context.epoch,
            f"{skips} of {edges} edges of {_named(kind)} are skips, for {self.streak} epochs; the "
            f"budget is {budget}.",
            stop=self.stop,
            value=float(skips),
        )

    def doubt(self, context: GuardContext) -> Doubt | None:
        """A cell above the budget, in any epoch."""
        if not context.architecture.cells:
            return None
        skips, edges = count_skips(context.architecture)
        budget = self._budget(edges)
        if skips <= budget:
            return None
        kind = context.architecture.cells[0][0]
        message = f"{skips} of {edges} edges of {_named(kind)} are skips; the budget is {budget}."
        return Doubt(self.name, message, (skips - budget) / edges)

    def _budget(self, edges: int) -> int:
        return int(self.share * edges)

    def measurements(self) -> dict[str, float]:
        """The number of skips."""
        return {} if self.skips is None else {"skips": float(self.skips)}

    def state_dict(self) -> dict[str, Any]:
        """The streak."""
        return {"streak": self.streak}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self.streak = state.get("streak", 0)


def _named(kind: str) -> str:
    """A cell kind in a sentence."""
    return "the cell" if kind == "cell" else f"the {kind} cell"


def count_skips(architecture: Architecture) -> tuple[int, int]:
    """(skips, edges) of the first kind of cell; `none` edges count as edges, noise as skips."""
    edges = architecture.cells[0][1].edges
    return sum(op in _SKIPS for _, _, op in edges), len(edges)


class Trainable(Guard):
    """Doubts a cell without any trainable operation on a path from its inputs to its output.

    Stacks of such a cell have their stem, their reductions and their classifier to learn with. The first
    kind of cell counts, as for `SkipCount`. An operation is trainable when it has parameters beside
    those of a norm.
    """

    name = "trainable"

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """Nothing: cells without operations come and go at the beginning of a search."""
        return None

    def doubt(self, context: GuardContext) -> Doubt | None:
        """A cell that learns nothing."""
        for kind, cell in context.architecture.cells[:1]:
            if not learns(cell):
                message = (
                    f"{_named(kind)} has no trainable operation on a path from its inputs to its "
                    "output."
                )
                return Doubt(self.name, message, 2.0)
        return None


class NearTies(Guard):
    """Doubts a cell all of whose choices are near-ties: the alphas have not decided anything.

    It rests where alpha is not searched and where a strategy decides by other means.

    Args:
        least: share (0 to 1) of the best weight by which it must lead its nearest rival.

    Raises:
        ConfigError: the share is out of range.
    """

    name = "ties"

    @bounded(least=Bounds(low=0, high=1, high_open=True))
    def __init__(self, least: float = NEAR_TIE) -> None:
        self.least = least

    def after_epoch(self, context: GuardContext) -> GuardFinding | None:
        """Nothing: every search begins with near-ties."""
        return None

    def doubt(self, context: GuardContext) -> Doubt | None:
        """A cell, or all labels of a space of choices, without a clear choice."""
        if not context.strategy.moves_alpha:
            return None
        space, weights = context.supernet.space, context.supernet.final_weights()
        if space.discretize(weights) != context.architecture:
            return None
        for kind, leads in _leads(decisions(space, weights)).items():
            if max(leads) < self.least:
                what = _named(kind) if kind else "the architecture"
                message = (
                    f"all {len(leads)} choices of {what} are near-ties: no weight leads its rival by "
                    f"{self.least:.0%}, the clearest by {max(leads):.1%}."
                )
                return Doubt(self.name, message, 1.0 - max(leads), of_search=True)
        return None


def _leads(made: list[Decision]) -> dict[str, list[float]]:
    """The confidences by cell kind; under "" those of labels."""
    leads: dict[str, list[float]] = {}
    for one in made:
        leads.setdefault(one.kind if one.edge is not None else "", []).append(one.confidence)
    return leads
