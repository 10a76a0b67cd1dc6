"""The spaces S1 to S4 in which plain DARTS collapses (RobustDARTS, arXiv:1909.09656, section 3).

All have DARTS's cells. S2 offers skip and separable convolution, S3 adds `none`, S4 replaces skip by
noise; S1 offers on every edge the two operations that an earlier search had found best there.
"""

from __future__ import annotations

import dataclasses

from darts_core.spaces.base import SearchSpace, register_space
from darts_core.spaces.darts import DARTS

__all__ = ["S1", "S2", "S3", "S4"]

_SKIP, _SEP, _MAX, _AVG = "skip_connect", "sep_conv_3x3", "max_pool_3x3", "avg_pool_3x3"
_DIL3, _DIL5 = "dil_conv_3x3", "dil_conv_5x5"

# the two operations of every edge, node by node
_S1_NORMAL = (
    (_SKIP, _DIL3), (_SKIP, _DIL5),
    (_SKIP, _DIL5), (_SKIP, _SEP), (_SKIP, _DIL3),
    (_MAX, _SKIP), (_SKIP, _SEP), (_SKIP, _SEP), (_SKIP, _DIL3),
    (_SKIP, _SEP), (_MAX, _SKIP), (_SKIP, _DIL3), (_DIL3, _DIL5), (_DIL3, _DIL5),
)  # fmt: skip
_S1_REDUCE = (
    (_MAX, _AVG), (_MAX, _DIL3),
    (_MAX, _AVG), (_MAX, _AVG), (_SKIP, _DIL5),
    (_MAX, _AVG), (_MAX, _SEP), (_SKIP, _DIL3), (_SKIP, _DIL5),
    (_MAX, _AVG), (_MAX, _AVG), (_SKIP, _DIL5), (_SKIP, _DIL5), (_SKIP, _DIL5),
)  # fmt: skip


def _space(
    name: str,
    ops: tuple[str, ...],
    description: str,
    edge_ops: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (),
) -> SearchSpace:
    space = dataclasses.replace(DARTS, name=name, ops=ops, edge_ops=edge_ops)
    return register_space(name, space, description=description)


S1 = _space(
    "s1",
    (_MAX, _AVG, _SKIP, _SEP, _DIL3, _DIL5),
    "RobustDARTS S1: two operations an edge, chosen beforehand",
    (("normal", _S1_NORMAL), ("reduce", _S1_REDUCE)),
)
S2 = _space("s2", (_SKIP, _SEP), "RobustDARTS S2: skip or separable 3x3")
S3 = _space("s3", ("none", _SKIP, _SEP), "RobustDARTS S3: none, skip or separable 3x3")
S4 = _space("s4", ("noise", _SEP), "RobustDARTS S4: noise or separable 3x3")
