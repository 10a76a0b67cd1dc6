"""A search as data: what may vary, by which algorithm, towards which objectives, within which limits.

Every job file, in whichever form, becomes a `SearchPlan`; nothing here reads files or runs trials.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from darts_core.autosearch.backbones.grammar import STANDARD
from darts_core.errors import ConfigError
from darts_core.study.metric_names import names_of
from darts_core.study.space import SearchDimension, space_size

__all__ = ["Limits", "Objective", "SearchPlan", "SearchSpec"]

MODES = ("single", "serial", "nested", "joint")
_LONGEST = 1.1  # trainings that a trial may take: few take exactly as long as the user's own
TRIAL_TIME = "time_total_s"  # an objective that no trial reports


@dataclass(frozen=True)
class Objective:
    """A reported metric to maximise or minimise; `tolerance` is how much of it may be given up for the
    next objective when one trial has to be picked, `chance` the value that guessing gives.
    """

    metric: str
    mode: str = "max"
    tolerance: float = 0.0
    chance: float | None = None

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
    dimensions: tuple[SearchDimension, ...]
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
    arguments: str = "service"
    command: str = ""
    model_file: str = ""  # zero-code mode: the model that a script writes, in its output folder
    limits: Limits = field(default_factory=Limits)
    confirm_seeds: int = 3
    cpu_per_trial: int = 1
    gpu_per_trial: int = 0
    verbose: int = 1
    source: str = ""

    @property
    def space(self) -> dict[str, SearchDimension]:
        """The dimensions by name."""
        return {dimension.name: dimension for dimension in self.dimensions}

    @property
    def goals(self) -> list[dict[str, Any]]:
        """The objectives as plain values."""
        return [asdict(objective) for objective in self.objectives]

    @property
    def reward(self) -> str:
        """The metric to optimise that a script prints, as `metrics` calls it: `acc` is `accuracy`.

        No script prints its trial's time.
        """
        printed = [item["name"] for item in self.metrics]
        own = next((o.metric for o in self.objectives if o.metric != TRIAL_TIME), "")
        own = own or (printed or [TRIAL_TIME])[0]
        return next((name for name in names_of(own) if name in printed), own)

    def check_printed(self) -> None:
        """Raise where a script prints its metrics and not the one to optimise: each trial would fail.

        Raises:
            ConfigError: it is so.
        """
        printed = [item["name"] for item in self.metrics]
        if printed and self.reward not in printed:
            raise ConfigError(
                f"{self.source or 'The search'}: the metric to optimise, {self.reward!r}, is none of "
                f"general.metrics ({', '.join(printed)}), so no trial would give it; add it there, or "
                "optimise one of these."
            )

    def check_finite(self) -> None:
        """Raise for infinity and NaN among the values: results are JSON, which knows no such numbers.

        Raises:
            ConfigError: there is one.
        """
        for d in self.dimensions:
            for value in _leaves([*d.choices, self.baseline.get(d.name)]):
                if isinstance(value, float) and not math.isfinite(value):
                    raise ConfigError(
                        f"{self.source or 'The search'}: the setting {d.name!r} has the value {value}, for "
                        "which a trial or its confirming run would get None; write the text "
                        f"'{value}' among its values, which float() reads in your code."
                    )

    def check_grid(self) -> None:
        """Raise unless every setting has a number of values.

        Raises:
            ConfigError: one is continuous.
        """
        for dimension in self.dimensions:
            if dimension.size is None:
                raise ConfigError(
                    f"grid_search cannot enumerate the continuous setting {dimension.name!r} "
                    f"({dimension.describe()}); give it num (a number of points) or use random_search or "
                    "tpe_search."
                )

    @property
    def points(self) -> int | None:
        """The number of points of the space, or None when it is infinite."""
        return space_size(self.space)

    def trial_count(self) -> int:
        """How many proposals are run at most (the baseline comes on top, unless it is one of them)."""
        points = self.points
        if self.algorithm == "grid_search" and points is not None:
            return points
        return min(self.num_samples, points) if points is not None else self.num_samples

    def contains(self, configuration: dict[str, Any]) -> bool:
        """Whether a configuration of all settings lies in the space."""
        return all(d.contains(configuration.get(d.name)) for d in self.dimensions)

    def total_trials(self) -> int:
        """All trials at most, the user's own configuration included."""
        if self.algorithm == "differentiable_search":
            return 3
        if self.algorithm == "elastic_search":
            return 2 + int(self.algorithm_options["points"])
        inside = self.points is not None and self.contains(self.baseline_configuration())
        if inside and self.points is not None:
            return min(self.trial_count() + 1, self.points)
        return self.trial_count() + 1

    def at_once(self, spent: float | None) -> int:
        """How many trials run at a time after `spent` trainings (None: nobody knows what one takes).

        Where none is stopped early, no more than the budget trains to their ends: spent, it ends all of them.
        """
        limit = self.limits.trainings
        if limit is None or spent is None or self.scheduler != "FIFOScheduler":
            return self.max_concurrent
        return min(self.max_concurrent, max(1, int((limit - spent) / _LONGEST)))

    def stand_ins(self) -> list[str]:
        """The settings for which the user named no value."""
        return [d.name for d in self.dimensions if d.name not in self.baseline]

    def baseline_configuration(self) -> dict[str, Any]:
        """The user's own configuration; for settings without a value, the one that stands in."""
        return {d.name: self.baseline.get(d.name, stand_in(d)) for d in self.dimensions}

    def summary(self) -> dict[str, Any]:
        """Plain values for `config.yaml`, `show` and `compare`."""
        content = asdict(self)
        content["dimensions"] = {d.name: describe(d) for d in self.dimensions}
        content["objectives"] = [asdict(o) for o in self.objectives]
        content.pop("source")
        return content


def _leaves(value: Any) -> Iterator[Any]:
    """The plain values in lists and mappings."""
    if isinstance(value, (Mapping, list, tuple)):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _leaves(inner)
    else:
        yield value


def stand_in(dimension: SearchDimension) -> Any:
    """The value that stands in where the user named none: of backbone codes a standard network's, else
    the first choice, or the centre of the range.
    """
    standard = [value for value in dimension.choices if value in STANDARD.values()]
    return standard[0] if standard else dimension.centre()


def describe(dimension: SearchDimension) -> Any:
    """A dimension in the shortest readable form."""
    if dimension.choices:
        return list(dimension.choices)
    shape: dict[str, Any] = {"low": dimension.low, "high": dimension.high}
    if dimension.log:
        shape["log"] = True
    if dimension.integer:
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

    def baseline_configuration(self) -> dict[str, Any]:
        """The user's own configuration over all steps."""
        return {k: v for step in self.steps for k, v in step.baseline_configuration().items()}

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
