"""Finalists: the candidates among which a search chooses by training each of them briefly.

The pool holds the pick of the alphas, the picks of earlier epochs, the best of a zero-cost prior among
random architectures, of the shared weights among those that the prior likes, and neighbours of these and
of the pick. All of them are sound (no guard doubts them) and within the budget as measured. The sources
take turns until the pool is full.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from darts_core.architecture import Architecture
from darts_core.metric import worth
from darts_core.search.types import SearchResult
from darts_core.spaces import SearchSpace
from darts_core.spaces.changes import changes
from darts_core.strategies.proxies import has_relu, score
from darts_core.supernet import under_batch_statistics
from darts_core.tasks import Classification, Task

__all__ = ["PICK", "Finalist", "Limits", "Ranking", "choose_pool", "prior_of", "shared_weights_of"]

PICK = "alphas"
CLASSES = Classification()
PROXIES = ("synflow", "naswot")
# token numbers have no gradient, which synflow needs
PROXIES_OF_TOKENS = ("snip", "naswot")
log = logging.getLogger("darts_core")

_DRAWN = 16  # random architectures for each place in the pool
_LIKED = 2  # one in so many of those that a ranking saw is seen by the next
_PARENTS = 6  # whose neighbours are looked at beside the pick's
_NEAR = 64  # neighbours at most
_TRIED = 40  # draws for each of these, where few are within the budget
Ranking = Callable[[Sequence[Architecture]], list[float]]


@dataclass(frozen=True)
class Finalist:
    """A candidate.

    Attributes:
        architecture: of it.
        source: who proposed it.
        cost: as measured, in the budget's unit; None without a budget.
    """

    architecture: Architecture
    source: str
    cost: float | None = None


@dataclass(frozen=True)
class Limits:
    """What a finalist must be.

    Attributes:
        sound: whether no guard doubts an architecture.
        expected: whether it is expected to be within the budget.
        fills: whether it is expected to take most of the budget, which random ones have to where such
            are found: what a network may take and does not is given away.
        measured: its cost as measured, or None if that is above the budget; None without a budget.
        identity: equal for architectures with the same network: what a choice says of a layer that is
            not there makes no difference.
    """

    sound: Callable[[Architecture], bool]
    expected: Callable[[Architecture], bool] = lambda _: True
    fills: Callable[[Architecture], bool] = lambda _: True
    measured: Callable[[Architecture], float | None] | None = None
    identity: Callable[[Architecture], Any] = lambda architecture: architecture

    def admits(self, architecture: Architecture) -> bool:
        """Whether it may be drawn; nothing is measured yet."""
        return self.expected(architecture) and self.sound(architecture)


def choose_pool(
    found: SearchResult,
    space: SearchSpace,
    limits: Limits,
    rankings: Mapping[str, Ranking],
    *,
    count: int,
    seed: int,
) -> list[Finalist]:
    """At most `count` different finalists, the search's own pick first if it is sound.

    Args:
        found: what the search ended with, within its budget.
        space: of the architectures.
        limits: what a finalist must be.
        rankings: source -> scores of random architectures, larger being better; the first one sees all
            that are drawn, each further one the better half of the one before.
        count: finalists.
        seed: of the random architectures.
    """
    rng = np.random.default_rng(seed)
    log.info("choosing %d finalists: random architectures are drawn and ranked", count)
    drawn = list(_random(space, limits, rng, _DRAWN * count))
    sources: list[tuple[str, Iterable[Architecture]]] = [
        ("an earlier epoch", [a for a in found.earlier if limits.admits(a) and limits.fills(a)])
    ]
    ranked: list[tuple[str, list[Architecture]]] = []
    for name, ranking in rankings.items():
        log.info("ranking %d architectures by %s", len(drawn), name)
        values = [*map(worth, ranking(drawn))]
        order = [drawn[i] for i in sorted(range(len(drawn)), key=lambda i: -values[i])]
        ranked.append((name, order))
        drawn = order[: -(-len(order) // _LIKED)]
    sources += ranked
    parents = [found.architecture, *(ranked[-1][1][:_PARENTS] if ranked else [])]
    near = _neighbours(parents, found, space, limits, rng)
    log.info("ranking %d neighbours of the best", len(near))
    sources.append(("a neighbour", _by_all(near, rankings)))
    return list(itertools.islice(_admitted(found, limits, sources), count))


def _places(scores: Iterable[float]) -> NDArray[np.float64]:
    """Of each score its place from below, from 0; equal scores share their mean place."""
    from scipy.stats import rankdata

    places: NDArray[np.float64] = rankdata([*map(worth, scores)]) - 1.0
    return places


def _by_all(
    architectures: Sequence[Architecture], rankings: Mapping[str, Ranking]
) -> list[Architecture]:
    """By the sum of the places in all rankings, the best first; as they were where there is none."""
    total = np.zeros(len(architectures))
    for ranking in rankings.values():
        total += _places(ranking(architectures))
    return [architectures[i] for i in np.argsort(-total, kind="stable")]


def _random(
    space: SearchSpace, limits: Limits, rng: np.random.Generator, count: int
) -> Iterator[Architecture]:
    """Different random architectures that may be drawn; fewer where such are rare.

    Those that fill the budget come first, the others only where these are too few.
    """
    seen: set[Any] = set()
    for wanted in (limits.fills, lambda _: True):
        for _ in range(_TRIED * count):
            if len(seen) == count:
                return
            architecture = space.random(rng)
            if not (wanted(architecture) and limits.admits(architecture)):
                continue
            identity = limits.identity(architecture)
            if identity not in seen:
                seen.add(identity)
                yield architecture


def _neighbours(
    parents: Sequence[Architecture],
    found: SearchResult,
    space: SearchSpace,
    limits: Limits,
    rng: np.random.Generator,
) -> list[Architecture]:
    """Changes of a single choice of the parents: at most so many, those first that fill the budget.

    Then those that give up the least weight.
    """
    weights = {kind: np.asarray(w) for kind, w in found.weights.items()}
    if not weights:
        weights = {kind: np.ones(shape) for kind, shape in space.alpha_shapes().items()}
    moves = {move[0]: move for parent in parents for move in changes(space, parent, weights)}
    kept = [moves[key] for key in moves if key not in parents and limits.admits(key)]
    rng.shuffle(kept)  # type: ignore[arg-type]
    kept.sort(key=lambda move: (not limits.fills(move[0]), move[1]))
    return [architecture for architecture, _ in kept[:_NEAR]]


def _admitted(
    found: SearchResult, limits: Limits, sources: Sequence[tuple[str, Iterable[Architecture]]]
) -> Iterator[Finalist]:
    """The pick, then one of each source in turn, as measured."""
    seen: set[Any] = set()
    turns: list[tuple[str, Iterator[Architecture]]] = []
    if not found.doubts:
        turns.append((PICK, iter([found.architecture])))
    turns += [(name, iter(architectures)) for name, architectures in sources]
    while turns:
        for turn in list(turns):
            finalist = _next(turn, limits, seen)
            if finalist is None:
                turns.remove(turn)
            else:
                yield finalist


def _next(
    turn: tuple[str, Iterator[Architecture]], limits: Limits, seen: set[Any]
) -> Finalist | None:
    """The source's next architecture that is new and within the budget."""
    name, architectures = turn
    for architecture in architectures:
        identity = limits.identity(architecture)
        if identity in seen:
            continue
        seen.add(identity)
        if limits.measured is None:
            return Finalist(architecture, name)
        cost = limits.measured(architecture)
        if cost is not None:
            return Finalist(architecture, name, cost)
    return None


def prior_of(
    make: Callable[[Architecture], nn.Module], batch: tuple[Any, Any], task: Task = CLASSES
) -> Ranking:
    """A ranking by zero-cost proxies of untrained networks: the sum of the places in each.

    Naswot, which counts ReLUs, is left out where the networks have none.

    Source: synflow and its like as a prior, arXiv:2101.08134; a vote of several, section 4.1 there.

    Args:
        make: the plain network of an architecture, large enough for the proxies to mean something.
        batch: inputs and targets.
        task: whose loss is meant.
    """
    proxies = PROXIES if batch[0].is_floating_point() else PROXIES_OF_TOKENS

    def rank(architectures: Sequence[Architecture]) -> list[float]:
        total = np.zeros(len(architectures))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks = [make(a).to(batch[0].device) for a in architectures]
            for proxy in proxies:
                if proxy == "naswot" and not all(map(has_relu, networks)):
                    continue
                values = [score(proxy, network, *batch, task.loss) for network in networks]
                total += _places(values)
        return [float(value) for value in total]

    return rank


def shared_weights_of(
    supernet: Any, batches: Sequence[tuple[Any, Any]], task: Task = CLASSES
) -> Ranking:
    """A ranking by the supernet's metric with an architecture picked, norms on the batch's statistics.

    Args:
        supernet: as the search left it; nothing in it moves.
        batches: inputs and targets.
        task: whose metric is meant.
    """

    def right(architecture: Architecture) -> float:
        forward = under_batch_statistics(supernet, supernet.one_hot(architecture))
        scores = [task.score(forward(x), y).float() for x, y in batches]
        return task.metric.rating(float(torch.stack(scores).mean()))

    return lambda architectures: [right(architecture) for architecture in architectures]
