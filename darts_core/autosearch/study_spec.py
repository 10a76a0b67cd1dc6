"""A search of a job file as a study: its algorithm as a sampler, its scheduler as a pruner, its limits as a
budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from darts_core.autosearch.costs import Account
from darts_core.autosearch.reports import Metrics
from darts_core.autosearch.spec import SearchSpec
from darts_core.errors import ConfigError
from darts_core.study.budget import Budget
from darts_core.study.metric_names import under_names
from darts_core.study.spec import StudySpec

__all__ = ["budget_of", "goals_of", "judged", "pruner_of", "sampler_of", "study_of"]

_HOPELESS = 3  # this many failed trials with no success: the code is broken, not the settings
_DIRECTIONS = {"max": "maximize", "min": "minimize"}


def goals_of(spec: SearchSpec) -> dict[str, str]:
    """The objectives in the study's words: metric -> direction."""
    return {o.metric: _DIRECTIONS[o.mode] for o in spec.objectives}


def judged(metrics: Metrics, spec: SearchSpec) -> dict[str, float]:
    """The numbers of a report, objectives under their own names; one that is no number is worse than any."""
    modes = {o.metric: o.mode for o in spec.objectives}
    found = under_names(metrics, tuple(modes))
    worst = {name: -math.inf if mode == "max" else math.inf for name, mode in modes.items()}
    known = {name: value for name, value in found.items() if value is not None or name in modes}
    return {name: worst[name] if v is None else float(v) for name, v in known.items()}


def sampler_of(spec: SearchSpec) -> dict[str, Any]:
    """The sampler that the search's algorithm names, with its options.

    Raises:
        ConfigError: it cannot handle the objectives, or proposes no points.
    """
    options = dict(spec.algorithm_options)
    if spec.algorithm == "bayes_opt_search":
        return _bayes(spec, options)
    if spec.algorithm == "tpe_search":
        return {
            "name": "tpe",
            "n_startup_trials": int(options["n_initial_points"]),
            "gamma": float(options["gamma"]),
            "constant_liar": True,
        }
    if spec.algorithm == "grid_search":
        spec.check_grid()
        return {"name": "grid", "shuffle": False}
    known = {
        "random_search": "random",
        "anneal_search": "anneal",
        "evolution_search": "evolution",
    }
    if spec.algorithm not in known:
        raise ConfigError(f"{spec.algorithm} proposes no points; it runs by itself.")
    return {"name": known[spec.algorithm], **options}


def _bayes(spec: SearchSpec, options: dict[str, Any]) -> dict[str, Any]:
    if options["kind"] == "ei" and not options["xi"]:
        return {"name": "gp", "n_startup_trials": int(options["n_initial_points"])}
    if len(spec.objectives) > 1:
        raise ConfigError(
            f"bayes_opt_search with kind {options['kind']!r} and xi {options['xi']:g} handles one "
            f"objective, not {len(spec.objectives)}; use kind ei without xi, or tpe_search."
        )
    return {"name": "acquisition", **options}


def pruner_of(spec: SearchSpec) -> dict[str, Any]:
    """The pruner that the search's scheduler names. A script's trial keeps no promise to go on from where
    it was stopped, so no rule promotes.

    Raises:
        ConfigError: the name is unknown.
    """
    options: dict[str, Any] = dict(spec.scheduler_options)
    if spec.scheduler == "FIFOScheduler":
        return {"name": "none"}
    if spec.scheduler == "async_hyperband":
        return {
            "name": "asha",
            "promote": False,
            "min_resource": options["grace_period"],
            "reduction_factor": options["reduction_factor"],
            "max_resource": spec.max_iterations,
            # not where trials end: trial 0 runs on, and no other would ever be complete beside it
            "last_rung": options.get("max_t"),
            # what may be given up for the next objective is no reason to stop a trial
            "slack": spec.objectives[0].tolerance,
        }
    if spec.scheduler == "median_stopping":
        return {
            "name": "running_mean",
            "n_warmup_steps": options["grace_period"],
            "n_min_trials": options["min_samples_required"],
        }
    raise ConfigError(f"Unknown scheduler {spec.scheduler!r}; use FIFOScheduler, async_hyperband.")


def budget_of(spec: SearchSpec, trials: int, account: Account) -> Budget:
    """The budget of one step, trial 0 included, with what earlier steps have spent."""
    limits = spec.limits
    return Budget(
        trials=trials,
        trainings=limits.trainings if account.unit_seconds else None,
        training_seconds=account.unit_seconds,
        epochs_per_trial=spec.max_iterations,
        earlier_seconds=account.spent_before,
        wall_seconds=limits.seconds,
        begun=account.begun,
    )


def study_of(
    spec: SearchSpec,
    budget: Budget,
    *,
    folder: Path,
    trials_folder: Path,
    trial_name: Callable[[int], str],
    first: dict[str, Any] | None,
    is_baseline: bool,
    proven: bool = False,
) -> StudySpec:
    """The study of one step; `proven` says that a trial of another step succeeded, so that the code works.

    Several objectives are judged together at a rung; median stopping compares the first one alone, as
    the published service does.
    """
    pruner = pruner_of(spec)
    return StudySpec(
        folder=folder,
        space=spec.space,
        objectives=goals_of(spec),
        budget=budget,
        sampler=sampler_of(spec),
        pruner=pruner,
        pruning_metric=spec.objectives[0].metric if pruner["name"] == "running_mean" else None,
        seed=spec.seed,
        baseline=first if is_baseline else None,
        enqueue=(first,) if first is not None and not is_baseline else (),
        distinct=True,
        trials_folder=trials_folder,
        trial_name=trial_name,
        study_name="search",
        max_failure_share=1.0,
        hopeless=None if proven else _HOPELESS,
    )
