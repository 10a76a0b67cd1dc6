"""The sweeper's settings and its groups `hydra/sweeper/sampler` and `hydra/sweeper/pruner`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from hydra.core.config_store import ConfigStore

__all__ = ["PRUNER_NODES", "SAMPLER_NODES", "DartsSweeperConfig", "register"]

# OmegaConf reads the annotations at run time
# ruff: noqa: UP045

SAMPLER_NODES: dict[str, dict[str, Any]] = {
    "tpe": {
        "description": "tree-structured Parzen estimator; n_startup_trials null: a quarter, 4 to 10",
        "n_startup_trials": None,
        "multivariate": None,
    },
    "gp": {
        "description": "Gaussian process with log expected improvement",
        "n_startup_trials": None,
    },
    "acquisition": {
        "description": "Gaussian process with kind ucb, poi or ei, for one objective",
        "kind": "ucb",
        "kappa": 2.5,
        "xi": 0.0,
        "n_initial_points": 5,
    },
    "anneal": {
        "description": "random steps around good trials that shrink with time, for one objective",
        "avg_best_idx": 2.0,
        "shrink_coef": 0.1,
    },
    "evolution": {
        "description": "ageing evolution: the best of a random few is mutated, for one objective",
        "population": 8,
        "tournament": 3,
    },
    "cmaes": {
        "description": "CMA-ES; choices are drawn at random",
        "n_startup_trials": None,
        "sigma0": None,
    },
    "qmc": {"description": "a scrambled Sobol sequence", "qmc_type": "sobol", "scramble": True},
    "random": {"description": "independent draws"},
    "grid": {"description": "every point of a finite space, once"},
    "nsga2": {"description": "NSGA-II, for several objectives", "population_size": None},
    "nsga3": {"description": "NSGA-III, for more than three objectives", "population_size": None},
}
PRUNER_NODES: dict[str, dict[str, Any]] = {
    "default": {"description": "asha for one objective, none for several"},
    "asha": {
        "description": "asynchronous successive halving; paused trials are promoted",
        "min_resource": 1,
        "reduction_factor": 3,
        "promote": True,
        "cost_share": 0.25,
    },
    "hyperband": {
        "description": "several brackets of successive halving",
        "min_resource": 1,
        "reduction_factor": 3,
    },
    "median": {
        "description": "ends what is below the median of earlier trials at the same epoch",
        "n_startup_trials": 4,
        "n_warmup_steps": 1,
    },
    "running_mean": {
        "description": "ends what is below the median of the others' running means",
        "n_warmup_steps": 1,
        "n_min_trials": 3,
    },
    "none": {"description": "every trial runs to its end"},
}


@dataclass
class DartsSweeperConfig:
    """Settings of a sweep; those left null are taken from the app's `tune` node where it has them (its
    `tune.options` included), else they are as usual: `val_accuracy`, maximized, for one.

    `space` adds dimensions in YAML form (conditions included) to those of the command line; it is a
    mapping, or the name of a YAML file. `tensorboard` writes the trials to its hparams page. The other
    keys are the arguments of `darts_core.study.run_study`.
    """

    _target_: str = "hydra_plugins.darts_sweeper.sweeper.DartsSweeper"
    defaults: list[Any] = field(
        default_factory=lambda: ["_self_", {"sampler": "tpe"}, {"pruner": "default"}]
    )
    sampler: Any = None
    pruner: Any = None
    trials: Optional[int] = None
    epochs: Optional[int] = None
    device_seconds: Optional[float] = None
    trainings: Optional[float] = None
    training_seconds: Optional[float] = None
    epochs_per_trial: Optional[int] = None
    workers: Optional[int] = None
    seed: Optional[int] = None
    metric: Optional[str] = None
    direction: Optional[str] = None
    objectives: Any = None
    constraints: Any = None
    enqueue: Any = None
    defaults_first: bool = True
    warm_start: Optional[str] = None
    storage: Optional[str] = None
    study_name: Optional[str] = None
    artifacts: Optional[str] = None
    space: Any = None
    folder: str = "${hydra.sweep.dir}/tune"
    max_failure_share: Optional[float] = None
    max_restarts: Optional[int] = None
    stale_seconds: Optional[float] = None
    tensorboard: bool = True


def register() -> None:
    """Make the groups known to Hydra."""
    store = ConfigStore.instance()
    store.store(
        group="hydra/sweeper", name="darts", node=DartsSweeperConfig, provider="darts_sweeper"
    )
    for kind, nodes in (("sampler", SAMPLER_NODES), ("pruner", PRUNER_NODES)):
        for name, options in nodes.items():
            store.store(
                group=f"hydra/sweeper/{kind}",
                name=name,
                node={"name": name, **options},
                provider="darts_sweeper",
            )
