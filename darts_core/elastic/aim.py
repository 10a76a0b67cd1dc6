"""What an elastic network is trained for, where nothing says otherwise: one class a sample."""

from __future__ import annotations

from typing import Any, Protocol

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Aim", "Classes", "aim_of"]

_TEMPERATURE = 4.0


class Aim(Protocol):
    """The losses of a training."""

    def loss(self, output: Tensor, target: Any) -> Tensor:
        """The mean loss of a batch."""

    def distillation_loss(self, output: Tensor, teacher: Tensor) -> Tensor:
        """How far the outputs are from the teacher's."""


class Classes:
    """Cross-entropy, and the divergence from a teacher's softened distribution (arXiv:1503.02531)."""

    def loss(self, output: Tensor, target: Any) -> Tensor:
        """Cross-entropy in nats; output [B, classes], target int64 [B]."""
        return F.cross_entropy(output, target)

    def distillation_loss(self, output: Tensor, teacher: Tensor) -> Tensor:
        """Over the second dimension: 0 where both answer alike."""
        soft = F.kl_div(
            (output / _TEMPERATURE).log_softmax(1),
            (teacher / _TEMPERATURE).log_softmax(1),
            reduction="batchmean",
            log_target=True,
        )
        # T^2 keeps the soft gradient's size independent of the temperature
        return _TEMPERATURE**2 * soft


def aim_of(bundle: Any) -> Aim:
    """The task of a data bundle; one class a sample where it states none."""
    found: Aim = getattr(bundle, "task", None) or Classes()
    return found
