"""Supernets and plain networks of macro spaces, and `create_supernet` for any space."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import torch

from darts_core.errors import ConfigError, unknown_name
from darts_core.registry import former_table
from darts_core.relax import Relaxation
from darts_core.sample_inputs import draw_inputs
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.supernet import macro_conv1d as macro_conv1d
from darts_core.supernet import macro_convnet as macro_convnet
from darts_core.supernet import macro_gpt as macro_gpt
from darts_core.supernet import macro_mobilenet as macro_mobilenet
from darts_core.supernet import macro_resnet as macro_resnet
from darts_core.supernet import macro_vit as macro_vit
from darts_core.supernet.build import height_of
from darts_core.supernet.choice_models import CHOICE_MODELS, register_choice_model
from darts_core.supernet.module_supernet import ModuleSupernet
from darts_core.supernet.network import Supernet

__all__ = ["CHOICE_MODELS", "create_supernet", "register_choice_model"]


def __getattr__(name: str) -> Any:
    if name == "MODELS":
        return former_table(
            CHOICE_MODELS, f"{__name__}.MODELS", f"{__name__}.register_choice_model"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def create_supernet(
    space: SearchSpace,
    *,
    channels: int = 16,
    layers: int = 8,
    num_classes: int = 10,
    in_channels: int = 3,
    stem: str = "cifar",
    relaxation: Relaxation | None = None,
    image_size: int | Sequence[int] = 32,
    input_shape: Sequence[int] | None = None,
) -> Supernet:
    """The supernet of a cell space, or the `ModuleSupernet` of a macro space, which has its interface.

    Args:
        space: what may be chosen.
        channels: width of the first cells or of the first stage.
        layers: cells, or cells per stage; the depth of a macro space is chosen.
        num_classes: size of the output.
        in_channels: channels of the inputs; of token numbers, how many there are.
        stem: "cifar" or "imagenet" (DARTS skeleton).
        relaxation: alpha -> weights; softmax by default.
        image_size: side, or (height, width), of the images; macro spaces trace their model at this
            size, and their factory is given (height, width) if it takes an `image_size`.
        input_shape: of one sample, (C, H, W), (C, T) or (T,), in place of `image_size`.

    Raises:
        ConfigError: a size does not fit the space, or it does not read such samples.
    """
    if input_shape is None:
        size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
        input_shape = (in_channels, *size)
    space.check_inputs(input_shape)
    if not isinstance(space, ChoiceSpace):
        supernet = Supernet(
            space,
            channels=channels,
            layers=layers,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=stem,
            relaxation=relaxation,
        )
        supernet.image_size = height_of(input_shape)
        return supernet
    if stem != "cifar":
        raise ConfigError(
            f"A {space.skeleton} network has a stem of its own; leave out stem={stem!r}."
        )
    if space.skeleton not in CHOICE_MODELS:
        raise ConfigError(
            f"The space {space.name!r}: "
            + unknown_name(CHOICE_MODELS.kind, space.skeleton, CHOICE_MODELS)
        )
    factory = CHOICE_MODELS[space.skeleton]
    given: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    if "image_size" in inspect.signature(factory).parameters:
        given["image_size"] = tuple(input_shape[1:])
    model = factory(space, channels=channels, layers=layers, **given)
    tokens = None
    if space.reads == "tokens":
        generator = torch.Generator().manual_seed(0)
        tokens = draw_inputs(input_shape, 2, generator=generator, vocabulary=in_channels)
    chosen = ModuleSupernet(
        model, input_shape=input_shape, relaxation=relaxation, space=space, example_input=tokens
    )
    # everything that takes a supernet uses the methods that both have
    return cast(Supernet, chosen)
