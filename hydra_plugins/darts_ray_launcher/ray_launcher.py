"""The plugin's door: `hydra/launcher=ray`. Hydra imports this at every start, so it stays thin."""

from __future__ import annotations

from hydra_plugins.darts_ray_launcher._config import cluster_of_launcher, register
from hydra_plugins.darts_sweeper._setup import EngineLauncher

__all__ = ["RayLauncher"]

register()


class RayLauncher(EngineLauncher):
    """Runs each element of a multirun as a Ray task; its settings are those of `RayLauncherConfig`."""

    where = "Ray"
    place = staticmethod(cluster_of_launcher)
