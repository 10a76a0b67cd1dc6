"""A point for the next trial that no trial has had: what samplers alone do not promise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from darts_core.study.samplers.steps import uniform
from darts_core.study.space import SearchDimension, space_size, suggest

__all__ = ["known_points", "point_key", "propose"]

_REPEATS = 20  # draws of known points in a row before an unknown one is drawn at random
_TRIES = 100_000
Space = Mapping[str, SearchDimension]


def point_key(params: Mapping[str, Any]) -> str:
    """A text that is equal for equal settings."""
    return repr(sorted(params.items()))


def known_points(trials: Sequence[FrozenTrial], space: Space) -> set[str]:
    """The keys of the points of `space` that trials have."""
    return {
        point_key({name: space[name].decode(value) for name, value in trial.params.items()})
        for trial in trials
        if trial.params.keys() == space.keys()
    }


def propose(
    space: Space,
    directions: Sequence[Any],
    trials: Sequence[FrozenTrial],
    sampler: Callable[[int], Any],
    *,
    seed: Sequence[int],
) -> dict[str, Any] | None:
    """Settings that none of `trials` has, drawn by the sampler where it finds one, else at random.

    Args:
        space: without conditions.
        directions: Optuna's, one an objective.
        trials: what is known, in whatever state, as samplers see it.
        sampler: makes the sampler of the n-th draw.
        seed: of the draws at random.

    Returns:
        The caller's values, or None when every point is known.
    """
    import optuna

    from darts_core.study.optuna_private import add_stored

    known = known_points(trials, space)
    size = space_size(space)
    if size is not None and len(known) >= size:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scratch = optuna.create_study(directions=list(directions))
        for trial in trials:
            add_stored(scratch, trial)
        for again in range(_REPEATS):
            scratch.sampler = sampler(again)
            drawn = scratch.ask()
            params = suggest(drawn, space)
            if point_key(params) not in known:
                return params
            scratch.tell(drawn, state=optuna.trial.TrialState.FAIL)
    rng = np.random.default_rng([*seed, len(known)])
    for _ in range(_TRIES):
        params = {n: d.decode(uniform(d.distribution(), rng)) for n, d in space.items()}
        if point_key(params) not in known:
            return params
    return None
