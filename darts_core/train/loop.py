"""The training loop of a fixed network: resumable bit for bit on the CPU.

Everything random in an epoch derives from (seed, epoch): the order and the augmentation through
the data bundle, drop-path and dropout because the generators are seeded anew at each epoch. A
checkpoint after an epoch therefore needs no generator state.

In a group of processes all call `fit` with the same arguments; the first one's `run`, `checkpoint` and
`should_end` count. Order, augmentation, loss, clipping and the moving average are those of one process with
the whole batch, up to rounding. Two things are each process's own: the masks of dropout and drop-path, and
the statistics of batch norms unless `config.sync_batchnorm` is set.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.distributed import Group
from darts_core.runlog import RunFolder
from darts_core.train.config import TrainConfig
from darts_core.train.outcome import Ends, FitResult
from darts_core.train.trainer import Trainer

__all__ = ["FitResult", "fit"]

log = logging.getLogger("darts_core")

OnEpoch = Callable[[int, dict[str, Any]], None]
Progress = Callable[[int, int], None]


def fit(
    model: nn.Module,
    bundle: Any,
    config: TrainConfig,
    *,
    train_on: str | Sequence[str] = ("params", "alpha"),
    select_on: str | None = "val",
    seed: int = 0,
    device: Any = "cpu",
    run: RunFolder | None = None,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
    should_end: Ends | None = None,
    progress: Progress | None = None,
    verbose: bool = True,
    group: Group | None = None,
) -> FitResult:
    """Train `model` in place (moved to `device`); afterwards it holds the last epoch's parameters.

    torch's global generators, of the CPU and of a CUDA `device`, are given back as they were.

    Args:
        model: a plain network; in training mode it may return (outputs, outputs of an auxiliary head).
        bundle: a `DataBundle`.
        config: the recipe.
        train_on: a split's name, or several to learn from.
        select_on: split evaluated after each epoch; None evaluates nothing.
        seed: of order, augmentation and drop-path. The start of `model` is the caller's.
        device: torch device.
        run: logs one row an epoch into this folder.
        checkpoint: file written after every epoch; when it exists the training goes on from it.
        on_epoch: called with (epoch, row) after each epoch is safe on disk. A resumed run repeats
            the call for the epoch that it resumes after, so the callee must take it twice.
        should_end: called with the rows of all epochs after each one, and when a resumed training goes on;
            gives the reason to end with the params as they are, or None.
        progress: called with (steps done, steps in all) after every step.
        verbose: a line in the log for every epoch.
        group: the processes that train together; the first one's parameters are sent to all.

    Raises:
        ConfigError: the batch cannot be divided equally among the processes.
        NonFiniteLossError: the loss became NaN or infinite; names epoch and step.
        MemoryShortageError: states the largest batch that fits.
        DataError: the batch is larger than the split.
        ResumeError: the checkpoint belongs to another configuration.
    """
    names = (train_on,) if isinstance(train_on, str) else tuple(train_on)
    trainer = Trainer(model, bundle, config, names, seed, torch.device(device), group)
    trainer.progress, trainer.verbose = progress, verbose
    if verbose and config.warmup_epochs >= config.epochs:
        _say_only_warm_up(config.warmup_epochs, config.epochs)
    first = trainer.resume(checkpoint) if checkpoint is not None and checkpoint.exists() else 0
    if run is not None and trainer.group.primary:
        run.rewind(first)
    result = trainer.result
    if first and on_epoch is not None:
        on_epoch(first - 1, result.history[-1])
    if first:
        result.ended = trainer.asked(should_end)
    # dropout and drop-path draw from the global generators, which are seeded for them: a caller's next
    # network would begin with the same numbers after each training
    with torch.random.fork_rng([trainer.device] if trainer.device.type == "cuda" else []):
        for epoch in range(first, config.epochs):
            if result.ended is not None:
                log.info("the training ends after epoch %d: %s", epoch, result.ended)
                break
            row = trainer.epoch(epoch)
            if select_on is not None:
                row |= trainer.select(select_on)
            result.history.append(row)
            if verbose:
                _log_row(row, config.epochs, bundle.task.metric.name)
            if run is not None and trainer.group.primary:
                run.log_metrics(**row)
            if checkpoint is not None:
                trainer.save(checkpoint, epoch)
            if on_epoch is not None:
                on_epoch(epoch, row)
            result.ended = trainer.asked(should_end)
    trainer.finish()
    result.epochs = len(result.history)
    metric = bundle.task.metric
    found = {n: row.get(f"val_{metric.name}") for n, row in enumerate(result.history)}
    known = {n: value for n, value in found.items() if value is not None}
    result.best_epoch = metric.best(known) if known else 0
    result.val = found[len(result.history) - 1]
    return result


@lru_cache
def _say_only_warm_up(warmup: float, epochs: int) -> None:
    """Once a process: it would be told with each trial of a study."""
    log.warning(
        "train.warmup_epochs=%g of train.epochs=%d: the learning rate rises to the end and never comes down; "
        "give fewer",
        warmup, epochs,
    )  # fmt: skip


def _log_row(row: dict[str, Any], epochs: int, metric: str) -> None:
    val = f", val {row[f'val_{metric}']:.4f}" if f"val_{metric}" in row else ""
    log.info(
        "epoch %d/%d: loss %.4f, train %.4f%s, lr %.3g, %.1f s",
        row["epoch"] + 1,
        epochs,
        row["loss"],
        row[f"train_{metric}"],
        val,
        row["learning_rate"],
        row["seconds"],
    )
