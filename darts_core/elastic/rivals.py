"""Two honest rivals of the alphas, given as much to look at: greedy descent and evolution.

Sources: NetAdapt, arXiv:1804.03230 (greedy, one step at a time, each judged); regularised evolution and OFA,
arXiv:1908.09791, section 3.4 (evolution over sub-networks under a latency).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from darts_core.elastic.alphas import fitted
from darts_core.elastic.archive import Archive, Judged
from darts_core.elastic.variables import draw

__all__ = ["evolve", "greedy"]

_CANDIDATES = 4


def greedy(archive: Archive, allowed: int) -> None:
    """From the whole network downwards, the cheapest step first, until `allowed` sub-networks were judged.

    What each option costs in loss alone is judged first (the widths at half and at least, to save judging);
    then of the few steps that look best each is judged and the best is taken.
    """
    net, cost = archive.net, archive.cost
    before = len(archive.rows)
    whole = archive(net.largest, "greedy")
    rises: dict[str, float] = {}
    for variable in net.variables:
        if len(archive.rows) - before >= allowed // 2:
            break
        row = archive({**whole.choices, variable.name: variable.options[0]}, "greedy")
        rises[variable.name] = _rise(row, whole, 1e-6) / (len(variable.options) - 1)
    usual = float(np.median(list(rises.values())))
    now = whole
    while len(archive.rows) - before < allowed:
        steps: list[tuple[float, dict[str, int]]] = []
        for variable in net.variables:
            at = variable.options.index(now.choices[variable.name])
            if at > 0:
                lower = {**now.choices, variable.name: variable.options[at - 1]}
                saved = now.predicted_ms - cost.of(lower)
                if saved > 0:
                    steps.append((rises.get(variable.name, usual) / saved, lower))
        if not steps:
            return
        steps.sort(key=lambda step: step[0])
        rows = [archive(lower, "greedy") for _, lower in steps[:_CANDIDATES]]
        base = now
        now = min(rows, key=lambda row: _rate(row, base))


def _rise(row: Judged, base: Judged, least: float = -math.inf) -> float:
    """The loss of `row` above that of `base`, at least `least`; NaN, which has no order, is above any."""
    rise = row.loss - base.loss
    return math.inf if math.isnan(rise) else max(rise, least)


def _rate(row: Judged, base: Judged) -> float:
    """Loss for each ms saved; where the loss falls, the more saved the better."""
    rise, saved = _rise(row, base), max(base.predicted_ms - row.predicted_ms, 1e-12)
    return rise / saved if rise > 0 else rise * saved


def evolve(archive: Archive, budgets_ms: Sequence[float], allowed: int, seed: int = 0) -> None:
    """Evolution for all budgets at once: `allowed` sub-networks are judged.

    A third are drawn; the others are children of two of the best known within a budget drawn for them.
    """
    net, cost = archive.net, archive.cost
    generator = np.random.default_rng([seed, 1])
    before = len(archive.rows)
    even = {v.name: np.full(len(v.options), 1.0 / len(v.options)) for v in net.variables}
    idle = 0
    while len(archive.rows) - before < allowed and idle < 50 * allowed:
        idle += 1
        budget = float(budgets_ms[int(generator.integers(len(budgets_ms)))])
        start = draw(net.variables, generator)
        if len(archive.rows) - before >= allowed // 3:
            parents = archive.best(budget, 8, by=("evolution",))
            if len(parents) >= 2:
                first, second = generator.choice(len(parents), 2, replace=False)
                start = _child(archive, parents[first], parents[second], generator)
        # a random preference, so that what breaks the budget is cut in a random place
        noise = {name: np.exp(generator.normal(size=w.shape)) * w for name, w in even.items()}
        choices = fitted(cost, noise, budget, start) if cost.of(start) > budget else start
        if choices is not None and not archive.known(choices):
            archive(choices, "evolution")
            idle = 0


def _child(
    archive: Archive, first: Judged, second: Judged, generator: np.random.Generator
) -> dict[str, int]:
    """Each value from one of two parents; every eighth, and at least one, is drawn anew."""
    names = [variable.name for variable in archive.net.variables]
    new = draw(archive.net.variables, generator)
    forced = names[generator.integers(len(names))]
    child = {}
    for name in names:
        own = first if generator.random() < 0.5 else second
        changed = name == forced or generator.random() < 0.125
        child[name] = new[name] if changed else own.choices[name]
    return child
