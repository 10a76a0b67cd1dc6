"""Several processes at one search or training: their group, shared gradients, norms over all of them."""

from darts_core.distributed.group import (
    Group,
    current_group,
    first_goes_first,
    first_may_fail,
    join_group,
)

__all__ = ["Group", "current_group", "first_goes_first", "first_may_fail", "join_group"]
