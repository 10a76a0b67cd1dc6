"""Supernets and plain networks of macro spaces, and `create_supernet` for any space."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from torch import nn

from darts_core.errors import ConfigError, unknown_name
from darts_core.registry import Registry, former_table
from darts_core.relax import Relaxation
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.supernet.macro_convnet import ConvNet
from darts_core.supernet.macro_mobilenet import MobileNet
from darts_core.supernet.module_supernet import ModuleSupernet
from darts_core.supernet.network import Supernet

__all__ = ["CHOICE_MODELS", "create_supernet", "register_choice_model"]

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


register_choice_model("convnet", description="levels of convolutions, pools between")(ConvNet)
register_choice_model("mobilenet", description="stages of inverted residuals")(MobileNet)


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
        image_size: side, or (height, width), of the images; macro spaces trace their model at this
            size, and their factory is given (height, width) if it takes an `image_size`.
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
    if space.skeleton not in CHOICE_MODELS:
        raise ConfigError(
            f"The space {space.name!r}: "
            + unknown_name(CHOICE_MODELS.kind, space.skeleton, CHOICE_MODELS)
        )
    size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
    factory = CHOICE_MODELS[space.skeleton]
    given: dict[str, Any] = {"num_classes": num_classes, "in_channels": in_channels}
    if "image_size" in inspect.signature(factory).parameters:
        given["image_size"] = size
    model = factory(space, channels=channels, layers=layers, **given)
    supernet = ModuleSupernet(
        model,
        input_shape=(in_channels, *size),
        relaxation=relaxation,
        space=space,
    )
    # everything that takes a supernet uses the methods that both have
    return cast(Supernet, supernet)
