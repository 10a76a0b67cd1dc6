"""Ageing evolution: the best of a random few among the youngest trials is mutated in one setting.

Source: Real et al. 2019, "Regularized evolution for image classifier architecture search", algorithm 1.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from darts_core.study.samplers.steps import Near, UniformStart, alike, step

__all__ = ["EvolutionSampler"]

_NUMBER_STEP = 0.3  # a mutated number moves within this share of its range


class EvolutionSampler(UniformStart):
    """Optuna sampler; see the module text.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self, *, population: int = 8, tournament: int = 3, near: Near | None = None, seed: int
    ) -> None:
        if not all(isinstance(count, int) and count >= 1 for count in (population, tournament)):
            raise ValueError("population and tournament must be whole numbers of at least 1")
        super().__init__(near=near, seed=seed)
        self.population = population
        self.tournament = tournament

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A mutated parent once a population has finished; before that, nothing (random draws)."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < self.population or not search_space:
            return {}
        youngest = done[-self.population :]
        count = min(self.tournament, len(youngest))
        drawn = [youngest[i] for i in self._rng.choice(len(youngest), size=count, replace=False)]
        maximise = study.direction == optuna.study.StudyDirection.MAXIMIZE
        parent = (max if maximise else min)(drawn, key=lambda t: t.value or 0.0)
        child = {name: parent.params[name] for name in search_space}
        names = [name for name, d in search_space.items() if not d.single()]
        if names:
            name = names[int(self._rng.integers(len(names)))]
            child[name] = self._mutated(name, search_space[name], child[name])
        return child

    def _mutated(self, name: str, d: BaseDistribution, value: Any) -> Any:
        if isinstance(d, CategoricalDistribution):
            nearest = alike(d, value, self.near.get(name))
            if nearest:
                return nearest[int(self._rng.integers(len(nearest)))]
            others = [choice for choice in d.choices if choice != value]
            return others[int(self._rng.integers(len(others)))]
        return step(d, value, _NUMBER_STEP, self._rng)
