"""Second-order DARTS: alpha follows the gradient through one virtual step of the params."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Penalty, SearchSettings, Strategy, whole
from darts_core.strategies.optimizers import learning_rate
from darts_core.supernet import Supernet, frozen_statistics
from darts_core.supernet.draws import Draws, draws_inside

__all__ = ["Unrolled"]


class Unrolled(Strategy):
    """The one-step unrolled gradient, its Hessian-vector product by central differences.

    With params' = params - xi * d where d is the update direction,
        g = dL_val/dalpha(params') - xi * (dL_train/dalpha(params+) - dL_train/dalpha(params-)) / (2 eps)
    with params+- = params +- eps * v, v = dL_val/dparams(params') and eps = epsilon / ||v||.
    All passes of a step see the same random numbers; the extra ones leave the running statistics and the
    params as they were.

    Source: DARTS (arXiv:1806.09055), Eq. 7 and 8; momentum and weight decay in the virtual step as in
    the authors' code.

    Args:
        epsilon: numerator of the step of the finite difference.
        plain_sgd: virtual step without momentum and weight decay, as the paper writes it.
    """

    capturable = True

    @bounded(epsilon=Bounds(low=0, low_open=True, high=1))
    def __init__(self, epsilon: float = 0.01, *, plain_sgd: bool = False) -> None:
        self.epsilon = epsilon
        self.plain_sgd = plain_sgd

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        super().setup(supernet, settings, penalties)
        self._draws_inside = draws_inside(supernet)
        # all passes of a step must see one draw, and a graph cannot turn its generator back
        draws = supernet.relaxation.samples or self._draws_inside
        self.capturable = type(self).capturable and not draws

    def alpha_step(self, params_batch: Batch, alpha_batch: Batch) -> tuple[Tensor, Tensor]:
        """One Adam step of alpha on the unrolled loss."""
        gradients, loss, score = self.unrolled_gradients(params_batch, alpha_batch)
        self.apply_alpha(gradients)
        return loss, score

    def unrolled_gradients(
        self, params_batch: Batch, alpha_batch: Batch
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """The unrolled gradient for each alpha, with the loss and accuracy at the virtual params."""
        draws = Draws(self.supernet, inside=self._draws_inside)
        saved = [param.detach().clone() for param in self.params]
        xi = learning_rate(self.optimizer)
        with frozen_statistics(self.supernet):
            direction = self._virtual_direction(params_batch)
            self._move(saved, direction, -xi)
            draws.again()
            loss, logits = self.alpha_loss(alpha_batch)
            alphas = self.supernet.alphas()
            found = torch.autograd.grad(loss, [*alphas, *self.params], allow_unused=True)
            outer = _filled(alphas, found[: len(alphas)])
            vector = _filled(self.params, found[len(alphas) :])
            self.reduce([*outer, *vector])
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(vector)))
            eps = self.epsilon / norm.clamp_min(1e-12)
            sides = []
            for sign in (1.0, -1.0):
                self._move(saved, vector, sign * eps)
                draws.again()
                sides.append(self._train_alpha_gradients(params_batch))
            self._move(saved, vector, None)
        gradients = [
            g - xi * (plus - minus) / (2 * eps)
            for g, plus, minus in zip(outer, *sides, strict=True)
        ]
        return gradients, loss.detach(), self.score(logits, alpha_batch[1])

    def _virtual_direction(self, batch: Batch) -> list[Tensor]:
        """The direction of the virtual step: gradient, plus weight decay and momentum."""
        weights = {kind: w.detach() for kind, w in self.supernet.mixing_weights().items()}
        loss, _ = self.loss(batch, weights)
        gradients = _filled(self.params, torch.autograd.grad(loss, self.params, allow_unused=True))
        self.reduce(gradients)
        if self.plain_sgd:
            return gradients
        direction = []
        for param, gradient in zip(self.params, gradients, strict=True):
            update = gradient + self.settings.weight_decay * param.detach()
            buffer = self.optimizer.state.get(param, {}).get("momentum_buffer")
            if buffer is not None:
                update = update + self.settings.momentum * buffer
            direction.append(update)
        return direction

    def _train_alpha_gradients(self, batch: Batch) -> list[Tensor]:
        """dL_train/dalpha at the params as they stand, without penalties."""
        loss, _ = self.loss(batch, self.supernet.mixing_weights())
        alphas = self.supernet.alphas()
        gradients = _filled(alphas, torch.autograd.grad(loss, alphas, allow_unused=True))
        self.reduce(gradients)
        return gradients

    @torch.no_grad()
    def _move(
        self, saved: Sequence[Tensor], vector: Sequence[Tensor], scale: float | Tensor | None
    ) -> None:
        """params = saved + scale * vector, in place; None restores the saved values exactly."""
        params: list[Tensor] = list(self.params)
        torch._foreach_copy_(params, list(saved))
        if scale is not None:
            shift = list(torch._foreach_mul(list(vector), scale))  # type: ignore[call-overload]
            torch._foreach_add_(params, shift)  # type: ignore[arg-type]


def _filled(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> list[Tensor]:
    return [
        torch.zeros_like(parameter) if gradient is None else whole(gradient)
        for parameter, gradient in zip(parameters, gradients, strict=True)
    ]
