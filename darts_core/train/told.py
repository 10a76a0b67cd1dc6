"""What a training tells of a network of somebody's own that learns otherwise than she thinks.

Shapes: output [B, classes], [B, labels], [B, numbers] or [B, T, tokens].
"""

from __future__ import annotations

import logging
from functools import lru_cache

from torch import Tensor

from darts_core.tasks import Classification, MultiLabel, NextToken, Regression, Task

__all__ = ["tell_activation"]

log = logging.getLogger("darts_core")
# by so much shares of half precision may miss 1; of fewer numbers all may be positive by chance
_OFF, _LEAST = 0.02, 64
# share of the samples from which on a label is common
_COMMON = 0.5
_KNOWN = (Classification.loss, MultiLabel.loss, NextToken.loss, Regression.loss)


def tell_activation(task: Task, output: Tensor, target: Tensor) -> None:
    """A warning where outputs lie behind an activation with which the task's loss cannot do much.

    Args:
        task: what is learned; one with a loss of its own may want any outputs.
        output: of a batch.
        target: of the same batch.
    """
    if type(task).loss not in _KNOWN or not bool((output >= 0).all()):
        return
    many = output.numel() >= _LEAST
    found = None
    if isinstance(task, Classification | NextToken):
        if bool(((output.sum(-1) - 1).abs() < _OFF).all()):
            found = "sum to 1, as behind a softmax, which its loss applies itself"
    elif isinstance(task, MultiLabel) and _rare(output, target) >= _LEAST:
        found = "are never below 0, as behind a sigmoid, which its loss applies itself, or a ReLU"
    # a network that has learned little gives one positive number for all, but never 0
    elif isinstance(task, Regression) and task.standardise and many and bool((output == 0).any()):
        found = "are never below 0, as behind a ReLU, and it learns numbers of mean 0"
    if found is not None:
        _say(task.name, found)


def _rare(output: Tensor, target: Tensor) -> int:
    """How many outputs are of labels that most samples lack: those of a common one are rightly above 0."""
    share = target.to(output.device).nanmean(0)
    return int((share < _COMMON).sum()) * len(output)


@lru_cache
def _say(task: str, found: str) -> None:
    """Once a process: all trials of a study train the same network."""
    log.warning(
        "task=%s: the network's outputs %s: it learns slowly, or nothing. Let its forward give what stands "
        "before",
        task, found,
    )  # fmt: skip
