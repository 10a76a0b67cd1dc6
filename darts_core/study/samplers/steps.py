"""What the samplers share: a uniform point, a step of a given size, and the draws before they know enough."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial

__all__ = ["Near", "UniformStart", "alike", "step", "uniform"]

Near = dict[str, tuple[tuple[int, ...], ...]]


def _span(d: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """The bounds on the scale on which the setting is even."""
    return _scaled(d, d.low), _scaled(d, d.high)


def _scaled(d: FloatDistribution | IntDistribution, value: float) -> float:
    """A value on that scale."""
    return math.log(value) if d.log else float(value)


def _tick(d: FloatDistribution | IntDistribution) -> float | None:
    """How far the values of a setting with steps lie apart; None without steps, and for all whole numbers."""
    if isinstance(d, FloatDistribution):
        return d.step
    return float(d.step) if d.step > 1 else None


def _back(d: FloatDistribution | IntDistribution, position: float) -> float | int:
    value = math.exp(position) if d.log else position
    value = min(max(value, d.low), d.high)
    tick = _tick(d)
    if tick is not None:
        # Optuna takes whatever a sampler draws: a value between two steps would be run
        value = min(d.low + round((value - d.low) / tick) * tick, d.high)
    return round(value) if isinstance(d, IntDistribution) else value


def uniform(d: BaseDistribution, rng: np.random.Generator) -> Any:
    """A point of the distribution, all equally likely (on the log scale where it has one)."""
    if isinstance(d, CategoricalDistribution):
        return d.choices[int(rng.integers(len(d.choices)))]
    if isinstance(d, (FloatDistribution, IntDistribution)):
        low, high = _span(d)
        tick = _tick(d)
        if tick is not None:
            return _back(d, low + tick * int(rng.integers(round((high - low) / tick) + 1)))
        if isinstance(d, IntDistribution):
            # half a number beyond both ends, or these would be drawn half as often as the others
            low, high = _scaled(d, d.low - 0.5), _scaled(d, d.high + 0.5)
        return _back(d, rng.uniform(low, high))
    raise TypeError(f"There is no uniform draw for {type(d).__name__}; use a float, int or choice.")


def alike(
    d: CategoricalDistribution, value: Any, near: tuple[tuple[int, ...], ...] | None
) -> list[Any]:
    """The choices most like `value`, the nearest first; none where that is not known."""
    if near is None:
        return []
    return [d.choices[position] for position in near[d.choices.index(value)]]


def step(
    d: BaseDistribution,
    value: Any,
    size: float,
    rng: np.random.Generator,
    near: tuple[tuple[int, ...], ...] | None = None,
) -> Any:
    """A point about `size` (a share of the range, 0..1) away from `value`.

    A choice moves to one of the values most like it where those are known (`near`), else, with
    probability `size`, to any value.
    """
    if isinstance(d, CategoricalDistribution):
        if rng.random() >= size:
            return value
        options = alike(d, value, near)
        if options:
            return options[int(rng.integers(max(1, math.ceil(size * len(options)))))]
        return uniform(d, rng)
    if not isinstance(d, (FloatDistribution, IntDistribution)):
        return uniform(d, rng)
    low, high = _span(d)
    position = _scaled(d, value)
    half, tick = size * (high - low) / 2, _tick(d)
    if tick is not None and half < tick / 2:
        half = tick  # less would always end where it began
    left, right = max(low, position - half), min(high, position + half)
    if isinstance(d, IntDistribution) and _back(d, left) == value == _back(d, right):
        # the same of whole numbers, which may lie apart on a logarithmic scale
        left, right = _scaled(d, max(d.low, value - 1)), _scaled(d, min(d.high, value + 1))
    return _back(d, rng.uniform(left, right))


class UniformStart(BaseSampler):
    """A sampler over all settings seen in finished trials; what it leaves open is drawn uniformly.

    Args:
        near: for choices, the positions of the values most like each value.
        seed: of all draws.
    """

    def __init__(self, *, near: Near | None = None, seed: int) -> None:
        self.near = near or {}
        self._rng = np.random.default_rng(seed)
        self._space = IntersectionSearchSpace()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All settings seen in finished trials."""
        return self._space.calculate(study)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A uniform draw."""
        return uniform(param_distribution, self._rng)
