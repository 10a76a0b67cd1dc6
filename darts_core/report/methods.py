"""Methods against each other over the same seeds: means, spreads, paired differences and their significance.

The elements of a multirun differ in their seed and in other overrides; what else is overridden is the method.
Differences are taken seed by seed from the first method, as both saw the same data in the same order, and
judged by Student's paired t-test (two-sided). Several methods raise the chance that one of them differs by
luck: `p` is corrected after Holm, "A simple sequentially rejective multiple test procedure", Scand. J.
Statist. 6 (1979). Needs no torch; scipy is loaded when a test is made.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from darts_core.metric import ACCURACY, Metric

__all__ = ["Method", "MethodTable", "method_table", "paired_p"]


@dataclass(frozen=True)
class Method:
    """One method's line.

    Attributes:
        name: the overrides that make it.
        values: of the metric, by seed; seeds that have none are missing.
        difference: mean over the shared seeds of its value minus the first method's; None for that one.
        error: standard error of the difference; None below two shared seeds.
        p: of the paired t-test, corrected for the number of methods; None where there is no test.
    """

    name: str
    values: Mapping[str, float]
    difference: float | None = None
    error: float | None = None
    p: float | None = None

    @property
    def mean(self) -> float | None:
        """Over its seeds."""
        return sum(self.values.values()) / len(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The sample standard deviation over its seeds; None below two."""
        return _std(list(self.values.values()))


@dataclass(frozen=True)
class MethodTable:
    """Methods by seeds, in one metric.

    Attributes:
        key: what the values are called in the files, `test_accuracy`.
        seeds: in order.
        methods: in the order in which they were swept; the first is what the others are compared with.
        metric: what the values are.
        searched: whether a value is what a search logged last, which is not that of the network it found.
    """

    key: str
    seeds: tuple[str, ...]
    methods: tuple[Method, ...]
    metric: Metric = ACCURACY
    searched: bool = False

    def columns(self) -> list[str]:
        """The heads of `rows`."""
        seeds = [f"seed {seed}" for seed in self.seeds]
        return ["method", *seeds, "n", "mean", "std", "difference", "standard error", "p"]

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """One mapping a method, for tables; values as they are."""
        found: list[dict[str, str | int | float | None]] = []
        for method in self.methods:
            row: dict[str, str | int | float | None] = {"method": method.name or "as configured"}
            row |= {f"seed {seed}": method.values.get(seed) for seed in self.seeds}
            row |= {"n": len(method.values), "mean": method.mean, "std": method.std}
            row |= {"difference": method.difference, "standard error": method.error}
            found.append({**row, "p": method.p})
        return found


def method_table(
    key: str, found: Sequence[tuple[str, str, float | None]], *, metric: Metric = ACCURACY
) -> MethodTable:
    """The table of (method, seed, value) of every element; the last one of a pair counts.

    Args:
        key: what the values are called in the files.
        found: in the order of the sweep; a value may be missing.
        metric: what the values are.
    """
    values: dict[str, dict[str, float]] = {}
    seeds: dict[str, None] = {}
    for method, seed, value in found:
        seeds[seed] = None
        own = values.setdefault(method, {})
        if value is not None:
            own[seed] = value
    names = list(values)
    lines = [Method(names[0], values[names[0]])] if names else []
    lines += [_against(values[names[0]], name, values[name]) for name in names[1:]]
    return MethodTable(key, tuple(seeds), tuple(_corrected(lines)), metric)


def paired_p(differences: Sequence[float]) -> float | None:
    """Student's two-sided p that the mean of paired differences is 0; None below two, or without spread.

    What rounding leaves of equal differences is no spread: see `_differences`.
    """
    spread = _std(differences)
    if not spread:
        return None
    from scipy.special import stdtr

    count = len(differences)
    t = sum(differences) / count / (spread / math.sqrt(count))
    return float(2 * stdtr(count - 1, -abs(t)))


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _differences(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Value less other of each pair; all their mean where they differ by rounding alone.

    0.52 - 0.50 and 0.48 - 0.46 are not the same number, and a spread of their last bits would make any
    difference significant.
    """
    found = [value - other for value, other in pairs]
    least = 1e-12 * max((abs(number) for pair in pairs for number in pair), default=0.0)
    if found and max(found) - min(found) <= least:
        return [sum(found) / len(found)] * len(found)
    return found


def _against(first: Mapping[str, float], name: str, values: Mapping[str, float]) -> Method:
    """A method's line, compared with the first one over the seeds that both have."""
    differences = _differences([(values[seed], first[seed]) for seed in values if seed in first])
    if not differences:
        return Method(name, values)
    spread = _std(differences)
    error = None if spread is None else spread / math.sqrt(len(differences))
    mean = sum(differences) / len(differences)
    return Method(name, values, mean, error, paired_p(differences))


def _corrected(methods: Sequence[Method]) -> list[Method]:
    """The methods, each p times how many tests are left when it is looked at, smallest first (Holm)."""
    tested = sorted((m.p, i) for i, m in enumerate(methods) if m.p is not None)
    found, least = list(methods), 0.0
    for place, (p, index) in enumerate(tested):
        least = max(least, min(1.0, p * (len(tested) - place)))
        old = methods[index]
        found[index] = Method(old.name, old.values, old.difference, old.error, least)
    return found
