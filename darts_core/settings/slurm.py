"""What a job asks of Slurm: a worker of a study, or an element of a multirun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.settings.field import Settings, setting

__all__ = ["SlurmQueue"]


@dataclass(frozen=True)
class SlurmQueue(Settings):
    """Where jobs are queued and what each of them gets."""

    # it stands below several nodes: tune.options, search, shrink.options, hydra.launcher
    NODE: ClassVar[str] = "slurm"

    cluster: str = setting(
        "slurm", "slurm, or local: submitit's own processes on this machine",
        choices=("slurm", "local"),
    )  # fmt: skip
    minutes: float | None = setting(
        None, "time limit of a job; null: from the budget, else 60", above=0, high=1e6
    )
    grace_seconds: int = setting(
        90, "before the limit the job is told, and saves what it has", low=2, high=86_400
    )
    cpus: int = setting(1, "processors of a job, and threads of its training", low=1, high=10_000)
    gpus: int = setting(0, "GPUs of a job", low=0, high=10_000)
    memory_gb: float | None = setting(None, "memory of a job", above=0, high=1e6)
    partition: str | None = setting(None, "Slurm's partition")
    setup: list[str] = setting([], "shell commands before each job, e.g. [module load cuda]")
    more: Mapping[str, Any] = setting({}, "further options of sbatch: {account: me, qos: low}")
