"""What the networks of the shipped choice spaces share: blocks that may be dropped, one registration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.spaces import SPACES, ChoiceSpace
from darts_core.supernet.build import CellNetwork, register_network
from darts_core.supernet.choice_models import register_choice_model
from darts_core.supernet.fixed_cell import drop_path

__all__ = ["ChoiceNetwork", "ResidualPath", "StageNetwork", "register_choice_network"]

_SIZES = ("channels", "layers", "num_classes", "in_channels", "image_size")


class ResidualPath(nn.Module):
    """Base of blocks whose residual path is dropped with the network's probability."""

    drop: Tensor | None = None

    def dropped(self, path: Tensor) -> Tensor:
        """`path`, in training zero for some of the samples."""
        return path if self.drop is None else drop_path(path, self.drop)


class ChoiceNetwork(CellNetwork):
    """Base of networks made by a `ChoiceMaker`.

    A subclass takes the space, `made` (choices by label, None leaves them open), and those of channels,
    layers, num_classes, in_channels and image_size (height, width; of open ones only) that it reads, as
    keywords.
    """

    def spread_drop(self) -> None:
        """Tell every block with which probability its path is dropped in this pass."""
        drop = self._drop()
        for module in self.modules():
            if isinstance(module, ResidualPath):
                module.drop = drop


class StageNetwork(ChoiceNetwork):
    """Stem, stages, mean over all places, head: what networks of stages have in common.

    A subclass calls `assemble` at the end of its `__init__`.

    Shapes: [B, C, ...] -> [B, outputs].
    """

    stem: nn.Module
    stages: nn.Module
    head: nn.Module

    def assemble(
        self, stem: nn.Module, stages: Sequence[nn.Module], width: int, num_classes: int
    ) -> None:
        """Take over the parts; the head reads the `width` channels of the last stage."""
        self.stem, self.stages = stem, nn.Sequential(*stages)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, classes]."""
        self.spread_drop()
        features = self.stages(self.stem(x))
        outputs: Tensor = self.head(features.mean(tuple(range(2, features.dim()))))
        return outputs


Made = TypeVar("Made", bound=type[ChoiceNetwork])


def register_choice_network(name: str, *, description: str) -> Callable[[Made], Made]:
    """A decorator that makes a `ChoiceNetwork` the supernet's model and the plain network of a skeleton.

    Raises:
        ConfigError: the name is taken.
    """

    def store(network: Made) -> Made:
        make: Callable[..., nn.Module] = network
        takes = [size for size in _SIZES if size in inspect.signature(network).parameters]

        def opened(space: ChoiceSpace, *, image_size: Any = None, **sizes: Any) -> nn.Module:
            given = {**sizes, "image_size": image_size}
            return make(space, **{k: v for k, v in given.items() if k in takes})

        def plain(
            architecture: Architecture, *, auxiliary: bool, stem: str, **sizes: Any
        ) -> nn.Module:
            space = SPACES[architecture.space]
            if not isinstance(space, ChoiceSpace):
                raise ConfigError(f"The space {space.name!r} has cells, not choices.")
            if auxiliary:
                raise ConfigError(
                    f"A network of the space {space.name!r} has no auxiliary head; use auxiliary=false."
                )
            if stem != "cifar":
                raise ConfigError(
                    f"A network of the space {space.name!r} has a stem of its own; leave out stem={stem!r}."
                )
            space.index(architecture)
            # `build` is told the height only
            given = {k: v for k, v in sizes.items() if k in takes and k != "image_size"}
            return make(space, made=dict(architecture.choices), **given)

        register_choice_model(name, description=description)(opened)
        register_network(name, description=description)(plain)
        return network

    return store
