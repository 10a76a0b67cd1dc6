"""What a training tells of a network of somebody's own that learns otherwise than she thinks.

Shapes: output [B, classes], [B, labels] or [B, T, tokens].
"""

from __future__ import annotations

import logging

from torch import Tensor

from darts_core.tasks import Classification, MultiLabel, NextToken, Task

__all__ = ["tell_activation"]

log = logging.getLogger("darts_core")
# by so much shares of half precision may miss 1; of fewer numbers all may lie from 0 to 1 by chance
_OFF, _LEAST = 0.02, 64


def tell_activation(task: Task, output: Tensor) -> None:
    """A warning where outputs lie behind a softmax or a sigmoid, which the loss applies itself."""
    within = bool(((output >= 0) & (output <= 1)).all())
    if not within or not isinstance(task, Classification | MultiLabel | NextToken):
        return
    labels = isinstance(task, MultiLabel)
    if labels and output.numel() < _LEAST:
        return
    if not labels and not bool(((output.sum(-1) - 1).abs() < _OFF).all()):
        return
    log.warning(
        "the network's outputs lie from 0 to 1%s, as behind a %s, which the loss of task=%s applies itself: "
        "so it learns slowly, or nothing. Let its forward give what stands before",
        "" if labels else " and sum to 1", "sigmoid" if labels else "softmax", task.name,
    )  # fmt: skip
