"""How images and the weights of convolutions lie in memory: channels last (NHWC) or first (NCHW).

torch computes the same of both, up to rounding. The convolutions of CPUs and of GPUs' tensor cores are
quicker with channels last. Other shapes than [B, C, H, W] stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from darts_core.errors import ConfigError

__all__ = ["in_layout", "input_in_layout", "telling_of_views"]


def in_layout(module: nn.Module, layout: torch.memory_format) -> nn.Module:
    """`module`, its tensors of four dimensions in a memory layout; in place.

    torch's own `to` refuses a network that holds a three-dimensional convolution as well.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
    return module


def input_in_layout(x: Tensor, layout: torch.memory_format) -> Tensor:
    """`x` in a memory layout where it has four dimensions."""
    return x.contiguous(memory_format=layout) if x.dim() == 4 else x


@contextmanager
def telling_of_views(channels_last: bool) -> Iterator[None]:
    """A block that runs a network; with channels last `view` cannot join channels and positions.

    Raises:
        ConfigError: the network does so.
    """
    try:
        yield
    except RuntimeError as error:
        if not channels_last or "view size is not compatible" not in str(error):
            raise
        raise ConfigError(
            "train.channels_last=true does not go with this network: it calls view() on a tensor whose "
            "channels and positions it joins. Let it call flatten() or reshape(), or leave the setting out."
        ) from error
