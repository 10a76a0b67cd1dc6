"""Pruning to a latency budget: groups, importance, measured cost, plan, apply, fine-tune."""

from darts_core.prune.groups import ChannelGroup, find_groups, remove_channels
from darts_core.prune.importance import IMPORTANCES, channel_importance
from darts_core.prune.prune import PruneResult, prune_to_budget

__all__ = [
    "IMPORTANCES",
    "ChannelGroup",
    "PruneResult",
    "channel_importance",
    "find_groups",
    "prune_to_budget",
    "remove_channels",
]
