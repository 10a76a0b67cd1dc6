"""The algorithms and schedulers a job file may name, with their options and defaults.

Data only: read by the parser, by `jobs template algorithms`, and by the classes that do the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["ALGORITHMS", "SCHEDULERS", "SUPERNETS", "Option", "Plugin"]


@dataclass(frozen=True)
class Option:
    """One option: default, and limits (numbers) or allowed values (text)."""

    default: Any
    low: float | None = None
    high: float | None = None
    allowed: tuple[str, ...] = ()
    help: str = ""


@dataclass(frozen=True)
class Plugin:
    """One algorithm or scheduler."""

    name: str
    description: str
    options: dict[str, Option] = field(default_factory=dict)
    objectives: int | None = None  # the most objectives it can handle; None = any

    def defaults(self) -> dict[str, Any]:
        """Option names with their defaults."""
        return {name: option.default for name, option in self.options.items()}


_ALGORITHMS = (
    Plugin("grid_search", "every combination of a finite space, in order"),
    Plugin("random_search", "independent random points"),
    Plugin(
        "bayes_opt_search",
        "Gaussian process; ei by Optuna, ucb, poi and ei with xi by our sampler; choices are allowed too",
        {
            "kind": Option("ucb", allowed=("ei", "ucb", "poi"), help="acquisition function"),
            "kappa": Option(2.5, 0, 100, help="exploration of ucb"),
            "xi": Option(0.0, 0, 100, help="least improvement sought by poi and ei"),
            "n_initial_points": Option(5, 1, 1000, help="random points before the model is used"),
        },
    ),
    Plugin(
        "tpe_search",
        "tree-structured Parzen estimator",
        {
            "gamma": Option(0.25, 0.001, 0.999, help="share of trials counted as good"),
            "n_initial_points": Option(5, 1, 1000, help="random points before the model is used"),
        },
    ),
    Plugin(
        "anneal_search",
        "random steps around good trials that shrink with time",
        {
            "avg_best_idx": Option(2.0, 1, 100, help="mean rank of the trial stepped from"),
            "shrink_coef": Option(0.1, 0, 10, help="how fast steps shrink"),
        },
        objectives=1,
    ),
    Plugin(
        "evolution_search",
        "ageing evolution: the best of a random few is mutated in one setting",
        {
            "population": Option(8, 2, 1000, help="living members; the oldest dies"),
            "tournament": Option(3, 1, 1000, help="members drawn for each parent"),
        },
        objectives=1,
    ),
    Plugin(
        "differentiable_search",
        "one supernet training over a module with choices; its discrete result is then trained",
        {
            "setting": Option("code", help="the setting that names the architecture"),
            "base": Option("resnet50", help="the largest network of a backbone search"),
            "target_cost": Option(0.35, 0.001, 1.0, help="multiply-accumulates against the base"),
            "cost_weight": Option(2.0, 0, 1000, help="weight of the cost against the loss"),
            "alpha_learning_rate": Option(0.02, 0.00001, 10, help="Adam's step for the choices"),
            "warmup": Option(20, 0, 10**6, help="steps before the choices move"),
            "supernet_share": Option(
                0.5, 0.01, 1.0, help="share of max_iterations that the supernet is trained for"
            ),
        },
    ),
)

_ELASTIC = Plugin(
    "elastic_search",
    "one elastic training of your trained network; a sub-network a latency is then judged",
    {
        "setting": Option("subnetwork", help="the setting that names the sub-network"),
        "target_latency": Option(0.5, 0.01, 1.0, help="the smallest point's time against yours"),
        "points": Option(3, 1, 50, help="sub-networks, evenly spread down to target_latency"),
        "looks": Option(50, 8, 10**6, help="sub-networks that each search may judge"),
        "batch": Option(1, 1, 10**6, help="examples a call of the latency"),
        "elastic_share": Option(
            0.5, 0.01, 1.0, help="share of max_iterations of the elastic training"
        ),
        "fine_tuning": Option(0, 0, 10**6, help="iterations of each sub-network's own training"),
    },
)
# one trial of these trains many networks; nothing is sampled
SUPERNETS = ("differentiable_search", "elastic_search")

_SCHEDULERS = (
    Plugin("FIFOScheduler", "every trial runs to its end"),
    Plugin(
        "async_hyperband",
        "asynchronous successive halving: at each rung only the best 1/reduction_factor go on",
        {
            "grace_period": Option(1, 1, 10**6, help="iterations before a trial may be stopped"),
            "reduction_factor": Option(3, 1.1, 100, help="rungs lie at grace_period * factor**k"),
            "max_t": Option(None, 1, 10**6, help="last rung; max_iterations by default"),
        },
    ),
    Plugin(
        "median_stopping",
        "a trial below the median of the others' running means at the same iteration ends",
        {
            "grace_period": Option(1, 1, 10**6, help="iterations before a trial may be stopped"),
            "min_samples_required": Option(3, 1, 10**6, help="other trials needed for a median"),
        },
    ),
)

ALGORITHMS = {plugin.name: plugin for plugin in (*_ALGORITHMS, _ELASTIC)}
SCHEDULERS = {plugin.name: plugin for plugin in _SCHEDULERS}

# spellings of other programs and of the native form
ALGORITHM_ALIASES = {
    "grid": "grid_search",
    "random": "random_search",
    "bayes": "bayes_opt_search",
    "tpe": "tpe_search",
    "anneal": "anneal_search",
    "evolution": "evolution_search",
    "differentiable": "differentiable_search",
    "elastic": "elastic_search",
    "hyperopt": "tpe_search",
}
SCHEDULER_ALIASES = {
    "fifo": "FIFOScheduler",
    "asha": "async_hyperband",
    "AsyncHyperBandScheduler": "async_hyperband",
    "median": "median_stopping",
    "MedianStoppingRule": "median_stopping",
}
