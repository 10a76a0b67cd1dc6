"""`Supernet`: the weight-sharing network whose alphas are searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.relax import Relaxation, Softmax
from darts_core.spaces import SearchSpace
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.search_skeleton import SEARCH_SKELETONS, check_sizes

__all__ = ["Supernet"]

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
    image_size: int | None = None
    """Height of the images, where that is known: a skeleton of a user's own may build its networks by it."""

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
        check_sizes(space, channels, layers, num_classes, in_channels, stem)
        self.generator: torch.Generator | None = None
        # a data-parallel search makes a rebuilt network common to its processes
        self.after_rebuild: Callable[[], None] | None = None
        self.register_buffer("progress", torch.zeros(()))
        self.sizes: dict[str, Any] = {
            "channels": channels,
            "layers": layers,
            "num_classes": num_classes,
            "in_channels": in_channels,
            "stem": stem,
        }
        self.path, self.precision = "plain", "tf32"
        self._make(space, relaxation if relaxation is not None else Softmax())

    def use_path(self, path: str = "auto", precision: str = "tf32") -> str:
        """Choose how the searched cells run; returns the path that was taken.

        The state dict is the same on every path. Call it on the final device and before optimizers are
        made: the fast paths pack the params of a cell into one tensor.

        Args:
            path: "plain" (modules), "fused" (Triton kernels, GPU), "batched" (large torch calls, CPU), or
                "auto": the fast path of the device.
            precision: of the fused path: "fp32", "tf32" or "bf16".

        Raises:
            ConfigError: the path is unknown or does not exist on this device.
        """
        from darts_core.supernet.paths import choose_path, fuse, unfuse

        unfuse(self)
        self.path, self.precision = choose_path(path, self.progress.device), precision
        if self.path != "plain":
            fuse(self, precision)
        return self.path

    def _make(self, space: SearchSpace, relaxation: Relaxation) -> None:
        """Fresh alphas and modules for the space and `self.sizes`."""
        self.space, self.relaxation = space, relaxation
        self.alpha = nn.ParameterDict()
        for kind, shape in space.alpha_shapes().items():
            # small, and normal draws of a network that is only counted would load the compiler
            self.alpha[kind] = nn.Parameter(_ALPHA_SCALE * torch.randn(shape, device="cpu"))
        for name, extra in relaxation.extra_alphas(space).items():
            self.alpha[name] = nn.Parameter(torch.zeros(extra))
        for kind in space.cell_kinds:
            mask = torch.from_numpy(~space.allowed(kind))
            self.register_buffer(f"_disallowed_{kind}", mask if mask.any() else None, False)
        self.stem, self.cells, self.head = SEARCH_SKELETONS[space.skeleton](
            space, relaxation=relaxation, **self.sizes
        )
        for cell in self.modules():
            if isinstance(cell, SearchCell):
                cell.sparse = relaxation.sparse

    def rebuild(
        self, space: SearchSpace, *, relaxation: Relaxation | None = None, **sizes: Any
    ) -> None:
        """Become the supernet of another space, relaxation or size, in place and freshly initialised.

        Progressive strategies use it between stages; optimizers must be made anew.

        Args:
            space: what may be chosen from now on.
            relaxation: the present one if None.
            sizes: arguments of the constructor that change, for example `layers`.
        """
        device = self.progress.device
        self.sizes.update(sizes)
        check_sizes(space, **self.sizes)
        self._make(space, relaxation or self.relaxation)
        self.to(device)
        self.use_path(self.path, self.precision)
        if self.after_rebuild is not None:
            self.after_rebuild()

    def one_hot(self, architecture: Architecture) -> dict[str, Tensor]:
        """Mixing weights that run `architecture` inside the supernet: edges that are not kept get 0.

        Raises:
            ArchitectureError: a cell kind is missing.
            ConfigError: an edge or an operation is not of this space.
        """
        weights = {}
        for kind, shape in self.space.alpha_shapes().items():
            weight_EK = torch.zeros(shape)
            for source, target, op in architecture.cell(kind).edges:
                if (source, target) not in self.space.edges or op not in self.space.ops:
                    raise ConfigError(
                        f"The space {self.space.name!r} has no {op!r} from {source} to {target}."
                    )
                weight_EK[self.space.edges.index((source, target)), self.space.ops.index(op)] = 1.0
            weights[kind] = weight_EK.to(self.progress.device)
        return weights

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

    def open_alphas(self) -> dict[str, Tensor]:
        """`named_alphas` as the relaxation is given them: -inf for what an edge may not choose."""
        return {name: self._logits(name) for name in self.alpha}

    def mixing_weights(self) -> dict[str, Tensor]:
        """Weights [E, K] per cell kind for one forward pass; differentiable in the alphas."""
        extras = self.named_alphas()
        weights = {}
        for kind in self.space.cell_kinds:
            weight_EK = self.relaxation.weights(self._logits(kind), self.progress, self.generator)
            scale_E = self.relaxation.edge_scale(kind, extras, self.space)
            weights[kind] = weight_EK if scale_E is None else weight_EK * scale_E[:, None]
        return weights

    def expected_weights(self) -> dict[str, Tensor]:
        """Deterministic weights [E, K] per cell kind; differentiable in the alphas."""
        extras = self.named_alphas()
        result = {}
        for kind in self.space.cell_kinds:
            weight_EK = self.relaxation.evaluate(self._logits(kind))
            scale_E = self.relaxation.edge_scale(kind, extras, self.space)
            result[kind] = weight_EK if scale_E is None else weight_EK * scale_E[:, None]
        return result

    @torch.no_grad()
    def final_weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """`expected_weights` as numpy arrays, for evaluation and discretisation."""
        return {kind: w.double().cpu().numpy() for kind, w in self.expected_weights().items()}

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
