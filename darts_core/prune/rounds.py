"""One round of pruning: decide on cuts and widths for a target time, apply, measure, correct."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.latency import Timing, device_lock
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import (
    ChannelGroup,
    channels_to_remove,
    copied,
    find_groups,
    least_width,
)
from darts_core.prune.heads import groups_of_heads, remove
from darts_core.prune.importance import Array, channel_importance
from darts_core.prune.plan import Item, Option, solve, widths_of
from darts_core.prune.proof import movable
from darts_core.prune.structure import Cut, find_cuts, find_dead, loss_increases
from darts_core.tasks import Classification, Task
from darts_core.train.save import replace_modules

__all__ = ["TOLERANCE", "Pruner", "Round"]

log = logging.getLogger("darts_core")
_TRIALS = 9
# a measured time may exceed its target by this share: the clock itself is no better
TOLERANCE = 1.04
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass
class Round:
    """What a round did: the network, its time, what was cut, the widths that were left.

    `sizes` are whole-number attributes that follow from a width (an attention's heads), by their path.
    """

    model: nn.Module
    timing: Timing
    replaced: dict[str, str] = field(default_factory=dict)
    widths: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class Pruner:
    """The planner's settings and instruments.

    Attributes:
        input_shape: of one sample.
        batch: samples a call, in all timings.
        timer: end-to-end time of a network.
        costs: times of single layers.
        importance: see `channel_importance`.
        least: the smallest share of a group's channels that is kept.
        step: widths are multiples of it, where a group is that wide.
        structure: whether operations, edges and cells may go.
        task: whose loss a cut must raise little.
    """

    input_shape: Sequence[int]
    batch: int
    timer: Callable[[nn.Module], Timing]
    costs: LayerCosts
    importance: str = "taylor"
    least: float = 0.125
    step: int = 1
    structure: bool = True
    task: Task = field(default_factory=Classification)
    _movable: dict[Any, bool] = field(default_factory=dict, init=False, repr=False)

    def fastest(self, model: nn.Module) -> Timing:
        """Time of the network with everything cut that may be: no plan can be faster."""
        bare = copied(model)
        if self.structure:
            cuts = find_cuts(bare, self.input_shape)
            replace_modules(bare, _compatible({cut.path: cut for cut in cuts}))
        self._clean(bare)
        groups = self._groups(bare)
        removed = {
            group.root: channels_to_remove(group, np.zeros(group.channels), self._least(group))
            for group in groups
        }
        return self.timer(remove(bare, self.input_shape, groups, removed))

    def shrink(self, model: nn.Module, now: Timing, target_ms: float, batches: Batches) -> Round:
        """A smaller copy of `model` whose time is close to `target_ms`."""
        result = Round(copied(model), now)
        result.replaced |= self._clean(result.model)
        if self.structure:
            self._cut(result, target_ms, batches)
        counted = LayerCosts(self.costs.device, folded=self.costs.folded, analytic=True)
        for costs in (self.costs, counted):
            if result.timing.median_ms > target_ms * TOLERANCE:
                self._narrow(result, target_ms, batches, costs)
        return result

    def _clean(self, model: nn.Module) -> dict[str, str]:
        dead = find_dead(model, self.input_shape)
        replace_modules(model, dead)
        return dead

    def _groups(self, model: nn.Module) -> list[ChannelGroup]:
        shape = self.input_shape
        groups = find_groups(model, shape)
        cut = {member.name for group in groups for member in group.members if member.side == "out"}
        # where heads are of one channel, the channels are the heads
        groups += [
            heads
            for heads in groups_of_heads(model, shape)
            if not any(m.side == "out" and m.name in cut for m in heads.members)
        ]
        return self._proven(model, groups)

    def _proven(self, model: nn.Module, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Those whose channels nothing reads by position; each is tried once, as trying runs the network."""
        # fewer channels of the same layers need no other proof
        known = {
            group.root: (group.kind, *((m.name, m.side) for m in group.members)) for group in groups
        }
        new = [group for group in groups if known[group.root] not in self._movable]
        moved = any(self._movable.values())
        for root, able in movable(model, self.input_shape, new, moved=moved).items():
            self._movable[known[root]] = able
        return [group for group in groups if self._movable[known[group.root]]]

    def _step(self, group: ChannelGroup) -> int:
        return 1 if group.kind == "heads" else self.step

    def _least(self, group: ChannelGroup) -> int:
        least = max(1, math.ceil(self.least * group.channels))
        step = self._step(group)
        least = max(least, step if group.channels > step else 1, least_width(group))
        return min(group.channels, least)

    def _widths(self, group: ChannelGroup) -> list[int]:
        step = self._step(group)
        step = step if group.channels >= 2 * step else 1
        widths = widths_of(group.channels, least=self._least(group), step=step)
        # of a group with blocks (a grouped convolution's) each block keeps as many
        return list(dict.fromkeys(width // group.blocks * group.blocks for width in widths))

    def _channel_items(
        self, model: nn.Module, now_ms: float, batches: Batches, costs: LayerCosts
    ) -> tuple[list[Item], list[ChannelGroup], dict[str, Array]]:
        """Options of every group: each width with its saving and the importance that is lost."""
        groups = self._groups(model)
        scores = channel_importance(model, groups, self.importance, batches, self.task)
        items = []
        with device_lock(self.costs.device):
            costs.observe(model, self.input_shape, self.batch)
            scale = now_ms / max(costs.total_ms(), 1e-9)
            for group in groups:
                options = tuple(
                    Option(
                        scale * costs.saving_ms(group, width),
                        _lost(group, scores[group.root], width) + 1e-12 * (group.channels - width),
                        width,
                    )
                    for width in self._widths(group)
                )
                items.append(Item(group.root, options))
        return items, groups, scores

    def _cut(self, result: Round, target_ms: float, batches: Batches) -> None:
        """Choose cuts against widths in one knapsack; apply the cuts only."""
        found = find_cuts(result.model, self.input_shape)
        losses = loss_increases(result.model, found, batches, self.task)
        # without some the network gives NaN or infinity: they have no loss to be weighed against others'
        cuts = [cut for cut, rise in zip(found, losses, strict=True) if rise < math.inf]
        rises = [rise for rise in losses if rise < math.inf]
        if not cuts:
            return
        channels, _, scores = self._channel_items(
            result.model, result.timing.median_ms, batches, self.costs
        )
        unit = _exchange_rate(result.model, cuts, rises, scores)
        channels = [
            Item(i.name, tuple(Option(o.saved_ms, unit * o.loss, o.value) for o in i.options))
            for i in channels
        ]
        scale = result.timing.median_ms / max(self.costs.total_ms(), 1e-9)
        options: dict[str, list[Option]] = {}
        for cut, rise in zip(cuts, rises, strict=True):
            saved = scale * self.costs.total_ms(cut.path)
            options.setdefault(cut.path, []).append(Option(saved, rise, cut.by))
        items = [Item(path, tuple(found)) for path, found in options.items()]
        everything = [*channels, *items]
        needed = min(result.timing.median_ms - target_ms, 0.95 * _reach(everything))
        plan = solve(everything, needed) or {}
        by_path = {cut.path: cut for cut in cuts}
        chosen = {
            path: Cut(path, str(plan[path].value), by_path[path].node)
            for path in sorted(options, key=lambda p: plan[p].loss if p in plan else 0.0)
            if path in plan
        }
        replaced = _compatible(chosen)
        if replaced:
            replace_modules(result.model, replaced)
            result.replaced |= replaced | self._clean(result.model)
            result.timing = self.timer(result.model)
            log.info(
                "cut %d places: %.3f ms (target %.3f)",
                len(replaced),
                result.timing.median_ms,
                target_ms,
            )

    def _narrow(self, result: Round, target_ms: float, batches: Batches, costs: LayerCosts) -> None:
        """Choose widths, apply them to a copy, measure, and correct what is asked for."""
        start_ms = result.timing.median_ms
        items, groups, scores = self._channel_items(result.model, start_ms, batches, costs)
        by_root = {group.root: group for group in groups}
        reach = _reach(items)
        ask = min(start_ms - target_ms, 0.99 * reach)
        # what was asked for and turned out too little, and too much
        low, high = 0.0, reach
        best: tuple[nn.Module, Timing, dict[str, tuple[int, int]]] | None = None
        for _ in range(_TRIALS):
            plan = solve(items, ask)
            if not plan:
                break
            removed, widths = {}, {}
            for root, option in plan.items():
                group, width = by_root[root], int(option.value)
                removed[root] = channels_to_remove(group, scores[root], width)
                widths[root] = (group.channels, width)
            trial = remove(copied(result.model), self.input_shape, groups, removed)
            timing = self.timer(trial)
            if best is None or _better(timing.median_ms, best[1].median_ms, target_ms):
                best = (trial, timing, widths)
            ratio = timing.median_ms / target_ms
            if 0.95 <= ratio <= TOLERANCE or (ratio > 1.0 and ask >= 0.99 * reach):
                break
            low, high = (ask, high) if ratio > 1.0 else (low, ask)
            saved = max(start_ms - timing.median_ms, 0.02 * start_ms)
            ask *= (start_ms - target_ms) / saved
            if not low < ask < high:
                ask = (low + high) / 2
        if best is not None:
            result.model, result.timing = best[0], best[1]
            for root, (wide, narrow) in best[2].items():
                result.widths[root] = (result.widths.get(root, (wide, 0))[0], narrow)
                for path, name, unit in by_root[root].attributes:
                    result.sizes[f"{path}.{name}".lstrip(".")] = narrow * unit
            log.info("narrowed: %.3f ms (target %.3f)", best[1].median_ms, target_ms)


def _reach(items: Sequence[Item]) -> float:
    """Milliseconds saved if every item took its largest saving."""
    return sum(max((o.saved_ms for o in item.options), default=0.0) for item in items)


def _lost(group: ChannelGroup, scores: Array, width: int) -> float:
    return float(scores[channels_to_remove(group, scores, width)].sum())


def _better(new_ms: float, old_ms: float, target_ms: float) -> bool:
    """Within the target (and tolerance) the slower network is the better one; outside, the faster."""
    limit = TOLERANCE * target_ms
    if (new_ms <= limit) != (old_ms <= limit):
        return new_ms <= limit
    return new_ms > old_ms if new_ms <= limit else new_ms < old_ms


def _compatible(chosen: dict[str, Cut]) -> dict[str, str]:
    """Cuts that may be made together: no cut inside a passed cell, an edge left at every node."""
    cells = {path for path, cut in chosen.items() if cut.by == "pass_cell"}
    at_node: dict[str, str] = {}
    result = {}
    for path, cut in chosen.items():
        if any(path != cell and path.startswith(f"{cell}.") for cell in cells):
            continue
        before = at_node.get(cut.node)
        # two identities may meet at a node; nothing and an identity may not (see find_cuts)
        if cut.node and before is not None and (cut.by, before) != ("skip_connect", "skip_connect"):
            continue
        at_node[cut.node] = cut.by
        result[path] = cut.by
    return result


def _exchange_rate(
    model: nn.Module, cuts: Sequence[Cut], rises: Sequence[float], scores: dict[str, Array]
) -> float:
    """Loss per unit of channel importance, so that cuts and widths compete fairly.

    Removing an operation is removing all channels of its last norm: both numbers are known for it.
    The median over operations of measured rise / summed importance is the rate; at least 1.
    """
    total = sum(float(values.sum()) for values in scores.values())
    pairs = []
    for cut, rise in zip(cuts, rises, strict=True):
        if cut.by != "none":
            continue
        module = model.get_submodule(cut.path)
        inside = [
            float(values.sum()) for root, values in scores.items() if root.startswith(cut.path)
        ]
        if inside and sum(inside) > 1e-9 and any(True for _ in module.parameters()):
            pairs.append(rise / sum(inside))
    if pairs:
        return max(float(np.median(pairs)), 1e-3)
    # a plain network: all importance together is worth the largest measured rise
    return max(rises, default=1.0) / max(total, 1e-9) if rises else 1.0


def take_batches(bundle: Any, device: torch.device, most: int = 64) -> Batches:
    """The first 256 training examples in batches of 64, without augmentation, on `device`.

    Args:
        bundle: the data.
        device: where.
        most: examples a batch at most, where the memory holds no more.
    """
    size = min(64, most, bundle.size("params"))
    batches = bundle.batches("params", size, seed=0, epoch=0)
    return [(x.to(device), y.to(device)) for x, y in islice(batches, -(-256 // size))]
