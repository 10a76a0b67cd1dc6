"""What surrounds the searched cells, by skeleton: stem, cells, head of a supernet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.registry import Registry, former_table
from darts_core.relax import Relaxation
from darts_core.spaces import SearchSpace
from darts_core.supernet.cell import Preprocess, SearchCell
from darts_core.supernet.skeleton import (
    CellSpec,
    Head,
    ResidualReduction,
    cifar_stem,
    darts_specs,
    imagenet_stems,
    nasbench201_channels,
)

__all__ = [
    "SEARCH_SKELETONS",
    "Skeleton",
    "check_cells",
    "check_sizes",
    "check_stem",
    "register_search_skeleton",
]

_STEM_MULTIPLIER = 3


class _ImagenetStem(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = imagenet_stems(in_channels, channels)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        first = self.first(x_BCHW)
        return [first, self.second(first)]


Skeleton = tuple[nn.Module, nn.ModuleList, nn.Module]
MakeSkeleton = Callable[..., Skeleton]
SEARCH_SKELETONS: Registry[MakeSkeleton] = Registry("skeleton of searched cells")


def register_search_skeleton(
    name: str, *, description: str
) -> Callable[[MakeSkeleton], MakeSkeleton]:
    """A decorator for what makes (stem, cells, head) of a supernet with the skeleton `name`.

    It is called with the space and channels, layers, num_classes, in_channels, stem, relaxation.

    Raises:
        ConfigError: the name is taken.
    """
    return SEARCH_SKELETONS.register(name, description=description)


def __getattr__(name: str) -> Any:
    if name in ("SKELETONS", "BODIES"):
        return former_table(
            SEARCH_SKELETONS, f"{__name__}.{name}", f"{__name__}.register_search_skeleton"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@register_search_skeleton(
    "darts", description="stem, cells with preprocessing, two reduce the size"
)
def _darts_skeleton(
    space: SearchSpace,
    *,
    channels: int,
    layers: int,
    num_classes: int,
    in_channels: int,
    stem: str,
    relaxation: Relaxation,
) -> Skeleton:
    check_cells(space, inputs=2, kinds=("normal", "reduce"))
    imagenet = stem == "imagenet"
    width = channels if imagenet else _STEM_MULTIPLIER * channels
    stem_module = _ImagenetStem(in_channels, width) if imagenet else cifar_stem(in_channels, width)
    specs = list(
        darts_specs(
            channels,
            layers,
            len(space.output_states),
            stem_channels=width,
            stem_reduces=imagenet,
        )
    )
    cells = nn.ModuleList(_search_cell(space, spec, relaxation) for spec in specs)
    return (
        stem_module,
        cells,
        Head(len(space.output_states) * specs[-1].channels, num_classes, norm=False),
    )


def _search_cell(space: SearchSpace, spec: CellSpec, relaxation: Relaxation) -> SearchCell:
    return SearchCell(
        space,
        spec.channels,
        kind=spec.kind if spec.kind in space.cell_kinds else space.cell_kinds[0],
        reduces=spec.reduces,
        preprocess=Preprocess(spec, affine=False),
        channel_fraction=relaxation.channel_fraction,
    )


@register_search_skeleton(
    "nasbench201", description="stem, three stages of cells, residual reductions"
)
def _nasbench201_skeleton(
    space: SearchSpace,
    *,
    channels: int,
    layers: int,
    num_classes: int,
    in_channels: int,
    stem: str,
    relaxation: Relaxation,
) -> Skeleton:
    check_cells(space, inputs=1, one_output=True)
    cells = nn.ModuleList()
    for what, width in nasbench201_channels(channels, layers):
        if what == "reduction":
            cells.append(ResidualReduction(width // 2, width))
        else:
            cells.append(
                SearchCell(
                    space,
                    width,
                    kind=space.cell_kinds[0],
                    channel_fraction=relaxation.channel_fraction,
                )
            )
    return cifar_stem(in_channels, channels), cells, Head(4 * channels, num_classes, norm=True)


def check_cells(
    space: SearchSpace, *, inputs: int, kinds: Sequence[str] = (), one_output: bool = False
) -> None:
    """Refuse cells of another form than those that the space's skeleton stacks.

    Args:
        space: whose cells they are.
        inputs: states that a cell is given.
        kinds: of the places, where they differ; a space has these kinds, or one for every place.
        one_output: whether a cell hands on as many channels as it is given.

    Raises:
        ConfigError: with the field of the space.
    """
    where = f"The skeleton {space.skeleton!r}, which the space {space.name!r} asks for,"
    if space.inputs != inputs:
        raise ConfigError(f"{where} gives a cell inputs={inputs} states, not {space.inputs}.")
    if one_output and len(space.output_states) > 1:
        raise ConfigError(f"{where} takes one state out of a cell; use concat=False.")
    if len(space.cell_kinds) > 1 and set(space.cell_kinds) != set(kinds):
        allowed = f"{list(kinds)}, or one kind" if kinds else "one kind"
        raise ConfigError(
            f"{where} has places for cell_kinds of {allowed}, not {list(space.cell_kinds)}."
        )


def check_sizes(
    space: SearchSpace, channels: int, layers: int, num_classes: int, in_channels: int, stem: str
) -> None:
    """Refuse sizes below 1, an unknown skeleton and a stem that the skeleton does not have.

    Raises:
        ConfigError: with the value.
    """
    sizes = {
        "channels": channels,
        "layers": layers,
        "num_classes": num_classes,
        "in_channels": in_channels,
    }
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"A network needs {name} >= 1, not {value}.")
    check_stem(space.skeleton, stem)


def check_stem(skeleton: str, stem: str) -> None:
    """Refuse a skeleton that no cell network has, and a stem that the skeleton does not have.

    Raises:
        ConfigError: with those that there are.
    """
    if skeleton not in SEARCH_SKELETONS:
        raise ConfigError(
            f"No cell network has the skeleton {skeleton!r}; known: "
            f"{', '.join(sorted(SEARCH_SKELETONS))}."
        )
    allowed = ("cifar", "imagenet") if skeleton == "darts" else ("cifar",)
    if stem not in allowed:
        raise ConfigError(
            f"A {skeleton} network has no stem {stem!r}; choose {' or '.join(allowed)}."
        )
