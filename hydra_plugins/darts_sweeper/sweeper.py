"""The plugin's door: `hydra/sweeper=darts`. Hydra imports this at every start, so it stays thin."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.darts_sweeper._config import register

__all__ = ["DartsSweeper"]

register()


class DartsSweeper(Sweeper):
    """Runs the trials of one Optuna study through workers that are started by Hydra's launcher.

    Args:
        settings: the node `hydra.sweeper`; its keys are those of `DartsSweeperConfig`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra with what a sweep needs."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> float:
        """Run, or continue, the study over the swept overrides; the best value.

        Raises:
            TuneError: see `darts_core.study.run_study`.
        """
        from hydra_plugins.darts_sweeper._sweep import run_sweep

        return run_sweep(
            self.settings, self.config, self.hydra_context, self.task_function, arguments
        )
