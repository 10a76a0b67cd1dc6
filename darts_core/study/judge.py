"""The judgement of a search: the winner against the user's own configuration, over the same seeds.

A difference counts when it is larger than twice its standard error, taken over the pairs of one seed each.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.reading import finite

__all__ = ["doubts", "figure", "gain", "stats", "verdict"]

Row = dict[str, Any]
Goals = Sequence[Mapping[str, Any]]
BETTER, WORSE, NOT_SHOWN = "better", "worse", "no difference shown"
_ERRORS = 2.0  # standard errors that a difference has to exceed
_ENOUGH = 3  # values of which a metric that is alive changes at least one
_NEAR_CHANCE = 0.1  # share of the way from guessing to perfect that is still called guessing


def stats(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value) and number."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "n": len(values),
    }


def figure(side: Mapping[str, Any]) -> str:
    """Mean and, with several seeds, the sample standard deviation."""
    spread = side["std"]
    return f"{side['mean']:.4g}" + (f" ± {spread:.3g}" if spread is not None else "")


def _pairs(
    name: str, best: Row, baseline: Row, confirm: Sequence[Row]
) -> tuple[list[tuple[Row, Row]], bool]:
    """Rows of the winner and of the user's configuration with the same seed; whether seeds are fresh."""
    sides: dict[str, dict[int, Row]] = {"best": {}, "baseline": {}}
    for row in confirm:
        side = row.get("confirms")
        if (
            row.get("state") == "done"
            and side in sides
            and finite(row.get("values", {}).get(name)) is not None
        ):
            sides[side][int(row.get("seed", 0))] = row
    seeds = sorted(sides["best"].keys() & sides["baseline"].keys())
    if seeds:
        return [(sides["best"][seed], sides["baseline"][seed]) for seed in seeds], True
    return [(best, baseline)], False


def _word(difference: float, error: float | None, sign: float) -> str:
    if error is None or abs(difference) <= _ERRORS * error:
        return NOT_SHOWN
    return BETTER if sign * difference > 0 else WORSE


def gain(best: Row, baseline: Row, confirm: Sequence[Row], goals: Goals) -> list[dict[str, Any]]:
    """For each objective the best trial against the baseline, over the same seeds.

    With confirming runs (fresh seeds, used by nothing else) these alone count; without them it is the
    one seed of the search, which flatters the best of many, and `n` says 1. `verdict` is "better",
    "worse" or "no difference shown"; one seed shows no difference.
    """
    result = []
    for goal in goals:
        name = goal["metric"]
        pairs, fresh = _pairs(name, best, baseline, confirm)
        a = stats([float(ours["values"][name]) for ours, _ in pairs])
        b = stats([float(theirs["values"][name]) for _, theirs in pairs])
        differences = [float(x["values"][name]) - float(y["values"][name]) for x, y in pairs]
        spread = stats(differences)["std"]
        difference = statistics.fmean(differences)
        # decimals leave rounding errors where nothing differs
        least = 1e-12 * max(abs(a["mean"]), abs(b["mean"]))
        difference = difference if abs(difference) > least else 0.0
        error = None
        if spread is not None:
            error = spread / math.sqrt(len(pairs)) if spread > least else 0.0
        word = _word(difference, error, 1.0 if goal["mode"] == "max" else -1.0)
        flags = {
            str(row.get("latency_flag"))
            for pair in pairs
            for row in pair
            if row.get("latency_flag")
        }
        result.append(
            {
                "metric": name,
                "mode": goal["mode"],
                "best": a,
                "baseline": b,
                "difference": difference,
                "standard_error": error,
                "ratio": a["mean"] / b["mean"] if b["mean"] else None,
                "verdict": word,
                "better": word == BETTER,
                "fresh_seeds": fresh,
                # only times can be disturbed by other work
                "flag": "; ".join(sorted(flags)) if "latency" in name else "",
            }
        )
    return result


def _frozen(row: Row) -> bool:
    """Whether the metric to optimise has had one and the same value at every iteration."""
    seen = row.get("reward_range")
    return isinstance(seen, list) and len(seen) == 3 and seen[0] >= _ENOUGH and seen[1] == seen[2]


def _at_chance(row: Row, goal: Mapping[str, Any]) -> bool:
    """Whether a trial is hardly better than guessing, where the user said what guessing gives.

    Of what is better low, such as a loss, the best is 0.
    """
    chance, value = goal.get("chance"), row.get("values", {}).get(goal["metric"])
    if chance is None or finite(value) is None:
        return False
    chance = float(chance)
    if goal.get("mode") == "min":
        return bool(value > chance * (1.0 - _NEAR_CHANCE))
    perfect = 1.0 if chance < 1.0 else 100.0
    return bool(value < chance + _NEAR_CHANCE * (perfect - chance))


def doubts(rows: Sequence[Row], best: Row | None, goals: Goals) -> str:
    """What makes the figures of these finished trials meaningless, in a sentence; "" for nothing.

    Args:
        rows: the finished trials of the search.
        best: the best of them.
        goals: the objectives.
    """
    if best is None or not rows:
        return ""
    name, value = goals[0]["metric"], best.get("values", {}).get(goals[0]["metric"])
    if all(_frozen(row) for row in rows) and len({row["values"].get(name) for row in rows}) == 1:
        return (
            f"{name} was {value:.4g} at every iteration of every trial: nothing is learnt, or the metric "
            "is not the one you mean."
        )
    if _at_chance(best, goals[0]):
        return (
            f"{name} {value:.4g} is at the level of chance ({goals[0]['chance']:g}): nothing is learnt "
            "yet; train longer or look for the mistake before you search."
        )
    return ""


def _part(item: Mapping[str, Any]) -> str:
    n, error = item["best"]["n"], item["standard_error"]
    spread = "" if error is None else f" ± {error:.2g}"
    word = item["verdict"]
    word += f" ({n} seed{'s' if n > 1 else ''})" if word == NOT_SHOWN else ""
    text = (
        f"{item['metric']} {figure(item['best'])} against {figure(item['baseline'])} "
        f"({item['difference']:+.3g}{spread}): {word}"
    )
    return text + (f" [timing disturbed: {item['flag']}]" if item["flag"] else "")


def verdict(
    best: Row | None,
    baseline: Row | None,
    rows: Sequence[Row],
    gains: Sequence[Mapping[str, Any]],
    doubt: str = "",
) -> str:
    """The judgement in one or two sentences.

    Args:
        best: the best trial.
        baseline: the user's own configuration, when it gave a usable result.
        rows: the trials of the search.
        gains: of `gain`.
        doubt: of `doubts`.
    """
    if best is None:
        return "No trial has given a usable result yet."
    if baseline is None:
        return "Your own configuration gave no usable result, so there is nothing to compare with."
    if doubt:
        return f"No success: {doubt}"
    ended = [
        row for row in rows if row.get("done", True) and row["trial_id"] != baseline["trial_id"]
    ]
    if not ended:
        return "Only your own configuration has been measured so far."
    if best["trial_id"] == baseline["trial_id"]:
        if any(row.get("state") == "done" for row in ended):
            return "Nothing beat your own configuration."
        return "No other trial ran to its end, so nothing is known to beat your own configuration."
    seeds = gains[0]["best"]["n"]
    fresh = f"over {seeds} fresh seed{'s' if seeds > 1 else ''}"
    how = fresh if gains[0]["fresh_seeds"] else "over the search's one seed"
    text = (
        f"Against your own configuration, {how}: " + "; ".join(_part(item) for item in gains) + "."
    )
    if not any(item["better"] for item in gains):
        text += " No gain is shown."
    if seeds > 1 and all(item[s]["std"] == 0 for item in gains for s in ("best", "baseline")):
        text += " Runs of different seeds are identical: the seed does not reach the training."
    return text
