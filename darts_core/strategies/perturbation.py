"""DARTS-PT: operations are chosen by how much accuracy falls without them, not by alpha."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from darts_core.architecture import Architecture
from darts_core.settings import Bounds, bounded
from darts_core.strategies.base import Batch, Forward, Penalty, SearchSettings
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import Supernet, under_batch_statistics

__all__ = ["PerturbationSelection"]

Weights = dict[str, Tensor]


class PerturbationSelection(FirstOrder):
    """First order at first; then edge by edge the operation is kept whose removal costs most accuracy.

    The decisions, and where the space keeps some edges only also that of which, are spread evenly over the
    remaining epochs; in between, the params of what is left are trained on and alpha rests. Edges come
    in random order.

    Source: DARTS-PT (arXiv:2108.04392), Algorithm 1 and section 5; operations are removed by masking
    their weight, the others' weights stay. As in the authors' code the batch norms take the statistics
    of the measured batch: running ones describe the sum with the operation, and a removal that shifts
    them (a skip's, above all) would cost accuracy whether or not the operation is needed.

    Args:
        warmup_share: share of the epochs (0 to 1) before the first decision.
        batches: most batches of the alpha split in one measurement; None takes all, as the paper.

    Raises:
        ConfigError: `warmup_share` is not in [0, 1) or `batches` below 1.
    """

    capturable = False

    @bounded(
        warmup_share=Bounds(low=0, high=1, high_open=True), batches=Bounds(low=1, high=1_000_000)
    )
    def __init__(self, warmup_share: float = 0.5, batches: int | None = None) -> None:
        self.warmup_share = warmup_share
        self.batches = batches

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        super().setup(supernet, settings, penalties)
        shapes = supernet.space.alpha_shapes()
        self.chosen = {kind: [-1] * edges for kind, (edges, _) in shapes.items()}
        self.removed: dict[str, list[int]] = {kind: [] for kind in shapes}
        self.decided = 0

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """In the second part: make the decisions that are due, and leave alpha alone."""
        warm = min(round(self.warmup_share * epochs), epochs - 1)
        if epoch < warm:
            return
        self.alpha_active = False
        decisions = self._decisions()
        due = -(-len(decisions) * (epoch - warm + 1) // (epochs - warm))
        # counted and not recomputed from the epoch: a resumed epoch must not decide twice
        for what, kind, index in decisions[self.decided : due]:
            if what == "operation":
                self.chosen[kind][index] = self._choose_operation(kind, index)
            else:
                self.removed[kind] += self._choose_edges(kind, index)
            self.decided += 1

    def _decisions(self) -> list[tuple[str, str, int]]:
        """("operation", kind, edge) in random order, then ("edges", kind, node)."""
        space = self.supernet.space
        operations = [
            ("operation", kind, edge)
            for kind, (edges, _) in space.alpha_shapes().items()
            for edge in range(edges)
        ]
        generator = self.supernet.generator
        seed = generator.initial_seed() if generator is not None else 0
        order = np.random.default_rng(seed).permutation(len(operations))
        nodes: list[tuple[str, str, int]] = []
        if space.keep_edges is not None:
            first = space.inputs
            nodes = [
                ("edges", kind, node)
                for kind in space.cell_kinds
                for node in range(first, first + space.nodes)
                if node > space.keep_edges
            ]
        return [operations[i] for i in order] + nodes

    @torch.no_grad()
    def _choose_operation(self, kind: str, edge: int) -> int:
        weights = self.projected(self._final())
        scores = {}
        for k in self._candidates(kind, edge):
            without = {name: w.clone() for name, w in weights.items()}
            without[kind][edge, k] = 0.0
            scores[k] = self.measure(self._reduced(without), self.batches)
        return min(scores, key=lambda k: (scores[k], k))

    def _candidates(self, kind: str, edge: int) -> list[int]:
        """The operations that the edge may keep.

        Where nodes keep some of their edges, `none` is never an edge's operation: without it nothing is
        missed, so that it would win wherever the metric does not fall, and the edge would be lost.
        """
        space = self.supernet.space
        allowed = [int(k) for k in np.flatnonzero(space.allowed(kind)[edge])]
        if space.keep_edges is None:
            return allowed
        return [k for k in allowed if space.ops[k] != "none"] or allowed

    @torch.no_grad()
    def _choose_edges(self, kind: str, node: int) -> list[int]:
        """The edges into `node` that are taken out: all but the most needed."""
        space = self.supernet.space
        weights = self.projected(self._final())
        rows = [e for e, edge in enumerate(space.edges) if edge[1] == node]
        scores = {}
        for e in rows:
            without = {name: w.clone() for name, w in weights.items()}
            without[kind][e] = 0.0
            scores[e] = self.measure(self._reduced(without), self.batches)
        needed = sorted(rows, key=lambda e: (scores[e], e))[: space.keep_edges]
        return [e for e in rows if e not in needed]

    def _reduced(self, weights: Weights) -> Forward:
        """The supernet without something that it was trained with: norms take the batch's statistics."""
        return under_batch_statistics(self.supernet, weights)

    def _final(self) -> Weights:
        device = self.supernet.progress.device
        return {
            kind: torch.as_tensor(w, dtype=torch.float32, device=device)
            for kind, w in self.supernet.final_weights().items()
        }

    def projected(self, weights: Mapping[str, Tensor]) -> Weights:
        """The weights with decided edges one-hot and removed edges zero."""
        result = {}
        for kind, weight_EK in weights.items():
            rows = []
            for edge, choice in enumerate(self.chosen[kind]):
                row = weight_EK[edge]
                if edge in self.removed[kind]:
                    row = torch.zeros_like(row)
                elif choice >= 0:
                    row = torch.zeros_like(row)
                    row[choice] = 1.0
                rows.append(row)
            result[kind] = torch.stack(rows) if self.decided else weight_EK
        return result

    def loss(self, batch: Batch, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of what is left of the supernet."""
        return super().loss(batch, self.projected(weights))

    def predictor(self) -> Forward:
        """What is left of the supernet; the pick where single architectures are trained."""
        if self.supernet.relaxation.draws_one:
            return super().predictor()
        weights = self.projected(self._final())
        return lambda images: self.supernet(images, weights)

    def current(self) -> Architecture:
        """The decisions made so far; alpha decides the rest."""
        weights = {kind: w.double().cpu().numpy() for kind, w in self._final().items()}
        for kind, weight_EK in weights.items():
            for edge, choice in enumerate(self.chosen[kind]):
                if choice >= 0:
                    # above every undecided weight, so that a decision is never overruled
                    weight_EK[edge] = 0.0
                    weight_EK[edge, choice] = 2.0
                if edge in self.removed[kind]:
                    weight_EK[edge] = -1.0
        return self.supernet.space.discretize(weights)

    def state_dict(self) -> dict[str, Any]:
        """The optimizers and the decisions."""
        return {
            **super().state_dict(),
            "chosen": self.chosen,
            "removed": self.removed,
            "decided": self.decided,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        super().load_state_dict(state)
        self.chosen, self.removed = state["chosen"], state["removed"]
        self.decided = state["decided"]
