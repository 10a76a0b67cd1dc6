"""`build`: a plain network from an `Architecture`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import ArchitectureError, ConfigError, unknown_name
from darts_core.ops import OPS
from darts_core.registry import Registry, former_table
from darts_core.spaces import SPACES
from darts_core.supernet.cell import Preprocess
from darts_core.supernet.fixed_cell import FixedCell
from darts_core.supernet.search_skeleton import SEARCH_SKELETONS, check_stem
from darts_core.supernet.skeleton import (
    AuxiliaryHead,
    Head,
    ResidualReduction,
    cifar_stem,
    darts_specs,
    imagenet_stems,
    nasbench201_channels,
)

__all__ = ["NETWORKS", "CellNetwork", "build", "check_names", "height_of", "register_network"]

MakeNetwork = TypeVar("MakeNetwork", bound=Callable[..., nn.Module])
NETWORKS: Registry[Callable[..., nn.Module]] = Registry("skeleton of plain networks")


def register_network(name: str, *, description: str) -> Callable[[MakeNetwork], MakeNetwork]:
    """A decorator for what makes the plain network of an architecture with the skeleton `name`.

    It is called with the architecture and channels, layers, num_classes, auxiliary, in_channels, stem,
    image_size (the height).

    Raises:
        ConfigError: the name is taken.
    """

    def store(make: MakeNetwork) -> MakeNetwork:
        NETWORKS.register(name, description=description)(make)
        return make

    return store


def __getattr__(name: str) -> Any:
    if name == "BUILDERS":
        return former_table(NETWORKS, f"{__name__}.BUILDERS", f"{__name__}.register_network")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class CellNetwork(nn.Module):
    """Base of plain cell networks: drop-path that a training loop can set between epochs."""

    _drop_probability: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("_drop_probability", torch.zeros(()), persistent=False)
        self._drops = False

    @property
    def drop_path_prob(self) -> float:
        """Probability with which a path is dropped in training; 0 switches it off."""
        return float(self._drop_probability) if self._drops else 0.0

    @drop_path_prob.setter
    def drop_path_prob(self, value: float) -> None:
        if not 0.0 <= value < 1.0:
            raise ConfigError(f"drop_path must be at least 0 and below 1, not {value}.")
        # a tensor, so that a compiled network is not compiled anew for each epoch's value
        self._drop_probability.fill_(value)
        self._drops = value > 0

    def _drop(self) -> Tensor | None:
        return self._drop_probability if self.training and self._drops else None


@register_network("darts", description="stem, cells with preprocessing, two reduce the size")
class DartsNetwork(CellNetwork):
    """Stem, DARTS cells with preprocessing, head; optionally the auxiliary head.

    In training mode with an auxiliary head `forward` returns (logits, auxiliary logits).
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        channels: int,
        layers: int,
        num_classes: int,
        auxiliary: bool,
        in_channels: int,
        stem: str,
        image_size: int,
    ) -> None:
        super().__init__()
        imagenet = stem == "imagenet"
        width = channels if imagenet else 3 * channels
        if imagenet:
            self.stem, self.stem2 = imagenet_stems(in_channels, channels)
        else:
            self.stem = cifar_stem(in_channels, width)
        nodes = {len(cell.concat) for _, cell in architecture.cells}
        if len(nodes) != 1:
            raise ArchitectureError("The normal and the reduction cell must join as many states.")
        multiplier = nodes.pop()
        specs = list(
            darts_specs(channels, layers, multiplier, stem_channels=width, stem_reduces=imagenet)
        )
        self.cells = nn.ModuleList(
            FixedCell(
                _cell_of_kind(architecture, spec.kind),
                spec.channels,
                reduces=spec.reduces,
                preprocess=Preprocess(spec, affine=True),
            )
            for spec in specs
        )
        self.head = Head(multiplier * specs[-1].channels, num_classes, norm=False)
        self.auxiliary: AuxiliaryHead | None = None
        self._auxiliary_after = 2 * layers // 3
        if auxiliary:
            size = -(-image_size // 8) if imagenet else image_size
            reductions = sum(spec.reduces for spec in specs[: self._auxiliary_after + 1])
            self.auxiliary = AuxiliaryHead(
                multiplier * specs[self._auxiliary_after].channels,
                num_classes,
                feature_size=-(-size // 2**reductions),
                imagenet=imagenet,
            )

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [B, classes]."""
        older = self.stem(x_BCHW)
        newer = self.stem2(older) if hasattr(self, "stem2") else older
        drop = self._drop()
        auxiliary_logits: Tensor | None = None
        for layer, cell in enumerate(self.cells):
            older, newer = newer, cell([older, newer], drop)
            if self.training and self.auxiliary is not None and layer == self._auxiliary_after:
                auxiliary_logits = self.auxiliary(newer)
        logits: Tensor = self.head(newer)
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)


@register_network("nasbench201", description="stem, three stages of cells, residual reductions")
class NasBench201Network(CellNetwork):
    """Stem, three stages of cells with residual reductions between them, head.

    Edges that lead nowhere are kept, as in the benchmark.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        channels: int,
        layers: int,
        num_classes: int,
        auxiliary: bool,
        in_channels: int,
        stem: str,
        image_size: int,
    ) -> None:
        super().__init__()
        if auxiliary:
            raise ConfigError("A NAS-Bench-201 network has no auxiliary head; use auxiliary=false.")
        self.stem = cifar_stem(in_channels, channels)
        choice = _cell_of_kind(architecture, "cell")
        self.cells = nn.ModuleList(
            ResidualReduction(width // 2, width)
            if what == "reduction"
            else FixedCell(choice, width)
            for what, width in nasbench201_channels(channels, layers)
        )
        self.head = Head(4 * channels, num_classes, norm=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        state = self.stem(x_BCHW)
        drop = self._drop()
        for cell in self.cells:
            state = cell([state], drop) if isinstance(cell, FixedCell) else cell(state)
        logits: Tensor = self.head(state)
        return logits


def check_names(architecture: Architecture, source: str | None = None) -> None:
    """Check that the architecture's space and operations are registered, and that its cells fit the space.

    Args:
        architecture: what to look at.
        source: the file or setting that it comes from, named in the sentence.

    Raises:
        ArchitectureError: a name is unknown, or a cell has other inputs than those of the space; says in
            which cell and on which edge.
    """
    where = f"{source}: " if source else ""
    if architecture.space not in SPACES:
        raise ArchitectureError(
            f"{where}{unknown_name('space', architecture.space, SPACES)} A space of your own is registered "
            "by a module named in plugins=[...]."
        )
    inputs = SPACES[architecture.space].inputs  # 0 of choices
    for kind, cell in architecture.cells:
        if inputs and cell.inputs != inputs:
            raise ArchitectureError(
                f"{where}The first edge of the cell {kind!r} leads to state {cell.inputs}; in the space "
                f"{architecture.space!r} the cell's inputs are the states below {inputs}, and an edge leads "
                f"to state {inputs}."
            )
        for origin, target, op in cell.edges:
            if op not in OPS:
                raise ArchitectureError(
                    f"{where}The edge from state {origin} to {target} of the cell {kind!r}: "
                    f"{unknown_name('operation', op, OPS)} An operation of your own is registered "
                    "by a module named in plugins=[...]."
                )


def build(
    architecture: Architecture,
    channels: int = 36,
    layers: int = 20,
    num_classes: int = 10,
    auxiliary: bool = False,
    in_channels: int = 3,
    stem: str = "cifar",
    *,
    image_size: int | None = None,
) -> nn.Module:
    """A plain network of the architecture: ordinary modules with affine batch norms, freshly initialised.

    Args:
        architecture: what to build.
        channels: width of the first cells.
        layers: number of cells (DARTS) or cells per stage (NAS-Bench-201).
        num_classes: size of the classifier.
        auxiliary: add the auxiliary head (DARTS skeleton).
        in_channels: channels of the images.
        stem: "cifar" or "imagenet".
        image_size: height of the images, which decides the auxiliary head's form, and in a skeleton of a
            user's own what it likes; 32 or 224 by default.

    Raises:
        ArchitectureError: a cell kind or an operation does not exist.
        ConfigError: a size, the stem or the auxiliary head does not fit.
    """
    check_names(architecture)
    skeleton = SPACES[architecture.space].skeleton
    for name, value in (("channels", channels), ("layers", layers), ("num_classes", num_classes)):
        if value < 1:
            raise ConfigError(f"A network needs {name} >= 1, not {value}.")
    if skeleton in SEARCH_SKELETONS:
        check_stem(skeleton, stem)
    return NETWORKS[skeleton](
        architecture,
        channels=channels,
        layers=layers,
        num_classes=num_classes,
        auxiliary=auxiliary,
        in_channels=in_channels,
        stem=stem,
        image_size=image_size or (224 if stem == "imagenet" else 32),
    )


def height_of(input_shape: Sequence[int]) -> int | None:
    """The `image_size` of `build` for samples of a shape; None where these are no images."""
    return input_shape[1] if len(input_shape) == 3 else None


def _cell_of_kind(architecture: Architecture, kind: str) -> CellChoice:
    # a space may have one kind of cell for every place
    kinds = [name for name, _ in architecture.cells]
    return architecture.cell(kind if kind in kinds or len(kinds) != 1 else kinds[0])
