"""RSPS: shared params trained under random architectures; the best random one is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_core.architecture import Architecture
from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Forward, StepStats, Strategy
from darts_core.supernet import under_batch_statistics

__all__ = ["RandomSampling"]


class RandomSampling(Strategy):
    """Every step trains the params of one architecture, drawn uniformly; alpha does not move.

    After an epoch `samples / epochs` architectures are measured with the shared params on the alpha
    split, their norms on the batch's statistics (the running ones are of all that were drawn). The best of
    those joins the best so far; at the end the `finalists` best are measured again and the winner is taken.

    Source: Li and Talwalkar (arXiv:1902.07638), Algorithm 2; 1000 architectures on 10 batches each.

    Args:
        samples: architectures measured in the whole search.
        batches: batches of the alpha split in one measurement.
        finalists: architectures measured again at the end.

    Raises:
        ConfigError: a number is below 1.
    """

    needs_alpha_batch = False
    capturable = False
    moves_alpha = False

    @bounded(
        samples=Bounds(low=1, high=10_000_000),
        batches=Bounds(low=1, high=1_000_000),
        finalists=Bounds(low=1, high=1_000_000),
    )
    def __init__(self, samples: int = 1000, batches: int = 10, finalists: int = 10) -> None:
        self.samples, self.batches, self.finalists = samples, batches, finalists
        self.draws = 0
        self.found: list[tuple[float, Architecture]] = []

    def step(self, params_batch: Batch, alpha_batch: Batch) -> StepStats:
        """Move the params of one random architecture."""
        loss, score = self.params_step(params_batch)
        nothing = torch.zeros_like(loss)
        return StepStats(loss, score, nothing, nothing)

    def params_weights(self, batch: Batch) -> dict[str, Tensor]:
        """The one-hot weights of a random architecture."""
        return self.supernet.one_hot(self._draw())

    def _draw(self) -> Architecture:
        generator = self.supernet.generator
        seed = generator.initial_seed() if generator is not None else 0
        self.draws += 1
        # one stream a draw: a resumed search goes on where it stood
        return self.supernet.space.random(np.random.default_rng((seed, self.draws)))

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Measure this epoch's share of the samples; at the end the finalists again."""
        share = -(-self.samples * (epoch + 1) // epochs) - -(-self.samples * epoch // epochs)
        drawn = dict.fromkeys(self._draw() for _ in range(share))
        scored = [(self._score(architecture), architecture) for architecture in drawn]
        # params move between epochs, so the older scores only decide who is measured again; a small space
        # is drawn many times over, and one architecture takes one finalist's place, with its last score
        known = {architecture: value for value, architecture in [*self.found, *scored]}
        ranked = sorted(((value, a) for a, value in known.items()), key=lambda pair: -pair[0])
        best = ranked[: self.finalists]
        if epoch + 1 == epochs:
            best = sorted(((self._score(a), a) for _, a in best), key=lambda pair: -pair[0])
        self.found = best

    def _score(self, architecture: Architecture) -> float:
        return self.measure(self._under(architecture), self.batches)

    def _under(self, architecture: Architecture) -> Forward:
        return under_batch_statistics(self.supernet, self.supernet.one_hot(architecture))

    def current(self) -> Architecture:
        """The best architecture measured so far."""
        return self.found[0][1] if self.found else self.supernet.discretize()

    def predictor(self) -> Forward:
        """The best architecture with the shared params."""
        return self._under(self.current())

    def state_dict(self) -> dict[str, Any]:
        """The optimizers and the architectures measured."""
        return {
            **super().state_dict(),
            "draws": self.draws,
            "found": [[score, a.to_dict()] for score, a in self.found],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.draws = state["draws"]
        self.found = [(score, Architecture.from_dict(a)) for score, a in state["found"]]
