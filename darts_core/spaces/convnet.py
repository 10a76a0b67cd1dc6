"""A space of small stacks of convolutions: what a person draws by hand, drawn by search.

Levels of one resolution each, with a pool between them; a level has one width and one or more
convolutions, dense or separable, and all but its first may have a shortcut. Source: ours; separable
convolutions as in MobileNet (arXiv:1704.04861), shortcuts as in ResNet (arXiv:1512.03385).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from darts_core.errors import ConfigError
from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["CONVNET", "CONVNET_DEEP", "convnet_space"]

KINDS = ("conv_3x3", "conv_5x5", "sep_3x3", "sep_5x5")
SHORTCUTS = ("none", "add")
# what a convolution is where there is nothing to choose
PLAIN = "conv_3x3"


def convnet_space(
    name: str,
    *,
    levels: Sequence[int],
    widths: Sequence[int] | Sequence[Sequence[int]],
    depths: Sequence[Sequence[int]],
    kinds: Sequence[str] = KINDS,
    first_kinds: Sequence[str] | None = None,
) -> ChoiceSpace:
    """The space with labels `levels`, `level1.width`, `level1.depth`, `level1.conv1`, ...

    Args:
        name: what saved architectures call it.
        levels: how many levels there may be; a pool stands before each but the first.
        widths: channels as multiples of the network's unit, of every level or, as lists, of each; levels that
            may be the last have one largest width, as they share the classifier.
        depths: convolutions, for each of the levels: one or several numbers from 1.
        kinds: `conv_3x3` and its like (dense), `sep_3x3` (depthwise, then pointwise), per convolution; where
            `conv_3x3` is all there is, there is no label.
        first_kinds: of the first level, where a separable convolution of a grey image is one filter only;
            by default `kinds`.

    Raises:
        ConfigError: there is no level or one below 1, levels that may be the last have different largest
            widths, or a level has no widths or no depths.
    """
    if not levels or min(levels) < 1 or not widths:
        raise ConfigError(f"Give levels from 1 and widths, not {list(levels)} and {list(widths)}.")
    choices: dict[str, Sequence[Option]] = {"levels": levels}
    nested = isinstance(widths[0], Sequence)
    each = cast("list[Sequence[int]]", list(widths) if nested else [widths] * max(levels))
    missing = [name for name, of in (("widths", each), ("depths", depths)) if len(of) < max(levels)]
    if missing:
        raise ConfigError(f"There may be {max(levels)} levels; {' and '.join(missing)} name fewer.")
    if len({max(each[number - 1]) for number in levels}) > 1:
        raise ConfigError(f"Levels {list(levels)} may be the last: give them one largest width.")
    for level, own in enumerate(depths[: max(levels)], 1):
        choices[f"level{level}.width"] = each[level - 1]
        if tuple(own) != (1,):
            choices[f"level{level}.depth"] = own
        own_kinds = (first_kinds or kinds) if level == 1 else kinds
        for number in range(1, max(own, default=0) + 1):
            if tuple(own_kinds) != (PLAIN,):
                choices[f"level{level}.conv{number}"] = own_kinds
            if number > 1:
                choices[f"level{level}.shortcut{number}"] = SHORTCUTS
    return ChoiceSpace.of(name, choices, skeleton="convnet")


CONVNET = register_space(
    "convnet",
    convnet_space("convnet", levels=(2, 3), widths=(1, 2, 3, 4), depths=((1,), (1, 2), (1, 2))),
    description="2 to 5 convolutions: dense or separable, 3x3 or 5x5, widths, pools, shortcuts",
)

# for images that are still large after two pools: a third one, and widths that grow as planes shrink
CONVNET_DEEP = register_space(
    "convnet_deep",
    convnet_space(
        "convnet_deep",
        levels=(3, 4),
        widths=((1, 2), (1, 2, 3, 4), (2, 3, 4, 6), (2, 3, 4, 6)),
        depths=((1,), (1, 2), (1, 2), (1, 2)),
        # a separable convolution is quick once exported, but takes long to train on a CPU
        kinds=(PLAIN,),
        first_kinds=("conv_3x3", "conv_5x5"),
    ),
    description="3 to 7 dense convolutions, up to three pools, growing widths; for larger images",
)
