"""Optimizers whose learning rate can change inside a captured CUDA graph."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["alpha_optimizer", "learning_rate", "params_optimizer", "set_learning_rate"]


def params_optimizer(
    params: Iterable[nn.Parameter], *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.SGD:
    """SGD with momentum; on a GPU the learning rate is a device tensor and the update one kernel."""
    parameters = list(params)
    on_gpu = bool(parameters) and parameters[0].is_cuda
    rate: float | Tensor = torch.tensor(lr, device=parameters[0].device) if on_gpu else lr
    return torch.optim.SGD(
        parameters,
        lr=rate,
        momentum=momentum,
        weight_decay=weight_decay,
        fused=True if on_gpu else None,
    )


def alpha_optimizer(
    alphas: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.Adam:
    """Adam; on a GPU one kernel, with its step counter on the device, so that it can be captured."""
    parameters = list(alphas)
    on_gpu = bool(parameters) and parameters[0].is_cuda
    return torch.optim.Adam(
        parameters,
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        capturable=on_gpu,
        fused=True if on_gpu else None,
    )


def learning_rate(optimizer: torch.optim.Optimizer) -> float | Tensor:
    """The current learning rate: a number, or the device tensor that holds it."""
    rate: float | Tensor = optimizer.param_groups[0]["lr"]
    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set every group's learning rate, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value
