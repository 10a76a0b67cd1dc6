"""The alphas of a network in search move by themselves while the user's own loop trains it.

Once a step of the loop: with the gradients of all batches that it accumulates, and beside them the penalty
once. What updates params without an optimizer of torch is not seen: there they move at each backward pass.
"""

from __future__ import annotations

import weakref
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from darts_core.autosearch.loss_scale import heed_scalers, loss_scale
from darts_core.supernet.module_supernet import ModuleSupernet

__all__ = ["AlphaSteps"]


class AlphaSteps:
    """Moves a supernet's alphas with the steps of the user's optimizer, after passes in training mode.

    Args:
        supernet: the module with choices.
        learning_rate: Adam's step.
        warmup: backward passes before the first step, so that params mean something.
        penalty: a differentiable function of the mixing weights added to the user's loss, or None.
    """

    def __init__(
        self,
        supernet: ModuleSupernet,
        *,
        learning_rate: float = 0.02,
        warmup: int = 20,
        penalty: Any = None,
    ) -> None:
        self.supernet = supernet
        self.warmup = warmup
        self.penalty = penalty
        self.passes: dict[int, int] = {}
        self._optimizers: dict[int, torch.optim.Adam] = {}
        self._waiting: dict[int, Tensor] = {}  # gradients since the last step
        self._loop_steps = False  # whether an optimizer of the user's was seen to step
        heed_scalers()
        self._start = [alpha.detach().clone() for alpha in supernet.alphas()]
        for alpha in supernet.alphas():
            self._optimizers[id(alpha)] = torch.optim.Adam(
                [alpha], lr=learning_rate, betas=(0.5, 0.999)
            )
            alpha.register_post_accumulate_grad_hook(self._noted)
        _tell_of_steps(self)

    def state(self) -> dict[str, Any]:
        """Whether any alpha has moved, and after how many backward passes that could have begun."""
        pairs = zip(self.supernet.alphas(), self._start, strict=True)
        moved = any(not torch.equal(alpha.detach().cpu(), start.cpu()) for alpha, start in pairs)
        passes = max(self.passes.values(), default=0)
        return {"moved": moved, "passes": passes, "warmup": self.warmup}

    def owns(self, optimizer: Any) -> bool:
        """Whether it is one of those that move these alphas."""
        return any(optimizer is own for own in self._optimizers.values())

    def stepped(self) -> None:
        """An optimizer of the user's is about to step."""
        self._loop_steps = True
        for alpha in self.supernet.alphas():
            if id(alpha) in self._waiting:
                self._move(alpha)

    def _noted(self, alpha: Tensor) -> None:
        """The hook: keep the gradient for the next step, and clear it from the user's optimizer's sight."""
        count = self.passes[id(alpha)] = self.passes.get(id(alpha), 0) + 1
        gradient = alpha.grad
        # an optimizer skips parameters without a gradient, so the user's own never moves an alpha
        alpha.grad = None
        if count <= self.warmup or not self.supernet.training or not _sound(gradient):
            return
        # a scale lets fp16 hold the loss's gradient; beside it the penalty's would be next to nothing
        gradient = gradient.detach() / loss_scale()
        known = self._waiting.get(id(alpha))
        self._waiting[id(alpha)] = gradient if known is None else known + gradient
        if not self._loop_steps:
            self._move(alpha)

    def _move(self, alpha: Tensor) -> None:
        gradient = self._waiting.pop(id(alpha))
        if self.penalty is not None:
            with torch.enable_grad():
                extra = torch.autograd.grad(
                    self.penalty(self.supernet.mixing_weights()), alpha, allow_unused=True
                )[0]
            if extra is not None:
                gradient = gradient + extra
        alpha.grad = gradient
        self._optimizers[id(alpha)].step()
        alpha.grad = None


def _sound(gradient: Tensor | None) -> TypeGuard[Tensor]:
    """Whether a step may be made: of a scale that was too large a GradScaler makes none, and tries on."""
    return gradient is not None and bool(torch.isfinite(gradient).all())


# all that are there; none is kept alive by being told
_searches: weakref.WeakSet[AlphaSteps] = weakref.WeakSet()


def _before_step(optimizer: Any, *_: Any) -> None:
    searches = list(_searches)
    # the alphas of two networks in one loop must not take each other's steps for the loop's
    if not any(steps.owns(optimizer) for steps in searches):
        for steps in searches:
            steps.stepped()


def _tell_of_steps(steps: AlphaSteps) -> None:
    """Call `steps.stepped` before each step of an optimizer."""
    if not _hooks:
        _hooks.append(register_optimizer_step_pre_hook(_before_step))
    _searches.add(steps)


_hooks: list[Any] = []
