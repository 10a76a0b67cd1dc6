"""submitit's executor for a queue of Slurm, and the time limit of its jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import TuneError, first_line
from darts_core.settings import SlurmQueue, from_plain
from darts_core.study.budget import Budget

__all__ = ["executor_of", "job_name", "queue_of", "time_limit"]

log = logging.getLogger("darts_core")

_USUAL_MINUTES = 60
# every time limit that a job meets has brought it forward, so this only ends one that never gets anywhere
_TIMEOUTS = 100


def queue_of(given: SlurmQueue | Mapping[str, Any]) -> SlurmQueue:
    """The queue that a mapping describes.

    Raises:
        ConfigError: a key is unknown, or a value out of range.
    """
    return given if isinstance(given, SlurmQueue) else from_plain(SlurmQueue, given)


def job_name(queue: SlurmQueue) -> str:
    """What Slurm calls the jobs of a queue."""
    return str(queue.more.get("job_name") or queue.more.get("job-name") or "darts-core")


def time_limit(queue: SlurmQueue, budget: Budget | None = None, workers: int = 1) -> int:
    """Minutes of a job; says where they come from."""
    minutes, why = queue.minutes, "as given"
    if minutes is None and budget is not None:
        minutes, why = budget.worker_minutes(workers), "from the budget"
    if minutes is None:
        minutes, why = _USUAL_MINUTES, "the budget does not tell a sweep's length"
    log.info("the time limit of a job is %g minutes (%s)", minutes, why)
    return max(1, round(minutes))


def executor_of(queue: SlurmQueue, folder: Path, minutes: int) -> Any:
    """submitit's executor, which keeps its files in `folder`.

    Raises:
        TuneError: submitit or Slurm is not installed here, or Slurm does not know an option.
    """
    try:
        import submitit
    except ImportError as error:
        raise TuneError("Jobs of Slurm need submitit: pip install 'darts-core[slurm]'.") from error
    options: dict[str, Any] = {"timeout_min": minutes, "cpus_per_task": queue.cpus}
    if queue.gpus:
        options["gpus_per_node"] = queue.gpus
    if queue.memory_gb is not None:
        options["mem_gb"] = queue.memory_gb
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if queue.cluster == "local":
            made: Any = submitit.LocalExecutor(folder, max_num_timeout=_TIMEOUTS)
            made.update_parameters(**options, signal_delay_s=queue.grace_seconds)
            return made
        made = submitit.SlurmExecutor(folder, max_num_timeout=_TIMEOUTS)
        # Slurm counts minutes from zero up: its own names here
        options["time"] = options.pop("timeout_min")
        if "mem_gb" in options:
            options["mem"] = f"{round(1024 * options.pop('mem_gb'))}M"
        made.update_parameters(
            **options,
            job_name=job_name(queue),
            signal_delay_s=queue.grace_seconds,
            partition=queue.partition,
            setup=[*queue.setup, f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{queue.cpus}}}"],
            additional_parameters=dict(queue.more),
        )
    except (RuntimeError, ValueError) as error:
        raise TuneError(f"Slurm cannot be used here ({first_line(error)}).") from error
    return made
