"""Several labels a sample, each present or not: binary cross entropy and mean average precision.

Shapes: B batch, N samples, L labels; outputs are logits [B, L], targets float32 [B, L] of 0 and 1, NaN
where a label does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from darts_core.errors import DataError
from darts_core.metric import Metric
from darts_core.settings import setting
from darts_core.tasks.base import Task, constant, register_task

__all__ = ["MultiLabel", "average_precision"]


def average_precision(output: Tensor, target: Tensor) -> Tensor:
    """Average precision of each label, NaN for one that no sample has.

    The precision at each present sample, ranked by its output, averaged over the present ones; samples of
    equal output share the precision of the last of them, whatever order they stand in.

    Shapes: output [N, L], target [N, L] of 0, 1 and NaN -> [L].
    """
    counted = ~target.isnan()
    # what does not count is ranked last, as absent
    value, ranked = torch.where(counted, output.float(), float("-inf")).sort(
        dim=0, descending=True, stable=True
    )
    present = torch.where(counted, target, 0.0).gather(0, ranked)
    place = torch.arange(len(output), device=output.device)[:, None].expand_as(value)
    # the last place of those with an equal output
    ends = torch.ones_like(value, dtype=torch.bool)
    ends[:-1] = value[1:] != value[:-1]
    last = torch.where(ends, place, len(output)).flip(0).cummin(0).values.flip(0)
    precision = present.cumsum(0).gather(0, last) / (last + 1)
    return (precision * present).sum(0) / present.sum(0)


@register_task(
    "multi_label",
    description="several labels a sample: binary cross entropy, mean average precision",
)
@dataclass(frozen=True)
class MultiLabel(Task):
    """Binary cross entropy in nats, the mean over labels that count; mean average precision from 0 to 1."""

    metric = Metric("mean_average_precision", share=True)
    takes = ("labels",)
    smooths = True
    ranked = True

    positive_weights: str | None = setting(
        None, "balanced: a present label counts by the inverse of its share; null: all alike",
        choices=("balanced",),
    )  # fmt: skip
    weights: tuple[float, ...] = ()

    def converted(self, targets: np.ndarray) -> np.ndarray:
        """float32; NaN where a label does not count."""
        found = targets.astype(np.float32)
        known = found[~np.isnan(found)]
        if targets.ndim != 2 or not bool(((known == 0) | (known == 1)).all()):
            raise DataError(
                f"task={self.name} needs targets [N, L] of 0 and 1; these have shape {targets.shape}."
            )
        return found

    def fitted(self, targets: np.ndarray, names: tuple[str, ...]) -> Self:
        """With the weights of present labels, where they are balanced."""
        known = replace(self, outputs=len(names), names=names)
        if self.positive_weights is None:
            return known
        present = np.nansum(targets, 0)
        absent = np.nansum(1 - targets, 0)
        ratio = np.maximum(absent, 1) / np.maximum(present, 1)
        return replace(known, weights=tuple(float(r) for r in ratio))

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean binary cross entropy over the labels that count."""
        weight = constant(self.weights, output.device, output.dtype) if self.weights else None
        total, count = self._summed(output, target, weight, label_smoothing)
        return total / count.clamp(min=1)

    def _summed(
        self, output: Tensor, target: Tensor, weight: Tensor | None, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        counted = ~target.isnan()
        wanted = torch.where(counted, target, 0.0) * (1 - smoothing) + smoothing / 2
        each = functional.binary_cross_entropy_with_logits(
            output, wanted.to(output.dtype), pos_weight=weight, reduction="none"
        )
        return (each * counted).sum(), counted.sum()

    def summed_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """Unweighted, over the labels that count."""
        total, count = self._summed(output, target, None, 0.0)
        return total, int(count)

    def distillation_loss(self, output: Tensor, teacher: Tensor) -> Tensor:
        """Binary cross entropy against the teacher's probabilities, less the teacher's own entropy."""
        taught = teacher.sigmoid()
        each = functional.binary_cross_entropy_with_logits(output, taught, reduction="none")
        own = functional.binary_cross_entropy_with_logits(teacher, taught, reduction="none")
        return (each - own).mean()

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the labels that some sample has; NaN where outputs are, which nothing can rank."""
        found = average_precision(output, target).nanmean().nan_to_num(0.0)
        astray = (output.isnan() & ~target.isnan()).any()
        return torch.where(astray, math.nan, found)

    def scores(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """Mean average precision, and the share of right labels at probability 1/2."""
        counted = ~target.isnan()
        right = ((output > 0) == (target > 0.5)) & counted & ~output.isnan()
        found = super().scores(output, target)
        return {**found, "label_accuracy": float(right.sum() / counted.sum().clamp(min=1))}

    def read(self, output: Tensor) -> Tensor:
        """Probabilities [B, L], each for itself."""
        return output.float().sigmoid()

    def agreement(self, output: Tensor, reference: Tensor) -> Tensor:
        """Share of labels answered alike."""
        return ((output > 0) == (reference > 0)).float().mean()
