"""How a training calls its network: in which precision, compiled or not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.compiling import apart
from darts_core.train.config import TrainConfig

__all__ = ["autocast_dtype", "autocast_on", "compiled"]

log = logging.getLogger("darts_core")


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast; None where the device gains nothing by it, which is said."""
    dtype = autocast_on(config.precision, device)
    if dtype is None and config.precision != "fp32":
        log.warning("train.precision=bf16 is not fast on %s; training in fp32", device)
    return dtype


def autocast_on(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast on the device; None: fp32, as asked for or since bf16 is not fast there."""
    if precision == "fp32" or device.type != "cuda":
        return None
    # older GPUs emulate bf16, which is slower than fp32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None


def compiled(
    model: nn.Module, config: TrainConfig, device: torch.device
) -> Callable[[Tensor], Any]:
    """The network's forward pass, through torch.compile on a CUDA device where that is asked for."""
    if not config.compile:
        return model
    if device.type != "cuda":
        log.warning("train.compile=true needs a CUDA device; training on %s uncompiled", device)
        return model
    call: Callable[[Tensor], Any] = torch.compile(apart(model))
    return call
