"""A residual macro space: width and depth of every stage.

Source: the blocks of He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385; width
and depth of the stages searched together as in TAS (arXiv:1905.09717).
"""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["RESNET", "resnet_space"]


def resnet_space(
    name: str, *, stages: int, widths: Sequence[float], depths: Sequence[int]
) -> ChoiceSpace:
    """The space with labels `stage1.width`, `stage1.depth`, `stage2.width` ...

    Args:
        name: what saved architectures call it.
        stages: the first keeps the image's size, each later one halves it.
        widths: channels as ratios of the stage's largest width.
        depths: blocks a stage, from 1.
    """
    choices: dict[str, Sequence[Option]] = {}
    for stage in range(1, stages + 1):
        choices[f"stage{stage}.width"] = widths
        choices[f"stage{stage}.depth"] = depths
    return ChoiceSpace.of(name, choices, skeleton="resnet")


RESNET = register_space(
    "resnet",
    resnet_space("resnet", stages=3, widths=(0.25, 0.5, 0.75, 1.0), depths=(1, 2, 3)),
    description="residual networks: width and depth a stage",
)
