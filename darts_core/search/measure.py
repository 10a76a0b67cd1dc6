"""The task's metric of a forward function on one split."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from darts_core.strategies.base import Forward

if TYPE_CHECKING:
    from darts_core.data import DataBundle

__all__ = ["metric_on"]


@torch.no_grad()
def metric_on(
    forward: Forward, bundle: DataBundle, batch_size: int, split: str, batches: int | None = None
) -> float:
    """The task's metric on `split`, or on `batches` batches of it, each time the same ones.

    They are drawn from all of the split: in its own order those of images from folders are of one class each,
    by whose statistics a network with norms would be judged.
    """
    meter = bundle.task.meter(bundle.device)
    data = bundle.batches(split, batch_size, drop_last=False)
    for inputs, targets in itertools.islice(data, batches):
        meter.update(forward(inputs), targets)
    # a task of one's own may give a number of numpy, with which no checkpoint could be read again
    return float(meter.result()[bundle.task.metric.name])
