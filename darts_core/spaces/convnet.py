"""A space of small stacks of convolutions: what a person draws by hand, drawn by search.

Levels of one resolution each, with a pool between them; a level has one width and one or two
convolutions, dense or separable, and its second one may have a shortcut. Source: ours; separable
convolutions as in MobileNet (arXiv:1704.04861), shortcuts as in ResNet (arXiv:1512.03385).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["CONVNET", "ConvNetSpace"]

KINDS = ("conv_3x3", "conv_5x5", "sep_3x3", "sep_5x5")
SHORTCUTS = ("none", "add")


@dataclass(frozen=True)
class ConvNetSpace(ChoiceSpace):
    """A stack of convolutions with pools between its levels.

    Attributes:
        levels: how many levels there may be; a pool stands before each but the first.
        widths: channels as multiples of the network's unit, per level.
        depths: convolutions, for each of the levels.
        kinds: of every convolution.
    """

    levels: tuple[int, ...] = ()
    widths: tuple[int, ...] = ()
    depths: tuple[tuple[int, ...], ...] = ()
    kinds: tuple[str, ...] = ()

    @classmethod
    def make(
        cls,
        name: str,
        *,
        levels: Sequence[int],
        widths: Sequence[int],
        depths: Sequence[Sequence[int]],
        kinds: Sequence[str],
    ) -> ConvNetSpace:
        """The space with labels `levels`, `level1.width`, `level1.conv1`, `level2.depth`, ..."""
        choices: list[tuple[str, tuple[Option, ...]]] = [("levels", tuple(levels))]
        for level, own in enumerate(depths[: max(levels)], 1):
            choices.append((f"level{level}.width", tuple(widths)))
            choices.append((f"level{level}.conv1", tuple(kinds)))
            if max(own) > 1:
                choices.append((f"level{level}.depth", tuple(own)))
            for conv in range(2, max(own) + 1):
                choices.append((f"level{level}.conv{conv}", tuple(kinds)))
                choices.append((f"level{level}.shortcut{conv}", SHORTCUTS))
        return cls(
            name=name,
            ops=(),
            cell_kinds=tuple(label for label, _ in choices),
            inputs=0,
            nodes=0,
            skeleton="convnet",
            choices=tuple(choices),
            levels=tuple(levels),
            widths=tuple(widths),
            depths=tuple(tuple(own) for own in depths),
            kinds=tuple(kinds),
        )


CONVNET = register_space(
    "convnet",
    ConvNetSpace.make(
        "convnet",
        levels=(2, 3),
        widths=(1, 2, 3, 4),
        depths=((1,), (1, 2), (1, 2)),
        kinds=KINDS,
    ),
    description="2 to 5 convolutions: dense or separable, 3x3 or 5x5, widths, pools, shortcuts",
)
