"""Whether channels may change places: what reads them by position would meet others when some are cut."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import nn

from darts_core.errors import PruneError
from darts_core.prune.groups import ChannelGroup
from darts_core.prune.slices import permute
from darts_core.prune.trial import Trial
from darts_core.sample_inputs import draw_inputs

__all__ = ["movable", "moves"]

log = logging.getLogger("darts_core")


def movable(
    model: nn.Module,
    input_shape: Sequence[int],
    groups: Sequence[ChannelGroup],
    *,
    moved: bool = False,
) -> dict[str, bool]:
    """Root of each group -> whether its channels may be cut; see `moves`.

    A network that cannot be tried in double precision is believed, with a warning; so is one in which none
    may move, as where it draws random numbers or computes in half precision.

    Args:
        model: a plain network.
        input_shape: of one example, without the batch.
        groups: of its channels.
        moved: whether others of its groups are known to move.
    """
    if not groups:
        return {}
    try:
        trial = Trial(model, draw_inputs(input_shape, 2))
        tried = {group.root: _alike(trial, group) for group in groups}
        found = {root: all(alike) for root, alike in tried.items()}
        # one that differs in training alone shows that the network can be tried
        known = moved or any(plain for plain, _ in tried.values())
        why = "" if known else "its outputs differ for any other order"
    except PruneError as error:
        why = str(error)
    if why:
        log.warning(
            "whether anything in %s reads channels by position, so that pruning breaks it, is not known: %s",
            type(model).__name__, why,
        )  # fmt: skip
        return {group.root: True for group in groups}
    fixed = [root for root, able in found.items() if not able]
    if fixed:
        log.info(
            "the channels of %s stay: something reads them by position, as behind a flip, a roll or a pixel "
            "shuffle",
            ", ".join(fixed),
        )
    return found


def moves(trial: Trial, group: ChannelGroup) -> bool:
    """Whether the network computes the same with the group's channels, or heads, in another order.

    Of channels in parts it is the same other order within each. Those of a layer that owns some of them
    alone, as behind a concatenation, change places with each other. In training mode it is to give the same,
    too: a head that helps there may read channels by position.
    """
    return all(_alike(trial, group))


def _alike(trial: Trial, group: ChannelGroup) -> tuple[bool, bool]:
    """Whether it gives the same with the group's channels in another order: in evaluation, in training."""
    members, mixed = (*group.members, *group.free), _mixed(group)
    order = [part * group.columns + column for part in range(group.blocks) for column in mixed]
    try:
        permute(trial.model, members, order)
    except IndexError:  # torch-pruning took other channels for these, as behind a pixel shuffle
        return False, False
    plain = trial.same(trial.run())
    trained = plain and trial.trained_alike()
    permute(trial.model, members, np.argsort(order).tolist())
    return plain, trained


def _mixed(group: ChannelGroup) -> list[int]:
    """Another order of the columns, always the same one, in which each stands where the same layers own one.

    A drawn one: neighbours stay neighbours in a reversed order, which what reads channels in windows (a local
    response norm) would not notice.
    """
    drawn = np.random.default_rng(0)
    order = [*range(group.columns)]
    for places in _owned_alike(group):
        own: list[int] = drawn.permutation(places).tolist()
        for place, column in zip(places, own if own != places else own[::-1], strict=True):
            order[place] = column
    return order


def _owned_alike(group: ChannelGroup) -> list[list[int]]:
    """The columns, those together whose channels the same members have as often."""
    members = (*group.members, *group.free)
    counts = [Counter(member.positions) for member in members]
    found: dict[tuple[int, ...], list[int]] = {}
    for column in range(group.columns):
        own = group.at(column)
        key = tuple(count[channel] for count in counts for channel in own)
        found.setdefault(key, []).append(column)
    return [*found.values()]
