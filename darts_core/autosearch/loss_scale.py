"""By what a `GradScaler` of the user's script multiplied the loss whose gradients are being formed."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import torch

__all__ = ["heed_scalers", "loss_scale"]

# of the scaler that scaled a loss last; a script hands none to whoever looks at gradients
_last: list[weakref.ref[Any]] = []


def heed_scalers() -> None:
    """From now on, note in this process which `torch.amp.GradScaler` scales a loss."""
    kind: Any = torch.amp.GradScaler
    usual = kind.scale
    if hasattr(usual, "__wrapped__"):
        return

    @functools.wraps(usual)
    def scale(self: Any, outputs: Any) -> Any:
        _last[:] = [weakref.ref(self)]
        return usual(self, outputs)

    kind.scale = scale


def loss_scale() -> float:
    """The factor of the scaler that scaled a loss last; 1 without one."""
    scaler = _last[0]() if _last else None
    return 1.0 if scaler is None else float(scaler.get_scale())
