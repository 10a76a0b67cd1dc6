"""One trial of a sweep: the app's own task function under the trial's overrides, in its process."""

from __future__ import annotations

import importlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from omegaconf import OmegaConf, open_dict

from darts_core.errors import TuneError
from darts_core.study import Pruned, TrialHandle
from hydra_plugins.darts_sweeper._overrides import spell

__all__ = ["HydraTrial", "WorkerTask", "device_in", "dumps"]

_DEVICE = re.compile(r"[a-z]+(:\d+)?")


def dumps(content: Any) -> bytes:
    """Pickled by value: the task function of a script lives in `__main__`, which plain pickle cannot send.

    Raises:
        TuneError: nothing that does so is installed.
    """
    for name in ("cloudpickle", "joblib.externals.cloudpickle"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return bytes(module.dumps(content))
    raise TuneError("An app is sent to its workers by cloudpickle; install that.")


def device_in(config: Any) -> str:
    """The app's setting `device`; `auto` where it has none, or one that only a job can resolve."""
    found = OmegaConf.select(config, "device", throw_on_resolution_failure=False)
    # what hydra's own node says before a job is None: `cuda:None` is no device
    return found if isinstance(found, str) and _DEVICE.fullmatch(found) else "auto"


@dataclass(frozen=True)
class HydraTrial:
    """An objective for `darts_core.study`: composes the configuration and calls the task function.

    `payload` holds, pickled, what only the trial's process needs to open; `preload` names modules
    that the processes of a worker share instead of importing them each. Our own commands keep no
    state between runs, so their trials share a process.
    """

    payload: bytes
    fixed: tuple[str, ...]
    objectives: tuple[str, ...]
    preload: tuple[str, ...] = ()
    reuse_process: bool = False
    device: str = "auto"

    @classmethod
    def pack(
        cls,
        task_function: Any,
        config: Any,
        hydra_context: Any,
        fixed: list[str],
        objectives: tuple[str, ...],
    ) -> HydraTrial:
        """The trial of a sweep, ready to be sent."""
        content = (task_function, config, hydra_context, Singleton.get_state())
        module = task_function.__module__
        # our own commands import torch late; a user's script imports what it needs at its top
        ours = module.split(".")[0] == "darts_core"
        preload = ("torch", "darts_core.stages.trial") if ours else (module,)
        return cls(
            dumps(content),
            tuple(fixed),
            objectives,
            preload,
            reuse_process=ours,
            device=device_in(config),
        )

    def __call__(self, trial: TrialHandle) -> Any:
        """What the task returned, as named metrics."""
        task_function, config, hydra_context, state = pickle.loads(self.payload)
        setup_globals()
        Singleton.set_state(state)
        overrides = [*self.fixed, *(f"{k}={spell(v)}" for k, v in trial.params.items())]
        sweep_config = hydra_context.config_loader.load_sweep_config(config, overrides)
        with open_dict(sweep_config):
            sweep_config.hydra.job.id = f"trial{trial.number:04d}"
            sweep_config.hydra.job.num = trial.number
            sweep_config.hydra.sweep.dir = str(trial.folder)
            sweep_config.hydra.sweep.subdir = "."
        HydraConfig.instance().set_config(sweep_config)
        task = _Task(task_function)
        done = run_job(
            task_function=task,
            config=sweep_config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=hydra_context,
        )
        if task.pruned is not None:
            raise task.pruned
        return self._named(done.return_value)  # reading it raises what the task raised

    def _named(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, (list, tuple)) and len(value) == len(self.objectives):
            return dict(zip(self.objectives, value, strict=True))
        return value


class _Task:
    """The task function; keeps the end of a pruned trial from being logged as an error by Hydra."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.pruned: Pruned | None = None

    def __call__(self, config: Any) -> Any:
        try:
            return self.function(config)
        except Pruned as pruned:
            self.pruned = pruned
            return None


@dataclass(frozen=True)
class WorkerTask:
    """What a launcher runs instead of the app: a worker that takes trials until none is left."""

    spec: Any
    trial: HydraTrial

    def __call__(self, config: Any) -> int:
        """The number of trials that this worker ended."""
        from darts_core.study.resources import pin_worker
        from darts_core.study.runner import ChildRunner
        from darts_core.study.worker import work

        pin_worker(int(HydraConfig.get().job.num), self.trial.device)
        return work(self.spec, ChildRunner(self.trial, self.spec.wanted))
