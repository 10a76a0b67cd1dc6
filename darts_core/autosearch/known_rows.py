"""Rows as a study's trials: the starting point of a step, and what was run before studies kept journals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.autosearch.reports import ReportReader
from darts_core.autosearch.spec import SearchSpec
from darts_core.autosearch.study_spec import goals_of, judged
from darts_core.autosearch.trials import Row
from darts_core.study.ranking import Ranking, reported_at
from darts_core.study.records import IS_BASELINE, OUTSIDE
from darts_core.study.results import row_values, trials_folder
from darts_core.study.space import check_params

__all__ = ["left_behind", "template"]

_STATES = {"done": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}


def template(row: Row, spec: SearchSpec, version: Path, *, known: bool = False) -> Any:
    """The Optuna trial of a row, whatever state it is in.

    Args:
        row: of this space.
        spec: the search.
        version: the version's folder, where the trial's reports lie.
        known: it is knowledge of an earlier step, which costs nothing here.
    """
    import optuna

    params = {d.name: row["config"].get(d.name) for d in spec.dimensions}
    attrs: dict[str, Any] = {"reason": row.get("reason") or "", "metrics": row.get("metrics", {})}
    attrs["seconds"] = float(row.get("time_total_s") or 0.0)
    if row.get("is_baseline") and not known:
        attrs[IS_BASELINE] = True
    if known:
        attrs["imported"] = True
    inside = spec.contains(params)
    if not inside:
        attrs[OUTSIDE] = params
    values = row_values(row, spec.goals)
    state = optuna.trial.TrialState[_STATES.get(row["state"], "RUNNING")]
    if state == optuna.trial.TrialState.COMPLETE and values is None:
        state = optuna.trial.TrialState.FAIL
    space, first = spec.space, spec.objectives[0].metric
    reported = _reported(row, spec, version)
    if len(spec.objectives) > 1:
        attrs |= {reported_at(iteration): noted for iteration, noted in reported.items()}
    return optuna.trial.create_trial(
        state=state,
        params=check_params(params, space) if inside else {},
        distributions={n: d.distribution() for n, d in space.items()} if inside else {},
        values=values if state == optuna.trial.TrialState.COMPLETE else None,
        intermediate_values={i: noted[first] for i, noted in reported.items()},
        user_attrs=attrs,
    )


def _reported(row: Row, spec: SearchSpec, version: Path) -> dict[int, dict[str, float]]:
    """What each iteration is judged by."""
    ranking = Ranking(goals_of(spec))
    found: dict[int, dict[str, float]] = {}
    path = trials_folder(version) / row["trial_id"] / "reports.jsonl"
    for iteration, metrics in ReportReader(path).rest():
        noted = ranking.noted(judged(metrics, spec))
        if ranking.first in noted:
            found.setdefault(iteration, noted)
    return found


def left_behind(rows: Sequence[Row], spec: SearchSpec, version: Path) -> list[Any]:
    """The trials of a step that an earlier program ran without a journal, in the order of their numbers.

    What lies beyond a gap in the numbers is left out: it cannot be told what that trial was.
    """
    found: list[Any] = []
    for row in sorted(rows, key=lambda row: row["number"]):
        if row["number"] != len(found):
            break
        found.append(template(row, spec, version))
    return found
