"""`count`: parameters and multiply-accumulates of a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError

__all__ = ["Count", "count"]


@dataclass(frozen=True)
class Count:
    """Size of a network: parameters, and multiply-accumulates for one sample."""

    params: int
    macs: int


def count(module: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Count:
    """Parameters of the module and multiply-accumulates of one evaluation-mode forward pass.

    Convolutions and linear layers count; bias additions, norms and pools do not. An auxiliary head's
    parameters count, its operations do not run. Alphas do not count.

    Args:
        module: the network; its mode is left as it was.
        input_shape: (channels, height, width) of one sample.

    Raises:
        ConfigError: the module cannot run on that shape.
    """
    macs = 0

    def add(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Linear):
            macs += output.numel() * layer.in_features
        elif isinstance(layer, nn.Conv2d):
            kernel = layer.kernel_size[0] * layer.kernel_size[1]
            macs += output.numel() * (layer.in_channels // layer.groups) * kernel

    hooks = [
        layer.register_forward_hook(add)
        for layer in module.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    was_training = module.training
    reference = next(iter(module.parameters()), torch.zeros(()))
    sample = torch.zeros(1, *input_shape, device=reference.device, dtype=reference.dtype)
    try:
        module.eval()
        with torch.no_grad():
            module(sample)
    except RuntimeError as error:
        raise ConfigError(
            f"The network cannot run on an input of shape {tuple(input_shape)}: {error}."
        ) from error
    finally:
        module.train(was_training)
        for hook in hooks:
            hook.remove()
    return Count(sum(parameter.numel() for parameter in module.parameters()), macs)
