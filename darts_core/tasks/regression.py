"""Numbers to predict: squared error, with R2, mean absolute and mean squared error as metrics.

Networks learn standardised targets (mean 0, standard deviation 1 over the params split); metrics are of
numbers in the targets' own unit, and `read` turns outputs into them.

Shapes: B batch, N samples, D numbers; outputs [B, D], targets float32 [B, D], NaN where one does not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from darts_core.errors import ConfigError, DataError
from darts_core.metric import Metric
from darts_core.settings import setting
from darts_core.tasks.base import Task, constant, register_task

__all__ = ["Regression"]


@register_task("regression", description="numbers to predict: squared error; R2, MAE and MSE")
@dataclass(frozen=True)
class Regression(Task):
    """Mean squared error of standardised numbers; R2 (1 is perfect, 0 the mean), averaged over columns."""

    metric = Metric("r2")
    takes = ("number",)

    standardise: bool = setting(True, "learn targets of mean 0 and standard deviation 1")
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def check(self) -> None:
        """Refuse statistics that are not one of each column."""
        fits = len(self.mean) == len(self.std) == self.outputs
        if (
            not fits
            or not all(math.isfinite(v) for v in (*self.mean, *self.std))
            or min(self.std, default=1.0) <= 0
        ):
            raise ConfigError(
                f"task=regression: mean {self.mean} and std {self.std} do not fit {self.outputs} outputs."
            )

    def converted(self, targets: np.ndarray) -> np.ndarray:
        """float32 [N, D]; NaN where a number does not count."""
        found = targets.astype(np.float32)
        if targets.ndim > 2:
            raise DataError(
                f"task={self.name} needs targets [N] or [N, D]; these have shape {targets.shape}."
            )
        if np.isinf(found).any():
            raise DataError(
                "The targets hold infinity; only NaN may mark a number that is missing."
            )
        return found.reshape(len(found), -1)

    def fitted(self, targets: np.ndarray, names: tuple[str, ...]) -> Self:
        """With mean and standard deviation of the targets."""
        columns = targets.shape[1]
        values = targets.astype(np.float64)
        if not np.isfinite(values).any(0).all():
            raise DataError(
                "A column of the targets has no number that counts in the params split."
            )
        mean, std = np.zeros(columns), np.ones(columns)
        if self.standardise:
            mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
            # a column that never changes is left at its scale
            std = np.where(std > 0, std, 1.0)
        return replace(
            self,
            outputs=columns,
            names=names,
            mean=tuple(float(m) for m in mean),
            std=tuple(float(s) for s in std),
        )

    def _standardised(self, target: Tensor, like: Tensor) -> Tensor:
        mean = constant(self.mean, like.device, like.dtype)
        std = constant(self.std, like.device, like.dtype)
        return (target.to(like.dtype) - mean) / std

    def _squares(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(sum of squared errors of standardised numbers, how many count)."""
        _check_shapes(output, target)
        wanted = self._standardised(target, output)
        counted = ~wanted.isnan()
        # masked before the square: a NaN that is only multiplied by zero stays NaN in the gradient
        error = torch.where(counted, output - wanted.nan_to_num(0.0), 0.0)
        return (error**2).sum(), counted.sum()

    def loss(self, output: Tensor, target: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error of standardised numbers that count."""
        total, count = self._squares(output, target)
        return total / count.clamp(min=1)

    def summed_loss(self, output: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """The same, summed, and how many numbers that are."""
        total, count = self._squares(output, target)
        return total, int(count)

    def _errors(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(errors with zeros for what does not count, targets, what counts), float64 in the targets' unit."""
        _check_shapes(output, target)
        target = target.double()
        counted = ~target.isnan()
        error = torch.where(counted, self.read(output).double() - target, 0.0)
        return error, target, counted

    def score(self, output: Tensor, target: Tensor) -> Tensor:
        """R2 a column, averaged: 1 - squared error / squared distance from the column's mean.

        A column of which nothing counts says nothing, so that it is none of those that are averaged.
        """
        error, target, counted = self._errors(output, target)
        known = counted.any(0)
        number = counted.sum(0).clamp(min=1)
        mean = target.nan_to_num(0.0).sum(0) / number
        spread = (torch.where(counted, target - mean, 0.0) ** 2).sum(0)
        # of a batch in which nothing varies there is no R2 to speak of
        ratio = (error**2).sum(0) / spread
        column = torch.where(spread > 0, 1 - ratio, 0.0)
        return (column.sum() / known.sum().clamp(min=1)).float()

    def scores(self, output: Tensor, target: Tensor) -> dict[str, float]:
        """R2, and mean absolute and squared error in the targets' unit."""
        error, _, counted = self._errors(output, target)
        number = counted.sum().clamp(min=1)
        return {
            **super().scores(output, target),
            "mae": float(error.abs().sum() / number),
            "mse": float((error**2).sum() / number),
        }

    def read(self, output: Tensor) -> Tensor:
        """Numbers [B, D] in the targets' own unit."""
        output = output.float()
        mean = constant(self.mean, output.device, output.dtype)
        return output * constant(self.std, output.device, output.dtype) + mean


def _check_shapes(output: Tensor, target: Tensor) -> None:
    """Refuse [B] for [B, 1], of which torch would make every output less every target."""
    if output.shape != target.shape:
        raise ConfigError(
            f"The network gives outputs of shape {tuple(output.shape)} for targets of shape "
            f"{tuple(target.shape)}; task=regression needs the same shape [B, D], also where D is 1."
        )
