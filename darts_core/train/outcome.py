"""What a training did, and who may end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Ends", "FitResult"]

Ends = Callable[[Sequence[dict[str, Any]]], str | None]


@dataclass
class FitResult:
    """What a training did.

    `history` has one row an epoch (epoch, loss, train_<metric>, val_<metric>, val_loss,
    learning_rate, seconds). `val` is the task's metric of the last epoch: its parameters are the ones
    kept. `train_seconds` is time on the device in training steps and in the evaluation after each epoch, over
    all sittings of a resumed run; `steps` counts optimizer steps. `ended` says why it ended before its
    last epoch, if it did.
    """

    epochs: int
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    val: float | None = None
    train_seconds: float = 0.0
    steps: int = 0
    ended: str | None = None
