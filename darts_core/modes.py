"""A network in evaluation mode, on a device, for a while; it is given back as it was.

A leaf: torch is imported where a gradient is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["evaluating", "in_evaluation", "with_gradients"]

Network = TypeVar("Network", bound="nn.Module")


@contextmanager
def evaluating(model: Any, on: Any = None) -> Iterator[None]:
    """A block in which `model` evaluates; then the mode of each part, and the device, are what they were.

    Args:
        model: a `torch.nn.Module`.
        on: the device that it is moved to meanwhile; None: it stays.
    """
    # a part may be in another mode than the whole: norms that somebody holds fast
    modes = [(module, module.training) for module in model.modules()]
    # one without parameters may hold constants on a device
    home = next((held.device for held in chain(model.parameters(), model.buffers())), "cpu")
    try:
        model.eval()
        if on is not None:
            model.to(on)
        yield
    finally:
        if on is not None:
            model.to(home)
        model.train(modes[0][1])
        for module, mode in modes:
            module.training = mode


def in_evaluation(model: Network) -> Network:
    """`model`, in evaluation mode from now on.

    torch's `eval()` gives what the network's own `train` returns, which people's often forget to.
    """
    model.eval()
    return model


@contextmanager
def with_gradients(model: Any) -> Iterator[None]:
    """A block in which a network in evaluation mode gives gradients, on a GPU its recurrent layers, too.

    cuDNN's forms give none outside of training mode; torch's own, which are slower, do.
    """
    import torch

    recurrent = any(isinstance(module, torch.nn.RNNBase) for module in model.modules())
    with torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
        yield
