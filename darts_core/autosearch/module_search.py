"""`autosearch.searchable(model)`: the differentiable search over any module with choices in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from darts_core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["searchable"]

log = logging.getLogger("darts_core")


def searchable(
    module: nn.Module, input_shape: Sequence[int], *, setting: str = "architecture"
) -> nn.Module:
    """The module to train for this trial, made of a module with LayerChoice, WidthChoice, DepthChoice.

    In the supernet trial it is the supernet, whose alphas move by themselves while it trains; in the
    trial of the found architecture, and in the baseline, it is a plain module with the choices made.

    Args:
        module: the model with choices; it takes one input.
        input_shape: of one example: (C, H, W), (C, T), (F,) of values, or (T,) of token numbers, which are
            given to a network that takes no values.
        setting: the setting that names the architecture (`setting` of the job file).

    Raises:
        ConfigError: the trial's setting is not an architecture of this module, or that takes other than one
            input.
    """
    import torch

    from darts_core.autosearch.contract import current
    from darts_core.autosearch.in_search import SearchedModule
    from darts_core.autosearch.networks import remember

    trial = current()
    builder = type(module)
    # what is drawn for alphas and copies must not change what the user's script draws
    with torch.random.fork_rng(devices=[]):
        supernet = SearchedModule(module, input_shape=input_shape)
    value: Any = trial.config.get(setting, "baseline")
    if isinstance(value, str) and value.startswith("search:"):
        return _in_search(supernet)
    chosen = _baseline(supernet) if value == "baseline" else _named(supernet, setting, value)
    options = supernet.space.options
    choices = {k: {"options": list(options(k)), "chosen": v} for k, v in chosen.choices}
    with torch.random.fork_rng(devices=[]):
        built = supernet.build(chosen)
    remember(built, builder, input_shape=input_shape, searchable=setting, choices=choices)
    return built


def _named(supernet: Any, setting: str, value: Any) -> Any:
    """The architecture that a setting names.

    Raises:
        ConfigError: it is none of this module.
    """
    from darts_core.architecture import Architecture

    try:
        content = json.loads(value) if isinstance(value, str) else dict(value)
        pairs = tuple((str(label), option) for label, option in content.items())
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"The setting {setting}={str(value)[:80]!r} is no architecture; use 'baseline', or a mapping "
            "of choices to options."
        ) from None
    return Architecture(supernet.space.name, choices=pairs)


def _baseline(supernet: Any) -> Any:
    """The user's own network: the largest number of each choice, or its first named layer."""
    from darts_core.architecture import Architecture
    from darts_core.latency.survey import base_options

    own = base_options(supernet.space)
    return Architecture(supernet.space.name, choices=tuple(own.items()))


def _in_search(supernet: Any) -> nn.Module:
    from darts_core.autosearch.alpha_steps import AlphaSteps
    from darts_core.autosearch.closing import watch
    from darts_core.autosearch.contract import current

    trial = current()
    options = trial.record.get("differentiable", {})
    pull = _CostPull(
        supernet,
        share=float(options.get("target_cost", 0.35)),
        weight=float(options.get("cost_weight", 2.0)),
    )
    supernet.alpha_steps = AlphaSteps(
        supernet,
        learning_rate=float(options.get("alpha_learning_rate", 0.02)),
        warmup=int(options.get("warmup", 20)),
        penalty=pull.penalty,
    )
    trial.searchables.append(_Derived(supernet, pull))
    watch(trial)
    return supernet  # type: ignore[no-any-return]


class _CostPull:
    """Expected multiply-accumulates against a share of the user's own network's."""

    def __init__(self, supernet: Any, *, share: float, weight: float) -> None:
        import torch

        from darts_core.latency import choice_size_model

        # drawing params to be counted must not change what the user's script draws
        with torch.random.fork_rng(devices=[]):
            sample = supernet.sample()
            self.cost = choice_size_model(supernet.space, supernet.build, sample, "macs")
        self.budget = share * self.cost.of(_baseline(supernet))
        self.weight, self.supernet = weight, supernet
        if not self.budget:
            log.warning(
                "The network has no multiply-accumulates that could be counted (of convolutions, linear "
                "layers, products and attention), so target_cost pulls at nothing: its choices follow the "
                "loss alone."
            )

    def penalty(self, weights: Any) -> Any:
        """weight * max(0, log(expected cost / budget)); 0 where nothing can be counted."""
        import torch

        if not self.budget:
            return 0.0 * sum(share.sum() for share in weights.values())
        cost = self.cost.to(next(iter(weights.values())).device)
        return self.weight * torch.relu(torch.log(cost(weights) / self.budget))

    def within(self) -> Any:
        """The alphas' pick, changed where that loses the least weight until it meets the budget."""
        from darts_core.errors import LatencyError
        from darts_core.latency.within import fastest, within_budget

        space, pick = self.supernet.space, self.supernet.discretize()
        weights = self.supernet.final_weights()
        try:
            settled = within_budget(pick, weights, space, self.cost, self.budget, self.cost.of)
        except LatencyError as error:
            log.warning("target_cost is not met: %s", error)
            return fastest(space, self.cost)
        return settled.architecture


class _Derived:
    """Names the architecture a supernet points to when the trial ends, within the cost that was asked."""

    def __init__(self, supernet: Any, pull: _CostPull) -> None:
        self.supernet, self.pull = supernet, pull
        self.steps = supernet.alpha_steps

    def derive(self) -> str:
        return json.dumps(dict(self.pull.within().choices))
