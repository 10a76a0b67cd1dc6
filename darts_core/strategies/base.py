"""What a strategy is: how params and alpha move in one step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.penalties.base import AlphaPenalty
from darts_core.settings import SearchSettings
from darts_core.settings.rates import PAPER_RATE
from darts_core.strategies.optimizers import (
    alpha_optimizer,
    load_optimizer,
    params_optimizer,
    set_learning_rate,
)
from darts_core.supernet import Supernet, frozen_statistics, under_batch_statistics
from darts_core.supernet.packed_state import to_module_order, to_packed_order
from darts_core.tasks import Classification, Task

__all__ = [
    "Batch",
    "Penalty",
    "SearchSettings",
    "StepStats",
    "Strategy",
    "whole",
    "without_gradients",
]

log = logging.getLogger("darts_core")

Batch = tuple[Tensor, Tensor]
"""Inputs [B, ...] and targets [B, ...], as the task takes them."""
Penalty = Callable[[Mapping[str, Tensor]], Tensor] | AlphaPenalty
"""Mixing weights by cell kind (or alphas) -> a scalar that is added to the alpha loss."""
Forward = Callable[[Tensor], Tensor]
"""Inputs [B, ...] -> outputs [B, ...], in evaluation mode."""
Evaluator = Callable[[Forward, "int | None"], float]
"""(forward, most batches or None for all) -> the task's metric on the alpha split, more being better."""
Reducer = Callable[[Sequence[Tensor]], None]
"""Averages gradients over processes, in place."""


@dataclass(frozen=True)
class StepStats:
    """Scalars of one step, left on the device so that nothing waits for them; scores are the metric."""

    params_loss: Tensor
    params_score: Tensor
    alpha_loss: Tensor
    alpha_score: Tensor


@contextmanager
def without_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """A context in which `parameters` need no gradient: none is computed or stored for them."""
    changed = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)


def whole(gradient: Tensor) -> Tensor:
    """A gradient, dense where it is a sparse one."""
    return gradient.to_dense() if gradient.is_sparse else gradient


class Strategy:
    """Base class: a params step by SGD with momentum after an alpha step that subclasses define.

    `setup` is called once before the first step. A class whose step makes no host synchronisation and runs
    the same kernels each time says so (`capturable = True`); it is captured in a CUDA graph then.
    """

    NODE: ClassVar[str] = "strategy"

    needs_alpha_batch: bool = True
    """Whether alpha moves on its own half of the data."""
    capturable: bool = False
    """Whether `step` runs the same kernels each time and may be captured in a CUDA graph.

    Never inherited: each class says it of its own step.
    """
    moves_alpha: bool = True
    """Whether alpha is searched by gradient; guards on its curvature rest where it is not."""
    finished: bool = False
    """Whether nothing is left to do: the search ends after this step."""
    needs_plain_path: bool = False
    """Whether the strategy looks into the cells, so that their modules must run one by one."""
    exact_products: bool = False
    """Whether differences of close gradients are taken, which TF32 or bf16 products would round away."""
    evaluator: Evaluator | None = None
    """Measures on the alpha split; set by the loop for strategies that select by the metric."""
    task: Task = Classification()
    """What is learned; set by the loop before `setup`."""
    reducer: Reducer | None = None
    """Set in data-parallel search: all gradients pass through it."""
    common: Callable[[nn.Module], object] | None = None
    """Set in data-parallel search: makes a network that the strategy has made that of all processes."""

    supernet: Supernet
    settings: SearchSettings
    params: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Optimizer

    def __init_subclass__(cls, **options: Any) -> None:
        # a graph replays what was recorded: a step that counts in Python would go on wrongly in silence
        super().__init_subclass__(**options)
        if "capturable" not in vars(cls):
            cls.capturable = False

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network and make the optimizers.

        Args:
            supernet: on its device already.
            settings: optimizer settings.
            penalties: functions of the mixing weights that are added to the alpha loss.
        """
        if self.needs_plain_path and getattr(supernet, "path", "plain") != "plain":
            log.info("%s looks into the cells; they run as plain modules", type(self).__name__)
            supernet.use_path("plain")
        on_kernels = getattr(supernet, "path", "plain") == "fused"
        if self.exact_products and on_kernels and supernet.precision != "fp32":
            log.info("%s takes differences of gradients; cells run in fp32", type(self).__name__)
            supernet.use_path("fused", "fp32")
        if self.exact_products and settings.precision == "bf16":
            log.warning(
                "%s takes differences of gradients, which bf16 would round away; it runs in fp32",
                type(self).__name__,
            )
        self.supernet = supernet
        self.settings = settings
        self.penalties = list(penalties)
        # params that a user holds fast, of a pretrained trunk say, have no gradient to be asked for
        self.params = [param for param in supernet.parameters() if param.requires_grad]
        if not self.params:
            raise ConfigError(
                "The network has no params that learn (requires_grad is off for all of them); let those of "
                "the layers that are searched, or of its head, learn."
            )
        self.optimizer = params_optimizer(
            self.params,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.alpha_optimizer = alpha_optimizer(
            supernet.alphas(),
            lr=PAPER_RATE if settings.alpha_learning_rate is None else settings.alpha_learning_rate,
            betas=(settings.alpha_beta1, settings.alpha_beta2),
            weight_decay=settings.alpha_weight_decay,
        )
        self.alpha_active = True

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each epoch; subclasses change stages or temperatures here."""

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Called after each epoch."""

    def schedule_position(self, epoch: int, epochs: int) -> float:
        """How far the decay of the params' learning rate has come in `epoch`, from 0 to 1."""
        return epoch / epochs

    def set_learning_rate(self, value: float) -> None:
        """Set the learning rate of the params."""
        set_learning_rate(self.optimizer, value)

    def step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Move alpha (unless switched off), then the params, by one step."""
        if self.alpha_active:
            alpha_loss, alpha_score = self.alpha_step(params_batch, alpha_batch)
        else:
            alpha_loss = alpha_score = torch.zeros((), device=params_batch[0].device)
        params_loss, params_score = self.params_step(params_batch)
        return StepStats(params_loss, params_score, alpha_loss, alpha_score)

    def trial_step(self, params_batch: Batch, alpha_batch: Batch) -> Any:
        """One step like most of those to come, which a forecast times on a network that is thrown away."""
        return self.step(params_batch, alpha_batch)

    def alpha_step(self, params_batch: Batch, alpha_batch: Batch) -> tuple[Tensor, Tensor]:
        """Move alpha by one step; returns its loss and score."""
        raise NotImplementedError("A strategy must define alpha_step(params_batch, alpha_batch).")

    def params_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Move the params by one step on the training loss; returns its loss and score."""
        with without_gradients(self.supernet.alphas()):
            loss, logits = self.loss(batch, self.params_weights(batch))
        gradients = torch.autograd.grad(loss, self.params, allow_unused=True)
        self.apply_params(gradients)
        return loss.detach(), self.score(logits, batch[1])

    def params_weights(self, batch: Batch) -> dict[str, Tensor]:
        """The mixing weights of a params step, without gradient."""
        return {kind: w.detach() for kind, w in self.supernet.mixing_weights().items()}

    def apply_params(self, gradients: Sequence[Tensor | None]) -> None:
        """Clip the gradients and move the params by one optimizer step."""
        gradients = self.completed(gradients)
        self.reduce(gradients)
        self.move_params(gradients)

    def completed(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """`gradients` with zeros for the operations that a sparse relaxation did not draw.

        Packed cells have zeros there, and decay and momentum shall go on alike on every path. Those of an
        nn.Embedding(sparse=True) are made dense, as torch clips and decays no others.
        """
        gradients = [None if gradient is None else whole(gradient) for gradient in gradients]
        if not self.supernet.relaxation.sparse:
            return gradients
        return [
            torch.zeros_like(param) if gradient is None else gradient
            for param, gradient in zip(self.params, gradients, strict=True)
        ]

    def move_params(self, gradients: Sequence[Tensor | None]) -> None:
        """One clipped optimizer step of the params along averaged gradients."""
        self._assign(self.params, gradients)
        if self.settings.grad_clip > 0:
            nn.utils.clip_grad_norm_(self.params, self.settings.grad_clip)
        self.optimizer.step()

    def reduce(self, gradients: Sequence[Tensor | None]) -> None:
        """Average gradients over processes, in place; nothing in a single process."""
        if self.reducer is not None:
            self.reducer([gradient for gradient in gradients if gradient is not None])

    def loss(self, batch: Batch, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The task's loss and the outputs of the supernet under the given mixing weights."""
        images, targets = batch
        if self.settings.precision == "bf16" and not self.exact_products:
            with torch.autocast(images.device.type, dtype=torch.bfloat16):
                logits = self.supernet(images, weights)
        else:
            logits = self.supernet(images, weights)
        return self.task_loss(logits, targets), logits

    def task_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """The task's loss, in fp32 where the network computes in less.

        Raises:
            ConfigError: the network gives something else than a tensor.
        """
        if not isinstance(output, Tensor):
            raise ConfigError(
                f"In training mode the network gives a {type(output).__name__}; one that is searched gives "
                "its outputs alone, a tensor. Leave an auxiliary head out while choices are open; the "
                "training of the network that is found takes a tuple of both."
            )
        return self.task.loss(output.float() if output.dtype != torch.float64 else output, targets)

    def alpha_loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss that alpha descends: the task's plus the relaxation's and other penalties."""
        weights = self.supernet.mixing_weights()
        loss, logits = self.loss(batch, weights)
        # what an edge may not choose has no weight, and must not count for a penalty either
        alphas, progress = self.supernet.open_alphas(), self.supernet.progress
        penalty = self.supernet.relaxation.penalty(alphas, progress)
        if penalty is not None:
            loss = loss + penalty
        for function in self.penalties:
            if isinstance(function, AlphaPenalty):
                loss = loss + function.of_alphas(alphas, progress)
            else:
                loss = loss + function(weights)
        return loss, logits

    def alpha_gradients(self, batch: Batch) -> tuple[list[Tensor], Tensor, Tensor]:
        """Gradients of `alpha_loss` for the alphas alone, with the loss and score.

        No params gradient is computed, and running statistics stay as they are.
        """
        with without_gradients(self.params), frozen_statistics(self.supernet):
            loss, logits = self.alpha_loss(batch)
        alphas = self.supernet.alphas()
        gradients = torch.autograd.grad(loss, alphas, allow_unused=True)
        filled = [
            torch.zeros_like(alpha) if gradient is None else gradient
            for alpha, gradient in zip(alphas, gradients, strict=True)
        ]
        self.reduce(filled)
        return filled, loss.detach(), self.score(logits, batch[1])

    def apply_alpha(self, gradients: Iterable[Tensor]) -> None:
        """Move the alphas by one optimizer step along `gradients`."""
        self._assign(self.supernet.alphas(), gradients)
        self.alpha_optimizer.step()

    def score(self, output: Tensor, targets: Tensor) -> Tensor:
        """The task's metric of the batch, on the device."""
        return self.task.score(output.detach(), targets)

    @staticmethod
    def _assign(parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor | None]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def current(self) -> Architecture:
        """The architecture that the search would end with now; asked after every epoch."""
        return self.supernet.discretize()

    def architecture(self) -> Architecture:
        """The architecture that the search ends with."""
        return self.current()

    def predictor(self) -> Forward:
        """The network whose metric on val is logged: the supernet under its final weights.

        Where single architectures are trained it is the pick instead, its norms on the batch's statistics.
        """
        if self.supernet.relaxation.draws_one:
            return under_batch_statistics(self.supernet, self.supernet.one_hot(self.current()))
        weights = {
            kind: torch.as_tensor(weight, dtype=torch.float32, device=self.supernet.progress.device)
            for kind, weight in self.supernet.final_weights().items()
        }
        return lambda images: self.supernet(images, weights)

    def measure(self, forward: Forward, batches: int | None = None) -> float:
        """The task's metric of `forward` on the alpha split, on a scale where more is better.

        Raises:
            ConfigError: the strategy runs outside a search loop, which knows the data.
        """
        if self.evaluator is None:
            raise ConfigError(
                f"{type(self).__name__} selects by measuring and runs inside `search` only."
            )
        return self.evaluator(forward, batches)

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the supernet that a resumed search needs."""
        return {
            "optimizer": to_module_order(self.supernet, self.optimizer.state_dict()),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        load_optimizer(self.optimizer, to_packed_order(self.supernet, state["optimizer"]))
        load_optimizer(self.alpha_optimizer, state["alpha_optimizer"])
