"""Choices inside any `nn.Module`: layers, widths and depths that become alphas, and the plain module after.

Source: mixed layers as in DARTS (arXiv:1806.09055, Eq. 2); widths by channel masks as in FBNetV2
(arXiv:2004.05565, Eq. 3) and TAS (arXiv:1905.09717).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.relax import Relaxation, Softmax
from darts_core.spaces.choices import ChoiceSpace, Option
from darts_core.supernet.choices_build import plain_module
from darts_core.supernet.drawn import drawn_columns, only_drawn

__all__ = ["Choice", "DepthChoice", "LayerChoice", "ModuleSupernet", "WidthChoice", "find_choices"]

_ALPHA_SCALE = 1e-3
_ROOT_LABEL = "choice"


class Choice(nn.Module):
    """Base class: something chosen among `options`, mixed by weights [K] while it is searched."""

    def __init__(self, options: Sequence[Option], label: str | None) -> None:
        super().__init__()
        if not options or len(set(options)) != len(options):
            raise ConfigError(
                f"{type(self).__name__} needs different options, not {list(options)}."
            )
        self.options: tuple[Option, ...] = tuple(options)
        self.label = label
        self.sparse = False
        self._weights_K: Tensor | None = None

    def bind(self, weights_K: Tensor | None) -> None:
        """Set the mixing weights of the next forward pass, or take them away."""
        self._weights_K = weights_K

    @property
    def mixing(self) -> Tensor:
        """The weights [K] that were bound.

        Raises:
            ConfigError: none are: the module runs outside a `ModuleSupernet`.
        """
        if self._weights_K is None:
            raise ConfigError(
                f"{type(self).__name__} {self.label or ''} has no weights; wrap the model: "
                "ModuleSupernet(model)."
            )
        return self._weights_K


class LayerChoice(Choice):
    """One of several modules that map the same input to the same output shape.

    Args:
        candidates: the modules, by name or in a list (named "0", "1", ...).
        label: choices with the same label are decided together; None: the module's path.
    """

    def __init__(
        self, candidates: Mapping[Any, nn.Module] | Sequence[nn.Module], label: str | None = None
    ) -> None:
        named = (
            dict(candidates)
            if isinstance(candidates, Mapping)
            else {str(index): module for index, module in enumerate(candidates)}
        )
        super().__init__(tuple(named), label)
        self.candidates = nn.ModuleList(named.values())

    def forward(self, *inputs: Any) -> Tensor:
        """sum_k weight_k * candidate_k(inputs)."""
        weights_K = self.mixing
        drawn = None
        if self.sparse:
            weights_K = only_drawn(weights_K)
            drawn = drawn_columns(weights_K[None])
        terms = [
            weights_K[k] * module(*inputs)
            for k, module in enumerate(self.candidates)
            if drawn is None or k in drawn[0]
        ]
        return torch.stack(terms).sum(0) if len(terms) > 1 else terms[0]

    def chosen(self, value: Option) -> nn.Module:
        """The candidate called `value`."""
        return self.candidates[self.options.index(value)]


class WidthChoice(Choice):
    """How many of the channels that pass here are kept: the first n stay, the others become zero.

    Place it behind the layer (its norm and activation) whose width is searched; that layer is written
    with the largest width.

    Shapes: [B, C, ...] -> the same, C being the largest option.

    Args:
        widths: numbers of channels.
        label: widths that meet in an addition need the same label.
        names: what an architecture calls the widths, for example ratios; the numbers if None.
    """

    masks_KC: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        label: str | None = None,
        *,
        names: Sequence[Option] | None = None,
    ) -> None:
        super().__init__(names if names is not None else widths, label)
        if min(widths) < 1 or len(widths) != len(self.options):
            raise ConfigError(
                f"Widths must be at least 1, and each needs one name, not {list(widths)} and "
                f"{list(self.options)}."
            )
        self.widths = tuple(widths)
        self.channels = max(widths)
        kept = torch.tensor(list(widths))[:, None] > torch.arange(self.channels)[None]
        self.register_buffer("masks_KC", kept.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` times the weighted sum of the options' masks."""
        if x.shape[1] != self.channels:
            raise ConfigError(
                f"WidthChoice {self.label or ''} with widths {list(self.widths)} got "
                f"{x.shape[1]} channels; the layer before it must have the largest option."
            )
        mask_C = (self.mixing[:, None] * self.masks_KC).sum(0).to(x.dtype)
        return x * mask_C.view(1, -1, *[1] * (x.dim() - 2))


class DepthChoice(Choice):
    """How many of a row of blocks run: the first d of them.

    Args:
        blocks: modules that keep the shape.
        depths: allowed numbers of blocks, 0 meaning none; all from 1 to len(blocks) by default.
        label: choices with the same label are decided together; None: the module's path.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        depths: Sequence[int] | None = None,
        label: str | None = None,
    ) -> None:
        depths = tuple(depths) if depths is not None else tuple(range(1, len(blocks) + 1))
        super().__init__(depths, label)
        if min(depths) < 0 or max(depths) != len(blocks):
            raise ConfigError(
                f"DepthChoice over {len(blocks)} blocks needs depths from 0 to {len(blocks)}, the "
                f"largest included, not {list(depths)}."
            )
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """The weighted sum of the states after each allowed number of blocks."""
        weights_K = self.mixing
        total: Tensor | None = None
        for depth in range(len(self.blocks) + 1):
            if depth:
                x = self.blocks[depth - 1](x)
            position = self.position(depth)
            if position is not None:
                term = weights_K[position] * x
                total = term if total is None else total + term
        if total is None:
            raise ConfigError("DepthChoice has no depths.")
        return total

    def position(self, depth: int) -> int | None:
        """The column of the option that runs `depth` of the blocks, if there is one."""
        return self.options.index(depth) if depth in self.options else None

    def chosen(self, value: Option) -> nn.Module:
        """The first `value` blocks in a row."""
        return nn.Sequential(*list(self.blocks)[: int(value)])


def find_choices(module: nn.Module) -> dict[str, list[Choice]]:
    """The choices inside `module` by label, in the order in which they are met.

    Raises:
        ConfigError: there are none, or choices with one label have different options.
    """
    found: dict[str, list[Choice]] = {}
    for path, child in module.named_modules():
        if isinstance(child, Choice):
            found.setdefault(child.label or path or _ROOT_LABEL, []).append(child)
    for label, tied in found.items():
        if any(choice.options != tied[0].options for choice in tied):
            raise ConfigError(
                f"Choices labelled {label!r} have different options: "
                f"{[list(choice.options) for choice in tied]}; tied choices need the same."
            )
    if not found:
        raise ConfigError(
            "The model holds no LayerChoice, WidthChoice or DepthChoice; there is nothing to search."
        )
    return found


class ModuleSupernet(nn.Module):
    """A user's model with choices in it, searched like a `Supernet`.

    Args:
        module: the model; it is trained in place.
        input_shape: (C, H, W) of one sample; needed to build networks with chosen widths.
        relaxation: alpha -> weights; softmax by default.
        name: what architectures of this model call their space.

    Raises:
        ConfigError: the model has no choices, or the relaxation works on cells only.
    """

    progress: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Sequence[int] | None = None,
        relaxation: Relaxation | None = None,
        name: str = "module",
        space: ChoiceSpace | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.input_shape = tuple(input_shape) if input_shape is not None else None
        self.relaxation = relaxation if relaxation is not None else Softmax()
        self._choices = find_choices(module)
        for tied in self._choices.values():
            for choice in tied:
                choice.sparse = self.relaxation.sparse
        self.space = space or ChoiceSpace.of(
            name, {label: tied[0].options for label, tied in self._choices.items()}
        )
        if self.relaxation.channel_fraction != 1 or self.relaxation.extra_alphas(self.space):
            raise ConfigError(
                f"The relaxation {type(self.relaxation).__name__} works on cells with edges; choose "
                "one without partial channels for a model with choices."
            )
        self.generator: torch.Generator | None = None
        self.register_buffer("progress", torch.zeros(()))
        # names of parameters may hold no dots
        self._keys = {label: label.replace(".", "/") for label in self._choices}
        self.alpha = nn.ParameterDict(
            {
                self._keys[label]: nn.Parameter(_ALPHA_SCALE * torch.randn(shape))
                for label, shape in self.space.alpha_shapes().items()
            }
        )

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Network parameters only, as in `Supernet`."""
        alphas = {id(alpha) for alpha in self.alpha.values()}
        for name, parameter in super().named_parameters(*args, **kwargs):
            if id(parameter) not in alphas:
                yield name, parameter

    def alphas(self) -> list[nn.Parameter]:
        """One [1, K] for every label."""
        return list(self.named_alphas().values())

    def named_alphas(self) -> dict[str, nn.Parameter]:
        """Alphas [1, K] by label."""
        return {label: self.alpha[key] for label, key in self._keys.items()}

    def mixing_weights(self) -> dict[str, Tensor]:
        """Weights [1, K] by label for one forward pass; differentiable in the alphas."""
        return {
            label: self.relaxation.weights(alpha, self.progress, self.generator)
            for label, alpha in self.named_alphas().items()
        }

    def expected_weights(self) -> dict[str, Tensor]:
        """Deterministic weights [1, K] by label; differentiable in the alphas."""
        return {label: self.relaxation.evaluate(a) for label, a in self.named_alphas().items()}

    @torch.no_grad()
    def final_weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """`expected_weights` as numpy arrays."""
        return {label: w.double().cpu().numpy() for label, w in self.expected_weights().items()}

    def discretize(self) -> Architecture:
        """The architecture that the alphas point to now."""
        return self.space.discretize(self.final_weights())

    def forward(self, x: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The model's output; the weights are drawn from the alphas when not given."""
        if weights is None:
            weights = self.mixing_weights()
        try:
            for label, tied in self._choices.items():
                for choice in tied:
                    choice.bind(weights[label][0])
            result: Tensor = self.module(x)
        finally:
            for tied in self._choices.values():
                for choice in tied:
                    choice.bind(None)
        return result

    def one_hot(self, architecture: Architecture) -> dict[str, Tensor]:
        """Mixing weights that pick `architecture`."""
        device = self.progress.device
        weights = {}
        for label, column in self.space.index(architecture).items():
            weights[label] = torch.zeros(self.space.alpha_shapes()[label], device=device)
            weights[label][0, column] = 1.0
        return weights

    def build(self, architecture: Architecture | None = None) -> nn.Module:
        """A plain copy of the model with the choices made and the searched params carried over.

        Raises:
            ArchitectureError: the architecture is not of this model's space.
            ConfigError: a width cannot be cut without changing the function.
        """
        architecture = architecture if architecture is not None else self.discretize()
        self.space.index(architecture)
        return plain_module(self, architecture)
