"""First-order DARTS: alpha follows its own gradient at the current params."""

from __future__ import annotations

from torch import Tensor

from darts_core.strategies.base import Batch, Strategy

__all__ = ["FirstOrder"]


class FirstOrder(Strategy):
    """d L_val(params, alpha) / d alpha, the params taken as constant.

    Source: DARTS (arXiv:1806.09055), section 2.3, the case xi = 0.
    """

    capturable = True

    def alpha_step(self, params_batch: Batch, alpha_batch: Batch) -> tuple[Tensor, Tensor]:
        """One Adam step of alpha on the alpha split's loss."""
        gradients, loss, score = self.alpha_gradients(alpha_batch)
        self.apply_alpha(gradients)
        return loss, score
