"""The registry of what makes models with choices in them, by the skeleton of their space."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from darts_core.registry import Registry

__all__ = ["CHOICE_MODELS", "register_choice_model"]

MakeModel = TypeVar("MakeModel", bound=Callable[..., nn.Module])
CHOICE_MODELS: Registry[Callable[..., nn.Module]] = Registry("skeleton of choice spaces")


def register_choice_model(name: str, *, description: str) -> Callable[[MakeModel], MakeModel]:
    """A decorator for what makes the model with choices in it, of choice spaces with the skeleton `name`.

    It is called with the space and channels, layers, num_classes, in_channels, and with image_size
    (height, width) if it takes that.

    Raises:
        ConfigError: the name is taken.
    """

    def store(make: MakeModel) -> MakeModel:
        CHOICE_MODELS.register(name, description=description)(make)
        return make

    return store
