"""Whether a network runs in training mode, where more of it may run, such as a head that only helps it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from darts_core.copies import kept_tensors

__all__ = ["given_in_training", "runs_in_training"]


def runs_in_training(model: nn.Module, x: Tensor) -> bool:
    """Whether `model` takes `x` [B, ...] in training mode; modes, buffers and random numbers stay.

    One that wants more than its input there (targets, say) does not.
    """
    return given_in_training(model, x) is not None


@torch.no_grad()
def given_in_training(
    model: nn.Module, x: Tensor, *, seed: int | None = None
) -> list[Tensor] | None:
    """All tensors that `model` gives of `x` [B, ...] in training mode, and single numbers that it keeps.

    A loss may read these, such as a penalty. Modes, buffers and random numbers stay.

    Args:
        model: the network.
        x: its inputs.
        seed: of the random numbers on a CPU, Python's and numpy's as well; torch's dropout is off then.

    Returns:
        None where it does not run, such as one that wants more than its input there (targets, say).
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [
        (module._buffers, name, buffer, buffer.clone())
        for module, _ in modes
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    drawn_on = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=drawn_on), _others_stay():
            model.train()
            if seed is not None:
                torch.default_generator.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed)
                for module, _ in modes:
                    if isinstance(module, nn.modules.dropout._DropoutNd):
                        module.training = False
            found = tree_leaves(model(x.clone()))  # which it may write into
    except Exception:  # whatever a foreign network raises
        return None
    finally:
        for module, mode in modes:
            module.training = mode
        for where, name, buffer, value in kept:
            where[name] = buffer
            if not torch.equal(buffer, value):
                buffer.copy_(value)
    kept_numbers = [value for _, _, value in kept_tensors(model) if value.numel() == 1]
    return [value.clone() for value in (*found, *kept_numbers) if isinstance(value, Tensor)]


@contextmanager
def _others_stay() -> Iterator[None]:
    """Python's and numpy's random numbers, by which a layer may be skipped, go on as before the block."""
    python, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(of_numpy)
