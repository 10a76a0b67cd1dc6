"""What a search adds to the alpha loss for cost: a soft penalty, or a budget held by a multiplier."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from darts_core.errors import LatencyError
from darts_core.latency.choice_cost import ChoiceCost
from darts_core.latency.expected import CostModel

__all__ = ["BudgetPenalty", "SoftPenalty"]


class SoftPenalty(nn.Module):
    """strength * E[cost] / target: cheaper is always better (ProxylessNAS, Eq. 9)."""

    def __init__(self, cost: CostModel | ChoiceCost, *, strength: float, target: float) -> None:
        super().__init__()
        if strength < 0 or target <= 0:
            raise LatencyError(
                f"strength={strength} must be at least 0 and target={target} above 0."
            )
        self.cost, self.strength, self.target = cost, strength, target

    def forward(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The penalty."""
        penalty: Tensor = self.strength * self.cost(weights) / self.target
        return penalty

    def measurements(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """The expected cost."""
        return _expected(self.cost, weights)


class BudgetPenalty(nn.Module):
    """A hard budget: multiplier * (E[cost] / budget - 1), the multiplier rising while it is broken.

    Each call with gradients moves the multiplier by `rate` times the excess, never below 0 (dual
    ascent), without leaving the device; it is part of the state dict. A quadratic term damps the
    oscillation (augmented Lagrangian).

    Attributes:
        firm: whether what is over the budget must not be returned; else it is what is aimed at.
    """

    multiplier: Tensor

    def __init__(
        self,
        cost: CostModel | ChoiceCost,
        *,
        budget: float,
        rate: float = 0.05,
        damping: float = 1.0,
        firm: bool = True,
    ) -> None:
        super().__init__()
        if budget <= 0 or rate <= 0 or damping < 0:
            raise LatencyError(
                f"budget={budget} and rate={rate} must be above 0 and damping={damping} at least 0."
            )
        self.cost, self.budget, self.rate, self.damping = cost, budget, rate, damping
        self.firm = firm
        self.register_buffer("multiplier", torch.zeros(()))

    def forward(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The penalty; the multiplier moves when gradients are recorded."""
        excess = self.cost(weights) / self.budget - 1.0
        penalty: Tensor = self.multiplier.clone() * excess
        penalty = penalty + 0.5 * self.damping * excess.clamp_min(0.0) ** 2
        if torch.is_grad_enabled():
            with torch.no_grad():
                self.multiplier.add_(self.rate * excess.detach()).clamp_(min=0.0)
        return penalty

    def measurements(self, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """The expected cost and the multiplier, which stays as it is."""
        return {**_expected(self.cost, weights), "multiplier": float(self.multiplier)}


@torch.no_grad()
def _expected(cost: CostModel | ChoiceCost, weights: Mapping[str, Tensor]) -> dict[str, float]:
    return {f"expected_{cost.unit}": float(cost(weights))}
