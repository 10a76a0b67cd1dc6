"""The plugin's door: `hydra/sweeper=darts`. Hydra imports this at every start, so it stays thin."""

from __future__ import annotations

from hydra.plugins.sweeper import Sweeper

from hydra_plugins.darts_sweeper._config import register
from hydra_plugins.darts_sweeper._setup import Setup

__all__ = ["DartsSweeper"]

register()


class DartsSweeper(Setup, Sweeper):
    """Runs the trials of one Optuna study through workers that are started by Hydra's launcher.

    Args:
        settings: the node `hydra.sweeper`; its keys are those of `DartsSweeperConfig`.
    """

    def sweep(self, arguments: list[str]) -> float:
        """Run, or continue, the study over the swept overrides; the best value.

        Raises:
            TuneError: see `darts_core.study.run_study`.
        """
        from hydra_plugins.darts_sweeper._sweep import run_sweep

        return run_sweep(
            self.settings, self.config, self.hydra_context, self.task_function, arguments
        )
