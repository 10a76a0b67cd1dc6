"""Whether a network runs in training mode, where more of it may run, such as a head that only helps it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["runs_in_training"]


@torch.no_grad()
def runs_in_training(model: nn.Module, x: Tensor) -> bool:
    """Whether `model` takes `x` [B, ...] in training mode; modes, buffers and random numbers stay.

    One that wants more than its input there (targets, say) does not.
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [
        (module._buffers, name, buffer, buffer.clone())
        for module, _ in modes
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    drawn_on = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=drawn_on):
            model.train()
            model(x.clone())  # which it may write into
    except Exception:  # whatever a foreign network raises
        return False
    finally:
        for module, mode in modes:
            module.training = mode
        for where, name, buffer, value in kept:
            where[name] = buffer
            if not torch.equal(buffer, value):
                buffer.copy_(value)
    return True
