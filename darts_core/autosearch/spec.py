"""A search as data: what may vary, by which algorithm, towards which objectives, within which limits.

Every job file, in whichever form, becomes a `SearchPlan`; nothing here reads files or runs trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from typing import Any

from darts_core.autosearch.backbones.grammar import STANDARD
from darts_core.errors import ConfigError

__all__ = ["Dimension", "Limits", "Objective", "SearchPlan", "SearchSpec"]

MODES = ("single", "serial", "nested", "joint")


@dataclass(frozen=True)
class Dimension:
    """One setting that may vary.

    `kind` is "choice" (one of `values`), "float" or "int" (between `low` and `high`). With `base`, low
    and high are exponents. With `log`, proposals are even on a logarithmic scale. `near` gives, for a
    choice, the positions of the values most like each value (backbone codes one edit away).
    """

    name: str
    kind: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    base: float | None = None
    near: tuple[tuple[int, ...], ...] = ()

    def value(self, raw: float) -> Any:
        """The setting for a raw proposal (a position in `values`, an exponent, or the number itself)."""
        if self.kind == "choice":
            return self.values[int(raw)]
        if self.kind == "int":
            return int(raw)
        return float(self.base**raw) if self.base is not None else float(raw)

    def raw(self, value: Any) -> float | int | None:
        """The raw proposal that gives `value`, or None when it lies outside the space."""
        if self.kind == "choice":
            same = [
                i
                for i, v in enumerate(self.values)
                if v == value and isinstance(v, bool) is isinstance(value, bool)
            ]
            return same[0] if same else None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        if self.base is not None:
            if value <= 0:
                return None
            value = math.log(value) / math.log(self.base)
            # an exponent read back from a value carries rounding errors
            for bound in (self.low, self.high):
                value = bound if math.isclose(value, bound, abs_tol=1e-9) else value
        if not self.low <= value <= self.high:
            return None
        return int(value) if self.kind == "int" else value

    def middle(self) -> Any:
        """The value that stands in where the user named none: of backbone codes a standard network's,
        else the first choice, or the centre.
        """
        if self.kind == "choice":
            standard = [v for v in self.values if v in STANDARD.values()]
            return (standard or self.values)[0]
        centre = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return self.value(round(centre) if self.kind == "int" else centre)

    @property
    def size(self) -> int | None:
        """How many values there are, or None for a continuous setting."""
        if self.kind == "choice":
            return len(self.values)
        return int(self.high - self.low) + 1 if self.kind == "int" else None


@dataclass(frozen=True)
class Objective:
    """A reported metric to maximise or minimise; `tolerance` is how much of it may be given up for the
    next objective when one trial has to be picked.
    """

    metric: str
    mode: str = "max"
    tolerance: float = 0.0

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is strictly better than `b`."""
        return a > b if self.mode == "max" else a < b


@dataclass(frozen=True)
class Limits:
    """What trials and the whole search may use; None means no limit."""

    trial_seconds: float | None = None
    trial_memory_mib: float | None = None
    trainings: float | None = None
    seconds: float | None = None
    retries: int = 0
    grace_seconds: float = 5.0


@dataclass(frozen=True)
class SearchSpec:
    """One search."""

    name: str
    dimensions: tuple[Dimension, ...]
    objectives: tuple[Objective, ...]
    algorithm: str = "tpe_search"
    algorithm_options: dict[str, Any] = field(default_factory=dict)
    scheduler: str = "FIFOScheduler"
    scheduler_options: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 20
    max_concurrent: int = 1
    save_model_count: int | None = None
    seed: int = 1
    max_iterations: int | None = None
    baseline: dict[str, Any] = field(default_factory=dict)
    metrics: tuple[dict[str, str], ...] = ()
    limits: Limits = field(default_factory=Limits)
    confirm_seeds: int = 3
    cpu_per_trial: int = 1
    gpu_per_trial: int = 0
    verbose: int = 1
    source: str = ""

    def configurations(self) -> list[dict[str, Any]]:
        """Every point of a finite space.

        Raises:
            ConfigError: a setting is continuous.
        """
        for dimension in self.dimensions:
            if dimension.size is None:
                raise ConfigError(
                    f"grid_search cannot enumerate the continuous setting {dimension.name!r} "
                    f"({dimension.low:g}..{dimension.high:g}); give it num (a number of points) or use "
                    "random_search or tpe_search."
                )
        axes = [[d.value(raw) for raw in _raws(d)] for d in self.dimensions]
        names = [d.name for d in self.dimensions]
        return [dict(zip(names, point, strict=True)) for point in product(*axes)]

    @property
    def points(self) -> int | None:
        """The number of points of the space, or None when it is infinite."""
        sizes = [dimension.size for dimension in self.dimensions]
        return None if None in sizes else math.prod(size for size in sizes if size is not None)

    def trial_count(self) -> int:
        """How many proposals are run at most (the baseline comes on top, unless it is one of them)."""
        points = self.points
        if self.algorithm == "grid_search" and points is not None:
            return points
        return min(self.num_samples, points) if points is not None else self.num_samples

    def contains(self, configuration: dict[str, Any]) -> bool:
        """Whether a configuration of all settings lies in the space."""
        return all(d.raw(configuration.get(d.name)) is not None for d in self.dimensions)

    def total_trials(self) -> int:
        """All trials at most, the user's own configuration included."""
        if self.algorithm == "differentiable_search":
            return 3
        inside = self.points is not None and self.contains(self.baseline_configuration())
        if inside and self.points is not None:
            return min(self.trial_count() + 1, self.points)
        return self.trial_count() + 1

    def stand_ins(self) -> list[str]:
        """The settings for which the user named no value of her own."""
        return [d.name for d in self.dimensions if d.name not in self.baseline]

    def baseline_configuration(self) -> dict[str, Any]:
        """Her configuration: her values, and for settings without one the value that stands in."""
        return {d.name: self.baseline.get(d.name, d.middle()) for d in self.dimensions}

    def summary(self) -> dict[str, Any]:
        """Plain values for `config.yaml`, `show` and `compare`."""
        content = asdict(self)
        content["dimensions"] = {d.name: describe(d) for d in self.dimensions}
        content["objectives"] = [asdict(o) for o in self.objectives]
        content.pop("source")
        return content


def _raws(dimension: Dimension) -> Sequence[int]:
    if dimension.kind == "choice":
        return range(len(dimension.values))
    return range(int(dimension.low), int(dimension.high) + 1)


def describe(dimension: Dimension) -> Any:
    """A dimension in the shortest readable form."""
    if dimension.kind == "choice":
        return list(dimension.values)
    shape: dict[str, Any] = {"low": dimension.low, "high": dimension.high}
    if dimension.log:
        shape["log"] = True
    if dimension.base is not None:
        shape["base"] = dimension.base
    if dimension.kind == "int":
        shape["int"] = True
    return shape


@dataclass(frozen=True)
class SearchPlan:
    """One or several searches and how they relate."""

    steps: tuple[SearchSpec, ...]
    mode: str = "single"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(
                f"Unknown multi-search mode {self.mode!r}; use one of {', '.join(MODES)}."
            )
        if not self.steps:
            raise ConfigError("A search needs at least one configuration; name one with --config.")
        if (self.mode in ("single", "joint")) != (len(self.steps) == 1):
            raise ConfigError(
                f"The mode {self.mode!r} does not fit {len(self.steps)} search(es); use 'single' for one "
                "file, and 'serial', 'nested' or 'joint' for several."
            )
        names: set[str] = set()
        for step in self.steps:
            for dimension in step.dimensions:
                if dimension.name in names:
                    raise ConfigError(
                        f"The setting {dimension.name!r} stands in two searches; keep it in one of them."
                    )
                names.add(dimension.name)

    @property
    def last(self) -> SearchSpec:
        """The step whose objectives judge the whole plan."""
        return self.steps[-1]

    def trial_count(self) -> int:
        """The most trials the whole plan runs, the user's own configuration included."""
        counts = [step.total_trials() for step in self.steps]
        if self.mode == "nested":
            return math.prod(counts)
        # the later steps of a serial plan start from a trial that was run already
        return sum(counts) - (len(counts) - 1)

    def summary(self) -> dict[str, Any]:
        """Plain values for `config.yaml`, `show` and `compare`."""
        if len(self.steps) == 1:
            return {"mode": self.mode, **self.steps[0].summary()}
        return {
            "mode": self.mode,
            "steps": {f"{i}-{s.name}": s.summary() for i, s in enumerate(self.steps, 1)},
        }
