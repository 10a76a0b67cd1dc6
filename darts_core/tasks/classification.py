"""One class a sample: cross entropy and accuracy.

Shapes: B batch; outputs are logits [B, classes], targets int64 [B].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from darts_core.metric import ACCURACY
from darts_core.settings import setting
from darts_core.tasks.base import Meter, Task, constant, register_task

__all__ = ["Classification"]

# of distillation: how much the teacher's distribution is softened
_TEMPERATURE = 4.0


def _right(output: Tensor, target: Tensor) -> Tensor:
    """Which samples [B] are answered right; NaN, which is the largest to `argmax`, is no answer."""
    return (output.argmax(1) == target) & ~output.isnan().any(1)


class _Right(Meter):
    """Counts right answers."""

    def __init__(self, task: Task, device: torch.device) -> None:
        super().__init__(task, device)
        self._right = torch.zeros((), dtype=torch.int64, device=device)
        self._count = 0

    def update(self, output: Tensor, target: Tensor) -> None:
        """Count a batch's right answers."""
        self._right += _right(output, target).sum()
        self._count += len(target)

    def result(self) -> dict[str, float]:
        """The share of right answers."""
        return {self.task.metric.name: int(self._right) / self._count}


@register_task("classification", description="one class a sample: cross entropy, accuracy")
@dataclass(frozen=True)
class Classification(Task):
    """Cross entropy in nats, optionally weighted by class; accuracy from 0 to 1."""

    metric = ACCURACY
    smooths = True
    ranked = True

    class_weights: str | None = setting(
        None, "balanced: a class counts by the inverse of its share; null: all alike",
        choices=("balanced",),
    )  # fmt: skip
    weights: tuple[float, ...] = ()

    def fitted(self, targets: np.ndarray, names: tuple[str, ...]) -> Self:
        """With the weights of the classes, where they are balanced."""
        known = replace(self, outputs=len(names), names=names)
        if self.class_weights is None:
            return known
        counts = np.bincount(targets, minlength=len(names))
        # whole groups may leave a class to the alpha split, which is trained on, too: counted as one sample
        # it would weigh hundreds of times what others do
        counts = np.where(counts > 0, counts, counts[counts > 0].min(initial=len(targets)))
        weights = len(targets) / (len(names) * counts)
        return replace(known, weights=tuple(float(w) for w in weights))

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross entropy in nats."""
        weight = constant(self.weights, output.device, output.dtype) if self.weights else None
        return functional.cross_entropy(
            output, target, weight=weight, label_smoothing=label_smoothing
        )

    def summed_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """Unweighted: the loss of an evaluation is in nats whatever training weighs."""
        return functional.cross_entropy(output, target, reduction="sum"), len(target)

    def distillation_loss(self, output: Tensor, teacher: Tensor) -> Tensor:
        """Divergence from the teacher's softened distribution (arXiv:1503.02531)."""
        soft = functional.kl_div(
            (output / _TEMPERATURE).log_softmax(1),
            (teacher / _TEMPERATURE).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        # T^2 keeps the soft gradient's size independent of the temperature
        return _TEMPERATURE**2 * soft

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Share of right answers."""
        return _right(output.detach(), target).float().mean()

    def meter(self, device: torch.device) -> Meter:
        """One that counts right answers."""
        return _Right(self, device)

    def read(self, output: Tensor) -> Tensor:
        """Probabilities [B, classes]."""
        return output.float().softmax(1)

    def agreement(self, output: Tensor, reference: Tensor) -> Tensor:
        """Share of samples whose top class is the same."""
        return (output.argmax(1) == reference.argmax(1)).double().mean()
