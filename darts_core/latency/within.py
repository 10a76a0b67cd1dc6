"""A network within a budget as measured: the pick of the weights, changed where that costs them least.

What the supernet's mixture is expected to take says little about its strongest operations, and what
these are expected to take is a prediction. So the pick is measured; while it is too slow, single choices
are changed, cheapest in weight for the time they are expected to save, until the prediction, corrected by
what was measured before, meets the budget; and the result is measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError
from darts_core.spaces import SearchSpace
from darts_core.spaces.changes import changes

__all__ = ["TOLERANCE", "Cost", "Settled", "fastest", "meets", "within_budget"]

TOLERANCE = 1.05
"""A network counts as within the budget up to so many times of it."""
_ROUNDING = 1e-6
_MOST = 12
_STARTS = 8
Sound = Callable[[Architecture], bool]


class Cost(Protocol):
    """What a cost model is asked here."""

    unit: str

    def of(self, architecture: Architecture) -> float:
        """The expected cost of an architecture."""
        ...


@dataclass
class Settled:
    """The outcome.

    Attributes:
        architecture: within the budget.
        measured: what it takes.
        steps: what was measured, in order: {"architecture", "expected", "measured"}.
    """

    architecture: Architecture
    measured: float
    steps: list[dict[str, Any]] = field(default_factory=list)


def meets(taken: float, budget: float) -> bool:
    """Whether a cost is within the budget, up to the rounding of costs that models keep in fp32."""
    return taken <= budget * (1 + _ROUNDING)


def within_budget(
    start: Architecture,
    weights: Mapping[str, Any],
    space: SearchSpace,
    cost: Cost,
    budget: float,
    measure: Callable[[Architecture], float],
    sound: Sound = lambda _: True,
) -> Settled:
    """`start` if it meets the budget, else the nearest in weight that does.

    Args:
        start: the search's pick.
        weights: mixing weights [E, K] by cell kind, [1, K] by label.
        space: of the architectures.
        cost: what a network is expected to take, in the budget's unit.
        budget: the most that a network may take.
        measure: what a network does take.
        sound: whether an architecture may be returned at all.

    Raises:
        LatencyError: states the fastest network that was found.
    """
    known = _Known(cost, measure)
    target, found = budget, start
    while len(known.steps) < _MOST:
        taken = known.taken(found)
        if meets(taken, budget):
            return Settled(found, taken, known.steps)
        # the next one must be expected to save what this one is over, and a little more each time; what is
        # counted takes what is expected
        expected = cost.of(found)
        target = min(target, expected * budget / taken) * (1.0 if taken == expected else 0.98)
        cheaper = _cheaper(start, weights, space, cost, target, sound)
        if cheaper is None or cheaper in known:
            break
        found = cheaper
    least = fastest(space, cost, sound, start)
    known.taken(least)
    best = known.nearest(budget, start, weights, space)
    if best is None:
        quickest, taken = known.quickest()
        raise LatencyError(
            f"No network within {TOLERANCE:g} times the budget of {budget:g} {cost.unit} was found; the "
            f"fastest that could be found takes {taken:.3g} {cost.unit}: {quickest.text()}. Raise the "
            "budget, or lower search.channels or search.layers."
        )
    return Settled(best, known.taken(best), known.steps)


class _Known:
    """What was measured so far."""

    def __init__(self, cost: Cost, measure: Callable[[Architecture], float]) -> None:
        self._cost, self._measure = cost, measure
        self._taken: dict[Architecture, float] = {}
        self.steps: list[dict[str, Any]] = []

    def __contains__(self, architecture: Architecture) -> bool:
        return architecture in self._taken

    def taken(self, architecture: Architecture) -> float:
        """What it takes, measured once."""
        if architecture not in self._taken:
            self._taken[architecture] = self._measure(architecture)
            self.steps.append(
                {
                    "architecture": architecture.text(),
                    "expected": self._cost.of(architecture),
                    "measured": self._taken[architecture],
                }
            )
        return self._taken[architecture]

    def quickest(self) -> tuple[Architecture, float]:
        """The fastest one."""
        return min(self._taken.items(), key=lambda item: item[1])

    def nearest(
        self, budget: float, start: Architecture, weights: Mapping[str, Any], space: SearchSpace
    ) -> Architecture | None:
        """Of those within the tolerance the one that gives up the least weight."""
        fitting = [a for a, taken in self._taken.items() if taken <= TOLERANCE * budget]
        return max(fitting, key=lambda a: _weight(space, a, weights), default=None)


def _weight(space: SearchSpace, architecture: Architecture, weights: Mapping[str, Any]) -> float:
    """The log of the product of the chosen weights, up to a constant."""
    if architecture.choices:
        pairs = [
            (np.asarray(weights[label])[0], options.index(architecture.choice(label)))
            for label, options in getattr(space, "choices", ())
        ]
        return float(sum(np.log(max(row[at], 1e-12)) for row, at in pairs))
    return float(
        sum(
            np.log(max(np.asarray(weights[kind])[space.edges.index((s, t)), space.ops.index(op)], 1e-12))
            for kind, cell in architecture.cells
            for s, t, op in cell.edges
        )
    )  # fmt: skip


def _cheaper(
    start: Architecture,
    weights: Mapping[str, Any],
    space: SearchSpace,
    cost: Cost,
    target: float,
    sound: Sound,
) -> Architecture | None:
    """`start` with the changes that lose the least weight for what they save, down to `target`.

    None where no change of a single choice saves any more before that.
    """
    found, now = start, cost.of(start)
    while not meets(now, target):
        moves = [
            (max(loss, 0.0) / (now - after), after, other)
            for other, loss in changes(space, found, weights)
            if _less(after := cost.of(other), now) and sound(other)
        ]
        if not moves:
            return None
        _, now, found = min(moves, key=lambda move: move[:2])
    # what was given up on the way may fit again
    while True:
        gains = [
            (loss, other)
            for other, loss in changes(space, found, weights)
            if loss < -1e-9 and meets(cost.of(other), target) and sound(other)
        ]
        if not gains:
            return found
        found = min(gains, key=lambda gain: gain[0])[1]


def fastest(
    space: SearchSpace,
    cost: Cost,
    sound: Sound = lambda _: True,
    start: Architecture | None = None,
) -> Architecture:
    """An architecture that no change of a single choice makes cheaper, the best of several starts."""
    rng = np.random.default_rng(0)
    starts = [] if start is None else [start]
    starts += [space.random(rng) for _ in range(_STARTS)]
    starts = [a for a in starts if sound(a)] or starts[:1]
    return min((_descend(a, space, cost, sound) for a in starts), key=cost.of)


def _less(after: float, now: float) -> bool:
    # by more than rounding, also where a fit expects less than nothing: equal costs would go round for ever
    return now - after > 1e-9 * abs(now)


def _descend(
    architecture: Architecture, space: SearchSpace, cost: Cost, sound: Sound
) -> Architecture:
    any_weights = {kind: np.ones(shape) for kind, shape in space.alpha_shapes().items()}
    found, now = architecture, cost.of(architecture)
    while True:
        options = [
            (after, other)
            for other, _ in changes(space, found, any_weights)
            if _less(after := cost.of(other), now) and sound(other)
        ]
        if not options:
            return found
        now, found = min(options, key=lambda option: option[0])
