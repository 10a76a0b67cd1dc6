"""Annealing: step from a good trial by a distance that shrinks as trials accumulate.

Source: the `anneal` suggestion of hyperopt (Bergstra et al. 2013): the rank of the trial stepped from
is geometric with mean `avg_best_idx`, the neighbourhood shrinks as 1 / (1 + T * shrink_coef).
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from darts_core.study.samplers.steps import Near, UniformStart, step

__all__ = ["AnnealSampler"]


class AnnealSampler(UniformStart):
    """Optuna sampler; see the module text.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        avg_best_idx: float = 2.0,
        shrink_coef: float = 0.1,
        near: Near | None = None,
        seed: int,
    ) -> None:
        if avg_best_idx < 1 or shrink_coef < 0:
            raise ValueError("avg_best_idx must be at least 1, shrink_coef at least 0")
        super().__init__(near=near, seed=seed)
        self.avg_best_idx = avg_best_idx
        self.shrink_coef = shrink_coef

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A step from one of the best trials; nothing before the first has finished."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not done or not search_space:
            return {}
        maximise = study.direction == optuna.study.StudyDirection.MAXIMIZE
        ranked = sorted(done, key=lambda t: t.value or 0.0, reverse=maximise)
        rank = min(int(self._rng.geometric(1.0 / self.avg_best_idx)) - 1, len(ranked) - 1)
        start = ranked[rank]
        size = 1.0 / (1.0 + len(done) * self.shrink_coef)
        return {
            name: step(d, start.params[name], size, self._rng, self.near.get(name))
            for name, d in search_space.items()
        }
