"""A network in evaluation mode, on a device or run for a look, for a while; it is given back as it was.

A leaf: torch is imported where a gradient is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

__all__ = ["evaluating", "in_evaluation", "unmoved", "with_gradients"]

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


@contextmanager
def unmoved(model: Any) -> Iterator[None]:
    """A block whose passes leave nothing behind: made-up inputs do not move what a network keeps.

    Some layers write in evaluation mode, too: those that take their start from their first batch, codebooks,
    recurrent states. Parameters, buffers and attributes are restored; a network whose layers have no sizes
    yet (nn.LazyLinear) is left as it becomes.

    Args:
        model: a `torch.nn.Module`.
    """
    import torch

    from darts_core.sample_inputs import is_unbuilt

    if is_unbuilt(model):
        yield
        return
    held = [(t, t._version, t.detach().clone()) for t in chain(model.parameters(), model.buffers())]
    # what is kept in a list or dictionary, such as the buffers of a module, may be put in another's place
    owners: list[Any] = [vars(module) for module in model.modules()]
    owners += [v for own in owners for v in own.values() if isinstance(v, (dict, list))]
    before = [(owner, _parts(owner)) for owner in owners]
    try:
        yield
    finally:
        for owner, parts in before:
            _put_back(owner, parts)
        with torch.no_grad():
            for tensor, version, value in held:
                if tensor._version != version:
                    tensor.copy_(value)


def _parts(owner: Any) -> list[Any]:
    return list(owner) if isinstance(owner, list) else list(owner.items())


def _put_back(owner: Any, parts: list[Any]) -> None:
    now = _parts(owner)
    if isinstance(owner, list):
        same = list(map(id, now)) == list(map(id, parts))
    else:
        same = [(id(k), id(v)) for k, v in now] == [(id(k), id(v)) for k, v in parts]
    if same:
        return  # of a configuration that may not be changed, too
    owner.clear()
    owner.extend(parts) if isinstance(owner, list) else owner.update(parts)


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
