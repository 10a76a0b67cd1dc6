"""The task's metrics and loss of a network on one split.

Shapes: x_B inputs [B, ...], y_B targets [B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError, DataError
from darts_core.tasks import saved_task

__all__ = ["Evaluation", "evaluate", "evaluate_callable", "of_model"]

# names of what outputs and inputs mean -> where files keep them
_NAMES = {"classes": ("class_names", "classes"), "tokens": ("vocabulary",)}
_SCALES = {255: "bytes 0..255", 1: "numbers as they are"}


@dataclass(frozen=True)
class Evaluation:
    """The task's metrics by name, the mean loss, and the number of samples behind both.

    `value` is the metric that selects.
    """

    value: float
    loss: float
    n: int
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The share of right answers, of a classification."""
        return self.metrics["accuracy"]

    def named(self, split: str) -> dict[str, float]:
        """The metrics as files name them: `val_accuracy`."""
        return {f"{split}_{name}": value for name, value in self.metrics.items()}


def of_model(bundle: Any, meta: Mapping[str, Any], source: str) -> Any:
    """`bundle` as a saved model knows it: what its outputs mean, and how its inputs are normalised.

    The statistics of a split follow from the seed; a network goes with those that it was trained on.

    Raises:
        ConfigError: the file's task is another one than the data's, or has other outputs; its classes, its
            tokens or the scale of its inputs are others.
    """
    for what, keys in _NAMES.items():
        then = next((tuple(meta[key]) for key in keys if meta.get(key)), ())
        now = tuple(getattr(bundle, keys[0]))
        if then and now and then != now:
            raise ConfigError(
                f"{source} was trained on {_called(meta)}, whose {what} are {_some(then)}; those of "
                f"{bundle.name} are {_some(now)}. Give the data of its training (data=...)."
            )
    mean, std = (tuple(meta.get(key) or ()) for key in ("mean", "std"))
    if len(mean) == len(std) == len(bundle.mean):
        unit = int(meta.get("unit") or 255)
        if bundle.kind == "image" and unit != bundle.unit:
            raise ConfigError(
                f"{source} was trained on {_called(meta)}, images of {_SCALES.get(unit, unit)}; those of "
                f"{bundle.name} are {_SCALES[bundle.unit]}. Give the data of its training (data=...)."
            )
        bundle = replace(bundle, mean=mean, std=std)
    if not meta.get("task"):
        return bundle
    task = saved_task(meta["task"], source)
    if task.name != bundle.task.name or task.outputs != bundle.task.outputs:
        raise ConfigError(
            f"{source} was trained for task={task.name} with {task.outputs} outputs; the data are for "
            f"task={bundle.task.name} with {bundle.task.outputs}. Give the data and task= of its training."
        )
    return replace(bundle, task=task)


def _called(meta: Mapping[str, Any]) -> str:
    return str(meta.get("data") or meta.get("name") or "other data")


def _some(names: Sequence[str], most: int = 5) -> str:
    """The first few names."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


@torch.inference_mode()
def evaluate_callable(call: Callable[[Tensor], Tensor], bundle: Any, split: str = "test") -> float:
    """The task's metric of `call`, an exported model for instance, on every sample of `split`."""
    meter = bundle.task.meter(bundle.device)
    for x_B, y_B in bundle.batches(split, 256, drop_last=False, shuffle=False):
        meter.update(call(x_B).to(y_B.device).float(), y_B)
    found: float = meter.result()[bundle.task.metric.name]
    return found


@torch.no_grad()
def evaluate(
    model: nn.Module,
    bundle: Any,
    split: str | Sequence[str] = "val",
    batch_size: int = 256,
) -> Evaluation:
    """Every sample of `split` once, in evaluation mode; the mode of `model` is restored.

    Args:
        model: returns outputs as the task of `bundle` takes them.
        bundle: a `DataBundle`.
        split: a split's name, or several that are joined.
        batch_size: samples a forward pass; the metrics do not depend on it.

    Raises:
        DataError: the split is empty.
    """
    names = (split,) if isinstance(split, str) else tuple(split)
    was_training = model.training
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    task = bundle.task
    meter = task.meter(device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    count, counted = 0, 0
    try:
        batches = bundle.batches(
            names, batch_size, seed=0, epoch=0, augment=None, drop_last=False, shuffle=False
        )
        for x_B, y_B in batches:
            x_B, y_B = x_B.to(device), y_B.to(device)
            output = model(x_B).float()
            meter.update(output, y_B)
            loss, number = task.summed_loss(output, y_B)
            loss_sum += loss.double()
            count += len(y_B)
            counted += number
    finally:
        model.train(was_training)
    if count == 0:
        raise DataError(f"The split {'+'.join(names)} is empty; nothing can be evaluated on it.")
    metrics = meter.result()
    return Evaluation(metrics[task.metric.name], float(loss_sum) / max(counted, 1), count, metrics)
