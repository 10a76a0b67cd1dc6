"""What a stage found of its network, and whether that holds on the data at hand, in the code of today."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from darts_core.metric import Metric, metric_of
from darts_core.reading import finite
from darts_core.runlog import plain, read_mapping
from darts_core.settings import Data, to_plain
from darts_core.train.evaluation import evaluate
from darts_core.train.model_data import data_of_stage, stage_of

__all__ = ["as_judged", "found_of_point", "seconds_of_training", "tested_before"]

log = logging.getLogger("darts_core")
# of a metric that counts nothing: more than another device's rounding makes
_ROUNDING = 0.01


def tested_before(
    stage: Path, metric: str, data: Mapping[str, Any] | None, bundle: Any
) -> float | None:
    """What a stage found on the test split of the data at hand; None if it saw others.

    The log tells where the settings are the same and the samples are not.

    Args:
        stage: its folder.
        metric: the name of what is asked for.
        data: settings of the node `data`; None: not known.
        bundle: the data.
    """
    result = _result_on(stage, data)
    if result is None or _changed(stage, result, bundle):
        return None
    return finite(result.get(f"test_{metric}"))


def as_judged(model: nn.Module, bundle: Any, stage: Path, data: Mapping[str, Any] | None) -> bool:
    """Whether a loaded network is worth on val what its stage found; where it is not, the log tells.

    A class whose code has changed since takes the same weights and computes something else. What cannot be
    compared (other data, which is told where the settings are the same, no val split, a folder that says
    nothing) counts as unchanged.

    Args:
        model: as its file gives it.
        bundle: the data, as its training knew them (see `of_model`).
        stage: the folder of its file.
        data: settings of the node `data`; None: not known.
    """
    result, metric = _result_on(stage, data), bundle.task.metric
    then = None if result is None else finite(result.get(f"val_{metric.name}"))
    if result is None or _changed(stage, result, bundle):
        return True
    if then is None or not bundle.size("val"):
        return True
    now = evaluate(model, bundle, "val").value
    if abs(now - then) <= _unsure(metric, then, now, bundle.size("val")):
        return True
    log.warning(
        "the network of %s has a val %s of %s here, its training found %s: the code of the network or the "
        "inputs have changed since; restore them, or train it again",
        stage, metric.words, metric.text(now), metric.text(then),
    )  # fmt: skip
    return False


def _unsure(metric: Metric, then: float, now: float, samples: int) -> float:
    """How far two values of one network may lie apart: a sample, the counting error, or rounding."""
    if not metric.share:
        return _ROUNDING * max(abs(then), abs(now))
    return max(1 / samples, *(metric.counting_error(value, samples) for value in (then, now)))


def _result_on(stage: Path, data: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The result of a stage that ran with the same settings of the data; None of others.

    Of a point of a front it is the stage's, with what was found of the point.
    """
    known, then = stage_of(stage) / "result.json", data_of_stage(stage)
    if data is None or then is None or not known.is_file():
        return None
    # a folder of an older program lacks what has its default
    now, usual = plain(data), to_plain(Data())
    if any(then.get(key, usual.get(key)) != now.get(key, usual.get(key)) for key in {*then, *now}):
        return None
    result = read_mapping(known)
    return {**result, **found_of_point(stage, metric_of(result).name)}


def found_of_point(folder: Path, metric: str) -> dict[str, Any]:
    """What was found of the point of a front in `folder`, as a stage's result names it; {} of a stage's own.

    Args:
        folder: that holds the network.
        metric: the name of what it is judged by.
    """
    path = folder / "point.json"
    if not path.is_file():
        return {}
    row = read_mapping(path)
    return {f"val_{metric}": row.get("val_metric"), f"test_{metric}": row.get("metric")}


def seconds_of_training(folder: Path | None) -> dict[str, float]:
    """What the training of a given network took, as a stage's result names it; {} where that is not known.

    Args:
        folder: that holds the network; what a pruning or an elastic training left took more than that.
    """
    path = folder / "result.json" if folder is not None else None
    if path is None or not path.is_file():
        return {}
    result = read_mapping(path)
    seconds = finite(result.get("device_seconds"))
    if seconds is None or seconds <= 0 or "latency_before_ms" in result:
        return {}
    return {"given_training_seconds": seconds}


def _changed(stage: Path, result: Mapping[str, Any], bundle: Any) -> bool:
    """Whether samples or targets have changed since a result, which the log tells; not where it is silent."""
    then = result.get("data_marks")
    if not isinstance(then, Mapping):
        return False
    found = [name for name, mark in bundle.marks.items() if then.get(name, mark) != mark]
    if found:
        log.warning(
            "%s ran on other data of the same settings (other samples or targets in %s): what it found is of "
            "those, and its network may have learned from samples of the test split",
            stage_of(stage), ", ".join(found),
        )  # fmt: skip
    return bool(found)
