"""Zero-cost search: architectures ranked by a proxy of their untrained networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.latency.within import meets
from darts_core.metric import worth
from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, StepStats
from darts_core.strategies.baselines import fresh_network
from darts_core.strategies.first_order import FirstOrder
from darts_core.strategies.proxies import PROXIES, score

__all__ = ["ZeroCost"]


class ZeroCost(FirstOrder):
    """`samples` random architectures are scored on the first batch; the best wins, or warms alpha up.

    Alone (`warm_start` 0) nothing is trained: the search ends after its first step with the best one.
    With a positive `warm_start` the alphas of the best architecture's operations are raised by so much
    before the first step, and first order goes on from there. Architectures over a budget of the search
    (`latency.budget_ms`) are left out.

    Source: Abdelfattah et al. (arXiv:2101.08134), sections 3 and 4.2 (warm-up).

    Args:
        proxy: name of the proxy.
        samples: architectures that are scored.
        warm_start: what is added to the alphas of the best one; 0 ends the search with it.

    Raises:
        ConfigError: the proxy is unknown or a number out of range.
    """

    capturable = False

    @bounded(
        proxy=Bounds(choices=tuple(PROXIES)),
        samples=Bounds(low=1, high=10_000_000),
        warm_start=Bounds(low=0, high=1000),
    )
    def __init__(self, proxy: str = "synflow", samples: int = 100, warm_start: float = 0.0) -> None:
        self.proxy, self.samples, self.warm_start = proxy, samples, warm_start
        self.moves_alpha = warm_start > 0
        self.best: Architecture | None = None
        self.best_score = -math.inf

    def step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Score the architectures in the first step; then move on from there, or end."""
        if self.best is None:
            self._choose(alpha_batch)
        if self.warm_start > 0:
            return super().step(params_batch, alpha_batch)
        nothing = torch.zeros((), device=params_batch[0].device)
        with torch.no_grad():
            loss, logits = self.loss(params_batch, self.supernet.one_hot(self.current()))
        return StepStats(loss, self.score(logits, params_batch[1]), nothing, nothing)

    def trial_step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """A step after the first one, which alone scores architectures."""
        if self.best is None:
            self.best = self.supernet.space.random(np.random.default_rng(0))
        return self.step(params_batch, alpha_batch)

    @property
    def finished(self) -> bool:  # type: ignore[override]
        """Whether the choice is made and alpha is not to move on from it."""
        return self.warm_start == 0 and self.best is not None

    def _choose(self, batch: Batch) -> None:
        generator = self.supernet.generator
        seed = generator.initial_seed() if generator is not None else 0
        images, targets = batch
        rng = np.random.default_rng(seed)
        drawn = {self.supernet.space.random(rng): None for _ in range(self.samples)}
        for architecture in self._affordable(drawn):
            network = fresh_network(self.supernet, architecture).to(images.device)
            found = score(self.proxy, network, images, targets, self.task.loss)
            value = worth(self._agreed(found, images.device))
            if self.best is None or value > self.best_score:
                self.best, self.best_score = architecture, value
        if self.warm_start > 0 and self.best is not None:
            named = self.supernet.named_alphas()
            with torch.no_grad():
                for kind, weight_EK in self.supernet.one_hot(self.best).items():
                    named[kind].add_(self.warm_start * weight_EK)

    def _agreed(self, value: float, device: torch.device) -> float:
        """The mean over the processes of a search, which score their own parts of the batch.

        Else each would warm up its alphas for a choice of its own.
        """
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        self.reduce([shared])
        return float(shared)

    def _affordable(self, drawn: Iterable[Architecture]) -> list[Architecture]:
        """Those within every budget of the search, so that none is scored in vain.

        Raises:
            ConfigError: there is none.
        """
        budgets: list[Any] = [p for p in self.penalties if getattr(p, "budget", None) is not None]
        drawn = list(drawn)
        kept = [a for a in drawn if all(meets(p.cost.of(a), p.budget) for p in budgets)]
        if not kept and not any(p.firm for p in budgets):
            return drawn
        if not kept:
            budget = budgets[0]
            raise ConfigError(
                f"None of the {self.samples} sampled architectures is within the budget of "
                f"{budget.budget:g} {budget.cost.unit}; raise it, or strategy.samples."
            )
        return kept

    def current(self) -> Architecture:
        """The best scored architecture, or that of alpha after a warm start."""
        if self.best is None or self.warm_start > 0:
            return self.supernet.discretize()
        return self.best

    def state_dict(self) -> dict[str, Any]:
        """The optimizers and the best architecture."""
        best = self.best.to_dict() if self.best is not None else None
        return {**super().state_dict(), "best": best, "best_score": self.best_score}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.best = None if state["best"] is None else Architecture.from_dict(state["best"])
        self.best_score = state["best_score"]
