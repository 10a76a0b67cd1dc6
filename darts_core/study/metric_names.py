"""Names under which users' code reports the same thing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["ACCURACY", "SAME_METRIC", "less_is_better", "names_of", "under_names"]

ACCURACY = ("acc", "accuracy", "mean_accuracy")
_LATENCY = ("latency", "latency_ms")

SAME_METRIC = {**dict.fromkeys(ACCURACY, ACCURACY), **dict.fromkeys(_LATENCY, _LATENCY)}
"""Metric -> all its names, in the order in which they are looked for."""

# words of the names of numbers of which less is better
_LESS = {
    "loss", "err", "error", "perplexity", "ppl", "nll", "mae", "mse", "rmse", "mape", "wer", "cer", "latency",
    "seconds", "params", "macs", "logloss", "mlogloss", "merror", "crossentropy", "xent", "bce", "msle",
    "rmsle", "nrmse", "smape", "mase", "ece", "eer", "crps", "bpb", "bpc", "bpd",
}  # fmt: skip
# of these, too, where they are called a score
_LESS_AS_A_SCORE = {"brier", "fid", "lpips"}
# words that say so at the end alone: `latency_ms`, but not `ms_ssim` or `inference_fps`
_LESS_AT_THE_END = {"ms", "time", "inference"}
# the other way round: `neg_mean_squared_error`
_TURNED = {"neg", "negative"}
# more of these is better, whatever else the name says (`survival_time`), but for the loss made of one
_MORE = {"accuracy", "acc", "score", "f1", "auc", "r2", "ssim", "psnr", "survival"}
# what makes another metric of one that is called a score: `brier_skill_score`, `fid_accuracy`
_ANOTHER = (_MORE - {"score"}) | {"skill"}
_MADE_OF = {"loss", "err", "error"}


def less_is_better(metric: str) -> bool:
    """Whether a metric's name sounds like a number of which less is better, such as `val_perplexity`.

    A guess: False also where the name says nothing, or two things at once.
    """
    words = [word for word in re.split(r"[\W_]+", metric.lower()) if word]
    if not words or not _TURNED.isdisjoint(words):
        return False
    if not _LESS_AS_A_SCORE.isdisjoint(words) and _ANOTHER.isdisjoint(words):
        return True
    last = words[-1]
    if not _MORE.isdisjoint(words):
        return last in _MADE_OF
    # our own tables have `time_total_s`
    seconds = last == "s" and "time" in words
    crossed = "cross entropy" in " ".join(words)
    return seconds or crossed or last in _LESS_AT_THE_END or not _LESS.isdisjoint(words)


def names_of(metric: str) -> tuple[str, ...]:
    """All names of a metric, its own first."""
    return (metric, *SAME_METRIC.get(metric, ()))


def under_names(metrics: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """The metrics, and each wanted one also under its wanted name where another name of it is there."""
    found = dict(metrics)
    for name in wanted:
        known = [other for other in names_of(name) if other in metrics]
        if known:
            found[name] = metrics[known[0]]
    return found
