"""A named network with choices in it as a search space, and its networks with the choices made.

The space is called `model=NAME`, with the user's own arguments behind it, so that a saved architecture says
which function makes its network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.models.named import NamedModel, fitted, named_model, saved_model
from darts_core.spaces import SPACES, ChoiceSpace
from darts_core.supernet.build import register_network
from darts_core.supernet.choice_models import register_choice_model
from darts_core.supernet.choices import find_choices

__all__ = ["NamedSpace", "is_named_space", "named_space", "network_of"]

_PREFIX, _SKELETON = "model=", "named"


@dataclass(frozen=True)
class NamedSpace(ChoiceSpace):
    """The choices in a named network.

    Attributes:
        model: makes the network, its choices open.
        input_shape: of one sample.
    """

    model: NamedModel | None = None
    input_shape: tuple[int, ...] = ()

    def made(self, choices: Mapping[str, Any]) -> nn.Module:
        """The plain network with these choices; of none: the network with all of them open."""
        assert self.model is not None
        return replace(self.model, choices=choices, input_shape=self.input_shape).make()


def named_space(
    text: str,
    given: Mapping[str, Any],
    *,
    image_shape: Sequence[int],
    reads: str,
    num_classes: int,
    in_channels: int,
    output_shape: Sequence[int],
) -> NamedSpace:
    """The space of the choices in the network that the user names, which is registered by this.

    Args:
        text: see `named_model`.
        given: arguments, which come before those of the data.
        image_shape: (C, H, W), (C, T), or (T,) of tokens.
        reads: image, series or tokens.
        num_classes: outputs.
        in_channels: of the data; of tokens: how many there are.
        output_shape: of one sample.

    Raises:
        ConfigError: there is no such network, it holds no choices, or it does not fit the data.
    """
    model = named_model(
        text, given, image_shape=image_shape, num_classes=num_classes, in_channels=in_channels,
        check=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        found = find_choices(model.make())
    first = {label: tied[0].options[0] for label, tied in found.items()}
    tried = replace(model, choices=first, input_shape=tuple(image_shape))
    model = replace(model, rows=fitted(tried, image_shape, output_shape).rows)
    space = NamedSpace.of(
        _PREFIX + text + (f" {json.dumps(dict(given))}" if given else ""),
        {label: tied[0].options for label, tied in found.items()},
        skeleton=_SKELETON, reads=reads, model=model, input_shape=tuple(image_shape),
    )  # fmt: skip
    SPACES.put(space.name, space, description=f"the choices in {text}")
    return space


def is_named_space(name: str) -> bool:
    """Whether an architecture's space is that of a named network."""
    return name.startswith(_PREFIX)


def network_of(architecture: Architecture, source: str, **sizes: Any) -> NamedModel:
    """What makes the network of a saved architecture whose space is that of a named network.

    Args:
        architecture: the choices.
        source: where it was read, for errors.
        sizes: image_shape, num_classes, in_channels and output_shape, as of `named_space`.

    Raises:
        ConfigError: the file names a module that the user did not, or the network does not fit.
    """
    text, _, rest = architecture.space.removeprefix(_PREFIX).partition(" ")
    try:
        given = json.loads(rest) if rest else {}
    except ValueError as error:
        raise ConfigError(f"{source}: the space {architecture.space!r} is damaged.") from error
    saved_model({"name": text, "arguments": given}, source)  # refuses what the user did not name
    return named_model(text, given, choices=dict(architecture.choices), **sizes)


@register_choice_model(_SKELETON, description="the network of model=, its choices open")
def _open(space: ChoiceSpace, **_: Any) -> nn.Module:
    assert isinstance(space, NamedSpace)
    return space.made({})


@register_network(_SKELETON, description="the network of model=, its choices made")
def _plain(architecture: Architecture, *, auxiliary: bool, stem: str, **_: Any) -> nn.Module:
    if auxiliary or stem != "cifar":
        raise ConfigError(
            f"The network of {architecture.space} is made by its function: it has no auxiliary head and no "
            "stem of ours; leave out auxiliary= and stem=."
        )
    space = SPACES[architecture.space]
    assert isinstance(space, NamedSpace)
    return space.made(dict(architecture.choices))
