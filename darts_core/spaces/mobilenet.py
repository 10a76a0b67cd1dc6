"""A MobileNet-like macro space: kernel and expansion of every block, width and depth of every stage.

Source: the block of MobileNetV2 (arXiv:1801.04381); kernel, expansion, width and depth searched
together as in FBNetV2 (arXiv:2004.05565, Table 1), at sizes for small images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["MOBILENET", "MobileNetSpace"]


@dataclass(frozen=True)
class MobileNetSpace(ChoiceSpace):
    """Stages of inverted residual blocks.

    Attributes:
        strides: stride of the first block of every stage; as many entries as stages.
        kernels: sides of the depthwise convolution, per block.
        expansions: hidden channels as multiples of the stage's largest width, per block.
        widths: channels as ratios of the stage's largest width, per stage.
        depths: blocks, per stage.
    """

    strides: tuple[int, ...] = ()
    kernels: tuple[int, ...] = ()
    expansions: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()
    depths: tuple[int, ...] = ()

    @classmethod
    def make(
        cls,
        name: str,
        *,
        strides: Sequence[int],
        kernels: Sequence[int],
        expansions: Sequence[int],
        widths: Sequence[float],
        depths: Sequence[int],
    ) -> MobileNetSpace:
        """The space with labels `stage1.width`, `stage1.depth`, `stage1.block1.kernel`, ..."""
        choices: dict[str, Sequence[Option]] = {}
        for stage in range(1, len(strides) + 1):
            choices[f"stage{stage}.width"] = widths
            choices[f"stage{stage}.depth"] = depths
            for block in range(1, max(depths) + 1):
                choices[f"stage{stage}.block{block}.kernel"] = kernels
                choices[f"stage{stage}.block{block}.expansion"] = expansions
        return cls.of(
            name,
            choices,
            skeleton="mobilenet",
            strides=tuple(strides),
            kernels=tuple(kernels),
            expansions=tuple(expansions),
            widths=tuple(widths),
            depths=tuple(depths),
        )


MOBILENET = register_space(
    "mobilenet",
    MobileNetSpace.make(
        "mobilenet",
        strides=(1, 2, 2),
        kernels=(3, 5, 7),
        expansions=(3, 6),
        widths=(0.5, 0.75, 1.0),
        depths=(1, 2, 3),
    ),
    description="MobileNet-like: kernel and expansion a block, width and depth a stage",
)
