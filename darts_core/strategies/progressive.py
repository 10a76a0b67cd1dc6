"""Progressive search: stages with deeper networks and fewer operations (P-DARTS, DrNAS)."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from darts_core.architecture import Architecture
from darts_core.errors import ConfigError
from darts_core.settings import Bounds, Settings, bounded, from_plain, setting
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.strategies.base import Batch, Penalty, SearchSettings
from darts_core.strategies.first_order import FirstOrder
from darts_core.supernet import Supernet
from darts_core.supernet.widen import widened

__all__ = ["Progressive", "Stage", "keep_best_operations", "limit_skips"]

_SKIP = "skip_connect"

log = logging.getLogger("darts_core")


@dataclass(frozen=True)
class Stage(Settings):
    """One stage of a progressive search."""

    NODE: ClassVar[str] = "strategy.stages"

    extra_layers: int = setting(0, "cells more than search.layers", low=0, high=1000)
    operations: int | None = setting(
        None, "operations kept on every edge, of the stage before; null: all", low=1, high=1000
    )
    skip_dropout: float = setting(
        0.0, "chance that an edge's skip is dropped at the stage's beginning; it decays to 0",
        low=0, below=1,
    )  # fmt: skip
    channel_fraction: int | None = setting(
        None, "mixed operations see 1 / so many of the channels; null: the relaxation's own",
        low=1, high=4096,
    )  # fmt: skip


class Progressive(FirstOrder):
    """First order in stages of equal length; between them the worst operations of every edge go.

    A stage begins with fresh params and alphas (P-DARTS), or with those of the stage before, widened
    where it mixes more channels (DrNAS). The learning rate decays anew in each, and alpha rests for a
    share of its epochs. Skips are dropped at random, per edge and step, with a chance that decays over
    the stage. In the end at most `max_skips` skips stay in the cells of the first kind.

    Source: P-DARTS (arXiv:1904.12760), sections 3.2 (depth, operations) and 3.3 (dropout on skips,
    at most 2 skips): 5, 11, 17 cells with 8, 5, 3 operations, 25 epochs each, alpha resting for 10;
    DrNAS (arXiv:2006.10355), section 3.3: two stages, partial channels 6 then 3, operations 8 then 4,
    the network being widened between them.

    Args:
        stages: in order, as mappings with the fields of `Stage`.
        rest_share: share of each stage's epochs at its beginning in which alpha rests; in the last one it
            moves.
        max_skips: most skips in a cell of the first kind; None for no limit.
        carry_over: whether a stage goes on with the params and alphas of the one before.

    Raises:
        ConfigError: there is no stage, a number is out of range, or params are to be carried over to
            a network of another depth; in `setup`, the first stage is to drop operations.
    """

    capturable = False

    @bounded(
        rest_share=Bounds(low=0, high=1, high_open=True), max_skips=Bounds(low=0, high=1_000_000)
    )
    def __init__(
        self,
        stages: Sequence[Mapping[str, Any] | Stage],
        rest_share: float = 0.4,
        max_skips: int | None = 2,
        carry_over: bool = False,
    ) -> None:
        if not stages:
            raise ConfigError("A progressive search needs at least one stage in strategy.stages.")
        self.stages = [s if isinstance(s, Stage) else from_plain(Stage, s) for s in stages]
        if carry_over and len({stage.extra_layers for stage in self.stages}) > 1:
            raise ConfigError(
                "strategy.carry_over=true needs stages of one depth; give all the same extra_layers."
            )
        self.rest_share = rest_share
        self.max_skips = max_skips
        self.carry_over = carry_over

    def setup(
        self, supernet: Supernet, settings: SearchSettings, penalties: Iterable[Penalty] = ()
    ) -> None:
        """Take the network; see `Strategy.setup`."""
        if isinstance(supernet.space, ChoiceSpace):
            raise ConfigError(
                f"Progressive search works on cells; the space {supernet.space.name!r} has none."
            )
        for stage in self.stages:
            channels, fraction = supernet.sizes["channels"], stage.channel_fraction or 1
            if channels % fraction:
                raise ConfigError(
                    f"A stage of the search mixes 1/{fraction} of the channels, and {channels} cannot be "
                    f"divided so; use a multiple, for example search.channels={6 * fraction}, or another "
                    "channel_fraction in strategy.stages."
                )
        self._check_first(supernet.space)
        super().setup(supernet, settings, penalties)
        self._base_space = supernet.space
        self._base_layers = supernet.sizes["layers"]
        self._base_relaxation = supernet.relaxation
        self.stage = -1
        self.stage_progress = 0.0

    def _check_first(self, space: SearchSpace) -> None:
        """Refuse to drop operations before any was searched: there is nothing to choose by."""
        kept = self.stages[0].operations
        most = max(int(space.allowed(kind).sum(1).max()) for kind in space.cell_kinds)
        if kept is not None and kept < most:
            raise ConfigError(
                f"The first of strategy.stages keeps operations={kept} of {most}, but a stage keeps those "
                "that were best in the one before it. Leave operations out of the first stage; space.ops= "
                "says which are searched."
            )

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Enter the next stage when it is due."""
        if epoch == 0 and epochs < len(self.stages):
            log.warning(
                "search.epochs=%d are fewer than the %d of strategy.stages: %d of them are left out",
                epochs, len(self.stages), len(self.stages) - epochs,
            )  # fmt: skip
        stage, within, length = self._place(epoch, epochs)
        if stage != self.stage:
            # a short search may pass over a stage; its operations are dropped all the same
            weights = self.supernet.final_weights() if self.stage >= 0 else None
            self._enter(stage, weights)
        self.stage_progress = within / length
        # in its last epoch at the latest: a stage in which alpha only rests would choose by chance
        if within < self.rest_share * length and within + 1 < length:
            self.alpha_active = False

    def schedule_position(self, epoch: int, epochs: int) -> float:
        """The learning rate decays anew in every stage."""
        _, within, length = self._place(epoch, epochs)
        return within / length

    def _place(self, epoch: int, epochs: int) -> tuple[int, float, float]:
        """The stage of `epoch`, the epochs that it has lasted, and those that a stage lasts."""
        length = epochs / len(self.stages)
        stage = min(int(epoch / length), len(self.stages) - 1)
        return stage, epoch - stage * length, length

    def _enter(self, number: int, weights: Mapping[str, np.ndarray[Any, Any]] | None) -> None:
        space = self.supernet.space
        kept = self.stages[number].operations
        if weights is not None and kept is not None:
            space = keep_best_operations(space, weights, kept)
        self._become(number, space)

    def _become(self, number: int, space: SearchSpace) -> None:
        """Rebuild the supernet for stage `number`, with fresh optimizers."""
        stage = self.stages[number]
        relaxation = copy.copy(self._base_relaxation)
        if stage.channel_fraction is not None:
            relaxation.channel_fraction = stage.channel_fraction
        layers = self._base_layers + stage.extra_layers
        changed = (
            space != self.supernet.space
            or layers != self.supernet.sizes["layers"]
            or relaxation.channel_fraction != self.supernet.relaxation.channel_fraction
        )
        if changed or number > 0:
            rate = float(self.optimizer.param_groups[0]["lr"])
            active = self.alpha_active
            before = self.supernet.state_dict()
            self.supernet.rebuild(space, relaxation=relaxation, layers=layers)
            if self.carry_over and number > 0:
                self.supernet.load_state_dict(widened(before, self.supernet.state_dict()))
            super().setup(self.supernet, self.settings, self.penalties)
            self.alpha_active = active
            self.set_learning_rate(rate)
            self.supernet.train()
        self.stage = number

    def loss(self, batch: Batch, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss with some skips dropped, in training only."""
        chance = self.stages[max(self.stage, 0)].skip_dropout * (1 - self.stage_progress)
        ops = self.supernet.space.ops
        if chance <= 0 or _SKIP not in ops:
            return super().loss(batch, weights)
        column = ops.index(_SKIP)
        dropped = {}
        for kind, weight_EK in weights.items():
            draw = torch.empty_like(weight_EK[:, column]).uniform_(
                generator=self.supernet.generator
            )
            factor_EK = torch.ones_like(weight_EK)
            factor_EK[:, column] = (draw >= chance).to(draw.dtype) / (1 - chance)
            dropped[kind] = weight_EK * factor_EK
        return super().loss(batch, dropped)

    def current(self) -> Architecture:
        """The architecture of the present alphas with the limit on skips."""
        weights = self.supernet.final_weights()
        space = self.supernet.space
        if self.max_skips is None:
            return space.discretize(weights)
        return limit_skips(space, weights, self.max_skips)

    def state_dict(self) -> dict[str, Any]:
        """The optimizers, the stage and its operations."""
        return {
            **super().state_dict(),
            "stage": self.stage,
            "edge_ops": [[kind, [list(ops) for ops in e]] for kind, e in self._edge_ops()],
        }

    def _edge_ops(self) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
        return self.supernet.space.edge_ops

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`; the supernet takes the form of the stage."""
        if state["stage"] >= 0:
            edge_ops = tuple(
                (kind, tuple(tuple(ops) for ops in per_edge))
                for kind, per_edge in state["edge_ops"]
            )
            self._become(state["stage"], dataclasses.replace(self._base_space, edge_ops=edge_ops))
        super().load_state_dict(state)


def keep_best_operations(
    space: SearchSpace, weights: Mapping[str, np.ndarray[Any, Any]], count: int
) -> SearchSpace:
    """The space in which every edge may choose only its `count` heaviest operations of now.

    At least one of them is not `none`, where the edge may choose another.
    """
    edge_ops = []
    for kind in space.cell_kinds:
        allowed = space.allowed(kind)
        per_edge = []
        for edge, row in enumerate(weights[kind]):
            order = [k for k in np.argsort(-row, kind="stable") if allowed[edge, k]]
            kept = order[:count]
            if [space.ops[k] for k in kept] == ["none"]:
                kept = [k for k in order if space.ops[k] != "none"][:1] or kept
            per_edge.append(tuple(space.ops[k] for k in sorted(kept)))
        edge_ops.append((kind, tuple(per_edge)))
    return dataclasses.replace(space, edge_ops=tuple(edge_ops))


def limit_skips(
    space: SearchSpace, weights: Mapping[str, np.ndarray[Any, Any]], most: int
) -> Architecture:
    """Discretise; while a cell of the first kind has more than `most` skips, forget its lightest skip.

    A skip that is the only operation its edge may choose cannot be forgotten.
    """
    found = space.discretize(weights)
    if _SKIP not in space.ops:
        return found
    kind, column = space.cell_kinds[0], space.ops.index(_SKIP)
    left = {name: np.array(w, dtype=np.float64) for name, w in weights.items()}
    removable = np.asarray(space.allowed(kind)).copy()
    if "none" in space.ops and space.keep_edges is not None:
        removable[:, space.ops.index("none")] = False
    others = removable.sum(1) - removable[:, column] > 0
    while True:
        rows = [
            space.edges.index((source, target))
            for source, target, op in found.cell(kind).edges
            if op == _SKIP
        ]
        rows = [e for e in rows if others[e] and left[kind][e, column] > -1]
        skips = sum(op == _SKIP for _, _, op in found.cell(kind).edges)
        if skips <= most or not rows:
            return found
        lightest = min(rows, key=lambda e: left[kind][e, column])
        left[kind][lightest, column] = -1.0
        found = space.discretize(left)
