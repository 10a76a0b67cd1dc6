"""`autosearch.searchable(model)`: the differentiable search over any module with choices in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from darts_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["searchable"]


def searchable(
    module: nn.Module, input_shape: Sequence[int], *, setting: str = "architecture"
) -> nn.Module:
    """The module to train for this trial, made of a module with LayerChoice, WidthChoice, DepthChoice.

    In the supernet trial it is the supernet, whose alphas move by themselves while it trains; in the
    trial of the found architecture, and in the baseline, it is a plain module with the choices made.

    Args:
        module: the model with choices.
        input_shape: one image's shape (C, H, W).
        setting: the setting that names the architecture (`setting` of the job file).

    Raises:
        ConfigError: the trial's setting is not an architecture of this module.
    """
    from darts_core.architecture import Architecture
    from darts_core.autosearch.contract import current
    from darts_core.supernet.choices import ModuleSupernet

    trial = current()
    supernet = ModuleSupernet(module, input_shape=input_shape)
    value: Any = trial.config.get(setting, "baseline")
    if isinstance(value, str) and value.startswith("search:"):
        return _in_search(supernet)
    if value == "baseline":
        choices = tuple((label, _own(options)) for label, options in supernet.space.choices)
        return supernet.build(Architecture(supernet.space.name, choices=choices))
    try:
        content = json.loads(value) if isinstance(value, str) else dict(value)
        pairs = tuple((str(label), option) for label, option in content.items())
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"The setting {setting}={str(value)[:80]!r} is no architecture; use 'baseline', or a mapping "
            "of choices to options."
        ) from None
    return supernet.build(Architecture(supernet.space.name, choices=pairs))


def _own(options: Sequence[Any]) -> Any:
    """The user's own option: the largest number, or the first named layer."""
    numbers = all(isinstance(o, (int, float)) and not isinstance(o, bool) for o in options)
    return max(options) if numbers else options[0]


def _in_search(supernet: Any) -> nn.Module:
    from darts_core.autosearch.backbones.searchable import AlphaSteps
    from darts_core.autosearch.contract import current

    trial = current()
    options = trial.record.get("differentiable", {})
    supernet.alpha_steps = AlphaSteps(
        supernet,
        learning_rate=float(options.get("alpha_learning_rate", 0.02)),
        warmup=int(options.get("warmup", 20)),
    )
    trial.searchables.append(_Derived(supernet))
    return supernet  # type: ignore[no-any-return]


class _Derived:
    """Names the architecture a supernet points to when the trial ends."""

    def __init__(self, supernet: Any) -> None:
        self.supernet = supernet

    def derive(self) -> str:
        return json.dumps(dict(self.supernet.discretize().choices))
