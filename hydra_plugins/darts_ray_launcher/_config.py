"""The launcher's settings. Apart from the door, which Hydra runs without entering it among the modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from hydra_plugins.darts_sweeper._setup import plain_settings, store_launcher

__all__ = ["RAY_TARGET", "RayLauncherConfig", "cluster_of_launcher", "register"]

# OmegaConf reads the annotations at run time
# ruff: noqa: UP045

RAY_TARGET = "hydra_plugins.darts_ray_launcher.ray_launcher.RayLauncher"


@dataclass
class RayLauncherConfig:
    """Those of `darts_core.study.ray_cluster.RayCluster`, for each element or trial."""

    _target_: str = RAY_TARGET
    address: Optional[str] = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    runtime_env: Any = None


def register() -> None:
    """Make `hydra/launcher=ray` known to Hydra."""
    store_launcher("ray", RayLauncherConfig)


def cluster_of_launcher(node: Mapping[str, Any]) -> Any:
    """The `RayCluster` of the node `hydra.launcher`.

    Raises:
        TuneError: a value is out of range.
    """
    from darts_core.study.ray_cluster import cluster_of

    return cluster_of(plain_settings(node))
