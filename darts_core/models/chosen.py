"""A network with choices in it, as the plain network in which they are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from darts_core.architecture import Architecture
from darts_core.sample_inputs import draw_inputs
from darts_core.supernet.choices import Choice, find_choices, label_choices
from darts_core.supernet.choices_build import plain_module
from darts_core.supernet.module_supernet import ModuleSupernet

__all__ = ["chosen", "has_choices", "keep_labels"]


def chosen(model: nn.Module, choices: Mapping[str, Any], input_shape: Sequence[int]) -> nn.Module:
    """A plain copy of `model` with its choices made.

    Args:
        model: holds a `LayerChoice` or the like for each label.
        choices: option by label.
        input_shape: of one sample, at which widths are cut out.

    Raises:
        ArchitectureError: a label or an option is not the model's.
        ConfigError: the model holds no choices, or a width cannot be cut out of it.
    """
    find_choices(model)
    supernet = ModuleSupernet(model)
    # given behind its back: made itself, it would try every width
    supernet.example_input = draw_inputs(input_shape, 2)
    supernet.run_lazy_layers()
    architecture = Architecture(supernet.space.name, choices=tuple(choices.items()))
    supernet.space.index(architecture)
    return plain_module(supernet, architecture)


def has_choices(model: nn.Module) -> bool:
    """Whether choices are open in `model`."""
    return any(isinstance(module, Choice) for module in model.modules())


def keep_labels(model: nn.Module) -> nn.Module:
    """`model`, whose choices are called what they are now wherever it is put; one without choices stays."""
    if has_choices(model):
        label_choices(model)
    return model
