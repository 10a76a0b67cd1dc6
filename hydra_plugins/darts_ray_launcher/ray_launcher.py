"""The plugin's door: `hydra/launcher=ray`. Hydra imports this at every start, so it stays thin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

__all__ = ["RAY_TARGET", "RayLauncher", "cluster_of_launcher"]

# OmegaConf reads the annotations at run time
# ruff: noqa: UP045

RAY_TARGET = "hydra_plugins.darts_ray_launcher.ray_launcher.RayLauncher"


@dataclass
class RayLauncherConfig:
    """Settings of the launcher: those of `darts_core.study.on_ray.RayCluster`, for each element or trial."""

    _target_: str = RAY_TARGET
    address: Optional[str] = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    runtime_env: Any = None


ConfigStore.instance().store(
    group="hydra/launcher", name="ray", node=RayLauncherConfig, provider="darts_ray_launcher"
)


def cluster_of_launcher(node: Mapping[str, Any]) -> Any:
    """The `RayCluster` of the node `hydra.launcher`.

    Raises:
        TuneError: a value is out of range.
    """
    from darts_core.study.on_ray import cluster_of

    plain: Any = OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
    plain.pop("_target_", None)
    return cluster_of(plain)


class RayLauncher(Launcher):
    """Runs each element of a multirun as a Ray task.

    Args:
        settings: the node `hydra.launcher`; its keys are those of `RayLauncherConfig`.
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
            TuneError: Ray cannot be reached, or an element's node does not see the output folder.
        """
        from hydra_plugins.darts_ray_launcher._elements import run_elements

        assert self.config is not None
        return run_elements(
            cluster_of_launcher(self.settings),
            self.task_function,
            self.config,
            self.hydra_context,
            job_overrides,
            initial_job_idx,
        )
