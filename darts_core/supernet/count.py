"""`count`: parameters and multiply-accumulates of a module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from darts_core.errors import ConfigError
from darts_core.modes import evaluating
from darts_core.ops.macs import macs_by_module
from darts_core.sample_inputs import draw_inputs, number_format

__all__ = ["Count", "count"]


@dataclass(frozen=True)
class Count:
    """Size of a network: parameters, and multiply-accumulates for one sample."""

    params: int
    macs: int


def count(module: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Count:
    """Parameters of the module and multiply-accumulates of one evaluation-mode forward pass.

    Convolutions of any dimension, linear layers, matrix products and attention count; bias additions,
    norms and pools do not. An auxiliary head's
    parameters count, its operations do not run. Alphas do not count.

    Args:
        module: the network; its mode is left as it was.
        input_shape: (channels, height, width), or what else one sample's shape is.

    Raises:
        ConfigError: the module cannot run on that shape.
    """
    reference = next(iter(module.parameters()), torch.zeros(()))
    kind = number_format(module)
    sample = draw_inputs(input_shape, 1, device=reference.device, dtype=kind, zeros=True)
    try:
        with evaluating(module):
            macs = sum(macs_by_module(module, sample).values())
    except RuntimeError as error:
        raise ConfigError(
            f"The network cannot run on an input of shape {tuple(input_shape)}: {error}."
        ) from error
    return Count(sum(parameter.numel() for parameter in module.parameters()), macs)
