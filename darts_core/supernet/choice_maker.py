"""One description of a network for both of its forms: choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from darts_core.errors import ConfigError
from darts_core.spaces.choices import ChoiceSpace
from darts_core.supernet.attention import SelfAttention
from darts_core.supernet.choices import DepthChoice, HeadChoice, LayerChoice, WidthChoice

__all__ = ["ChoiceMaker", "Width"]


@dataclass(frozen=True)
class Width:
    """A searched or chosen number of channels.

    Attributes:
        channels: to write layers with.
        mask: makes what stands behind each layer of this width, its norm and activation.
    """

    channels: int
    mask: Callable[[], nn.Module]


class ChoiceMaker:
    """Makes a choice module where the choice is open and the plain module where it is made.

    Args:
        space: of the choices; its options by label are what is chosen from.
        made: choices by label; None leaves all of them open.
    """

    def __init__(self, space: ChoiceSpace, made: Mapping[str, Any] | None = None) -> None:
        self.space, self.made = space, made

    def stages(self) -> int:
        """How many stages the space has: labels `stage1.depth`, `stage2.depth` ..."""
        labels = {label for label, _ in self.space.choices}
        count = 0
        while f"stage{count + 1}.depth" in labels:
            count += 1
        return count

    def width(self, label: str, full: int, *, dim: int = 1) -> Width:
        """Channels chosen as multiples of `full`, at least one.

        Args:
            label: its options are ratios.
            full: channels at the ratio 1.
            dim: where the channels stand, see `WidthChoice`.
        """
        ratios = self.space.options(label)
        widths = [max(1, round(float(ratio) * full)) for ratio in ratios]
        if self.made is not None:
            return Width(widths[ratios.index(self.made[label])], nn.Identity)
        return Width(max(widths), lambda: WidthChoice(widths, label, names=ratios, dim=dim))

    def layer(self, label: str, make: Callable[[Any], nn.Module]) -> nn.Module:
        """The layer that `make` makes of the chosen option, or the choice among all of them."""
        if self.made is not None:
            return make(self.made[label])
        return LayerChoice({option: make(option) for option in self.space.options(label)}, label)

    def depth(self, label: str, make: Callable[[int], nn.Module]) -> nn.Module:
        """A row of blocks, `make(1)` first, which always runs and may change the shape."""
        return nn.Sequential(make(1), self.later(label, make))

    def later(self, label: str, make: Callable[[int], nn.Module]) -> nn.Module:
        """Blocks 2, 3, ... of a row whose first block stands elsewhere and always runs."""
        if self.made is not None:
            return nn.Sequential(*[make(n) for n in range(2, int(self.made[label]) + 1)])
        depths = [int(depth) for depth in self.space.options(label)]
        if min(depths) < 1:
            raise ConfigError(
                f"The space {self.space.name!r} lets {label} be {min(depths)}; the first block of a row "
                "always runs, so give depths from 1."
            )
        return _LaterBlocks([make(n) for n in range(2, max(depths) + 1)], depths, label)

    def heads(self, label: str, channels: int, *, causal: bool = False) -> nn.Module:
        """Self-attention over tokens with the chosen number of heads, each as wide as with the most.

        Raises:
            ConfigError: the channels cannot be shared out among the most heads.
        """
        heads = [int(number) for number in self.space.options(label)]
        if channels % max(heads):
            raise ConfigError(
                f"The space {self.space.name!r} shares channels out among up to {max(heads)} heads; "
                f"{channels} is no multiple of that: set channels={_multiple(channels, max(heads))}."
            )
        own = channels // max(heads)
        if self.made is not None:
            chosen = int(self.made[label])
            return SelfAttention(channels, chosen, head_channels=own, causal=causal)
        return HeadChoice(channels, heads, head_channels=own, causal=causal, label=label)


def _multiple(number: int, of: int) -> int:
    return -(-number // of) * of


class _LaterBlocks(DepthChoice):
    """A depth choice whose options count a block that stands before it."""

    def __init__(self, blocks: Sequence[nn.Module], depths: Sequence[int], label: str) -> None:
        super().__init__(blocks, [depth - 1 for depth in depths], label)
        self.options = tuple(depths)

    def position(self, depth: int) -> int | None:
        return self.options.index(depth + 1) if depth + 1 in self.options else None

    def chosen(self, value: Any) -> nn.Module:
        return super().chosen(int(value) - 1)
