"""One trial of the `tune` stage: a fresh network trained under the trial's settings, judged on val."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from darts_core.data import DataBundle
from darts_core.errors import ConfigError, unknown_name
from darts_core.latency import measure_model
from darts_core.latency.quiet import SharedDevice, alone_on
from darts_core.loggers import Loggers
from darts_core.models.by_name import inner
from darts_core.runlog import config_hash, read_json, write_json
from darts_core.settings import to_plain
from darts_core.stages.callbacks import asking, make_callbacks
from darts_core.stages.inputs import find_device, find_network, load_bundle, recipe
from darts_core.stages.interrupt import check_stop, deferred_stop
from darts_core.stages.logging import make_loggers
from darts_core.stages.schema import DataStage, TuneStage
from darts_core.stages.targets import import_plugins
from darts_core.study import TrialHandle
from darts_core.tasks import Task
from darts_core.train import fit

__all__ = ["SPLITS", "RecipeTrial", "returned", "trial_bundle"]

SPLITS = ("params", "alpha")


def returned(task: Task) -> tuple[str, ...]:
    """What a trial returns: the task's metric on val and costs, the latency where it is asked for."""
    return (f"val_{task.metric.name}", "params", "train_seconds", "latency_ms")


def _refuse_unknown(wanted: Iterable[str], task: Task) -> None:
    """Refuse a study by what no trial returns: a sweeper knows no task, and says `val_accuracy`.

    Raises:
        ConfigError: with the names that there are.
    """
    known = returned(task)
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"{unknown_name('metric of the study', name, known)} A sweep for task={task.name} is told "
                f"hydra.sweeper.metric={known[0]} hydra.sweeper.direction={task.metric.direction}."
            )


_read: dict[str, DataBundle] = {}


def trial_bundle(config: DataStage, device: torch.device) -> DataBundle:
    """The data without their test split, read once a process."""
    key = config_hash(
        {
            "data": to_plain(config.data),
            "task": to_plain(config.task),
            "plugins": config.plugins,
            "device": str(device),
        }
    )
    if key not in _read:
        _read.clear()
        _read[key] = load_bundle(config, device).without_test()
    return _read[key]


@dataclass(frozen=True)
class RecipeTrial:
    """An objective for `run_study`: the task's metric on val of `config`'s network under a setting.

    It can be sent to a worker process. The checkpoint lies in the trial's folder, so an interrupted
    trial goes on.
    """

    config: TuneStage
    version: Path
    # one worker process loads torch and the images once for all its trials
    reuse_process: bool = True

    @property
    def device(self) -> str:
        """Where all trials run, which decides what GPUs a worker is shown."""
        return self.config.device

    def __call__(self, trial: TrialHandle) -> dict[str, Any]:
        """Train under `trial.params`, reporting the metric on val after each epoch."""
        # a sweeper's trial names whole keys (train.learning_rate) and has put them into the config
        known = {item.name for item in fields(self.config.train)}
        changes = {name: v for name, v in trial.params.items() if name in known}
        config = replace(self.config, train=replace(self.config.train, **changes))
        import_plugins(config.plugins)
        device = find_device(config.device)
        bundle = trial_bundle(config, device)
        _refuse_unknown(trial.wanted, bundle.task)
        network = find_network(config, self.version, bundle)
        # the same start for every trial: settings are compared, not draws
        torch.manual_seed(config.seed)
        model = network.make()

        # what the network alone decides is known at once, so that early stopping can weigh it, too
        own = {"params": float(sum(p.numel() for p in model.parameters()))}
        timed = "latency_ms" in trial.wanted
        if timed:
            own["latency_ms"] = _latency_ms(model, bundle, device, trial.folder / "latency.json")
        shared = SharedDevice(device) if timed else None

        def on_epoch(epoch: int, row: dict[str, Any]) -> None:
            check_stop()
            if shared is not None:
                shared.step_aside()
            known = {k: v for k, v in row.items() if k != "epoch" and v is not None}
            # before the report, which may end the trial
            loggers.metrics(epoch, {**known, **own})
            trial.report(epoch, **known, **own)

        callbacks, metric = make_callbacks(config, trial.folder), bundle.task.metric
        with _told(config, trial.folder) as loggers:
            with deferred_stop(), shared or contextlib.nullcontext():
                fitted = fit(
                    model,
                    bundle,
                    recipe(config, trial.folder),
                    train_on=SPLITS,
                    select_on="val",
                    seed=config.seed,
                    device=device,
                    checkpoint=trial.folder / "checkpoint.pt",
                    on_epoch=on_epoch,
                    should_end=asking(callbacks, inner(model), metric, config.train.epochs),
                )
            value = {} if fitted.val is None else {f"val_{metric.name}": fitted.val}
            found = {**value, **own, "train_seconds": fitted.train_seconds}
            callbacks.finish(found)
            loggers.finish(trial.folder, found)
        return found


@contextlib.contextmanager
def _told(config: TuneStage, folder: Path) -> Iterator[Loggers]:
    """The loggers of `logger=` for one trial's folder, closed whatever ends the trial."""
    loggers = make_loggers(config)
    loggers.start(folder, config.described())
    try:
        yield loggers
    finally:
        loggers.close()


def _latency_ms(
    model: torch.nn.Module, bundle: DataBundle, device: torch.device, kept: Path
) -> float:
    """Median milliseconds of one image, under the timer's lock and beside no other trial's training.

    Measured in the trial's first sitting, before it trains, and kept in its folder.
    """
    if not kept.is_file():
        with alone_on(device), torch.random.fork_rng([device] if device.type == "cuda" else []):
            rows = measure_model(model, bundle.input_shape, batch_sizes=(1,), device=device)
        write_json(kept, {"latency_ms": float(rows[1].median_ms)})
    return float(read_json(kept)["latency_ms"])
