"""What a trial knows of the network given to `autosearch.elastic`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LossOf", "Stage"]

LossOf = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass
class Stage:
    """Which of the three trials this one is, and what it has of the network.

    Attributes:
        model: what the script trains.
        kind: "whole", "elastic" or "point".
        input_shape: of one example.
        task: what the network is trained for, by name.
        family: of an elastic trial, from its first step on.
        tuned: of a point's trial, whether it is trained.
    """

    model: nn.Module
    kind: str
    input_shape: tuple[int, ...]
    task: str
    options: dict[str, Any] = field(default_factory=dict)
    family: Any = None
    tuned: bool = True
