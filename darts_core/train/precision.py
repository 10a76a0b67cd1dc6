"""How a training calls its network: in which precision, compiled or not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.compiling import apart
from darts_core.train.config import TrainConfig

__all__ = ["autocast_dtype", "compiled"]

log = logging.getLogger("darts_core")


def autocast_dtype(config: TrainConfig, device: torch.device) -> torch.dtype | None:
    """The dtype of autocast; None where the device gains nothing by it."""
    if config.precision == "fp32":
        return None
    # older GPUs emulate bf16, which is slower than fp32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    log.warning("train.precision=bf16 is not fast on %s; training in fp32", device)
    return None


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
