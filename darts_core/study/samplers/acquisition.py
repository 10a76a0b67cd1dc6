"""Bayesian search with an explicit acquisition function: upper confidence bound, probability of
improvement, or expected improvement, over scikit-learn's Gaussian process.

Values are turned so that larger is better. ucb = mean + kappa * std; poi = P(f > best + xi);
ei = E[max(f - best - xi, 0)].
Source: Brochu et al. 2010, "A tutorial on Bayesian optimization", section 2.3.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from darts_core.study.samplers.steps import UniformStart, step, uniform

__all__ = ["AcquisitionSampler"]

_CANDIDATES = 1000
_LOCAL = 200


KINDS = ("ucb", "poi", "ei")


class AcquisitionSampler(UniformStart):
    """Optuna sampler; `kind` is "ucb", "poi" or "ei".

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        kind: str,
        *,
        kappa: float = 2.5,
        xi: float = 0.0,
        n_initial_points: int = 5,
        seed: int,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r} and must be {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        if n_initial_points < 0:
            raise ValueError("n_initial_points must be at least 0")
        super().__init__(seed=seed)
        self.kind = kind
        self.kappa = kappa
        self.xi = xi
        self.n_initial_points = n_initial_points
        self._seed = seed

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best of many candidates by the acquisition function; nothing before the start points."""
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(done) < self.n_initial_points or not search_space:
            return {}
        sign = 1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else -1.0
        values = np.array([sign * float(t.value or 0.0) for t in done])
        seen = [t.params for t in done]
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        pending = [t.params for t in running if set(search_space) <= set(t.params)]
        # trials still running count as mean results, so that workers do not repeat each other
        values = np.concatenate([values, np.full(len(pending), values.mean())])
        inputs = np.array([self._encode(p, search_space) for p in [*seen, *pending]])
        best = seen[int(np.argmax(values[: len(seen)]))]
        candidates = self._candidates(search_space, best)
        encoded = np.array([self._encode(c, search_space) for c in candidates])
        mean, std = self._predict(inputs, values, encoded)
        score = self.score(mean, std, float(values[: len(seen)].max()))
        return candidates[int(np.argmax(score))]

    def score(self, mean: np.ndarray, std: np.ndarray, best: float) -> np.ndarray:
        """The acquisition function at points with this posterior mean and standard deviation."""
        if self.kind == "ucb":
            return mean + self.kappa * std
        from scipy.special import ndtr

        std = np.maximum(std, 1e-12)
        improvement = mean - best - self.xi
        chance = ndtr(improvement / std)
        if self.kind == "poi":
            return chance
        density = np.exp(-0.5 * (improvement / std) ** 2) / math.sqrt(2 * math.pi)
        return improvement * chance + std * density

    def _candidates(
        self, space: dict[str, BaseDistribution], best: dict[str, Any]
    ) -> list[dict[str, Any]]:
        everywhere = [
            {name: uniform(d, self._rng) for name, d in space.items()} for _ in range(_CANDIDATES)
        ]
        nearby = [
            {name: step(d, best[name], 0.2, self._rng) for name, d in space.items()}
            for _ in range(_LOCAL)
        ]
        return everywhere + nearby

    def _predict(
        self, inputs: np.ndarray, values: np.ndarray, at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import Matern, WhiteKernel

        kernel = Matern(nu=2.5, length_scale=np.full(inputs.shape[1], 0.5)) + WhiteKernel(1e-3)
        model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=self._seed)
        with warnings.catch_warnings():
            # few points leave length scales at their bounds; the prediction is still usable
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(inputs, values)
        mean, std = model.predict(at, return_std=True)
        return mean, std

    @staticmethod
    def _encode(params: dict[str, Any], space: dict[str, BaseDistribution]) -> list[float]:
        """Numbers on 0..1, choices one-hot."""
        row: list[float] = []
        for name, d in space.items():
            value = params[name]
            if isinstance(d, CategoricalDistribution):
                row.extend(float(choice == value) for choice in d.choices)
            elif isinstance(d, (FloatDistribution, IntDistribution)):
                low, high = (math.log(d.low), math.log(d.high)) if d.log else (d.low, d.high)
                position = math.log(value) if d.log else value
                row.append((position - low) / (high - low) if high > low else 0.0)
        return row
