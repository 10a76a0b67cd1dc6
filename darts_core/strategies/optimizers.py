"""Optimizers whose learning rate can change inside a captured CUDA graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "alpha_optimizer",
    "learning_rate",
    "load_optimizer",
    "params_optimizer",
    "set_learning_rate",
]

_OF_THE_DEVICE = ("fused", "foreach", "capturable")
"""Options that say how a device runs the update, not what it computes."""


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


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Restore a state dict that may come from another device.

    Moments, counters and settings are those of the file; how the update runs (fused, capturable, the
    learning rate as a device tensor) stays as it was made for this device.
    """
    groups = []
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        rate: float | Tensor = float(saved["lr"])
        if isinstance(own["lr"], Tensor):
            rate = torch.full_like(own["lr"], float(saved["lr"]))
        kept = {key: own[key] for key in _OF_THE_DEVICE if key in own}
        groups.append({**saved, **kept, "lr": rate})
    # from the host torch moves step counts to where the update reads them; it brings none back, and an
    # update that reads them on the host would wait for the device at each step
    entries = {number: _counted_on_host(entry) for number, entry in state["state"].items()}
    optimizer.load_state_dict({**state, "state": entries, "param_groups": groups})


def _counted_on_host(entry: Mapping[str, Any]) -> dict[str, Any]:
    step = entry.get("step")
    return {**entry, "step": step.cpu()} if isinstance(step, Tensor) else dict(entry)
