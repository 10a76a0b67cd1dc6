"""The fine-tuning of a front's points on a cluster, all at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from darts_core.copies import copy_of
from darts_core.prune.finetune import fine_tune
from darts_core.settings.shrink import ShrinkOptions
from darts_core.stages.inputs import find_device
from darts_core.stages.interrupt import check_stop
from darts_core.stages.schema import ShrinkStage
from darts_core.stages.targets import import_plugins
from darts_core.stages.trial import trial_bundle
from darts_core.study.calls import run_calls
from darts_core.study.engines import elsewhere
from darts_core.train import of_model
from darts_core.train.config import TrainConfig

__all__ = ["tuned_elsewhere"]


@dataclass(frozen=True)
class _There:
    """What a node is sent; called with a place in `numbers`. The data are read there."""

    config: ShrinkStage
    tuning: TrainConfig
    meta: dict[str, Any]
    teacher: nn.Module
    networks: tuple[nn.Module, ...]
    numbers: tuple[int, ...]

    def __call__(self, place: int) -> tuple[dict[str, Tensor], float]:
        """The params of one fine-tuned point, and the seconds that took."""
        import_plugins(self.config.plugins)
        device = find_device(self.config.device)
        bundle = of_model(trial_bundle(self.config, device), self.meta, str(self.config.model))
        network = copy_of(self.networks[place]).to(device)
        seconds = fine_tune(
            network, bundle, self.tuning, teacher=self.teacher,
            distillation=self.config.shrink.options.distillation,
            seed=self.config.seed + self.numbers[place], device=device,
            rate_key=ShrinkOptions.key("fine_tuning_rate"),
        )  # fmt: skip
        return {name: value.cpu() for name, value in network.state_dict().items()}, seconds


def tuned_elsewhere(
    config: ShrinkStage,
    tuning: TrainConfig | None,
    meta: dict[str, Any],
    teacher: nn.Module,
    folder: Path,
) -> Callable[[Mapping[int, nn.Module]], dict[int, float]] | None:
    """What fine-tunes points (number -> network, in place) on `shrink.options.ray` or `.slurm`; the seconds.

    None where neither is set, or nothing is fine-tuned.

    Raises:
        TuneError: both are set, or a value is out of range.
    """
    options = config.shrink.options
    place = elsewhere(options.ray, options.slurm)
    if place is None or tuning is None:
        return None

    def tuned(networks: Mapping[int, nn.Module]) -> dict[int, float]:
        if not networks:
            return {}
        sent = tuple(copy_of(network).cpu() for network in networks.values())
        call = _There(config, tuning, meta, copy_of(teacher).cpu(), sent, tuple(networks))
        found = run_calls(place, call, len(networks), folder, look=check_stop)
        for network, (params, _) in zip(networks.values(), found, strict=True):
            network.load_state_dict(params)
            network.eval()
        return {number: took for number, (_, took) in zip(networks, found, strict=True)}

    return tuned
