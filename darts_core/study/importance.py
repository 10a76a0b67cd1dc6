"""Which setting mattered: the share of each in the spread of the results. The only place that says so."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from darts_core.reading import is_number
from darts_core.study.results import Goals, Row, row_values, search_rows

__all__ = ["Shares", "importance", "row_importance"]

log = logging.getLogger("darts_core")
_FEWEST = 4
_LOG_RANGE = 20.0
"""Largest over smallest value from which on a setting counts on a logarithmic scale."""


class Shares(Protocol):
    """What works out importances: `importance`, or something that asks another process for them."""

    def __call__(
        self, settings: Sequence[Mapping[str, Any]], values: Sequence[float], *, maximize: bool
    ) -> Mapping[str, float]:
        """The share of each setting in the spread of the values."""
        ...


def row_importance(
    rows: Sequence[Row], goals: Goals, by: Shares | None = None
) -> Mapping[str, float]:
    """`importance` of a job's finished search trials for its first objective, or what `by` says."""
    usable = [row for row in search_rows(rows) if row_values(row, goals) is not None]
    values = [float(row["values"][goals[0]["metric"]]) for row in usable]
    maximize = goals[0]["mode"] == "max"
    return (by or importance)([row["config"] for row in usable], values, maximize=maximize)


def importance(
    settings: Sequence[Mapping[str, Any]], values: Sequence[float], *, maximize: bool
) -> dict[str, float]:
    """The share of each setting in the spread of the values (0..1, most important first).

    Optuna's PED-ANOVA; empty with fewer than four trials. A setting that is absent in some trials
    (a conditional one) counts there as a choice of its own.

    Source: Hutter et al. 2014, functional ANOVA, in the PED form of Watanabe et al. 2023.
    """
    names = sorted(set().union(*settings)) if settings else []
    names = [n for n in names if len({repr(given.get(n)) for given in settings}) > 1]
    if len(settings) < _FEWEST or not names:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    spaces = {name: _distribution([given.get(name) for given in settings]) for name in names}
    for given, value in zip(settings, values, strict=True):
        params = {
            name: float(given[name]) if _is_range(space) else repr(given.get(name))
            for name, space in spaces.items()
        }
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError) as error:
        log.info("no importance of the settings: %s", error)
        return {}
    return {name: float(share) for name, share in found.items()}


def _distribution(values: Sequence[Any]) -> Any:
    """The range of numbers, or the choices of anything else."""
    import optuna

    if all(map(is_number, values)):
        low, high = float(min(values)), float(max(values))
        return optuna.distributions.FloatDistribution(
            low, high, log=low > 0 and high / low > _LOG_RANGE
        )
    return optuna.distributions.CategoricalDistribution(sorted({repr(v) for v in values}))


def _is_range(distribution: Any) -> bool:
    return hasattr(distribution, "log")


def main() -> None:
    """Read `{settings, values, maximize}` as JSON from standard input, print the shares as JSON.

    A process that stays small (the live page) asks this program instead of loading the numerics.
    """
    asked = json.load(sys.stdin)
    found = importance(asked["settings"], asked["values"], maximize=bool(asked["maximize"]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
