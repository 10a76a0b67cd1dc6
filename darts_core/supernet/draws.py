"""Passes that see the same random numbers, as differences of their gradients are taken.

A relaxation draws from the supernet's generator, a module of the network (dropout, noise) from torch's own.
Between two draws gradients differ by far more than between two points that lie close together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from darts_core.ops.noise import Noise

__all__ = ["Draws", "draws_inside", "same_draws"]

# what modules of torch and of others call the share that they drop
_RATES = ("dropout", "drop_prob")


def draws_inside(network: nn.Module) -> bool:
    """Whether a module of the network draws numbers in training, as far as its class and settings say."""
    return any(_draws(module) for module in network.modules())


def _draws(module: nn.Module) -> bool:
    if isinstance(module, Noise):
        return True
    names = ("p",) if isinstance(module, nn.modules.dropout._DropoutNd) else _RATES
    rates = [getattr(module, name, None) for name in names]
    return any(isinstance(rate, (int, float)) and rate > 0 for rate in rates)


class Draws:
    """The random numbers from here on, to which later passes can return.

    Args:
        supernet: whose passes are meant.
        inside: whether its modules draw, see `draws_inside`. On a CPU it does not matter, as looking costs
            nothing there; on a GPU a step that is recorded as a graph cannot return, and must say no.
    """

    def __init__(self, supernet: Any, *, inside: bool = True) -> None:
        generator, device = supernet.generator, supernet.progress.device
        self._generator = generator if supernet.relaxation.samples else None
        self._state = None if self._generator is None else self._generator.get_state()
        on_gpu = device.type == "cuda"
        self._host = torch.get_rng_state() if inside or not on_gpu else None
        self._device = device if inside and on_gpu else None
        self._gpu = None if self._device is None else torch.cuda.get_rng_state(self._device)

    def again(self) -> None:
        """Let the next pass see them."""
        if self._generator is not None and self._state is not None:
            self._generator.set_state(self._state)
        if self._host is not None:
            torch.set_rng_state(self._host)
        if self._device is not None and self._gpu is not None:
            torch.cuda.set_rng_state(self._gpu, self._device)


@contextmanager
def same_draws(supernet: Any) -> Iterator[None]:
    """A block that sees the same random numbers whenever it runs, and leaves those of the search alone."""
    own, device = supernet.generator, supernet.progress.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        if own is not None:
            supernet.generator = torch.Generator(device=own.device).manual_seed(0)
        try:
            yield
        finally:
            supernet.generator = own
