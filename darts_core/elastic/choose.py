"""A sub-network for every budget: three searches over as many looks each, and the best on val wins."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from darts_core.elastic.alphas import descend, fitted
from darts_core.elastic.archive import Archive, Judged
from darts_core.elastic.rivals import evolve, greedy
from darts_core.errors import LatencyError
from darts_core.metric import worth

__all__ = ["SEARCHES", "Chosen", "budgets_of", "choose"]

log = logging.getLogger("darts_core")
SEARCHES = ("alphas", "greedy", "evolution")
_FINALISTS = 3
# a step of the alphas runs the whole network forwards and backwards: three looks at as many examples
_PASSES = 3
Batches = Sequence[tuple[Tensor, Any]]


@dataclass
class Chosen:
    """The sub-networks chosen for the budgets.

    Attributes:
        rows: one a budget.
        metrics: of these on all of val, as the rating that selects gives it.
        budgets_ms: what was asked for.
        found_by: search -> how many budgets it won.
        seconds: search -> time spent, before an interruption and since.
        judged: how many sub-networks were judged.
        best_by: search -> its own best loss for each budget; None where it found none.
    """

    rows: list[Judged] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    budgets_ms: list[float] = field(default_factory=list)
    found_by: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    judged: int = 0
    best_by: dict[str, list[float | None]] = field(default_factory=dict)


def budgets_of(
    smallest_ms: float, largest_ms: float, wanted: Sequence[str], count: int
) -> list[float]:
    """Budgets in ms, the largest first.

    Args:
        smallest_ms: of the smallest sub-network.
        largest_ms: of the whole network.
        wanted: "50%" of the whole network, or milliseconds as "2.5" or "2.5ms"; none spreads `count`
            budgets evenly on a logarithmic scale between both ends.
        count: see `wanted`.

    Raises:
        LatencyError: a budget is not understood, or below the smallest sub-network.
    """
    if not wanted:
        return [float(b) for b in np.geomspace(largest_ms, smallest_ms * 1.02, count)]
    found = []
    for text in wanted:
        plain = str(text).strip().lower()
        try:
            value = (
                float(plain[:-1]) / 100.0 * largest_ms
                if plain.endswith("%")
                else float(plain.removesuffix("ms"))
            )
        except ValueError:
            value = float("nan")
        if not 0.0 < value < math.inf:
            raise LatencyError(
                f"The budget {text!r} is not understood; write 50% of the whole network's latency, or "
                "milliseconds as 2.5ms."
            )
        if value < smallest_ms:
            raise LatencyError(
                f"The budget {text} ({value:.3f} ms) is below the smallest sub-network, which takes "
                f"{smallest_ms:.3f} ms of the whole network's {largest_ms:.3f} ms; ask for more, or allow "
                "smaller widths (`least`)."
            )
        found.append(value)
    return sorted(found, reverse=True)


def choose(
    archive: Archive,
    budgets_ms: Sequence[float],
    batches: Batches,
    loss_of: Callable[[Tensor, Any], Tensor],
    final: Callable[[Any], float],
    *,
    looks: int,
    examples: int,
    seed: int = 0,
    kept: Mapping[str, Any] | None = None,
    keep: Callable[[dict[str, Any]], None] | None = None,
    spent: Mapping[str, float] | None = None,
    note: Callable[[dict[str, float]], None] | None = None,
) -> Chosen:
    """Search for every budget in three ways, and choose.

    Args:
        archive: judges sub-networks on a part of val.
        budgets_ms: within the network's reach.
        batches: of the alphas, from that same part of val.
        loss_of: the task's loss.
        final: the rating of a plain network, not yet recalibrated, on all of val; more is better.
        looks: sub-networks that each rival judges; the alphas' steps cost as much.
        examples: that a look takes through a network.
        seed: of the draws.
        kept: probabilities of alphas that an interrupted search found: str(budget's place) -> variable ->
            probabilities.
        keep: called with all of these so far whenever one is ready.
        spent: search -> seconds that it took before an interruption.
        note: called with these and what was added when a search ends, or is interrupted.
    """
    found = Chosen(budgets_ms=list(budgets_ms), seconds=dict(spent or {}))
    searches: dict[str, Callable[[], None]] = {
        "greedy": lambda: greedy(archive, looks),
        "evolution": lambda: evolve(archive, budgets_ms, looks, seed),
        "alphas": lambda: _alphas(archive, budgets_ms, batches, loss_of, looks, examples, seed,
                                  dict(kept or {}), keep),
    }  # fmt: skip
    for name, search in searches.items():
        with _counted(found.seconds, name, note):
            search()
        log.info(
            "%s: %d sub-networks judged in all, %.1f s",
            name,
            len(archive.rows),
            found.seconds[name],
        )
    found.judged = len(archive.rows)
    found.found_by = dict.fromkeys(SEARCHES, 0)
    for name in SEARCHES:
        best = [archive.best(budget, 1, by=(name,)) for budget in budgets_ms]
        found.best_by[name] = [rows[0].loss if rows else None for rows in best]
    ratings: dict[tuple[int, ...], float] = {}
    for budget in budgets_ms:
        rated = []
        for row in archive.best(budget, _FINALISTS):
            key = tuple(row.choices.values())
            if key not in ratings:
                ratings[key] = final(archive.net.cut(row.choices))
            rated.append((ratings[key], -row.loss, row))
        rating, _, row = max(rated, key=lambda item: (worth(item[0]), item[1]))
        found.rows.append(row)
        found.metrics.append(rating)
        found.found_by[row.by] += 1
    return found


@contextmanager
def _counted(
    seconds: dict[str, float], name: str, note: Callable[[dict[str, float]], None] | None
) -> Iterator[None]:
    """A block whose time is added to that of `name`; also where it is interrupted."""
    started = time.perf_counter()
    try:
        yield
    finally:
        took = time.perf_counter() - started
        seconds[name] = round(seconds.get(name, 0.0) + took, 3)
        if note is not None:
            note(seconds)


def _alphas(
    archive: Archive,
    budgets_ms: Sequence[float],
    batches: Batches,
    loss_of: Callable[[Tensor, Any], Tensor],
    looks: int,
    examples: int,
    seed: int,
    kept: dict[str, Any],
    keep: Callable[[dict[str, Any]], None] | None,
) -> None:
    size = len(batches[0][0])
    each = 3  # sub-networks judged a budget: the likeliest one and two drawn
    left = max(looks - each * len(budgets_ms), 0) * examples
    steps = max(10, left // (_PASSES * size * len(budgets_ms)))
    for place, budget in enumerate(budgets_ms):
        if str(place) not in kept:
            weights = descend(
                archive.net, archive.cost, batches, loss_of, budget, steps=steps, seed=seed + place
            )
            kept[str(place)] = {name: w.tolist() for name, w in weights.items()}
            if keep is not None:
                keep(kept)
        weights = {name: np.asarray(w) for name, w in kept[str(place)].items()}
        generator = np.random.default_rng([seed, 2, place])
        starts: list[dict[str, int] | None] = [None]
        for _ in range(each - 1):
            starts.append(
                {
                    v.name: int(generator.choice(v.options, p=_sum_to_one(weights[v.name])))
                    for v in archive.net.variables
                }
            )
        for start in starts:
            choices = fitted(archive.cost, weights, budget, start)
            if choices is not None:
                archive(choices, "alphas")


def _sum_to_one(weights: np.ndarray) -> np.ndarray:
    return np.asarray(weights / weights.sum())
