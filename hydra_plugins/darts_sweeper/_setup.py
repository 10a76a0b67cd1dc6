"""What Hydra gives to each of our plugins, and the launchers among them: an engine of a study each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

__all__ = ["EngineLauncher", "Setup", "plain_settings", "store_launcher"]


class Setup:
    """A plugin with its settings and, once Hydra has called `setup`, its task.

    Args:
        settings: the plugin's node.
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


class EngineLauncher(Setup, Launcher):
    """Runs each element of a multirun as a call on an engine."""

    where: str

    @staticmethod
    @abstractmethod
    def place(node: Mapping[str, Any]) -> Any:
        """The engine of the node `hydra.launcher`."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the elements; their results in order.

        Raises:
            TuneError: the engine cannot be reached, nodes keep dying, or one does not see the output
                folder.
        """
        from darts_core.study.calls import run_calls
        from hydra_plugins.darts_sweeper._elements import packed_elements

        assert self.config is not None
        place = self.place(self.settings)
        with packed_elements(
            self.task_function, self.config, self.hydra_context, job_overrides, initial_job_idx, self.where
        ) as (elements, folder):  # fmt: skip
            return run_calls(place, elements, len(elements), folder)


def store_launcher(name: str, node: Any) -> None:
    """Make `hydra/launcher=NAME` known to Hydra."""
    ConfigStore.instance().store(
        group="hydra/launcher", name=name, node=node, provider=f"darts_{name}_launcher"
    )


def plain_settings(node: Mapping[str, Any]) -> Any:
    """The settings in a plugin's node, resolved, without the class that takes them."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(dict(node)), resolve=True)
    plain.pop("_target_", None)
    return plain
