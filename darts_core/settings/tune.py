"""The settings of a study over the recipe of one network, or of a search for an augmentation policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.credentials import refuse_password
from darts_core.settings.field import Settings, setting

__all__ = ["Tune", "TuneOptions"]


@dataclass(frozen=True)
class TuneOptions(Settings):
    """The node `tune.options`: of the study, and (from `operations` on) of a policy search."""

    NODE: ClassVar[str] = "tune.options"

    metric: str | None = setting(
        None, "what is judged; null: the task's metric on val, such as val_accuracy"
    )
    direction: str | None = setting(
        None, "of the metric; null: the task's, of params, train_seconds and latency_ms minimize",
        choices=("maximize", "minimize"),
    )  # fmt: skip
    objectives: Mapping[str, str] | None = setting(
        None, "for several: {val_accuracy: maximize, latency_ms: minimize}"
    )
    constraints: Mapping[str, Any] | None = setting(None, "e.g. {latency_ms: '<= 2.5'}")
    storage: str | None = setting(None, "URL of a database; null: a journal in the folder")
    study_name: str | None = setting(None, "in a database; null: from the folder")
    artifacts: str | None = setting(
        None, "where hosts without a common folder keep trials' files: a path, s3://... (fsspec)"
    )
    max_failure_share: float = setting(
        0.5, "the study ends when more of its trials have failed", low=0, high=1
    )
    max_restarts: int = setting(
        3, "of a trial whose process dies without anything new to report", low=0, high=1000
    )
    stale_seconds: float = setting(
        60.0, "after which a silent worker on another host is given up", above=0, high=1e6
    )
    isolate: bool | None = setting(
        None, "each trial in a process of its own; null: with several workers"
    )
    slots: int | None = setting(
        None, "what workers of the stage share; null: the GPUs, else the cores", low=1, high=100_000
    )
    ray: Mapping[str, Any] | None = setting(
        None, "trials on a Ray cluster: {address: auto, num_cpus: 1, num_gpus: 0, runtime_env: {}}"
    )
    slurm: Mapping[str, Any] | None = setting(
        None, "workers as jobs of Slurm: {partition: gpu, gpus: 1, cpus: 8, minutes: 600}"
    )
    operations: list[str] | None = setting(
        None, "of a policy search: names; null: those of the published policies"
    )
    ranges: Mapping[str, Any] | None = setting(
        None, "of a policy search: {rotate: [0, 30]} in place of the operation's own"
    )
    length: int = setting(2, "of a policy search: operations a sub-policy", low=1, high=2)
    keep: int | None = setting(
        None, "sub-policies (gradient, null: 25) or best trials (density, null: 10) kept",
        low=1, high=10_000,
    )  # fmt: skip
    steps_per_epoch: int = setting(100, "of policy=gradient", low=1, high=1_000_000)
    learning_rate: float = setting(0.02, "of policy=gradient, of Adam", above=0, high=100)
    temperature: float = setting(0.5, "of policy=gradient", above=0, high=1000)
    warm_up_epochs: int | None = setting(
        None, "of policy=gradient: training before it; null: half of train.epochs",
        low=0, high=1_000_000,
    )  # fmt: skip
    sub_policies: int = setting(5, "of policy=density: a trial", low=1, high=25)
    folds: int = setting(1, "of policy=density: 2 also judges the other way round", low=1, high=2)
    draws: int = setting(1, "of policy=density: of the policy an image", low=1, high=1000)

    def check(self) -> None:
        """Refuse a password that would be written into files."""
        refuse_password(self.storage, "tune.options.storage")
        remedy = "leave it out, and give it as that storage's package reads it from the environment"
        refuse_password(self.artifacts, "tune.options.artifacts", remedy)


@dataclass(frozen=True)
class Tune(Settings):
    """The node `tune`: a study over the recipe of one network."""

    NODE: ClassVar[str] = "tune"

    trials: int | None = setting(
        20, "budget in trials; null: no such limit", low=1, high=10_000_000
    )
    epochs: int | None = setting(None, "budget in epochs of all trials", low=1, high=1_000_000_000)
    device_seconds: float | None = setting(
        None, "budget in seconds of all trials", above=0, high=1e9
    )
    trainings: float | None = setting(
        None, "budget in multiples of one training of this network for train.epochs",
        above=0, high=1e6,
    )  # fmt: skip
    training_seconds: float | None = setting(
        None, "device-seconds of one training; null: a forecast from a few steps", above=0, high=1e9
    )
    workers: int = setting(1, "trials at a time", low=1, high=1024)
    sampler: Any = setting(
        "tpe",
        "tpe, gp, acquisition, anneal, evolution, cmaes, qmc, random, grid, nsga2, nsga3; with options "
        "{name: gp, n_startup_trials: 8}",
    )
    pruner: Any = setting(
        "default",
        "default (asha for one objective, none for several), asha, hyperband, median, running_mean, none; "
        "with options {name: asha, reduction_factor: 4}",
    )
    space: Mapping[str, Any] = setting(
        {
            "learning_rate": {"low": 0.003, "high": 0.3, "log": True},
            "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
            "drop_path": {"low": 0.0, "high": 0.3},
            "batch_size": {"choices": [32, 64, 96, 128]},
        },
        "settings of train: low/high with log or step, or choices",
    )
    enqueue: list[dict[str, Any]] = setting([], "settings to try first, after train's own")
    warm_start: str | None = setting(
        None, "folder, or URL of a database (URL#NAME), of another study over the same space"
    )
    policy: str | None = setting(
        None, "search an augmentation policy instead, into <version>/policy",
        choices=("gradient", "density"),
    )  # fmt: skip
    options: TuneOptions = setting(TuneOptions, "what is rarely changed")
