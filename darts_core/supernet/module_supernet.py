"""A user's model with choices in it, with the interface of a `Supernet`."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.modes import evaluating, unmoved
from darts_core.relax import Relaxation, Softmax
from darts_core.sample_inputs import draw_inputs, is_unbuilt
from darts_core.spaces.choices import ChoiceSpace
from darts_core.supernet.choices import find_choices
from darts_core.supernet.choices_build import check_widths, plain_module

__all__ = ["ModuleSupernet"]

_ALPHA_SCALE = 1e-3
_ONE_INPUT = (
    "{name} is given other than one input; networks with choices are searched with one, forward(x). Give "
    "several as one tensor that forward takes apart, or search the part behind them."
)


class ModuleSupernet(nn.Module):
    """A user's model with choices in it, searched like a `Supernet`.

    Args:
        module: the model; it is trained in place.
        input_shape: of one sample, (C, H, W) of an image, (F,) of values, or (T,) of token numbers, which are
            given to a model that takes no values; needed to build networks with chosen widths.
        example_input: [B, ...], for models whose input is not random numbers of a shape (token ids).
        relaxation: alpha -> weights; softmax by default.
        name: what architectures of this model call their space.

    Raises:
        ConfigError: the model has no choices, takes other than one input, a width cannot be cut out of it,
            or the relaxation works on cells only.
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
        example_input: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.input_shape = None if input_shape is None else _of_one_input(input_shape)
        self.example_input = example_input
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
        self._keys = _parameter_names(self._choices)
        self.alpha = nn.ParameterDict(
            {
                self._keys[label]: nn.Parameter(_ALPHA_SCALE * torch.randn(shape))
                for label, shape in self.space.alpha_shapes().items()
            }
        )
        if self.input_shape is not None or example_input is not None:
            _check_one_input(module)
            self.run_lazy_layers()
            check_widths(self)

    @torch.no_grad()
    def run_lazy_layers(self) -> None:
        """Let layers that take their sizes from their first input (nn.LazyLinear) see one."""
        if is_unbuilt(self.module):
            with evaluating(self.module):
                self(self.sample(), self.expected_weights())

    def sample(self) -> Tensor:
        """[2, ...], an input like those of training, the same each time.

        Raises:
            ConfigError: neither `input_shape` nor `example_input` was given.
        """
        reference = next(self.module.parameters(), torch.zeros(()))
        if self.example_input is not None:
            return self.example_input[:2].to(reference.device)
        if self.input_shape is None:
            raise ConfigError(
                "Building chosen widths traces the model; give ModuleSupernet(model, "
                "input_shape=(C, H, W))."
            )
        generator = torch.Generator().manual_seed(0)
        sample = torch.randn(2, *self.input_shape, generator=generator)
        sample = sample.to(reference.device, reference.dtype)
        if len(self.input_shape) != 1 or self._runs(sample):
            return sample
        tokens = draw_inputs(self.input_shape, 2, generator=generator).to(reference.device)
        # what takes neither is told what is wrong with values, as a layer of another size
        return tokens if self._runs(tokens) else sample

    @torch.no_grad()
    def _runs(self, x: Tensor) -> bool:
        """Whether the model takes such an input."""
        try:
            with evaluating(self.module), unmoved(self.module):
                self(x.clone(), self.expected_weights())
        except Exception:  # whatever a foreign network raises
            return False
        return True

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What `to`, `half` and `cuda` call; the alphas stay in fp32 at least.

        Adam's steps and its running squares are lost in bf16 and fp16.
        """
        before = {key: alpha.detach() for key, alpha in self.alpha.items()}
        super()._apply(fn, recurse)
        for key, alpha in self.alpha.items():
            if alpha.dtype in (torch.float16, torch.bfloat16):
                alpha.data = before[key].to(alpha.device)
        return self

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

    def open_alphas(self) -> dict[str, Tensor]:
        """`named_alphas`, as every option of a label may be chosen."""
        return dict(self.named_alphas())

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
        """The model's output; the weights are drawn from the alphas when not given.

        Raises:
            ConfigError: a second input stands in their place.
        """
        if isinstance(weights, Tensor):
            raise ConfigError(_ONE_INPUT.format(name=type(self.module).__name__))
        own = weights is None
        with self.mixed(self.mixing_weights() if weights is None else weights):
            # a search asks of one batch several times, and a network may write into its input
            result: Tensor = self.module(x.clone() if isinstance(x, Tensor) and not own else x)
        return result

    def is_mixed(self) -> bool:
        """Whether the choices have weights now, as within a pass."""
        first = next(iter(self._choices.values()))[0]
        return first._weights_K is not None

    @contextmanager
    def mixed(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """A block in which the choices of the model are mixed by `weights`."""
        try:
            for label, tied in self._choices.items():
                for choice in tied:
                    choice.bind(weights[label][0])
            yield
        finally:
            for tied in self._choices.values():
                for choice in tied:
                    choice.bind(None)

    def _replicate_for_data_parallel(self) -> Any:
        """What torch calls of `nn.DataParallel` on several devices, whose copies would lack the alphas."""
        raise ConfigError(
            "nn.DataParallel cannot run a network with open choices on several devices: its copies hold no "
            "alphas. Use one device, or `darts-core search` under torchrun."
        )

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


def _of_one_input(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape as whole numbers.

    Raises:
        ConfigError: it is none of one input, such as a shape for each of several.
    """
    try:
        return tuple(operator.index(size) for size in shape)
    except TypeError:
        raise ConfigError(
            f"input_shape={shape!r} must be the whole numbers of one input's shape, such as (3, 32, 32); "
            "networks of several inputs are not searched."
        ) from None


def _check_one_input(module: nn.Module) -> None:
    """Refuse what cannot be called with one input, or only with more: it would fail in the search's trial.

    Raises:
        ConfigError: `module` is so.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # of compiled code
        return
    try:
        signature.bind(None)
    except TypeError:
        raise ConfigError(_ONE_INPUT.format(name=type(module).__name__)) from None


def _parameter_names(labels: Iterable[str]) -> dict[str, str]:
    """What the alpha of each label is called; a parameter's name holds no dots and is no method's."""
    names: dict[str, str] = {}
    reserved = nn.ParameterDict()
    for label in labels:
        name = label.replace(".", "/")
        while name in names.values() or hasattr(reserved, name):
            name += "/"
        names[label] = name
    return names
