"""Fine-tuning between cuts: the training recipe, optionally with the unpruned model as a teacher."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import PruneError
from darts_core.settings.trained import Prune
from darts_core.train.config import TrainConfig
from darts_core.train.teacher import Teacher
from darts_core.train.trainer import Trainer

__all__ = ["fine_tune", "free_if_all_is_frozen", "share_of_epochs"]

log = logging.getLogger("darts_core")


class _Distilling(Trainer):
    """A trainer whose loss is pulled towards a teacher's outputs."""

    teacher: Teacher | None = None
    weight = 0.5

    def _loss_of(self, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        if self.teacher is None:
            return super()._loss_of(x_BCHW, y_B)
        output, auxiliary = self._outputs(x_BCHW)
        with torch.autocast(
            self.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            taught = self.teacher(x_BCHW)
        what = self.teacher.other_outputs(self.task, output.detach(), taught)
        if what is not None:
            raise PruneError(
                f"{type(self.model).__name__} gives outputs {what}, in which its teacher answers: it would "
                "teach something else. Let its forward give the same in both, or learn from the labels alone "
                "with distillation=0 (in commands prune.options.distillation, shrink.options.distillation)."
            )
        soft = self.task.distillation_loss(output, taught)
        if self.weight == 1.0:
            return soft, output.detach()
        hard = self._hard_loss(output, auxiliary, y_B)
        return (1 - self.weight) * hard + self.weight * soft, output.detach()


def fine_tune(
    model: nn.Module,
    bundle: Any,
    config: TrainConfig,
    *,
    teacher: nn.Module | None = None,
    distillation: float = 0.5,
    seed: int = 0,
    device: torch.device,
    rate_key: str = Prune.key("learning_rate"),
) -> float:
    """Train `model` in place for `config.epochs`; the seconds on the device.

    One in which nothing learns any more (what was not frozen is cut away) is left as it is, with a warning.

    Args:
        model: the pruned network.
        bundle: data; it learns from the splits params and alpha.
        config: the recipe; its schedule starts anew.
        teacher: gives outputs to learn from, weighted by `distillation`; what it says of an input is kept on
            a CPU. None learns from labels alone.
        distillation: share of the teacher in the loss, from 0 (labels alone) to 1.
        seed: of order and augmentation.
        device: where.
        rate_key: the setting that the learning rate comes from, which an error names.

    Raises:
        PruneError: the share lies outside [0, 1], or the network gives other outputs in training than the
            teacher does in evaluation mode.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    if not 0.0 <= distillation <= 1.0:
        raise PruneError(f"distillation={distillation} must lie in [0, 1].")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        log.warning("nothing is fine-tuned: all parameters that this network still has are frozen")
        model.to(device).eval()
        return 0.0
    trainer = _Distilling(model, bundle, config, ("params", "alpha"), seed, device)
    trainer.rate_key = rate_key
    if teacher is not None and distillation > 0.0:
        trainer.teacher = Teacher(teacher)
        trainer.teacher.model.to(device)
        trainer.weight = distillation
    for epoch in range(config.epochs):
        trainer.epoch(epoch)
    trainer.finish()
    model.eval()
    return trainer.result.train_seconds


def share_of_epochs(config: TrainConfig, part: int, parts: int) -> TrainConfig:
    """The recipe for one of `parts` fine-tunings: half of the epochs go to the last one.

    A warm-up keeps its share of them. Drop-path is left out: a network that just lost channels has no
    capacity to spare.
    """
    last = max(1, config.epochs - config.epochs // 2 if parts > 1 else config.epochs)
    early = max(1, (config.epochs - last) // max(1, parts - 1))
    epochs = last if part == parts - 1 else early
    warmup = config.warmup_epochs * min(1.0, epochs / config.epochs)
    return replace(config, epochs=epochs, warmup_epochs=warmup, drop_path=0.0)


def free_if_all_is_frozen(network: nn.Module) -> None:
    """Let a network learn that was frozen as a whole, to be run; what is frozen in others stays so."""
    if any(parameter.requires_grad for parameter in network.parameters()):
        return
    log.info("all parameters of the network are frozen: they are trained all the same")
    for parameter in network.parameters():
        if parameter.is_floating_point():  # whole numbers have no gradient
            parameter.requires_grad_(True)
