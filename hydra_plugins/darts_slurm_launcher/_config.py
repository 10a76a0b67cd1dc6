"""The launcher's settings. Apart from the door, which Hydra runs without entering it among the modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, make_dataclass
from typing import Any

from darts_core.settings import SlurmQueue, schema
from hydra_plugins.darts_sweeper._setup import plain_settings, store_launcher

__all__ = ["SLURM_TARGET", "queue_of_launcher", "register"]

SLURM_TARGET = "hydra_plugins.darts_slurm_launcher.slurm_launcher.SlurmLauncher"


def register() -> None:
    """Make `hydra/launcher=slurm` known to Hydra, with the settings of `SlurmQueue`."""
    node = make_dataclass(
        "SlurmLauncherConfig",
        [("_target_", str, field(default=SLURM_TARGET))],
        bases=(schema(SlurmQueue),),
    )
    store_launcher("slurm", node)


def queue_of_launcher(node: Mapping[str, Any]) -> Any:
    """The `SlurmQueue` of the node `hydra.launcher`.

    Raises:
        ConfigError: a value is out of range.
    """
    from darts_core.study.slurm_queue import queue_of

    return queue_of(plain_settings(node))
