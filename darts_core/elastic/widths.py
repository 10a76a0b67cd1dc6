"""Groups of coupled channels whose width may vary, and the reasons of those that may not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from darts_core.elastic.plans import plan
from darts_core.elastic.variables import Width, options_of
from darts_core.prune.derived import derived_layers
from darts_core.prune.groups import (
    CONVOLUTIONS,
    LAYER_NORMS,
    ChannelGroup,
    Member,
    find_groups,
    least_width,
)
from darts_core.prune.proof import moves
from darts_core.prune.slices import LAYERS, permute
from darts_core.prune.trial import Trial

__all__ = ["by_importance", "find_widths", "of_heads", "sorted_in_place"]

_UNFOLLOWED = "it meets what is not cut, such as a buffer"


def find_widths(
    model: nn.Module, trial: Trial, input_shape: Sequence[int], least: float, step: int
) -> tuple[list[Width], dict[str, str]]:
    """The widths of `model`'s coupled channels, and layer -> why its own stays.

    Args:
        model: a network in evaluation mode.
        trial: a copy of it to try cuts on.
        input_shape: of one example, without the batch.
        least: share of a group's channels that the smallest width keeps.
        step: widths are multiples of it where a group is that wide.

    Raises:
        PruneError: the network cannot be traced.
    """
    widths: list[Width] = []
    left: dict[str, str] = {}
    covered: set[str] = set()
    reasons: dict[str, str] = {}
    for group in find_groups(model, input_shape, reasons):
        covered |= {member.name for member in group.members if member.side == "out"}
        found = _width(model, group, least, step)
        why = found if isinstance(found, str) else _refused(trial, group, found)
        if isinstance(found, Width) and not why:
            widths.append(found)
        else:
            left[group.root] = why if why else str(found)
    reasons |= derived_layers(model)
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            reasons[f"{name}.out_proj"] = "it is a part of torch's own attention"
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)) and name not in covered:
            left[name] = reasons.get(name, _UNFOLLOWED)
    return widths, left


def of_heads(group: ChannelGroup) -> Width:
    """The width of an attention's heads: any number of them."""
    options = tuple(range(1, group.channels + 1))
    return Width(group.root, options, group.members, (), group.kind, group.attributes)


def _width(model: nn.Module, group: ChannelGroup, least: float, step: int) -> Width | str:
    for member in group.members:
        module = model.get_submodule(member.name)
        if not isinstance(module, LAYERS):
            return f"{member.name} is a {type(module).__name__}, which is not sliced"
        if isinstance(module, nn.Embedding) and module.sparse:
            return f"{member.name} has sparse gradients, of which torch takes no slice"
        if isinstance(module, LAYER_NORMS) and len(module.normalized_shape) != 1:
            return f"{member.name} normalises more than its channels"
    floor = max(int(np.ceil(least * group.columns)), least_width(group) // group.blocks)
    columns = options_of(group.columns, floor, step // math.gcd(step, group.blocks))
    if len(columns) < 2:
        shared = f", shared out among {group.blocks} parts," if group.blocks > 1 else ""
        return f"{group.channels} channels{shared} are too few"
    options = tuple(count * group.blocks for count in columns)
    width = Width(group.root, options, group.members, group.free, blocks=group.blocks)
    return width if sorted_in_place(width) else _numbered(width, _fair(group))


def sorted_in_place(width: Width) -> bool:
    """Whether every layer owns all of the channels and keeps none apart, so that they can be sorted in it."""
    members = (*width.members, *width.free)
    owned = [len(set(member.positions)) for member in members]
    return width.blocks == 1 and all(count == width.options[-1] for count in owned)


def _fair(group: ChannelGroup) -> list[int]:
    """Channels in an order in which layers that own a part of them each lose their share.

    Parts that keep as many channels as each other, such as the groups of a norm, lose the same ones of each.
    """
    place: dict[int, float] = {}
    for positions in sorted({m.positions for m in group.members if m.side == "out"}, key=len):
        own = sorted(set(positions))
        for number, channel in enumerate(own):
            place.setdefault(channel, number / len(own))

    def first(column: int) -> float:
        return min(place.get(channel, 1.0) for channel in group.at(column))

    columns = sorted(range(group.columns), key=first)
    return [channel for column in columns for channel in group.at(column)]


def _refused(trial: Trial, group: ChannelGroup, width: Width) -> str:
    """Why the group cannot vary, found by trying; empty where it can."""
    if trial.cut(plan(trial.model, [width], {width.name: width.options[0]})) is None:
        return "the network does not run with fewer, or its output would change its shape"
    if not moves(trial, group):
        return "its channels have fixed places (something reads them by position)"
    return ""


def by_importance(model: nn.Module, width: Width, order: Sequence[int]) -> Width:
    """`width` with the channels of `model` sorted, so that a sub-network is a prefix; in place.

    Where a layer owns only some of the group's channels nothing is moved: they are numbered in that order.
    """
    if not sorted_in_place(width):
        return _numbered(width, order)
    permute(model, (*width.members, *width.free), order)
    return width


def _numbered(width: Width, order: Sequence[int]) -> Width:
    rank = {channel: place for place, channel in enumerate(order)}

    def ranked(members: Sequence[Member]) -> tuple[Member, ...]:
        return tuple(replace(m, positions=tuple(rank[p] for p in m.positions)) for m in members)

    return replace(width, members=ranked(width.members), free=ranked(width.free))
