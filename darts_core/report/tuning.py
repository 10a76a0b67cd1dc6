"""The section of a hyperparameter study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from darts_core.report.blocks import Section, card, duration, pair, plain_table
from darts_core.report.escape import plain_text
from darts_core.report.read import StageRun, VersionRun, read_stage, series
from darts_core.report.rows import finite
from darts_core.report.study_so_far import study_so_far
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.trials import (
    Trial,
    best_so_far,
    importance_bars,
    parallel,
    read_trials,
    trial_curves,
)
from darts_core.report.trials_front import trials_front
from darts_core.study.importance import Shares, importance

__all__ = ["tune_section"]

Curves = dict[int, list[tuple[float, float]]]


def _objectives(result: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """(name, is-maximised) of each objective."""
    given = result.get("objectives")
    if isinstance(given, Mapping) and given:
        return [(str(name), not str(way).lower().startswith("min")) for name, way in given.items()]
    name = str(result.get("objective") or "val_accuracy")
    return [(name, not str(result.get("direction") or "max").lower().startswith("min"))]


def _curves(stage: StageRun, trials: Sequence[Trial], objective: str) -> Curves:
    """Every trial's values by epoch, from the study's result or the trials' own folders."""
    items = stage.result.get("trials")
    curves: Curves = {}
    for item in items if isinstance(items, list) else ():
        number = finite(item.get("number")) if isinstance(item, Mapping) else None
        curve = item.get("curve") if isinstance(item, Mapping) else None
        if number is None or not isinstance(curve, list):
            continue
        rows = [
            {"epoch": p[0], "value": p[1]} for p in curve if isinstance(p, list) and len(p) == 2
        ]
        curves[int(number)] = series(rows, "value")
    for trial in trials:
        for name in (f"{trial.number:04d}", str(trial.number)):
            folder = stage.folder / "trials" / name
            if not curves.get(trial.number) and folder.is_dir():
                curves[trial.number] = series(read_stage(folder).metrics, objective)
    return {number: points for number, points in curves.items() if points}


def _note(stage: StageRun, trials: Sequence[Trial]) -> str:
    """How many trials ended how, and what they cost."""
    states: dict[str, int] = {}
    for trial in trials:
        states[trial.state] = states.get(trial.state, 0) + 1
    noun = "trial" if len(trials) == 1 else "trials"
    parts = [f"{len(trials)} {noun}: " + ", ".join(f"{n} {state}" for state, n in states.items())]
    forecast = stage.result.get("forecast")
    planned = finite(forecast.get("device_seconds")) if isinstance(forecast, Mapping) else None
    spent = stage.number("device_seconds")
    if spent is not None:
        parts.append(
            f"device time {duration(spent)}"
            + (f" (forecast {duration(planned)})" if planned else "")
        )
    parts += _gain(stage)
    ended = stage.result.get("ended")
    if isinstance(ended, str) and ended:
        parts.append(plain_text(ended, limit=200))
    return "; ".join(parts) + "."


def _gain(stage: StageRun) -> list[str]:
    """The best value against trial 0's, the user's own settings; nothing where the study had none."""
    best, own = stage.number("best_value"), stage.number("baseline_value")
    gain = stage.number("gain")
    if best is None or own is None or gain is None:
        return []
    if stage.number("best_number") == stage.number("baseline_number"):
        return [f"nothing beat your own settings ({own:.6g})"]
    if gain == 0:
        # of equals another objective decided, or trial 0 breaks a constraint
        return [f"{best:.6g} as with your own settings (one seed)"]
    # it is no worse than trial 0, unless that breaks a constraint
    how = f", {gain:.3g} better" if gain > 0 else f", which break a constraint: {-gain:.3g} worse"
    return [f"{best:.6g} against {own:.6g} with your own settings{how} (one seed)"]


def _importance(done: Sequence[Trial], maximize: bool, shares: Shares) -> Mapping[str, float]:
    """The importance of each parameter where the study's result states none."""
    pairs = [(trial.params, trial.value) for trial in done if trial.value is not None]
    return shares([p for p, _ in pairs], [v for _, v in pairs], maximize=maximize)


def tune_section(run: VersionRun, importance: Shares = importance) -> Section | None:
    """Best so far, parallel coordinates, importance, every trial's curve, the best settings."""
    stage = run.stages.get("tune")
    if stage is None:
        return None
    stage = replace(stage, result=study_so_far(stage))
    trials = read_trials(stage.result.get("trials"))
    goals = _objectives(stage.result)
    objective, maximize = goals[0]
    done = [t for t in trials if t.complete]
    # a fraction reads better as a percentage; that of a sweep, which knows no task, goes by its name
    own = stage.metric.share and objective == f"val_{stage.metric.name}"
    share = (own or "acc" in objective.lower()) and all(0 <= (t.value or 0.0) <= 1 for t in done)
    label = objective.replace("_", " ")
    able = [t for t in done if t.feasible]
    best = (max if maximize else min)(able, key=lambda t: t.value or 0.0, default=None)
    chosen = stage.number("best_number")
    best = next((t for t in done if chosen is not None and t.number == chosen), best)
    given = stage.result.get("importance")
    shares = (
        given if isinstance(given, Mapping) and given else _importance(done, maximize, importance)
    )
    body = pair(
        card(
            best_so_far(trials, maximize=maximize, label=label, percent=share), title="Best so far"
        ),
        card(
            trial_curves(
                _curves(stage, trials, objective),
                best.number if best else None,
                label=label,
                percent=share,
                maximize=maximize,
            ),
            title="Every trial's curve",
        ),
    )
    if len(goals) > 1:
        front = trials_front(trials, goals)
        drawn = front_svg(front, width=1060)
        body += card(drawn + key_html([front]), title="Objectives against each other")
    body += card(
        parallel(trials, maximize=maximize, label=label, percent=share),
        title="Parallel coordinates",
    )
    body += pair(
        card(importance_bars(shares), title="Importance"),
        card(
            plain_table(best.params if best else {}),
            title=f"Best settings (trial {best.number})" if best else "",
        ),
    )
    if not body:
        return None
    return Section("tune", "Tuning", body, _note(stage, trials))
