"""SmoothDARTS: params are trained under perturbed mixing weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Penalty, SearchSettings, without_gradients
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import Supernet, frozen_statistics

__all__ = ["SmoothAdversarial", "SmoothRandom"]

Weights = dict[str, Tensor]


class SmoothRandom(FirstOrder):
    """Params descend L_train(params, weights + delta), delta uniform in [-epsilon, epsilon].

    Perturbed weights are cut at 0 and brought back to the row sums they had; operations that an edge may
    not choose keep the weight 0. Epsilon grows linearly. Alpha moves as in first order.

    Source: SmoothDARTS (arXiv:2002.05283), Eq. 5 (random smoothing), section 5.1: 0.03 to 0.3.

    Args:
        epsilon_start: largest change of a weight at the beginning of the search.
        epsilon_end: the same at its end.

    Raises:
        ConfigError: an epsilon is negative.
    """

    capturable = True

    @bounded(epsilon_start=Bounds(low=0, high=100), epsilon_end=Bounds(low=0, high=100))
    def __init__(self, epsilon_start: float = 0.03, epsilon_end: float = 0.3) -> None:
        self.epsilon_start = epsilon_start
        self.epsilon_end = epsilon_end

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        super().setup(supernet, settings, penalties)
        masks = {kind: supernet.space.allowed(kind) for kind in supernet.space.cell_kinds}
        # on the device once: a step waits for no copy
        self._allowed = {
            kind: torch.as_tensor(mask, device=supernet.progress.device)
            for kind, mask in masks.items()
            if not mask.all()
        }

    def _open(self, kind: str, delta_EK: Tensor) -> Tensor:
        """`delta_EK` where the edge may choose, 0 elsewhere."""
        allowed_EK = self._allowed.get(kind)
        return delta_EK if allowed_EK is None else delta_EK * allowed_EK

    def epsilon(self) -> Tensor:
        """The present size of the perturbation, on the device."""
        return self.epsilon_start + (self.epsilon_end - self.epsilon_start) * self.supernet.progress

    def params_weights(self, batch: Batch) -> Weights:
        """The weights plus a uniform draw."""
        weights = super().params_weights(batch)
        return perturbed(weights, self.uniform(weights))

    def uniform(self, weights: Weights) -> Weights:
        """A draw from [-epsilon, epsilon] for each weight."""
        epsilon = self.epsilon()
        return {
            kind: self._open(
                kind, (2 * _uniform_like(weight, self.supernet.generator) - 1) * epsilon
            )
            for kind, weight in weights.items()
        }


class SmoothAdversarial(SmoothRandom):
    """As `SmoothRandom`, with the delta in the same box that raises the training loss most.

    Source: SmoothDARTS (arXiv:2002.05283), Eq. 6 (adversarial), 7 steps of projected gradient ascent.

    Args:
        epsilon_start: largest change of a weight at the beginning of the search.
        epsilon_end: the same at its end.
        ascent_steps: gradient steps of the inner maximisation, each 2 epsilon / ascent_steps long.

    Raises:
        ConfigError: an epsilon is negative or there is no ascent step.
    """

    capturable = True

    @bounded(ascent_steps=Bounds(low=1, high=1000))
    def __init__(
        self, epsilon_start: float = 0.03, epsilon_end: float = 0.3, ascent_steps: int = 7
    ) -> None:
        super().__init__(epsilon_start, epsilon_end)
        self.ascent_steps = ascent_steps

    def params_weights(self, batch: Batch) -> Weights:
        """The weights plus the worst perturbation that was found."""
        weights = FirstOrder.params_weights(self, batch)
        epsilon = self.epsilon()
        delta = self.uniform(weights)
        with without_gradients(self.params), frozen_statistics(self.supernet):
            for _ in range(self.ascent_steps):
                leaves = {kind: d.detach().requires_grad_() for kind, d in delta.items()}
                loss, _ = self.loss(batch, perturbed(weights, leaves))
                gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                self.reduce(gradients)
                for (kind, leaf), gradient in zip(leaves.items(), gradients, strict=True):
                    if gradient is not None:
                        moved = leaf.detach() + 2 * epsilon / self.ascent_steps * gradient.sign()
                        clipped = torch.minimum(torch.maximum(moved, -epsilon), epsilon)
                        delta[kind] = self._open(kind, clipped)
        return perturbed(weights, delta)


def perturbed(weights: Weights, delta: Weights) -> Weights:
    """weights + delta, cut at 0, each row brought back to the sum it had.

    Rows that would vanish keep their weights.
    """
    result = {}
    for kind, weight_EK in weights.items():
        moved = (weight_EK + delta[kind]).clamp_min(0)
        before, after = weight_EK.sum(-1, keepdim=True), moved.sum(-1, keepdim=True)
        scaled = moved * (before / after.clamp_min(1e-12))
        result[kind] = torch.where(after > 1e-12, scaled, weight_EK)
    return result


def _uniform_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.empty_like(x).uniform_(generator=generator)
