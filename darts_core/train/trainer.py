"""The state of one training and its steps: one epoch, selection, checkpoint, resume.

Shapes: x_BCHW images or other inputs [B, ...], y_B targets [B, ...].
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.augment.basic import Augment
from darts_core.augment.by_kind import augment_for
from darts_core.augment.policy import policy_content
from darts_core.augment.series import SeriesAugment
from darts_core.checkpoint import check_data, load_checkpoint, save_checkpoint, taking_over
from darts_core.device import wait_for
from darts_core.distributed import Group
from darts_core.distributed.sync_norm import restore_norms, synchronize_norms
from darts_core.errors import (
    ConfigError,
    DataError,
    NonFiniteLossError,
    ResumeError,
    first_line,
    is_memory_shortage,
)
from darts_core.layout import in_layout, input_in_layout, telling_of_views
from darts_core.runlog import config_hash
from darts_core.settings.train import as_before
from darts_core.supernet.finite import all_finite
from darts_core.supernet.memory import memory_sentence, shared_memory_sentence
from darts_core.train.config import TrainConfig
from darts_core.train.evaluation import evaluate
from darts_core.train.outcome import Ends, FitResult
from darts_core.train.precision import autocast_dtype, compiled
from darts_core.train.schedule import (
    ExponentialAverage,
    drop_path_at,
    learning_rate_at,
    make_optimizer,
)
from darts_core.train.told import tell_activation

__all__ = ["Trainer", "check_auxiliary", "outputs_of"]

log = logging.getLogger("darts_core")

# a finite-loss check makes the host wait for the device, so it is made every so many steps
_CHECK_EVERY = 50


class Trainer:
    """The state of one training: network, optimizer, moving average, counters.

    The processes of a group run their parts of each batch and form the loss of the whole batch from all
    outputs; with the sum of their gradients every one takes the same step.

    Attributes:
        rate_key: the setting that its learning rate comes from, which an error names.
    """

    rate_key = "train.learning_rate"

    def __init__(
        self,
        model: nn.Module,
        bundle: Any,
        config: TrainConfig,
        names: tuple[str, ...],
        seed: int,
        device: torch.device,
        group: Group | None = None,
    ) -> None:
        self.model, self.bundle, self.config = model.to(device), bundle, config
        self.names, self.seed, self.device = names, seed, device
        self.group = group or Group.alone()
        self.task = bundle.task
        self._check_task()
        if not any(param.requires_grad for param in model.parameters()):
            raise ConfigError(
                "The network has no params that learn (requires_grad is off for all of them); let those of "
                "its head learn."
            )
        self.group.check_batch("train.batch_size", config.batch_size)
        over_all = config.sync_batchnorm and self.group.processes > 1
        self.group.send([*model.state_dict().values()])
        self._own_norms = synchronize_norms(model) if over_all else []
        self.steps = bundle.steps(names, config.batch_size)
        if self.steps < 1:
            size = len(bundle.split(names))
            raise DataError(
                f"train.batch_size={config.batch_size} is larger than the training split "
                f"({'+'.join(names)} has {size} images); use at most {size}."
            )
        if config.channels_last:
            in_layout(model, torch.channels_last)
        self.optimizer = make_optimizer(config, model.parameters())
        self.average = ExponentialAverage(model, config.ema) if config.ema > 0 else None
        self._mirrors = self.task.mirrors
        self.augment = self._augmented()
        if self.augment is not None and bundle.kind == "named":
            raise ConfigError(
                "train.jitter, scaling and time_shift are for series; set them to 0: several named inputs "
                "are left as they are."
            )
        self.autocast = autocast_dtype(config, device)
        self.forward: Callable[[Tensor], Any] = compiled(model, config, device)
        self.result = FitResult(epochs=0)
        self.progress: Callable[[int, int], None] | None = None
        self.verbose = True
        self._saved = 0  # epochs in the checkpoint
        # as it began: the file may be changed or gone when a checkpoint is written
        self._policy = policy_content(config.policy)

    def _augmented(self) -> Augment | SeriesAugment | None:
        config, bundle = self.config, self.bundle
        unit = 255 if config.policy is None else bundle.unit
        shape, mirrors = bundle.input_shape, self._mirrors
        return augment_for(shape, config, config.policy, unit=unit, mirrors=mirrors)

    def asked(self, should_end: Ends | None) -> str | None:
        """The reason to end that somebody gives after an epoch; in a group the first process's counts.

        After the last epoch all are asked, and none ends what has come to its end.
        """
        reason = None
        if should_end is not None and self.group.primary:
            with self._as_kept():
                reason = should_end(self.result.history)
        if len(self.result.history) >= self.config.epochs:
            return None
        return self.group.text(reason or "") or None

    @contextmanager
    def _as_kept(self) -> Iterator[None]:
        """A block of the first process alone: its norms wait for nobody, its params are those to be kept."""
        restore_norms(self._own_norms)
        if self.average is not None:
            self.average.swap(self.model)
        yield
        if self.average is not None:
            self.average.swap(self.model)
        if self._own_norms:
            self._own_norms = synchronize_norms(self.model)

    def finish(self) -> None:
        """Leave the network with the params that are kept: of the moving average where there is one."""
        restore_norms(self._own_norms)
        if self.average is not None:
            self.average.swap(self.model)
        if self.config.channels_last:
            in_layout(self.model, torch.contiguous_format)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """One pass over the training splits; its row of metrics."""
        config = self.config
        # drop-path and dropout draw from the global generators; other images want other draws
        apart = self.group.rank * 1_000_000_007
        torch.manual_seed((self.seed * 1_000_003 + epoch + apart) % 2**63)
        self.model.train()
        if hasattr(self.model, "drop_path_prob"):
            self.model.drop_path_prob = drop_path_at(config, epoch)  # type: ignore[assignment]
        losses: list[Tensor] = []
        meter = self.task.meter(self.device)
        started = time.perf_counter()
        batches = self.bundle.batches(
            self.names, config.batch_size, seed=self.seed, epoch=epoch, augment=self.augment
        )
        for step, (x_BCHW, y_B) in enumerate(batches):
            self._set_learning_rate(epoch + step / self.steps)
            loss, output = self._guarded_step(x_BCHW, y_B)
            losses.append(loss)
            meter.update(output, y_B.to(self.device))
            self.result.steps += 1
            if self.progress is not None:
                self.progress(epoch * self.steps + step + 1, config.epochs * self.steps)
            if (step + 1) % _CHECK_EVERY == 0:
                self._check_finite(losses, epoch)
        self._check_finite(losses, epoch)
        self._check_state(epoch)
        if epoch == 0 and self.verbose and self.group.primary:
            tell_activation(self.task, output, y_B)
        wait_for(self.device)
        seconds = time.perf_counter() - started
        self.result.train_seconds += seconds
        metric = self.task.metric.name
        return {
            "epoch": epoch,
            "loss": float(torch.stack(losses).mean()),
            f"train_{metric}": float(meter.result()[metric]),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(seconds, 3),
        }

    def _set_learning_rate(self, epoch: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, epoch)

    def _guarded_step(self, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        shortage: str | None = None
        try:
            with telling_of_views(self.config.channels_last):
                # no name of their own: what is kept here would be missed below
                return self._step(self._placed(x_BCHW), y_B.to(self.device))
        except (RuntimeError, MemoryError) as error:
            if not is_memory_shortage(error):
                raise
            shortage = first_line(error)
        if self.group.processes > 1:  # the others would not try smaller batches along
            count = self.group.processes
            raise shared_memory_sentence(len(x_BCHW), count, self.device, shortage)
        # outside the handler: the traceback would keep the failed step's tensors alive
        raise memory_sentence(self._loss_of, self.model, x_BCHW, y_B, self.device, shortage)

    def _placed(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW.to(self.device)
        last = self.config.channels_last
        return input_in_layout(x_BCHW, torch.channels_last) if last else x_BCHW

    def _joined(self, own: Tensor) -> Tensor:
        """The whole batch's outputs as the task takes them."""
        return self.group.joined(own if own.dtype == torch.float64 else own.float())

    def _loss_of(self, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of the whole batch, of which this process runs its part."""
        output, auxiliary = self._outputs(x_BCHW)
        return self._hard_loss(output, auxiliary, y_B), output.detach()

    def _outputs(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """(the whole batch's outputs, those of an auxiliary head or None)."""
        with torch.autocast(
            self.device.type, dtype=self.autocast, enabled=self.autocast is not None
        ):
            out = self.forward(self.group.part(x_BCHW))
        output, auxiliary = outputs_of(out)
        return self._joined(output), None if auxiliary is None else self._joined(auxiliary)

    def _hard_loss(self, output: Tensor, auxiliary: Tensor | None, y_B: Tensor) -> Tensor:
        """The task's loss against the targets."""
        config = self.config
        loss = self.task.loss(output, y_B, label_smoothing=config.label_smoothing)
        if auxiliary is not None and config.auxiliary_weight:
            check_auxiliary(output, auxiliary)
            loss = loss + config.auxiliary_weight * self.task.loss(
                auxiliary, y_B, label_smoothing=config.label_smoothing
            )
        return loss

    def _check_task(self) -> None:
        if self.config.label_smoothing and not self.task.smooths:
            raise ConfigError(
                f"train.label_smoothing={self.config.label_smoothing} is not for task={self.task.name}; "
                "set it to 0."
            )

    def _step(self, x_BCHW: Tensor, y_B: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        loss, output = self._loss_of(x_BCHW, y_B)
        loss.backward()
        self._update()
        return loss.detach(), output

    def _update(self) -> None:
        """Move the params along the gradient of the whole batch."""
        for param in self.model.parameters():
            # of an nn.Embedding(sparse=True): torch clips and decays dense ones alone
            if param.grad is not None and param.grad.is_sparse:
                param.grad = param.grad.to_dense()
        self.group.sum_gradients([*self.model.parameters()])
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)

    def _check_finite(self, losses: list[Tensor], epoch: int) -> None:
        # those before the latest were looked at when they were these
        first = max(0, len(losses) - _CHECK_EVERY)
        bad = ~torch.isfinite(torch.stack(losses[first:]))
        if not bool(bad.any()):
            return
        step = first + int(bad.int().argmax())
        value = float(losses[step])
        what = "NaN" if math.isnan(value) else "infinite"
        raise self._not_finite(f"The training loss became {what} at", epoch, step)

    def _check_state(self, epoch: int) -> None:
        """The last update may have gone astray after a finite loss; it must not be saved as good."""
        bad = not all_finite(self.model)
        # running statistics are each process's own
        if self.group.agree(bad):
            raise self._not_finite(
                "The parameters became NaN or infinite by", epoch, self.steps - 1
            )

    def _not_finite(self, what: str, epoch: int, step: int) -> NonFiniteLossError:
        kept = (
            f" and the checkpoint of epoch {self._saved} is kept"
            if self._saved
            else " before any checkpoint"
        )
        return NonFiniteLossError(
            f"{what} epoch {epoch + 1}, step {step + 1} of {self.steps}; training stopped{kept}. "
            f"Lower {self.rate_key} (now {self.config.learning_rate}) or set train.grad_clip "
            f"(now {self.config.grad_clip})."
        )

    def select(self, split: str) -> dict[str, float]:
        """The values on `split`, of the moving average where there is one; in a group the first process's.

        What it takes counts as the training's, as in a trial of a study.
        """
        found: dict[str, float] = {}
        started = time.perf_counter()
        if self.group.primary:
            with self._as_kept():
                found = self._values(split)
        values = self.group.values(found)
        self.result.train_seconds += time.perf_counter() - started
        return values

    def _values(self, split: str) -> dict[str, float]:
        """The task's metrics and the loss."""
        found = evaluate(self.model, self.bundle, split)
        return {**found.named("val"), "val_loss": found.loss}

    def _stamp(self, *, by_path: bool = False) -> str:
        """What decides the steps; a policy's file may be moved. `by_path`: as older programs wrote it."""
        settings = as_before(asdict(self.config))
        if not by_path:
            settings["policy"] = self._policy
        return config_hash({**settings, "on": self.names, "seed": self.seed})

    @cached_property
    def _data(self) -> str | None:
        """What tells the data from others that a checkpoint may be of; None where they do not say."""
        mark: str | None = getattr(self.bundle, "mark", None)
        return mark

    def save(self, path: Path, epoch: int) -> None:
        """Write everything that the next epoch needs; in a group the first process does."""
        self._saved = epoch + 1
        if not self.group.primary:
            return
        content = {
            "kind": "training",
            "stamp": self._stamp(),
            "data": self._data,
            "epoch": epoch + 1,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.result.history,
            "train_seconds": self.result.train_seconds,
            "steps": self.result.steps,
            "mirrors": self._mirrors,
        }
        if self.average is not None:
            content["ema"] = {"state": self.average.state, "updates": self.average.updates}
        save_checkpoint(path, content)

    def resume(self, path: Path) -> int:
        """Take over the state in `path`; the epoch to go on with.

        Raises:
            ResumeError: another configuration or another network wrote the file, or it is of other data.
        """
        # on the host: an optimizer leaves its step counts where they are read, and looks at them at each step
        content = load_checkpoint(path)
        if content.get("stamp") not in (self._stamp(), self._stamp(by_path=True)):
            raise ResumeError(
                f"The checkpoint {path} belongs to another training configuration; use another "
                "version=, or restore the settings it was made with."
            )
        check_data(path, content.get("data"), self._data)
        try:
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            if is_memory_shortage(error):
                raise
            raise ResumeError(
                f"The checkpoint {path} belongs to another network "
                f"({first_line(error)}); use another version=, or move the file away to "
                "start afresh."
            ) from error
        with taking_over(path):
            if self.average is not None:
                state = content["ema"]["state"]
                self.average.state = {n: value.to(self.device) for n, value in state.items()}
                self.average.updates = content["ema"]["updates"]
            self.result.history = list(content["history"])
            self.result.train_seconds = float(content["train_seconds"])
            self.result.steps = int(content["steps"])
            if bool(content.get("mirrors", True)) != self._mirrors:
                # it goes on as it began: older programs asked no task whether images may be mirrored
                self._mirrors = not self._mirrors
                self.augment = self._augmented()
            if self.verbose:
                log.info("resuming from %s after epoch %d", path, content["epoch"])
            self._saved = int(content["epoch"])
            return self._saved


def outputs_of(out: Any) -> tuple[Tensor, Tensor | None]:
    """(outputs, outputs of an auxiliary head or None) of what a network gives in training mode.

    Raises:
        ConfigError: it gives something else.
    """
    output, auxiliary = out if isinstance(out, tuple) and len(out) == 2 else (out, None)
    if not isinstance(output, Tensor) or not isinstance(auxiliary, Tensor | None):
        many = f" of {len(out)}" if isinstance(out, tuple | list) else ""
        raise ConfigError(
            f"In training mode the network gives a {type(out).__name__}{many}; it must give its outputs, a "
            "tensor, or a tuple of them and those of one auxiliary head."
        )
    return output, auxiliary


def check_auxiliary(output: Tensor, auxiliary: Tensor) -> None:
    """Refuse features beside the outputs, of which a loss would take the first for classes.

    Raises:
        ConfigError: the second tensor is not of the first one's shape.
    """
    if auxiliary.shape != output.shape:
        raise ConfigError(
            f"In training mode the network gives tensors of shape {[*output.shape]} and "
            f"{[*auxiliary.shape]}; the second is taken for an auxiliary head's outputs, and must be of the "
            "first one's shape. Let it give its outputs alone, or set train.auxiliary_weight=0."
        )
