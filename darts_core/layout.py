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

__all__ = ["in_layout", "input_in_layout", "joins_by_view", "telling_of_views"]

_VIEW = "view size is not compatible"


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


@torch.no_grad()
def joins_by_view(model: nn.Module, x: Tensor) -> bool:
    """Whether `model`, which is laid out channels last, calls `view` on channels and positions.

    That fails. What else `x` [B, ...] may make it raise is told where it is run next.
    """
    try:
        model(x.clone())
    except Exception as error:  # whatever a foreign network raises
        return _VIEW in str(error)
    return False


@contextmanager
def telling_of_views(channels_last: bool) -> Iterator[None]:
    """A block that runs a network; with channels last `view` cannot join channels and positions.

    Raises:
        ConfigError: the network does so.
    """
    try:
        yield
    except RuntimeError as error:
        if not channels_last or _VIEW not in str(error):
            raise
        raise ConfigError(
            "train.channels_last=true does not go with this network: it calls view() on a tensor whose "
            "channels and positions it joins. Let it call flatten() or reshape(), or leave the setting out."
        ) from error
