"""Coupled channels: which layers must lose a channel together. torch-pruning finds them, we name them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from darts_core.copies import copy_or_refuse
from darts_core.errors import PruneError
from darts_core.modes import in_evaluation
from darts_core.prune.beside import cut_beside, outputs_beside
from darts_core.prune.blocks import CONVOLUTIONS, blocks_of
from darts_core.prune.derived import (
    INSTANCE_NORMS,
    LAYER_NORMS,
    NORMS,
    ROOTS,
    TAKE_OFF,
    derives_weight,
)
from darts_core.prune.graph import (
    UNFOLLOWED,
    UnfollowedError,
    all_groups,
    follow,
    group_of,
    outputs_of,
)
from darts_core.prune.modes import runs_in_training
from darts_core.sample_inputs import draw_inputs, number_format
from darts_core.supernet.tied import kept_tied

__all__ = [
    "CONVOLUTIONS",
    "INSTANCE_NORMS",
    "LAYER_NORMS",
    "NORMS",
    "ChannelGroup",
    "Member",
    "channels_to_remove",
    "copied",
    "find_groups",
    "least_width",
    "remove_channels",
]

log = logging.getLogger("darts_core")
_DERIVED = "a weight that holds its channels is derived, as by weight_norm"
_SHARED_OUT = (
    "what reads its channels takes no fewer (a view that shares them out, a layer that is not cut)"
)
_NEEDED = "without some of its channels the network does not run (what runs in training alone may read them)"
_LAST = "its outputs are the network's"
_UNSEEN = "it does not run as a layer, or under no_grad()"


@dataclass(frozen=True)
class Member:
    """One layer's share of a group.

    Attributes:
        name: the module's path, or the parameter's.
        side: "out" (its output channels, or a norm's), "in" (its input channels), or "free" (a parameter of
            no layer).
        positions: per entry, the group's channel.
        indices: per entry, the layer's own channel (several for one channel after flattening).
        dim: of a free parameter, the dimension in which its channels lie.
    """

    name: str
    side: str
    positions: tuple[int, ...]
    indices: tuple[int, ...]
    dim: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Channels 0..channels-1 of `root` and everything that is coupled to them.

    Attributes:
        root: path of the layer that they are numbered by.
        channels: how many.
        members: the layers' shares.
        free: those of parameters that belong to no layer, such as a transformer's positions.
        kind: "channels", or "heads" of an attention, which is then the root.
        attributes: (module, attribute, unit): whole numbers that are the width times a unit.
        blocks: equal parts of the channels that lose the same ones: the groups of a grouped convolution, the
            halves of a gate.
    """

    root: str
    channels: int
    members: tuple[Member, ...]
    free: tuple[Member, ...] = ()
    kind: str = "channels"
    attributes: tuple[tuple[str, str, int], ...] = ()
    blocks: int = 1

    @property
    def columns(self) -> int:
        """How many sets of channels there are, one of each block, of which each goes or stays as a whole."""
        return self.channels // self.blocks

    def at(self, column: int) -> range:
        """The channels that go or stay together, one of each block."""
        return range(column, self.channels, self.columns)


def find_groups(
    model: nn.Module, input_shape: Sequence[int], left: dict[str, str] | None = None
) -> list[ChannelGroup]:
    """All groups of coupled channels of `model`, its outputs left out.

    Channels of convolutions of any dimension and of linear layers (an MLP's width, a transformer's
    stream) form groups; those that a view shares out (attention's heads) do not, nor those of a layer
    whose weight is derived from other tensors, nor those without which the network does not run in
    training mode (a head that runs there alone reads them).

    Args:
        model: a plain network in eval mode.
        input_shape: (C, H, W).
        left: is filled: layer -> why its output channels are in no group, in words.

    Raises:
        PruneError: torch-pruning cannot follow the model's graph, or the model cannot be copied.
    """
    graph = follow(model, input_shape)
    names = {module: name for name, module in model.named_modules()}
    # what nothing reads is the output
    fixed = [m for m in model.modules() if isinstance(m, nn.Linear) and not _read(graph, m)]
    unseen = (m for m in model.modules() if isinstance(m, ROOTS) and m not in graph.module2node)
    skipped: dict[nn.Module, str] = {
        **dict.fromkeys(fixed, _LAST),
        **dict.fromkeys(unseen, _UNSEEN),
    }
    why: dict[str, str] = {}
    groups: list[ChannelGroup] = []
    taken: set[str] = set()
    for found in all_groups(graph, fixed, ROOTS, skipped):
        group = _named(graph, found, model, names)
        if group is None:
            layers = outputs_of(graph, found)
            skipped |= dict.fromkeys(
                layers, "no smaller number of its channels can be shared out as they are"
            )
            continue
        outs = _outs(group)
        unfit = _unfit(model, input_shape, group, taken)
        if unfit:
            why |= dict.fromkeys(outs, unfit)
            continue
        taken |= outs
        groups.append(group)
    derived = sum(words == _DERIVED for words in why.values())
    if derived:
        log.info(
            "the channels of %d layers stay: a weight that holds them is derived, as by weight_norm",
            derived,
        )
    failed = [lost for lost in _losses(model, groups) if not _can_lose(model, input_shape, lost)]

    def stays(root: str) -> bool:
        return any(
            root in lost and not _can_lose(model, input_shape, {root: lost[root]})
            for lost in failed
        )

    able = [group for group in groups if not stays(group.root)]
    if len(able) < len(groups):
        log.info(
            "the channels of %s stay: without some of them the network does not run, or does not run in "
            "training mode, where other parts of it may read them",
            ", ".join(group.root for group in groups if group not in able),
        )
    if left is not None:
        left |= {names[layer]: words for layer, words in skipped.items() if layer in names}
        failing = [name for group in groups if group not in able for name in _outs(group)]
        for name in failing:
            why[name] = _NEEDED if _read(graph, model.get_submodule(name)) else _LAST
        left |= why
    return able


def _outs(group: ChannelGroup) -> set[str]:
    """The layers that make the group's channels."""
    return {member.name for member in group.members if member.side == "out"}


def _unfit(
    model: nn.Module, input_shape: Sequence[int], group: ChannelGroup, taken: Collection[str]
) -> str:
    """Why none of the group's channels can go, in words; empty where they may."""
    outs = _outs(group)
    if not outs.isdisjoint(taken):
        return "its channels lie among those of another group"
    if any(derives_weight(model.get_submodule(member.name)) for member in group.members):
        return _DERIVED
    linear = any(isinstance(model.get_submodule(name), nn.Linear) for name in outs)
    if linear and not _can_lose(model, input_shape, {group.root: [0]}):
        # a view shares these channels out (attention's heads), which no cut of them survives
        return _SHARED_OUT
    return ""


def copied(model: nn.Module) -> nn.Module:
    """A copy of `model`, of all that it keeps of a pass the values alone.

    Raises:
        PruneError: it holds something that cannot be copied.
    """
    remedy = f" first, and where a weight is derived call {TAKE_OFF}."
    return copy_or_refuse(model, PruneError, remedy)


def _named(
    graph: Any, found: Any, model: nn.Module, names: Mapping[nn.Module, str]
) -> ChannelGroup | None:
    """A group of torch-pruning's, its layers by name; None where it is not followed or no width fits."""
    try:
        full = _widest(graph, found, names)
        blocks = blocks_of(graph, full)
    except UnfollowedError:
        return None
    if blocks is None:
        return None
    root, channels = names[full[0].dep.target.module], len(full[0].idxs)
    members = _members(graph, full, names)
    return ChannelGroup(root, channels, members, _free_members(graph, full, model), blocks=blocks)


def _read(graph: Any, layer: nn.Module) -> bool:
    """Whether another layer reads the output of `layer`."""
    if layer not in graph.module2node:
        return False  # it does not run
    handler = graph.get_pruner_of_module(layer).prune_out_channels
    try:
        group = group_of(graph, layer, handler, [0])
    except UnfollowedError:
        return True
    return any(not graph.is_out_channel_pruning_fn(item.dep.handler) for item in group)


def _can_lose(
    model: nn.Module, input_shape: Sequence[int], lost: Mapping[str, Sequence[int]]
) -> bool:
    """Whether the network still runs, with an output of its shape, without these channels.

    Also in training mode, where it ran there with them.
    """
    tried, sample = copied(model), _sample(model, input_shape)
    trains = runs_in_training(tried, sample)
    try:
        remove_channels(tried, input_shape, lost)
        with torch.no_grad():
            same = bool(tried(sample).shape == in_evaluation(model)(sample).shape)
    except (PruneError, RuntimeError):
        return False
    return same and (not trains or runs_in_training(tried, sample))


def _sample(model: nn.Module, input_shape: Sequence[int]) -> torch.Tensor:
    home, kind = next(model.parameters()).device, number_format(model)
    return draw_inputs(input_shape, 2, device=home, dtype=kind, zeros=True)


def _one_of(group: ChannelGroup) -> list[int]:
    """One channel of each block, where as many can go."""
    return channels_to_remove(group, np.zeros(group.channels), group.channels - group.blocks)


def _losses(model: nn.Module, groups: Sequence[ChannelGroup]) -> list[dict[str, list[int]]]:
    """What is tried to go: one channel of each; of those that are parted, either half as well.

    A slice or a chunk of the channels may lie at a fixed place: without as many of each part it has others.
    """
    found = [{group.root: _one_of(group) for group in groups}]
    parted = [group for group in groups if _parted(model, group)]
    for sign in (1.0, -1.0):
        found.append({g.root: _half_of(g, sign * np.arange(float(g.channels))) for g in parted})
    return [lost for lost in found if lost]


def _parted(model: nn.Module, group: ChannelGroup) -> bool:
    """Whether a layer has some of the channels alone, or is said to have more than it has."""
    for member in group.members:
        if len({*member.positions}) < group.channels:
            return True
        weight = getattr(model.get_submodule(member.name), "weight", None)
        if member.side != "out" or not isinstance(weight, torch.Tensor):
            continue
        if max(member.indices) >= len(weight):
            return True
    return False


def _half_of(group: ChannelGroup, scores: npt.NDArray[np.float64]) -> list[int]:
    width = group.columns // 2 * group.blocks
    return channels_to_remove(group, scores, max(width, least_width(group)))


def least_width(group: ChannelGroup) -> int:
    """The fewest channels that leave every layer of the group at least one."""
    anchors = _anchors(group, np.zeros(group.channels))
    return len({channel % group.columns for channel in anchors}) * group.blocks


def channels_to_remove(
    group: ChannelGroup, scores: npt.NDArray[np.float64], width: int
) -> list[int]:
    """The least important channels whose removal leaves `width`, and every layer at least one.

    A factorised reduction's halves each own a part of the channels; an empty half would not run. Of a group
    with blocks, the next smaller width is left that is the same number of channels in each.
    """
    together = scores.reshape(group.blocks, -1).sum(0)
    kept = {channel % group.columns for channel in _anchors(group, scores)}
    for column in np.argsort(-together, kind="stable"):
        if len(kept) >= width // group.blocks:
            break
        kept.add(int(column))
    return [channel for channel in range(group.channels) if channel % group.columns not in kept]


def _anchors(group: ChannelGroup, scores: npt.NDArray[np.float64]) -> set[int]:
    """The best channel of each layer that owns only a part of the group's; at least one."""
    parts = [m.positions for m in group.members if m.side == "out"]
    anchors: set[int] = set()
    for positions in sorted(parts, key=len):
        if not anchors.intersection(positions):
            anchors.add(max(positions, key=lambda channel: float(scores[channel])))
    return anchors or {int(np.argmax(scores))}


def remove_channels(
    model: nn.Module, input_shape: Sequence[int], removed: Mapping[str, Sequence[int]]
) -> nn.Module:
    """Cut the channels `removed` (root path -> its channels) and all that is coupled; in place.

    What is one weight in several places stays one, where all lose the same of it.

    Raises:
        PruneError: a group would lose all of its channels, a weight of it is derived, or the cut network
            does not run.
    """
    graph = follow(model, input_shape)
    held = [
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    ]
    with kept_tied(model):
        for root, channels in removed.items():
            if not channels:
                continue
            layer = model.get_submodule(root)
            handler = graph.get_pruner_of_module(layer).prune_out_channels
            group = group_of(graph, layer, handler, sorted(channels))
            if not graph.check_pruning_group(group):
                raise PruneError(f"Cutting {len(channels)} channels of {root!r} would leave none.")
            targets = [item.dep.target.module for item in group]
            if any(isinstance(target, nn.Module) and derives_weight(target) for target in targets):
                raise PruneError(
                    f"The channels of {root!r} cannot be cut: a weight that holds them is derived, as by "
                    f"weight_norm; first call {TAKE_OFF}."
                )
            beside = outputs_beside(graph, group)
            try:
                group.prune()
            except UNFOLLOWED as error:
                raise PruneError(
                    f"torch-pruning cannot cut the channels of {root!r} ({type(error).__name__}: {error})."
                ) from error
            for module, name, kept in beside:
                cut_beside(module, name, kept)
    for module in model.modules():
        # torch-pruning gives cut parameters their gradients back; ours are stale
        for parameter in module.parameters(recurse=False):
            parameter.grad = None
    for name in held:  # torch-pruning makes every parameter that it cuts one that learns
        model.get_parameter(name).requires_grad_(False)
    _check_runs(model, input_shape)
    return model


def _widest(graph: Any, found: Any, names: Mapping[nn.Module, str]) -> Any:
    """The group again, seen from its member with most channels.

    A factorised reduction's two halves are coupled through the norm behind them: seen from one
    half, the other half's channels would be missing.
    """
    best, width = None, len(found[0].idxs)
    for item in found:
        module = item.dep.target.module
        if module not in names or not isinstance(module, (*ROOTS, *NORMS)):
            continue
        if graph.is_out_channel_pruning_fn(item.dep.handler):
            channels = graph.get_out_channels(module)
            if channels > width:
                best, width = module, channels
    if best is None:
        return found
    handler = graph.get_pruner_of_module(best).prune_out_channels
    return group_of(graph, best, handler, range(width))


def _members(graph: Any, group: Any, names: Mapping[nn.Module, str]) -> tuple[Member, ...]:
    members = []
    for item in group:
        module = item.dep.target.module
        # a PReLU of one number for all channels has no share of any
        if module not in names or (isinstance(module, nn.PReLU) and module.num_parameters == 1):
            continue
        side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
        positions = tuple(int(index) for index in item.root_idxs)
        members.append(Member(names[module], side, positions, tuple(int(i) for i in item.idxs)))
    return tuple(members)


def _free_members(graph: Any, group: Any, model: nn.Module) -> tuple[Member, ...]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    dims = {id(parameter): int(dim) for parameter, dim in graph.unwrapped_parameters}
    found: dict[str, Member] = {}
    for item in group:
        target = item.dep.target.module
        if id(target) in dims and id(target) in names:
            name, dim = names[id(target)], dims[id(target)] % target.dim()
            positions = tuple(int(index) for index in item.root_idxs)
            found[name] = Member(name, "free", positions, tuple(int(i) for i in item.idxs), dim)
    return tuple(found.values())


def _check_runs(model: nn.Module, input_shape: Sequence[int]) -> None:
    try:
        with torch.no_grad():
            in_evaluation(model)(_sample(model, input_shape))
    except Exception as error:  # whatever a foreign network raises
        raise PruneError(
            f"The pruned network does not run ({str(error)[:200]}); its graph joins channels in a way "
            "that torch-pruning does not see."
        ) from error
