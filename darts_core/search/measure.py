"""The task's metric of a forward function on one split."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from darts_core.strategies.base import Forward
from darts_core.supernet import Supernet

if TYPE_CHECKING:
    from darts_core.data import DataBundle

__all__ = ["evaluate_supernet", "metric_on"]


def evaluate_supernet(
    supernet: Supernet, bundle: DataBundle, batch_size: int, split: str = "val"
) -> float:
    """The task's metric of the supernet under its final weights, in evaluation mode, on `split`."""
    was_training = supernet.training
    supernet.eval()
    weights = {
        kind: torch.as_tensor(weight, dtype=torch.float32, device=bundle.device)
        for kind, weight in supernet.final_weights().items()
    }
    result = metric_on(lambda images: supernet(images, weights), bundle, batch_size, split)
    supernet.train(was_training)
    return result


@torch.no_grad()
def metric_on(
    forward: Forward, bundle: DataBundle, batch_size: int, split: str, batches: int | None = None
) -> float:
    """The task's metric on `split`, or on its first `batches` batches."""
    meter = bundle.task.meter(bundle.device)
    data = bundle.batches(split, batch_size, drop_last=False, shuffle=False)
    for inputs, targets in itertools.islice(data, batches):
        meter.update(forward(inputs), targets)
    return meter.result()[bundle.task.metric.name]
