"""Policy search by density matching: a study over policies; the best trials' sub-policies are joined."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darts_core.errors import TuneError
from darts_core.study.augment_result import PolicySearchResult
from darts_core.study.budget import Budget, Spent
from darts_core.study.resources import device_of

if TYPE_CHECKING:
    from darts_core.augment.policy import Policy
    from darts_core.study.trial import TrialHandle

__all__ = ["density_search"]


def density_search(
    objective: Callable[..., Any],
    folder: Path,
    budget: Budget,
    space: Mapping[str, Any],
    *,
    sub_policies: int = 5,
    keep: int = 10,
    workers: int = 1,
    sampler: str = "tpe",
) -> PolicySearchResult:
    """See `search_policy`, which checks the method; `space` holds operations, ranges, length, seed."""
    from darts_core.study.study import run_study

    if budget.trials is None and budget.seconds_limit is None:
        raise TuneError(
            "A density policy search has no epochs; give its budget in trials, device_seconds or "
            "trainings."
        )
    if not 1 <= sub_policies <= 25 or keep < 1:
        raise TuneError(
            f"sub_policies={sub_policies} and keep={keep} are not allowed; choose 1..25 and 1 or more."
        )
    dimensions: dict[str, Any] = {}
    for sub in range(sub_policies):
        for step in range(space["length"]):
            dimensions[f"operation_{sub}_{step}"] = {"choices": list(space["operations"])}
            dimensions[f"probability_{sub}_{step}"] = {"low": 0.0, "high": 1.0}
            dimensions[f"magnitude_{sub}_{step}"] = {"low": 0.0, "high": 10.0}
    shape = (sub_policies, int(space["length"]))
    trial = functools.partial(_density_trial, objective, shape, dict(space["ranges"]))
    trial.device = device_of(objective)  # type: ignore[attr-defined]
    result = run_study(
        trial,
        dimensions,
        folder=folder,
        trials=budget.trials,
        device_seconds=budget.device_seconds,
        trainings=budget.trainings,
        training_seconds=budget.training_seconds,
        workers=workers,
        sampler=sampler,
        pruner="none",
        seed=int(space["seed"]),
        metric="score",
    )
    complete = [
        trial for trial in result.trials if trial.state == "complete" and trial.value is not None
    ]
    best = sorted(complete, key=lambda trial: -float(trial.value or 0.0))[:keep]
    policy = _joined([_policy_of(trial.params, shape, space["ranges"]) for trial in best])
    history = [{"trial": t.number, "score": t.value, "seconds": t.seconds} for t in complete]
    spent = Spent(len(result.trials), 0, result.device_seconds)
    return PolicySearchResult(
        policy, folder / "policy.yaml", "density", spent, result.ended, history
    )


def _density_trial(
    objective: Callable[..., Any],
    shape: tuple[int, int],
    ranges: Mapping[str, tuple[float, float]],
    trial: TrialHandle,
) -> dict[str, float]:
    return {"score": float(objective(_policy_of(trial.params, shape, ranges)))}


def _policy_of(
    params: Mapping[str, Any], shape: tuple[int, int], ranges: Mapping[str, tuple[float, float]]
) -> Policy:
    from darts_core.augment import Operation, Policy

    def step(sub: int, position: int) -> Operation:
        key = f"{sub}_{position}"
        probability = round(float(params[f"probability_{key}"]), 3)
        magnitude = round(float(params[f"magnitude_{key}"]), 3)
        return Operation(str(params[f"operation_{key}"]), probability, magnitude)

    subs = tuple(tuple(step(s, i) for i in range(shape[1])) for s in range(shape[0]))
    return Policy(subs, ranges=dict(ranges), name="found")


def _joined(policies: Sequence[Policy]) -> Policy:
    from darts_core.augment import Policy

    subs = tuple(sub for policy in policies for sub in policy.sub_policies)
    return Policy(subs, ranges=policies[0].ranges, name="found")
