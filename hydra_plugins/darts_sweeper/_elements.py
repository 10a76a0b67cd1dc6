"""The elements of a multirun for launchers of ours: packed here, run elsewhere."""

from __future__ import annotations

import contextlib
import logging
import pickle
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from omegaconf import DictConfig, open_dict

from darts_core.errors import TuneError
from hydra_plugins.darts_sweeper._trial import dumps

__all__ = ["Elements", "packed_elements"]

log = logging.getLogger("darts_core")


@dataclass(frozen=True)
class Elements:
    """All elements of a multirun, ready to be sent; called with the place of one among them.

    Args:
        payload: task function and configuration, pickled by value.
        overrides: of each element.
        first: the number of the first element.
        token: a file by which a host shows that it sees this folder, rather than another one of that name.
    """

    payload: bytes
    overrides: tuple[tuple[str, ...], ...]
    first: int
    token: str

    def __len__(self) -> int:
        return len(self.overrides)

    def __call__(self, place: int) -> JobReturn:
        """Run one element in this process.

        Raises:
            TuneError: this host does not see the output folder.
        """
        if not Path(self.token).is_file():
            raise TuneError(
                f"A node of the cluster does not see the folder {Path(self.token).parent}; put out= on "
                "storage that all nodes share."
            )
        # what its own sweep packed
        task_function, config, hydra_context, state = pickle.loads(self.payload)
        setup_globals()
        Singleton.set_state(state)
        element = hydra_context.config_loader.load_sweep_config(config, list(self.overrides[place]))
        with open_dict(element):
            element.hydra.job.id = self.first + place
            element.hydra.job.num = self.first + place
        return run_job(
            hydra_context=hydra_context,
            task_function=task_function,
            config=element,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )


@contextlib.contextmanager
def packed_elements(
    task_function: Any,
    config: DictConfig,
    hydra_context: Any,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    where: str,
) -> Iterator[tuple[Elements, Path]]:
    """(elements, the multirun's folder), while they run `where`."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    folder = Path(str(config.hydra.sweep.dir)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-{uuid.uuid4().hex}"
    payload = dumps((task_function, config, hydra_context, Singleton.get_state()))
    log.info("launching %d elements on %s", len(job_overrides), where)
    for number, overrides in enumerate(job_overrides, first):
        log.info("element %d: %s", number, " ".join(filter_overrides(overrides)))
    token.touch()
    try:
        yield Elements(payload, tuple(map(tuple, job_overrides)), first, str(token)), folder
    finally:
        token.unlink(missing_ok=True)
