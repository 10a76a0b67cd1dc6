"""The elements of a multirun as Ray tasks, in the folders that Hydra names."""

from __future__ import annotations

import logging
import pickle
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from omegaconf import DictConfig, open_dict

from darts_core.errors import TuneError
from darts_core.study.on_ray import RayCluster
from hydra_plugins.darts_sweeper._trial import dumps

__all__ = ["run_elements"]

log = logging.getLogger("darts_core")

# a task whose node or process was killed is run again so many times; it goes on from what its folder holds
_RETRIES = 5


def run_elements(
    cluster: RayCluster,
    task_function: Any,
    config: DictConfig,
    hydra_context: Any,
    job_overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """See `RayLauncher.launch`."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    folder = Path(str(config.hydra.sweep.dir)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # by it a node shows that it sees this folder, rather than another one of that name
    token = folder / f".seen-{uuid.uuid4().hex}"
    packed = dumps((task_function, config, hydra_context, Singleton.get_state()))
    token.touch()
    try:
        with cluster.connected() as ray:
            log.info("launching %d elements on Ray", len(job_overrides))
            remote = ray.remote(
                num_cpus=cluster.num_cpus,
                num_gpus=cluster.num_gpus,
                max_retries=_RETRIES,
                max_calls=1,
            )(_element)
            sent, running = ray.put(packed), []
            for index, overrides in enumerate(job_overrides, first):
                log.info("element %d: %s", index, " ".join(filter_overrides(overrides)))
                running.append(remote.remote(sent, list(overrides), index, str(token)))
            try:
                return list(ray.get(running))
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, TuneError) else error from None
            except ray.exceptions.RayError as error:
                raise TuneError(
                    f"An element was lost on Ray {_RETRIES + 1} times ({type(error).__name__}); run the "
                    "same command to continue."
                ) from error
    finally:
        token.unlink(missing_ok=True)


def _element(packed: bytes, overrides: list[str], index: int, token: str) -> JobReturn:
    """One element, in a process of some node."""
    if not Path(token).is_file():
        raise TuneError(
            f"A node of the cluster does not see the folder {Path(token).parent}; put out= on storage that "
            "all nodes share."
        )
    task_function, config, hydra_context, state = pickle.loads(packed)  # what its own sweep packed
    setup_globals()
    Singleton.set_state(state)
    element = hydra_context.config_loader.load_sweep_config(config, overrides)
    with open_dict(element):
        element.hydra.job.id = index
        element.hydra.job.num = index
    return run_job(
        hydra_context=hydra_context,
        task_function=task_function,
        config=element,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
