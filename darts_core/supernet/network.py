"""`Supernet`: the weight-sharing network whose alphas are searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.relax import Relaxation, Softmax
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

__all__ = ["Supernet", "frozen_statistics"]

_STEM_MULTIPLIER = 3
_ALPHA_SCALE = 1e-3


class Supernet(nn.Module):
    """All architectures of a cell space in one network, mixed by weights that come from alpha.

    Args:
        space: what may be chosen.
        channels: width of the first cells.
        layers: number of cells (DARTS), or cells per stage (NAS-Bench-201).
        num_classes: size of the classifier.
        in_channels: channels of the images.
        stem: "cifar" (full resolution) or "imagenet" (resolution / 8; DARTS skeleton only).
        relaxation: alpha -> weights; softmax by default.

    Raises:
        ConfigError: a size is not positive, or the stem does not exist for the space.
    """

    progress: Tensor

    def __init__(
        self,
        space: SearchSpace,
        *,
        channels: int = 16,
        layers: int = 8,
        num_classes: int = 10,
        in_channels: int = 3,
        stem: str = "cifar",
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(space, channels, layers, num_classes, in_channels, stem)
        self.space = space
        self.relaxation = relaxation if relaxation is not None else Softmax()
        self.generator: torch.Generator | None = None
        self.register_buffer("progress", torch.zeros(()))
        self.alpha = nn.ParameterDict()
        for kind, shape in space.alpha_shapes().items():
            self.alpha[kind] = nn.Parameter(_ALPHA_SCALE * torch.randn(shape))
        for name, extra in self.relaxation.extra_alphas(space).items():
            self.alpha[name] = nn.Parameter(torch.zeros(extra))
        for kind in space.cell_kinds:
            mask = torch.from_numpy(~space.allowed(kind))
            if mask.any():
                self.register_buffer(f"_disallowed_{kind}", mask, persistent=False)
        build = _darts_body if space.skeleton == "darts" else _nasbench201_body
        self.stem, self.cells, self.head = build(
            space, channels, layers, num_classes, in_channels, stem, self.relaxation
        )

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Network parameters only: alphas are moved by the strategy, not by the params optimizer."""
        alphas = {id(alpha) for alpha in self.alpha.values()}
        for name, parameter in super().named_parameters(*args, **kwargs):
            if id(parameter) not in alphas:
                yield name, parameter

    def alphas(self) -> list[nn.Parameter]:
        """All architecture parameters (leaves), extra ones of the relaxation included."""
        return list(self.alpha.values())

    def named_alphas(self) -> dict[str, nn.Parameter]:
        """Architecture parameters by name: one [E, K] per cell kind, then the relaxation's extra ones."""
        return dict(self.alpha.items())

    def _logits(self, kind: str) -> Tensor:
        alpha_EK = self.alpha[kind]
        mask = getattr(self, f"_disallowed_{kind}", None)
        return alpha_EK if mask is None else alpha_EK.masked_fill(mask, float("-inf"))

    def mixing_weights(self) -> dict[str, Tensor]:
        """Weights [E, K] per cell kind for one forward pass; differentiable in the alphas."""
        extras = self.named_alphas()
        weights = {}
        for kind in self.space.cell_kinds:
            weight_EK = self.relaxation.weights(self._logits(kind), self.progress, self.generator)
            scale_E = self.relaxation.edge_scale(kind, extras, self.space)
            weights[kind] = weight_EK if scale_E is None else weight_EK * scale_E[:, None]
        return weights

    @torch.no_grad()
    def final_weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """Deterministic weights [E, K] per cell kind as numpy arrays, for evaluation and discretisation."""
        extras = self.named_alphas()
        result = {}
        for kind in self.space.cell_kinds:
            weight_EK = self.relaxation.evaluate(self._logits(kind))
            scale_E = self.relaxation.edge_scale(kind, extras, self.space)
            if scale_E is not None:
                weight_EK = weight_EK * scale_E[:, None]
            result[kind] = weight_EK.double().cpu().numpy()
        return result

    def discretize(self) -> Architecture:
        """The architecture that the alphas point to now."""
        return self.space.discretize(self.final_weights())

    def forward(self, x_BCHW: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits [B, classes]; the weights are drawn from the alphas when not given."""
        if weights is None:
            weights = self.mixing_weights()
        states = self.stem(x_BCHW)
        if not isinstance(states, list):
            states = [states, states]
        for cell in self.cells:
            if isinstance(cell, SearchCell):
                inputs = states if cell.preprocess is not None else states[-1:]
                states = [states[-1], cell(inputs, weights[cell.kind])]
            else:
                states = [states[-1], cell(states[-1])]
        logits: Tensor = self.head(states[-1])
        return logits


class frozen_statistics:
    """A context in which training-mode batch norms use batch statistics and leave the running ones alone."""

    def __init__(self, module: nn.Module) -> None:
        self._norms = [
            norm
            for norm in module.modules()
            if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats
        ]

    def __enter__(self) -> None:
        for norm in self._norms:
            norm.track_running_stats = False

    def __exit__(self, *_: object) -> None:
        for norm in self._norms:
            norm.track_running_stats = True


class _ImagenetStem(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.first, self.second = imagenet_stems(in_channels, channels)

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        first = self.first(x_BCHW)
        return [first, self.second(first)]


Body = tuple[nn.Module, nn.ModuleList, Head]


def _darts_body(
    space: SearchSpace,
    channels: int,
    layers: int,
    num_classes: int,
    in_channels: int,
    stem: str,
    relaxation: Relaxation,
) -> Body:
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


def _nasbench201_body(
    space: SearchSpace,
    channels: int,
    layers: int,
    num_classes: int,
    in_channels: int,
    stem: str,
    relaxation: Relaxation,
) -> Body:
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


def _check_sizes(
    space: SearchSpace, channels: int, layers: int, num_classes: int, in_channels: int, stem: str
) -> None:
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
    """Refuse a stem that the skeleton does not have.

    Raises:
        ConfigError: with the stems that it has.
    """
    if skeleton not in ("darts", "nasbench201"):
        raise ConfigError(
            f"No cell network has the skeleton {skeleton!r}; known: 'darts', 'nasbench201'."
        )
    allowed = ("cifar", "imagenet") if skeleton == "darts" else ("cifar",)
    if stem not in allowed:
        raise ConfigError(
            f"A {skeleton} network has no stem {stem!r}; choose {' or '.join(allowed)}."
        )
