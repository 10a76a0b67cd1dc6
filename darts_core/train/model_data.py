"""The data at hand as a saved model knows them: what its outputs mean, and how its inputs are normalised."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.data.kinds import sample_words
from darts_core.errors import ConfigError, DartsError
from darts_core.modes import in_evaluation
from darts_core.runlog import read_yaml
from darts_core.sample_inputs import draw_inputs
from darts_core.settings import Data, bounds_of, default_of, to_plain
from darts_core.tasks import Task, saved_task
from darts_core.train.config import OPTIMIZERS, TrainConfig

__all__ = [
    "check_samples",
    "data_of_stage",
    "of_model",
    "same_task",
    "stage_of",
    "tell_other_optimizer",
    "tell_other_test",
]

log = logging.getLogger("darts_core")
# names of what outputs and inputs mean -> where files keep them
_NAMES = {"classes": ("class_names", "classes"), "tokens": ("vocabulary",)}
_SCALES = {255: "bytes 0..255", 1: "numbers as they are"}
# settings of the data that choose what is held out as test split
_HELD_OUT = ("test_fraction", "split_by", "leave_out")
_GIVE = "Give the data of its training (data=...)."


def of_model(bundle: Any, meta: Mapping[str, Any], source: str) -> Any:
    """`bundle` with the task and the statistics of a saved model's training.

    The statistics of a split follow from the seed; a network goes with those that it was trained on.

    Raises:
        ConfigError: the file's task is another one than the data's, or has other outputs; its classes, its
            tokens, the shape or the scale of its samples are others.
    """
    _check_names(bundle, meta, source)
    check_samples(bundle, meta, source)
    return _normalised(_with_task(bundle, meta, source), meta, source)


def check_samples(
    bundle: Any, meta: Mapping[str, Any], source: str, trained_on: nn.Module | None = None
) -> None:
    """Nothing, if the samples of `bundle` are of the shape that a saved model takes.

    Args:
        bundle: the data.
        meta: of the model.
        source: the model's file, for the error.
        trained_on: the network, where it is trained on with these data: it may take images of another height
            or longer series, if it does.

    Raises:
        ConfigError: they are not.
    """
    here = tuple(bundle.input_shape)
    took = tuple(meta.get("image_shape") or meta.get("input_shape") or here)
    if took != here and not (trained_on is not None and _takes(trained_on, took, bundle)):
        raise ConfigError(
            f"{source} takes samples of shape {took}; {bundle.name} holds {here}. {_GIVE}"
        )


def _takes(model: nn.Module, took: Sequence[int], bundle: Any) -> bool:
    """Whether the network gives the task's outputs for samples of the data's sizes, too.

    Channels are no size: those must be the same.
    """
    here = tuple(bundle.input_shape)
    if len(here) != len(took) or (len(here) > 1 and here[0] != took[0]):
        return False
    try:
        with torch.no_grad():
            output = in_evaluation(model)(draw_inputs(here, 2, zeros=True))
    except Exception:  # whatever a foreign network raises
        return False
    wanted = (2, *bundle.task.output_shape(here))
    return isinstance(output, torch.Tensor) and tuple(output.shape) == wanted


def same_task(bundle: Any, meta: Mapping[str, Any], source: str) -> Task | None:
    """The task that a saved model was trained for, which is the data's; None of files from before tasks.

    Raises:
        ConfigError: it is another one than the data's, or has other outputs.
    """
    if not meta.get("task"):
        return None
    task = saved_task(meta["task"], source)
    if task.name != bundle.task.name or task.outputs != bundle.task.outputs:
        raise ConfigError(
            f"{source} was trained for task={task.name} with {task.outputs} outputs; the data are for "
            f"task={bundle.task.name} with {bundle.task.outputs}. Give the data and task= of its training."
        )
    return task


def stage_of(folder: Path) -> Path:
    """The folder of the stage that left a network in `folder`: a point of a front lies in its `points/`."""
    return folder.parent.parent if (folder / "point.json").is_file() else folder


def data_of_stage(folder: Path) -> Mapping[str, Any] | None:
    """The settings of the data that a stage ran with; None where its folder does not say."""
    return _node_of_stage(folder, "data")


def _node_of_stage(folder: Path, node: str) -> Mapping[str, Any] | None:
    path = stage_of(folder) / "config.yaml"
    try:
        found = read_yaml(path).get(node) if path.is_file() else None
    except (AttributeError, DartsError):
        return None
    return found if isinstance(found, Mapping) else None


def tell_other_optimizer(folder: Path, config: TrainConfig, rate: str) -> None:
    """A warning where a stage trained its network with another optimizer than the one that goes on with it.

    Args:
        folder: that the network was left in, of a stage or a point of its front.
        config: of the training that goes on.
        rate: the setting of its learning rate.
    """
    then = (_node_of_stage(folder, "train") or {}).get("optimizer")
    if then in OPTIMIZERS and then != config.optimizer:
        log.warning(
            "the given network was trained with %s and is trained on with %s: train.optimizer=%s, with a %s "
            "for it (now %g), may keep more of what it has learned",
            then, config.optimizer, then, rate, config.learning_rate,
        )  # fmt: skip


def tell_other_test(folder: Path, data: Mapping[str, Any] | None) -> None:
    """A warning where a stage held out others than the data at hand: what judges here may have taught it.

    Args:
        folder: that the network was left in, of a stage or a point of its front.
        data: settings of the node `data`; None: not known.
    """
    then, usual = data_of_stage(folder), to_plain(Data())
    if then is None or data is None:
        return
    for key in _HELD_OUT:
        before, now = (node.get(key, usual[key]) for node in (then, data))
        if before != now:
            log.warning(
                "%s ran with data.%s=%s, here it is %s: its network may have learned from samples of the "
                "test split",
                stage_of(folder), key, *("null" if value is None else value for value in (before, now)),
            )  # fmt: skip


def _with_task(bundle: Any, meta: Mapping[str, Any], source: str) -> Any:
    task = same_task(bundle, meta, source)
    if task is None:
        return bundle
    _tell_options(bundle.task, task, source)
    return replace(bundle, task=task)


def _tell_options(asked: Task, kept: Task, source: str) -> None:
    """A warning for options of the task that somebody set and that the network was not trained with."""
    left = [
        f"task.{item.name}={getattr(asked, item.name)}"
        for item in fields(asked)
        if bounds_of(item) is not None
        and getattr(asked, item.name) not in (default_of(item), getattr(kept, item.name))
    ]
    if left:
        log.warning(
            "%s: not used, as %s keeps the task of its training; train it on with them first",
            ", ".join(left),
            source,
        )


def _check_names(bundle: Any, meta: Mapping[str, Any], source: str) -> None:
    for what, keys in _NAMES.items():
        found = next((meta[key] for key in keys if meta.get(key)), ())
        then, now = _plain(found), _plain(getattr(bundle, keys[0]))
        if not then or not now or then == now or _numbered(then, now):
            continue
        pairs = enumerate(zip(then, now, strict=False))
        first = next((i for i, (a, b) in pairs if a != b), min(len(then), len(now)))
        raise ConfigError(
            f"{source} was trained on {_called(meta)}, whose {what} are {_some(then)} ({len(then)} in all); "
            f"those of {bundle.name} are {_some(now)} ({len(now)}), the first other one is number {first}. "
            f"{_GIVE}"
        )


def _plain(names: Sequence[Any]) -> tuple[str, ...]:
    """Names without the numbers that tell equal ones apart."""
    return tuple(re.sub(r" \(\d+\)$", "", str(name)) for name in names)


def _numbered(then: tuple[str, ...], now: tuple[str, ...]) -> bool:
    """Whether one side has numbers alone, as where the data name nothing, and the other as many or fewer."""
    return len(now) <= len(then) and any(
        all(re.fullmatch(rf"(value|label)?{i}|value", name) for i, name in enumerate(names))
        for names in (then, now)
    )


def _normalised(bundle: Any, meta: Mapping[str, Any], source: str) -> Any:
    mean, std = meta.get("mean"), meta.get("std")
    if not (isinstance(mean, (list, tuple)) and isinstance(std, (list, tuple))):
        return bundle
    if not len(mean) == len(std) == len(bundle.mean):
        return bundle
    # a file of ours leaves out 255; one of somebody else's may say nothing of its scale
    told = "unit" in meta or "data" in meta
    unit = int(meta.get("unit") or 255)
    if told and bundle.kind in ("image", "series") and unit != bundle.unit:
        what = sample_words(len(bundle.input_shape))
        raise ConfigError(
            f"{source} was trained on {_called(meta)}, {what} of {_SCALES.get(unit, unit)}; those of "
            f"{bundle.name} are {_SCALES[bundle.unit]}. {_GIVE}"
        )
    return replace(bundle, mean=tuple(mean), std=tuple(std))


def _called(meta: Mapping[str, Any]) -> str:
    return str(meta.get("data") or meta.get("name") or "other data")


def _some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
