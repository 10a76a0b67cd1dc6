"""A space of small stacks of convolutions: what a person draws by hand, drawn by search.

Levels of one resolution each, with a pool between them; a level has one width and one or more
convolutions, dense or separable, and all but its first may have a shortcut. Source: ours; separable
convolutions as in MobileNet (arXiv:1704.04861), shortcuts as in ResNet (arXiv:1512.03385).
"""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["CONVNET", "CONVNET_DEEP", "convnet_space"]

KINDS = ("conv_3x3", "conv_5x5", "sep_3x3", "sep_5x5")
SHORTCUTS = ("none", "add")


def convnet_space(
    name: str,
    *,
    levels: Sequence[int],
    widths: Sequence[int],
    depths: Sequence[Sequence[int]],
    kinds: Sequence[str] = KINDS,
) -> ChoiceSpace:
    """The space with labels `levels`, `level1.width`, `level1.depth`, `level1.conv1`, ...

    Args:
        name: what saved architectures call it.
        levels: how many levels there may be; a pool stands before each but the first.
        widths: channels as multiples of the network's unit, per level.
        depths: convolutions, for each of the levels: 1, or several numbers from 1.
        kinds: `conv_3x3` and its like (dense), `sep_3x3` (depthwise, then pointwise), per convolution.
    """
    choices: dict[str, Sequence[Option]] = {"levels": levels}
    for level, own in enumerate(depths[: max(levels)], 1):
        choices[f"level{level}.width"] = widths
        if len(own) > 1:
            choices[f"level{level}.depth"] = own
        for number in range(1, max(own) + 1):
            choices[f"level{level}.conv{number}"] = kinds
            if number > 1:
                choices[f"level{level}.shortcut{number}"] = SHORTCUTS
    return ChoiceSpace.of(name, choices, skeleton="convnet")


CONVNET = register_space(
    "convnet",
    convnet_space("convnet", levels=(2, 3), widths=(1, 2, 3, 4), depths=((1,), (1, 2), (1, 2))),
    description="2 to 5 convolutions: dense or separable, 3x3 or 5x5, widths, pools, shortcuts",
)

# a pool more, for images that are still large after two: the same width costs a quarter behind each
CONVNET_DEEP = register_space(
    "convnet_deep",
    convnet_space(
        "convnet_deep", levels=(3, 4), widths=(1, 2, 3, 4, 6), depths=((1,), (1, 2), (1, 2), (1, 2))
    ),
    description="3 to 7 convolutions as in convnet, with up to three pools, for images of 16 pixels and more",
)
