"""The plugin's door: `hydra/launcher=slurm`. Hydra imports this at every start, so it stays thin."""

from __future__ import annotations

from hydra_plugins.darts_slurm_launcher._config import queue_of_launcher, register
from hydra_plugins.darts_sweeper._setup import EngineLauncher

__all__ = ["SlurmLauncher"]

register()


class SlurmLauncher(EngineLauncher):
    """Runs each element as a job of Slurm; its settings are those of `darts_core.settings.SlurmQueue`."""

    where = "Slurm"
    place = staticmethod(queue_of_launcher)
