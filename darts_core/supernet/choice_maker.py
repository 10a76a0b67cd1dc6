"""A macro network is written once: with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from darts_core.supernet.choices import DepthChoice, LayerChoice, WidthChoice

__all__ = ["ChoiceMaker"]


class ChoiceMaker:
    """Makes a choice module where the choice is open and the plain module where it is made.

    Args:
        made: choices by label; None leaves them open.
    """

    def __init__(self, made: Mapping[str, Any] | None) -> None:
        self.made = made

    def width(
        self, label: str, widths: Sequence[int], names: Sequence[Any]
    ) -> tuple[int, Callable[[], nn.Module]]:
        """The channels to write layers with, and what stands behind each of them."""
        if self.made is None:
            return max(widths), lambda: WidthChoice(widths, label, names=names)
        return widths[list(names).index(self.made[label])], nn.Identity

    def layer(
        self, label: str, names: Sequence[Any], make: Callable[[Any], nn.Module]
    ) -> nn.Module:
        """One of several layers of the same shape."""
        if self.made is None:
            return LayerChoice({name: make(name) for name in names}, label)
        return make(self.made[label])

    def depth(
        self, label: str, depths: Sequence[int], make: Callable[[int], nn.Module]
    ) -> nn.Module:
        """Blocks 2, 3, ... of a stage; its first block always runs."""
        if self.made is None:
            blocks = [make(block) for block in range(2, max(depths) + 1)]
            return _LaterBlocks(blocks, depths, label)
        return nn.Sequential(*[make(block) for block in range(2, self.made[label] + 1)])


class _LaterBlocks(DepthChoice):
    """A depth choice whose options count a block that stands before it."""

    def __init__(self, blocks: Sequence[nn.Module], depths: Sequence[int], label: str) -> None:
        super().__init__(blocks, [depth - 1 for depth in depths], label)
        self.options = tuple(depths)

    def position(self, depth: int) -> int | None:
        return self.options.index(depth + 1) if depth + 1 in self.options else None

    def chosen(self, value: Any) -> nn.Module:
        return super().chosen(int(value) - 1)
