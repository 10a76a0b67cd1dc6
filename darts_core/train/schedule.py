"""What changes during a training: learning rate, drop-path probability, the moving average.

All schedules are functions of the epoch and step alone: a resumed run needs no schedule state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.train.config import TrainConfig

__all__ = ["ExponentialAverage", "drop_path_at", "learning_rate_at", "make_optimizer"]


def learning_rate_at(config: TrainConfig, epoch: float) -> float:
    """The learning rate at a (fractional) epoch: linear warm-up, then half a cosine.

    Source: SGDR (Loshchilov and Hutter 2017), Eq. 5, one period.
    """
    if epoch < config.warmup_epochs:
        return config.learning_rate * max(epoch / config.warmup_epochs, 1e-3)
    span = max(config.epochs - config.warmup_epochs, 1e-9)
    progress = min((epoch - config.warmup_epochs) / span, 1.0)
    height = config.learning_rate - config.min_learning_rate
    return config.min_learning_rate + 0.5 * height * (1 + math.cos(math.pi * progress))


def drop_path_at(config: TrainConfig, epoch: int) -> float:
    """The drop-path probability of an epoch: it grows linearly from 0 to `config.drop_path`."""
    return config.drop_path * epoch / config.epochs


def make_optimizer(config: TrainConfig, params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over `params`."""
    kwargs: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(params, momentum=config.momentum, **kwargs)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(params, momentum=config.momentum, **kwargs)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "nadam": torch.optim.NAdam}
    return kinds[config.optimizer](params, **kwargs)


class ExponentialAverage:
    """A moving average of a network's state (parameters and running statistics).

    The decay of update n is min(decay, (1 + n) / (10 + n)): without this a short training would
    mostly average its random start. What holds infinities from the start (a causal mask) is copied:
    their mean would be NaN.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in model.state_dict().items()
        }
        self._averaged = {
            name
            for name, value in self.state.items()
            if value.is_floating_point() and bool(value.isfinite().all())
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the network as it stands after an optimizer step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages, values = [], []
        for name, value in model.state_dict().items():
            if name in self._averaged:
                averages.append(self.state[name])
                values.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averages, values, 1.0 - decay)

    def swap(self, model: nn.Module) -> None:
        """Exchange the network's state and the average (call again to swap back)."""
        current = {name: value.detach().clone() for name, value in model.state_dict().items()}
        model.load_state_dict(self.state)
        self.state = current
