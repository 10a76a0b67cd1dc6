"""A network in evaluation mode, on a device, for a while; it is given back as it was.

A leaf: torch is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

__all__ = ["evaluating"]


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
