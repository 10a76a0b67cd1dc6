"""The table of candidate operations and how one is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from darts_core.errors import ConfigError
from darts_core.registry import Registry

__all__ = ["OPS", "create_op", "register_op"]

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
        ConfigError: the name is not registered, or channels or stride are not allowed.
    """
    if channels < 1 or stride not in (1, 2):
        raise ConfigError(
            f"Operation {name!r} needs channels >= 1 and a stride of 1 or 2, not {channels} and {stride}."
        )
    return OPS[name](channels, stride, affine=affine)
