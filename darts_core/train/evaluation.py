"""The task's metrics and loss of a network on one split.

Shapes: x_B inputs [B, ...], y_B targets [B, ...].
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError, DataError, is_memory_shortage
from darts_core.modes import evaluating
from darts_core.tasks.base import check_metric_names

__all__ = ["Evaluation", "evaluate", "evaluate_callable"]

log = logging.getLogger("darts_core")
# by so much sums in fp32 may leave 0..1
_ROUNDING = 1e-4


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
    """Every sample of `split` once, in evaluation mode; the mode of `model` and of each part is restored.

    Args:
        model: returns outputs as the task of `bundle` takes them.
        bundle: a `DataBundle`.
        split: a split's name, or several that are joined.
        batch_size: samples a forward pass; the metrics do not depend on it, and where so many do not fit
            into the memory it is halved until they do.

    Raises:
        DataError: the split is empty.
        ConfigError: the task calls a metric `loss`, or the network gives no tensor.
    """
    names = (split,) if isinstance(split, str) else tuple(split)
    with evaluating(model):
        while True:
            try:
                return _evaluated(model, bundle, names, batch_size)
            except (RuntimeError, MemoryError) as error:
                if batch_size == 1 or not is_memory_shortage(error):
                    raise
            # outside the handler: the traceback would keep the failed pass's tensors alive
            _say_smaller(batch_size, batch_size // 2)
            batch_size //= 2


@lru_cache
def _say_smaller(batch_size: int, smaller: int) -> None:
    log.info("evaluating in batches of %d: %d do not fit into the memory", smaller, batch_size)


@lru_cache
def _say_no_share(task: str, metric: str) -> None:
    """Once: such a value would be told with each epoch."""
    log.warning(
        "task=%s gives values of %s outside 0..1, though it is a share: what is shown in per cent and what "
        "counts as a difference are wrong; divide per cent by 100, or give the task its own metric, such as "
        "Metric('mae', 'minimize')",
        task, metric,
    )  # fmt: skip


def _evaluated(
    model: nn.Module, bundle: Any, names: tuple[str, ...], batch_size: int
) -> Evaluation:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    task = bundle.task
    meter = task.meter(device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    count, counted = 0, 0
    batches = bundle.batches(
        names, batch_size, seed=0, epoch=0, augment=None, drop_last=False, shuffle=False
    )
    for x_B, y_B in batches:
        x_B, y_B = x_B.to(device), y_B.to(device)
        output = model(x_B)
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"In evaluation mode the network gives a {type(output).__name__}; it must give its outputs, "
                "a tensor. Let it give what else there is, as those of an auxiliary head, in training alone."
            )
        output = output.float()
        meter.update(output, y_B)
        loss, number = task.summed_loss(output, y_B)
        loss_sum += loss.double()
        count += len(y_B)
        counted += number
    if count == 0:
        raise DataError(f"The split {'+'.join(names)} is empty; nothing can be evaluated on it.")
    # plain numbers: a checkpoint that held numpy's (a task of somebody's own) could not be read again
    metrics = {name: float(value) for name, value in meter.result().items()}
    check_metric_names(task.name, metrics)
    value = metrics[task.metric.name]
    if task.metric.share and (value < -_ROUNDING or value > 1 + _ROUNDING):
        _say_no_share(task.name, task.metric.name)
    return Evaluation(value, float(loss_sum) / max(counted, 1), count, metrics)
