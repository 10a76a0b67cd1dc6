"""Accuracy and loss of a network on one split.

Shapes: x_BCHW images, y_B labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from darts_core.errors import DataError

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (0 to 1), mean cross-entropy in nats, and the number of images behind both."""

    accuracy: float
    loss: float
    n: int


@torch.no_grad()
def evaluate(
    model: nn.Module,
    bundle: Any,
    split: str | Sequence[str] = "val",
    batch_size: int = 256,
) -> Evaluation:
    """Every image of `split` once, in evaluation mode; the mode of `model` is restored.

    Args:
        model: returns logits of shape [B, classes].
        bundle: a `DataBundle`.
        split: a split's name, or several that are joined.
        batch_size: images a forward pass; accuracy does not depend on it.

    Raises:
        DataError: the split is empty.
    """
    names = (split,) if isinstance(split, str) else tuple(split)
    was_training = model.training
    model.eval()
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    correct = torch.zeros((), dtype=torch.int64, device=device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    try:
        batches = bundle.batches(
            names, batch_size, seed=0, epoch=0, augment=None, drop_last=False, shuffle=False
        )
        for x_BCHW, y_B in batches:
            x_BCHW, y_B = x_BCHW.to(device), y_B.to(device)
            logits = model(x_BCHW).float()
            correct += (logits.argmax(1) == y_B).sum()
            loss_sum += functional.cross_entropy(logits, y_B, reduction="sum").double()
            count += len(y_B)
    finally:
        model.train(was_training)
    if count == 0:
        raise DataError(f"The split {'+'.join(names)} is empty; nothing can be evaluated on it.")
    return Evaluation(int(correct) / count, float(loss_sum) / count, count)
