"""The plugin's door: `hydra/launcher=slurm`. Hydra imports this at every start, so it stays thin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.darts_slurm_launcher._config import queue_of_launcher, register

__all__ = ["SlurmLauncher"]

register()


class SlurmLauncher(Launcher):
    """Runs each element of a multirun as a job of Slurm.

    Args:
        settings: the node `hydra.launcher`; its keys are those of `darts_core.settings.SlurmQueue`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra with what a multirun needs."""
        self.config, self.hydra_context, self.task_function = config, hydra_context, task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the elements; their results in order.

        Raises:
            TuneError: Slurm cannot be used, jobs keep dying, or a node does not see the output folder.
        """
        from hydra_plugins.darts_slurm_launcher._elements import run_elements

        assert self.config is not None
        return run_elements(
            queue_of_launcher(self.settings),
            self.task_function,
            self.config,
            self.hydra_context,
            job_overrides,
            initial_job_idx,
        )
