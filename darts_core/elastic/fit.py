"""The elastic training on a data bundle: resumable bit for bit on the CPU, as every training here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.checkpoint import load_checkpoint, save_checkpoint, taking_over
from darts_core.distributed import Group
from darts_core.elastic.network import Elastic
from darts_core.elastic.sandwich import Sandwich
from darts_core.elastic.variables import middle
from darts_core.errors import ConfigError, DeviceError, ResumeError
from darts_core.prune.groups import copied
from darts_core.runlog import RunFolder, config_hash
from darts_core.settings.shrink import Shrink
from darts_core.train.config import TrainConfig
from darts_core.train.evaluation import evaluate
from darts_core.train.outcome import FitResult
from darts_core.train.trainer import Trainer, check_auxiliary, outputs_of

__all__ = ["SPLITS", "check_recipe", "check_uncompiled", "fit_elastic", "norm_batches"]

log = logging.getLogger("darts_core")
SPLITS = ("params", "alpha")
_NORM_BATCH = 128
Progress = Callable[[int, int], None]
# one of the two alone is no training to go on with
_AFRESH = "move it and checkpoint.pt beside it away to start afresh"


def norm_batches(bundle: Any, examples: int = 512) -> list[tuple[Tensor, Tensor]]:
    """Batches of so many training examples, not augmented and the same each time, to recalibrate norms on."""
    most = min(_NORM_BATCH, examples)
    size = min(most, bundle.size(SPLITS))
    return list(islice(bundle.batches(SPLITS, size, seed=0, epoch=0), -(-examples // most)))


class _Trainer(Trainer):
    """A trainer whose step runs several sub-networks."""

    sandwich: Sandwich
    rate_key = Shrink.key("learning_rate")

    def begin(self, net: Elastic, sandwich: Sandwich, batches: list[Any]) -> None:
        """Give it the elastic network and what its smallest sub-network is recalibrated on."""
        self.net, self.sandwich, self._batches = net, sandwich, batches
        self._before = self._mark()

    def _mark(self) -> list[int]:
        """Where the teacher's memory stands; empty without a teacher."""
        teacher = self.sandwich.teacher
        return [] if teacher is None else list(teacher.mark)

    def _step(self, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(
            self.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            loss, logits = self.sandwich.run(x_BCHW, lambda output: self._task_loss(output, y_B))
        self._update()
        # metrics take no half precision, as in a plain training
        return loss, logits if logits.dtype == torch.float64 else logits.float()

    def _task_loss(self, output: Any, y_B: Tensor) -> Tensor:
        logits, auxiliary = outputs_of(output)
        task, smoothing = self.sandwich.task, self.config.label_smoothing
        loss = task.loss(logits.float(), y_B, label_smoothing=smoothing)
        if auxiliary is not None and self.config.auxiliary_weight:
            check_auxiliary(logits, auxiliary)
            loss = loss + self.config.auxiliary_weight * task.loss(
                auxiliary.float(), y_B, label_smoothing=smoothing
            )
        return loss

    def _values(self, split: str) -> dict[str, float]:
        """The whole network's values, and those of sub-networks half-way and at the end: a running front."""
        whole = evaluate(self.model, self.bundle, split)
        found: dict[str, float] = {}
        metric = self.task.metric.name
        for name, choices in (
            ("middle", middle(self.net.variables)),
            ("smallest", self.net.smallest),
        ):
            part = evaluate(self.net.cut(choices, self._batches), self.bundle, split)
            found |= {f"{name}_val_{metric}": part.value, f"{name}_val_loss": part.loss}
        return {**whole.named("val"), "val_loss": whole.loss, **found}

    def _stamp(self, *, by_path: bool = False) -> str:
        s = self.sandwich
        variables = {v.name: list(v.options) for v in self.net.variables}
        return config_hash(
            {
                "plain": super()._stamp(by_path=by_path),
                "drawn": s.drawn,
                "share": s.share,
                "others": s.others,
                "variables": variables,
            }
        )

    def check_alike(self) -> None:
        """Refuse processes that would draw other sub-networks.

        Raises:
            DeviceError: something between the same network and its variables differs among the machines.
        """
        stamp = self._stamp()
        if self.group.agree(self.group.text(stamp) != stamp):
            raise DeviceError(
                "The processes found other things that may vary in the same network, or other settings; run "
                "them on machines of one kind with the same versions."
            )

    def keep(self, folder: Path, epoch: int) -> None:
        """Write the checkpoint; the teacher's outputs first, with where they stood an epoch earlier."""
        if self.group.primary:
            about = {"kind": "teacher", "epoch": epoch + 1, "before": self._before}
            save_checkpoint(folder / "teacher.pt", {**about, **self.sandwich.state_dict()})
        self._before = self._mark()
        self.save(folder / "checkpoint.pt", epoch)

    def take_up(self, folder: Path) -> int:
        """The epoch to go on with.

        Raises:
            ResumeError: the files belong to other settings, data or weights, or are damaged.
        """
        if not (folder / "checkpoint.pt").exists():
            return 0
        epoch = self.resume(folder / "checkpoint.pt")
        teacher_at = folder / "teacher.pt"
        if not teacher_at.exists():
            raise ResumeError(
                f"There is no file {teacher_at}; restore it, or move checkpoint.pt beside it away to start "
                "afresh."
            )
        content = load_checkpoint(teacher_at, remedy=_AFRESH)
        with taking_over(folder / "teacher.pt"):
            try:
                self.sandwich.load_state_dict(content)
            except ResumeError as error:
                raise ResumeError(
                    f"{folder} was begun with other weights of the given network than it has now: use "
                    "another version=, or restore them."
                ) from error
            # a kill between the two files leaves the teacher one epoch ahead; what it kept in that epoch it
            # keeps again, as an output that is looked up may differ in its last bits from one computed anew
            self.sandwich.step = epoch * self.steps
            teacher, before = self.sandwich.teacher, content.get("before")
            if teacher is not None and before and content["epoch"] > epoch:
                teacher.back_to(before)
        self._before = self._mark()
        return epoch


def check_uncompiled(config: TrainConfig) -> None:
    """Refuse a recipe with torch.compile.

    Raises:
        ConfigError: it has.
    """
    if config.compile:
        raise ConfigError(
            "train.compile=true does not go with an elastic training: its sub-networks have more shapes than "
            "are worth compiling; leave it out."
        )


def check_recipe(
    model: nn.Module,
    bundle: Any,
    config: TrainConfig,
    device: torch.device,
    group: Group | None = None,
) -> None:
    """Refuse what the training would refuse, before anything is timed for it; `model` is left as it is.

    Raises:
        ConfigError: a setting is not for the task, the inputs or the processes.
        DataError: the batch is larger than the training splits.
    """
    # what the precision warns of is said when it is trained
    Trainer(copied(model), bundle, replace(config, precision="fp32"), SPLITS, 0, device, group)


def fit_elastic(
    net: Elastic,
    bundle: Any,
    config: TrainConfig,
    sandwich: Sandwich,
    *,
    seed: int = 0,
    device: Any = "cpu",
    run: RunFolder | None = None,
    folder: Path | None = None,
    on_epoch: Callable[[], None] | None = None,
    progress: Progress | None = None,
) -> FitResult:
    """Train the elastic network in place on params and alpha; the whole and the smallest are watched on val.

    Args:
        net: the elastic network.
        bundle: a `DataBundle`.
        config: the recipe.
        sandwich: of `net`, made before its training; the processes of its group train together, and the
            first one's `run` and `folder` count.
        seed: of order and augmentation.
        device: torch device.
        run: logs one row an epoch into this folder.
        folder: receives the checkpoint; when it is there the training goes on from it.
        on_epoch: called after each epoch is safe on disk.
        progress: called with (steps done, steps in all) after every step.

    Raises:
        ConfigError: the recipe asks for torch.compile.
        NonFiniteLossError: a loss became NaN or infinite.
        ResumeError: the checkpoint belongs to another configuration.
    """
    check_uncompiled(config)
    trainer = _Trainer(
        net.model, bundle, config, SPLITS, seed, torch.device(device), sandwich.group
    )
    trainer.begin(net, sandwich, norm_batches(bundle))
    trainer.check_alike()
    trainer.progress = progress
    first = trainer.take_up(folder) if folder is not None else 0
    if run is not None and sandwich.group.primary:
        run.rewind(first)
    metric = bundle.task.metric.name
    for epoch in range(first, config.epochs):
        row = trainer.epoch(epoch) | trainer.select("val")
        trainer.result.history.append(row)
        log.info(
            "epoch %d/%d: loss %.4f, val whole %.4f, middle %.4f, smallest %.4f, lr %.3g, %.1f s",
            epoch + 1, config.epochs, row["loss"], row[f"val_{metric}"],
            row[f"middle_val_{metric}"], row[f"smallest_val_{metric}"], row["learning_rate"], row["seconds"],
        )  # fmt: skip
        if run is not None and sandwich.group.primary:
            run.log_metrics(**row)
        if folder is not None:
            trainer.keep(folder, epoch)
        if on_epoch is not None:
            on_epoch()
    trainer.finish()
    net.model.eval()
    return trainer.result
