"""Single-level search: alpha and params descend one loss together."""

from __future__ import annotations

import torch
from torch import Tensor

from darts_core.strategies.base import Batch, StepStats, Strategy

__all__ = ["SingleLevel"]


class SingleLevel(Strategy):
    """One pass over both batches gives the gradients of alpha and of params; both move.

    Source: the "joint" optimization that DARTS is compared with (arXiv:1806.09055, section 3.2,
    "alternative optimization strategies").
    """

    capturable = True

    def step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Move params, and alpha unless it rests, on the union of the batches."""
        union = (
            torch.cat([params_batch[0], alpha_batch[0]]),
            torch.cat([params_batch[1], alpha_batch[1]]),
        )
        if self.alpha_active:
            loss, logits = self.alpha_loss(union)
        else:
            # penalties concern alpha alone, and a budget's multiplier rises whenever it is asked
            loss, logits = self.loss(union, self.supernet.mixing_weights())
        alphas = self.supernet.alphas()
        gradients = torch.autograd.grad(loss, [*alphas, *self.params], allow_unused=True)
        self.apply_params(gradients[len(alphas) :])
        if self.alpha_active:
            filled = [
                torch.zeros_like(alpha) if gradient is None else gradient
                for alpha, gradient in zip(alphas, gradients, strict=False)
            ]
            self.reduce(filled)
            self.apply_alpha(filled)
        score = self.score(logits, union[1])
        return StepStats(loss.detach(), score, loss.detach(), score)

    def alpha_step(self, params_batch: Batch, alpha_batch: Batch) -> tuple[Tensor, Tensor]:
        """Alpha alone, on the params batch: what `step` does for alpha."""
        gradients, loss, score = self.alpha_gradients(params_batch)
        self.apply_alpha(gradients)
        return loss, score
