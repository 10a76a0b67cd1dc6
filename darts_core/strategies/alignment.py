"""Lambda-DARTS: params are trained so that all cells agree on how alpha should move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, without_gradients
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import frozen_statistics
from darts_core.supernet.cell import SearchCell
from darts_core.supernet.draws import Draws

__all__ = ["CellAlignment", "alignment"]


class CellAlignment(FirstOrder):
    """Params descend L_train - lambda * Lambda, Lambda being the mean cosine of the cells' gradients.

    g_l = dL_train / d weights of cell l (cells of the first kind only). The gradient of Lambda for
    the params is a central difference of dL_train / dparams along delta_l = dLambda / dg_l, that is
    (grad(weights_l + eps delta_l) - grad(weights_l - eps delta_l)) / (2 eps), eps = epsilon / ||delta||.
    With fewer than two cells of the kind it is first order.

    Source: Lambda-DARTS (arXiv:2210.07998), Eq. 7 (Lambda) and section 4.2; lambda 0.125 growing
    linearly from 0, epsilon 1e-4 (CIFAR-10).

    Args:
        strength: lambda at the end of the search.
        epsilon: numerator of the step of the finite difference.

    Raises:
        ConfigError: `strength` is negative or `epsilon` not positive.
    """

    exact_products = True
    capturable = False

    @bounded(strength=Bounds(low=0, high=1e6), epsilon=Bounds(low=0, low_open=True, high=1))
    def __init__(self, strength: float = 0.125, epsilon: float = 1e-4) -> None:
        self.strength = strength
        self.epsilon = epsilon

    def cells(self) -> list[SearchCell]:
        """The cells whose gradients are aligned."""
        kind = self.supernet.space.cell_kinds[0]
        return [m for m in self.supernet.modules() if isinstance(m, SearchCell) and m.kind == kind]

    def params_step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Move the params by one step on the regularised training loss."""
        cells = self.cells()
        if len(cells) < 2:
            return super().params_step(batch)
        weights = self.params_weights(batch)
        draws = Draws(self.supernet)
        shared = weights[cells[0].kind]
        own = [shared.clone().requires_grad_() for _ in cells]
        with without_gradients(self.supernet.alphas()), _own_weights(cells, own):
            loss, logits = self.loss(batch, weights)
        found = torch.autograd.grad(loss, [*self.params, *own], allow_unused=True)
        gradients = list(found[: len(self.params)])
        by_cell = [_filled(g, shared) for g in found[len(self.params) :]]
        self.reduce(by_cell)
        regulariser = self.alignment_gradients(batch, weights, cells, by_cell, draws)
        strength = self.strength * self.supernet.progress
        for i, (gradient, term) in enumerate(zip(gradients, regulariser, strict=True)):
            if gradient is not None and term is not None:
                gradients[i] = gradient - strength * term
        self.apply_params(gradients)
        return loss.detach(), self.score(logits, batch[1])

    def alignment_gradients(
        self,
        batch: Batch,
        weights: Mapping[str, Tensor],
        cells: Sequence[SearchCell],
        by_cell: Sequence[Tensor],
        draws: Draws | None = None,
    ) -> list[Tensor | None]:
        """dLambda / dparams by central differences, given the cells' gradients.

        Args:
            batch: of the step.
            weights: mixing weights of the step.
            cells: whose gradients are aligned.
            by_cell: these gradients.
            draws: what the pass saw that gave them; None: what comes next.
        """
        draws = draws or Draws(self.supernet)
        leaves = [g.detach().requires_grad_() for g in by_cell]
        delta = torch.autograd.grad(alignment(leaves), leaves)
        norm = torch.linalg.vector_norm(torch.stack([d.norm() for d in delta]))
        eps = self.epsilon / norm.clamp_min(1e-12)
        shared = weights[cells[0].kind]
        sides: list[Sequence[Tensor | None]] = []
        for sign in (1.0, -1.0):
            moved = [shared + sign * eps * d for d in delta]
            draws.again()
            with (
                without_gradients(self.supernet.alphas()),
                frozen_statistics(self.supernet),
                _own_weights(cells, moved),
            ):
                loss, _ = self.loss(batch, weights)
            sides.append(torch.autograd.grad(loss, self.params, allow_unused=True))
        return [
            None if plus is None or minus is None else (plus - minus) / (2 * eps)
            for plus, minus in zip(*sides, strict=True)
        ]


def alignment(gradients: Sequence[Tensor]) -> Tensor:
    """The mean cosine similarity over all pairs of gradients, from -1 to 1."""
    pairs = combinations([g.flatten() for g in gradients], 2)
    return torch.stack([F.cosine_similarity(a, b, dim=0) for a, b in pairs]).mean()


@contextmanager
def _own_weights(cells: Sequence[SearchCell], weights: Sequence[Tensor]) -> Iterator[None]:
    """A context in which each cell runs under its own weights."""

    def hook(own: Tensor) -> Any:
        return lambda module, inputs: (inputs[0], own)

    handles = [
        cell.register_forward_pre_hook(hook(own)) for cell, own in zip(cells, weights, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _filled(gradient: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
