"""Which setting mattered: the share of each in the spread of the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from darts_core.study.results import Goals, Row, row_values, search_rows

__all__ = ["importance"]


def importance(rows: Sequence[Row], goals: Goals) -> dict[str, float]:
    """The share of each setting in the spread of the first objective (0..1, most important first).

    Optuna's PED-ANOVA over the finished search trials; empty with fewer than four of them.
    """
    usable = [row for row in search_rows(rows) if row_values(row, goals) is not None]
    names = sorted(set().union(*(row["config"] for row in usable))) if usable else []
    names = [n for n in names if len({repr(row["config"].get(n)) for row in usable}) > 1]
    if len(usable) < 4 or not names:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mode = goals[0]["mode"]
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    spaces: dict[str, Any] = {}
    for name in names:
        values = [row["config"].get(name) for row in usable]
        if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
            spaces[name] = optuna.distributions.FloatDistribution(min(values), max(values))
        else:
            spaces[name] = optuna.distributions.CategoricalDistribution(
                sorted({repr(v) for v in values})
            )
    for row in usable:
        params = {}
        for name, space in spaces.items():
            value = row["config"].get(name)
            numeric = isinstance(space, optuna.distributions.FloatDistribution)
            params[name] = float(value) if numeric else repr(value)
        value = float(row["values"][goals[0]["metric"]])
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(evaluate_on_local=False)
    return {
        k: float(v)
        for k, v in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
    }
