"""Search algorithms: each proposes configurations and learns from their results.

Points are proposed through an Optuna study held in memory; the trial folders are what survives a
restart, and `load` feeds them back.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from typing import Any

from darts_core.autosearch.spec import Dimension, SearchSpec
from darts_core.errors import ConfigError

__all__ = ["Algorithm", "create_algorithm", "distribution"]

_REPEATS = 20  # proposals of known points in a row before an unknown one is drawn at random


def distribution(dimension: Dimension) -> Any:
    """The Optuna distribution of a dimension's raw proposals."""
    from optuna import distributions

    if dimension.kind == "choice":
        return distributions.CategoricalDistribution(list(range(len(dimension.values))))
    if dimension.kind == "int":
        return distributions.IntDistribution(
            int(dimension.low), int(dimension.high), log=dimension.log
        )
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def key(configuration: dict[str, Any]) -> str:
    """A text that is equal for equal configurations."""
    return repr(sorted(configuration.items(), key=lambda item: item[0]))


class Algorithm:
    """Proposes configurations of one search.

    `ask` gives a configuration with a ticket, or None when the space is exhausted; `tell` gives the
    objective values back for a ticket (None for a failed trial).
    """

    def __init__(self, spec: SearchSpec, sampler: Any) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.spec = spec
        self.distributions = {d.name: distribution(d) for d in spec.dimensions}
        directions: list[Any] = [
            "maximize" if o.mode == "max" else "minimize" for o in spec.objectives
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study = optuna.create_study(directions=directions, sampler=sampler)
        self.known: set[str] = set()
        self._rng = random.Random(spec.seed)

    def _configuration(self, raw: dict[str, Any]) -> dict[str, Any]:
        return {d.name: d.value(raw[d.name]) for d in self.spec.dimensions}

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        """The next configuration with its ticket; None when every point is known."""
        import optuna

        if self.spec.points is not None and len(self.known) >= self.spec.points:
            return None
        for _ in range(_REPEATS):
            trial = self.study.ask(self.distributions)
            configuration = self._configuration(trial.params)
            if key(configuration) not in self.known:
                self.known.add(key(configuration))
                return trial, configuration
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return self._unknown_point()

    def _unknown_point(self) -> tuple[Any, dict[str, Any]] | None:
        """A point that was not tried yet, drawn at random."""
        for _ in range(100_000):
            raw = {d.name: _draw(d, self._rng) for d in self.spec.dimensions}
            configuration = self._configuration(raw)
            if key(configuration) not in self.known:
                self.study.enqueue_trial(raw)
                self.known.add(key(configuration))
                return self.study.ask(self.distributions), configuration
        return None

    def tell(self, ticket: Any, values: Sequence[float] | None) -> None:
        """Learn the objective values of an asked configuration; None for a failed trial."""
        import optuna

        if values is None:
            self.study.tell(ticket, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(ticket, list(values))

    def load(self, configuration: dict[str, Any], values: Sequence[float] | None) -> None:
        """Learn a configuration that was not asked for (the baseline, trials of an earlier run)."""
        import optuna

        self.known.add(key({d.name: configuration.get(d.name) for d in self.spec.dimensions}))
        raw = {d.name: d.raw(configuration.get(d.name)) for d in self.spec.dimensions}
        if values is None or any(value is None for value in raw.values()):
            # a point outside the space teaches the sampler nothing
            return
        self.study.add_trial(
            optuna.trial.create_trial(
                params=raw, distributions=self.distributions, values=list(values)
            )
        )


def _draw(dimension: Dimension, rng: random.Random) -> Any:
    if dimension.kind == "choice":
        return rng.randrange(len(dimension.values))
    if dimension.kind == "int":
        return rng.randint(int(dimension.low), int(dimension.high))
    if dimension.log:
        return math.exp(rng.uniform(math.log(dimension.low), math.log(dimension.high)))
    return rng.uniform(dimension.low, dimension.high)


class GridAlgorithm(Algorithm):
    """Every configuration of a finite space, in the order of the file."""

    def __init__(self, spec: SearchSpec) -> None:
        import optuna

        super().__init__(spec, optuna.samplers.RandomSampler(seed=spec.seed))
        self._waiting = spec.configurations()

    def ask(self) -> tuple[Any, dict[str, Any]] | None:
        """The next configuration that is not known yet."""
        while self._waiting:
            configuration = self._waiting.pop(0)
            if key(configuration) not in self.known:
                self.known.add(key(configuration))
                return configuration, configuration
        return None

    def tell(self, ticket: Any, values: Sequence[float] | None) -> None:
        """Record the result (a grid learns nothing from it)."""
        self.load(ticket, values)


def _gp(spec: SearchSpec, options: dict[str, Any], seed: int) -> Any:
    import optuna

    from darts_core.autosearch.algorithms.acquisition import AcquisitionSampler

    start = int(options["n_initial_points"])
    if options["kind"] == "ei" and not options["xi"]:
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=start)
    if len(spec.objectives) > 1:
        raise ConfigError(
            f"bayes_opt_search with kind {options['kind']!r} and xi {options['xi']:g} handles one "
            f"objective, not {len(spec.objectives)}; use kind ei without xi, or tpe_search."
        )
    return AcquisitionSampler(
        options["kind"],
        kappa=options["kappa"],
        xi=options["xi"],
        n_initial_points=start,
        seed=seed,
    )


def create_algorithm(spec: SearchSpec, *, salt: int = 0) -> Algorithm:
    """The algorithm a spec names. `salt` changes its random numbers after a restart.

    Raises:
        ConfigError: the algorithm cannot handle the space or the objectives.
    """
    import optuna

    options, seed = spec.algorithm_options, spec.seed + 100_003 * salt
    if spec.algorithm == "grid_search":
        return GridAlgorithm(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # TPE's gamma is deprecated in 4.9 and still the only way to set it in every version allowed
        warnings.simplefilter("ignore", FutureWarning)
        if spec.algorithm == "random_search":
            sampler: Any = optuna.samplers.RandomSampler(seed=seed)
        elif spec.algorithm == "tpe_search":
            gamma = float(options["gamma"])
            sampler = optuna.samplers.TPESampler(
                seed=seed,
                n_startup_trials=int(options["n_initial_points"]),
                gamma=lambda count: math.ceil(gamma * count),
                constant_liar=True,
            )
        elif spec.algorithm == "bayes_opt_search":
            sampler = _gp(spec, options, seed)
        elif spec.algorithm == "anneal_search":
            from darts_core.autosearch.algorithms.anneal import AnnealSampler

            sampler = AnnealSampler(**options, near=_near(spec), seed=seed)
        elif spec.algorithm == "evolution_search":
            from darts_core.autosearch.algorithms.evolution import EvolutionSampler

            sampler = EvolutionSampler(**options, near=_near(spec), seed=seed)
        else:
            raise ConfigError(f"{spec.algorithm} proposes no points; it runs by itself.")
        return Algorithm(spec, sampler)


def _near(spec: SearchSpec) -> dict[str, tuple[tuple[int, ...], ...]]:
    return {d.name: d.near for d in spec.dimensions if d.near}
