"""The table of candidate operations and how one is made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from darts_core.errors import ConfigError
from darts_core.registry import Registry

__all__ = ["OPS", "check_op", "create_op", "register_op"]

OpFactory = Callable[..., nn.Module]
F = TypeVar("F", bound=OpFactory)

OPS: Registry[OpFactory] = Registry("operation")


def register_op(name: str, *, description: str) -> Callable[[F], F]:
    """A decorator that makes a Module `(channels, stride, *, affine)` available as operation `name`.

    The module maps [B, C, H, W] to [B, C, ceil(H / stride), ceil(W / stride)]. When it also defines
    `primitives() -> list[Primitive]` and is made of nothing else, it runs on the fused kernels.

    Raises:
        ConfigError: the name is taken.
    """
    return OPS.register(name, description=description)  # type: ignore[return-value]


def create_op(name: str, channels: int, stride: int = 1, *, affine: bool = True) -> nn.Module:
    """A fresh module of the operation `name`.

    Raises:
        ConfigError: the name is not registered, channels or stride are not allowed, or what is registered
            makes no module of these arguments.
    """
    if channels < 1 or stride not in (1, 2):
        raise ConfigError(
            f"Operation {name!r} needs channels >= 1 and a stride of 1 or 2, not {channels} and {stride}."
        )
    factory = OPS[name]
    try:
        op = factory(channels, stride, affine=affine)
    except TypeError as error:
        raise ConfigError(
            f"The operation {name!r} cannot be made: {error}; it is called as {name}({channels}, {stride}, "
            f"affine={affine}), of channels, stride and whether its norms are affine."
        ) from error
    if not isinstance(op, nn.Module):
        raise ConfigError(
            f"The operation {name!r} makes a {type(op).__name__}, no torch.nn.Module."
        )
    return op


@functools.cache
def check_op(name: str, channels: int, stride: int) -> None:
    """Run an operation of a user's once on 8x8 zeros; nothing, if its output has the shape that it must have.

    What raises there is left to the search itself: it may need a GPU, or larger images.

    Raises:
        ConfigError: it gives something else.
    """
    if str(getattr(OPS[name], "__module__", "")).startswith("darts_core."):
        return
    # a network that is only described is made among tensors without data
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        op, x_BCHW = create_op(name, channels, stride, affine=False), torch.zeros(2, channels, 8, 8)
        try:
            out = op(x_BCHW)
        except Exception:  # of foreign code, of any kind
            return
    wanted = [2, channels, 8 // stride, 8 // stride]
    given = list(out.shape) if isinstance(out, torch.Tensor) else f"a {type(out).__name__}"
    if given != wanted:
        raise ConfigError(
            f"The operation {name!r} at stride {stride} makes {given} of {list(x_BCHW.shape)}; it must make "
            f"{wanted}: as many channels, height and width divided by the stride."
        )
