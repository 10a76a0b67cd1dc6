"""Supernets and plain networks of macro spaces, and `create_supernet` for any space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from torch import nn

from darts_core.errors import ConfigError
from darts_core.relax import Relaxation
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.supernet.macro_mobilenet import MobileNet
from darts_core.supernet.module_supernet import ModuleSupernet
from darts_core.supernet.network import Supernet

__all__ = ["MODELS", "create_supernet"]

MODELS: dict[str, Callable[..., nn.Module]] = {"mobilenet": MobileNet}
"""Skeleton of a choice space -> the model with choices in it."""


def create_supernet(
    space: SearchSpace,
    *,
    channels: int = 16,
    layers: int = 8,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "cifar",
    relaxation: Relaxation | None = None,
    image_size: int = 32,
    **options: Any,
) -> Supernet:
    """The supernet of a cell space, or the `ModuleSupernet` of a macro space, which has its interface.

    Args:
        space: what may be chosen.
        channels: width of the first cells or of the first stage.
        layers: cells, cells per stage, or most blocks per stage, by the space's skeleton.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        stem: "cifar" or "imagenet" (DARTS skeleton).
        relaxation: alpha -> weights; softmax by default.
        image_size: height of the images; macro spaces trace their model at this size.
        options: further arguments of `Supernet`.

    Raises:
        ConfigError: a size does not fit the space.
    """
    if not isinstance(space, ChoiceSpace):
        return Supernet(
            space,
            channels=channels,
            layers=layers,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            relaxation=relaxation,
            **options,
        )
    if space.skeleton not in MODELS:
        raise ConfigError(
            f"No macro network has the skeleton {space.skeleton!r}; known: {', '.join(MODELS)}."
        )
    model = MODELS[space.skeleton](
        space, channels=channels, layers=layers, num_classes=num_classes, in_channels=in_channels
    )
    supernet = ModuleSupernet(
        model,
        input_shape=(in_channels, image_size, image_size),
        relaxation=relaxation,
        space=space,
    )
    # everything that takes a supernet uses the methods that both have
    return cast(Supernet, supernet)
