"""Accuracy of a forward function on one split."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from darts_core.strategies.base import Forward
from darts_core.supernet import Supernet

if TYPE_CHECKING:
    from darts_core.data import DataBundle

__all__ = ["accuracy_of", "evaluate_supernet"]


def evaluate_supernet(
    supernet: Supernet, bundle: DataBundle, batch_size: int, split: str = "val"
) -> float:
    """Accuracy (0 to 1) of the supernet under its final weights, in evaluation mode, on `split`."""
    was_training = supernet.training
    supernet.eval()
    weights = {
        kind: torch.as_tensor(weight, dtype=torch.float32, device=bundle.device)
        for kind, weight in supernet.final_weights().items()
    }
    result = accuracy_of(lambda images: supernet(images, weights), bundle, batch_size, split)
    supernet.train(was_training)
    return result


@torch.no_grad()
def accuracy_of(
    forward: Forward, bundle: DataBundle, batch_size: int, split: str, batches: int | None = None
) -> float:
    """Share of right answers on `split`, or on its first `batches` batches."""
    right = torch.zeros((), device=bundle.device)
    count = 0
    data = bundle.batches(split, batch_size, drop_last=False, shuffle=False)
    for images, labels in itertools.islice(data, batches):
        right += (forward(images).argmax(dim=1) == labels).sum()
        count += len(labels)
    return float(right) / count
