"""Pipelines of several seeds against their rivals: paired by seed, hypervolumes with their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from darts_core.metric import Metric
from darts_core.report.blocks import Section, card, duration, records
from darts_core.report.escape import plain_text
from darts_core.report.models_front import baseline_row
from darts_core.report.models_table import batches
from darts_core.report.read import VersionRun
from darts_core.report.results import final_row, model_rows
from darts_core.report.rows import ModelRow, finite
from darts_core.report.svg import number
from darts_core.report.verdict import cost_words, faster
from darts_core.study.hypervolume import hypervolume

__all__ = ["OURS", "contest", "contest_section", "contest_sentence"]

OURS = "found"
Costs = tuple[float, float]


def contest(runs: Sequence[VersionRun]) -> dict[str, Any] | None:
    """What was found against the baseline and the rivals of each run; None for fewer than two that compare.

    Times are parts of the baseline's of the same run, each network's in its fastest form, at the largest
    batch; those that were taken under foreign load do not count. The hypervolume is that of the points (log
    of the time's part, metric) up to the slowest and the worst of all runs: of what was found, and of all
    rivals of a run together.

    Returns:
        n, batch, networks (name -> figures, differences from what was found paired by seed), hypervolume.
    """
    metric = runs[0].metric
    found = [
        (batch, own) for run in runs if (batch := _batch(run)) and (own := _fastest(run, batch))
    ]
    found = [(batch, own) for batch, own in found if batch == found[0][0]]
    if len(found) < 2:
        return None
    each, batch = [own for _, own in found], found[0][0]
    names = [name for name in dict.fromkeys(key for own in each for key in own) if name != OURS]
    networks = {name: _figures(name, each, batch, metric.scale) for name in [OURS, *names]}
    costs = [{name: _costs(row, own, batch) for name, row in own.items()} for own in each]
    limit = np.max([pair for by_name in costs for pair in by_name.values()], axis=0)
    ours = [hypervolume([by_name[OURS]], limit) for by_name in costs]
    rivals = [hypervolume([c for n, c in by_name.items() if n != OURS], limit) for by_name in costs]
    more = [a - b for a, b in zip(ours, rivals, strict=True)]
    return {
        "n": len(each),
        "batch": batch,
        "networks": networks,
        "hypervolume": {
            "found": _spread(ours),
            "rivals": _spread(rivals),
            "found_more": _paired(more),
        },
    }


def _batch(run: VersionRun) -> int:
    sizes = batches(model_rows(run)[0])
    return sizes[-1] if sizes else 0


def _fastest(run: VersionRun, batch: int) -> dict[str, ModelRow]:
    """What was found, the baseline, the rivals of a run; {} unless the first two were timed undisturbed."""
    rows = [r for r in model_rows(run)[0] if batch in r.latency and r.accuracy_mean is not None]
    ours, base = final_row(rows, batch), baseline_row(rows, batch)
    if ours is None or base is None:
        return {}
    found: dict[str, ModelRow] = {OURS: ours, base.name: base}
    rivals = [row for row in rows if row.kind == "rival" and not row.latency[batch].flagged]
    for row in sorted(rivals, key=lambda row: row.latency[batch].median_ms):
        found.setdefault(row.name, row)
    return found


def _share(row: ModelRow, own: Mapping[str, ModelRow], batch: int) -> float:
    """Its time as a part of the baseline's of the same run."""
    base = next(other for other in own.values() if other.baseline)
    return row.latency[batch].median_ms / base.latency[batch].median_ms


def _costs(row: ModelRow, own: Mapping[str, ModelRow], batch: int) -> Costs:
    return math.log(_share(row, own, batch)), -row.metric.scale * row.rating


def _figures(
    name: str, each: Sequence[Mapping[str, ModelRow]], batch: int, scale: float
) -> dict[str, Any]:
    have = [own for own in each if name in own]
    spent = [finite(own[name].extra.get("device_seconds")) for own in have]
    gains = [scale * (own[OURS].rating - own[name].rating) for own in have]
    # all seeds are tested on the same examples: more of them make the choice of examples no smaller a chance
    by_examples = [
        scale * math.hypot(own[OURS].standard_error, own[name].standard_error) for own in have
    ]
    return {
        "n": len(have),
        "metric": _spread([own[name].accuracy_mean or 0.0 for own in have]),
        "time_share": _spread([_share(own[name], own, batch) for own in have]),
        "device_seconds": None if None in spent else float(np.mean([s or 0.0 for s in spent])),
        "found_better_by": _paired(gains) if name != OURS else None,
        "examples_error": float(np.mean(by_examples)) if name != OURS else None,
    }


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and sample standard deviation."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": std}


def _paired(values: Sequence[float]) -> dict[str, float | None]:
    """Mean of paired differences, and its standard error."""
    found = _spread(values)
    error = None if found["std"] is None else found["std"] / math.sqrt(len(values))
    return {"mean": found["mean"], "error": error}


def contest_sentence(told: Mapping[str, Any] | None, metric: Metric) -> str:
    """What was won over the baseline, over how many seeds and at which cost, or that nothing was."""
    if told is None:
        return ""
    (_, ours), (name, base), *_ = told["networks"].items()
    share, gain = ours["time_share"]["mean"], base["found_better_by"]
    by_seeds = 2 * (gain["error"] or 0.0)
    sure = max(by_seeds, base["examples_error"])
    won = gain["mean"] >= -sure if faster(1 / share) else gain["mean"] > sure and not faster(share)
    start = "What was found" if won else "Nothing was won: what was found"
    unit = _unit(metric)
    word = "better" if gain["mean"] > 0 else "worse"
    better = f"is {word} by {_with_error({**gain, 'mean': abs(gain['mean'])}).lstrip('+')} {unit}"
    if abs(gain["mean"]) <= sure:
        noise = "the noise" if abs(gain["mean"]) <= by_seeds else "what the test examples can show"
        better = f"differs by no more than {noise} ({_with_error(gain)} {unit})"
    cost = cost_words(ours["device_seconds"], base["device_seconds"])
    return (
        f" {start} takes {number(share)}× of {plain_text(name, limit=60)}'s time and {better}"
        f"{cost}, paired over {told['n']} seeds."
    )


def contest_section(told: Mapping[str, Any] | None, run: VersionRun) -> Section | None:
    """The table of `contest`, and its hypervolumes in a sentence."""
    if told is None:
        return None
    metric = run.metric
    rows = []
    for name, own in told["networks"].items():
        mean, std = own["metric"]["mean"], own["metric"]["std"]
        rows.append({
            "network": name,
            f"test {metric.words}": f"{metric.text(mean)}{metric.spread_text(std)}",
            f"what was found is better by ({_unit(metric)})": _with_error(own["found_better_by"]),
            "time over the baseline's": _with_std(own["time_share"]),
            "device time": "" if own["device_seconds"] is None else duration(own["device_seconds"]),
            "seeds": own["n"],
        })  # fmt: skip
    volume = told["hypervolume"]
    note = (
        f"Batch {told['batch']}, each network in its fastest form; differences are paired by seed, with "
        "their standard error. Hypervolume (log of the time's part times the metric, up to the slowest and "
        f"the worst of all): {_with_std(volume['found'])} of what was found, "
        f"{_with_std(volume['rivals'])} of all rivals together, {_with_error(volume['found_more'])} more "
        f"over {told['n']} seeds."
    )
    return Section("contest", "Against the rivals", card(records(rows)), note)


def _unit(metric: Metric) -> str:
    """What differences are measured in."""
    return "points" if metric.share else metric.words


def _with_error(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return ""
    error = "" if told["error"] is None else f" ± {number(told['error'], 2)}"
    return f"{told['mean']:+.3g}{error}"


def _with_std(told: Mapping[str, Any]) -> str:
    return number(told["mean"]) + ("" if told["std"] is None else f" ± {number(told['std'], 2)}")
