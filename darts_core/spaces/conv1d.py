"""A space for series [B, C, T]: kernel, dilation and form of every convolution, width and depth of a stage.

Source: residual blocks of depthwise-separable convolutions over time as in MatchboxNet (arXiv:2004.08531)
and of dilated dense ones as in Bai et al., "An Empirical Evaluation of Generic Convolutional and Recurrent
Networks for Sequence Modeling", arXiv:1803.01271.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["CONV1D", "CONV1D_FRAMES", "FORMS", "Conv1dSpace"]

# the dense form stands first: its convolution depends on every choice that the separable one depends on
FORMS = ("dense", "separable")


@dataclass(frozen=True)
class Conv1dSpace(ChoiceSpace):
    """Stages of residual blocks over time.

    Attributes:
        strides: of the stem, then of the first block of every stage.
    """

    strides: tuple[int, ...] = ()

    @classmethod
    def make(
        cls,
        name: str,
        *,
        strides: Sequence[int],
        kernels: Sequence[int],
        dilations: Sequence[int],
        widths: Sequence[float],
        depths: Sequence[int],
        forms: Sequence[str] = FORMS,
    ) -> Conv1dSpace:
        """The space with labels `stage1.width`, `stage1.depth`, `stage1.block1.form`, `.kernel`, `.dilation`.

        Args:
            name: what saved architectures call it.
            strides: of the stem and of each stage: one more than stages.
            kernels: lengths of the convolution, per block; odd.
            dilations: steps between what it reads, per block.
            widths: channels as ratios of the stage's largest width.
            depths: blocks a stage, from 1.
            forms: dense or separable (depthwise) before a 1x1 convolution, per block.
        """
        choices: dict[str, Sequence[Option]] = {}
        for stage in range(1, len(strides)):
            choices[f"stage{stage}.width"] = widths
            choices[f"stage{stage}.depth"] = depths
            for block in range(1, max(depths) + 1):
                choices[f"stage{stage}.block{block}.form"] = forms
                choices[f"stage{stage}.block{block}.kernel"] = kernels
                choices[f"stage{stage}.block{block}.dilation"] = dilations
        return cls.of(name, choices, skeleton="conv1d", reads="series", strides=tuple(strides))


CONV1D = register_space(
    "conv1d",
    Conv1dSpace.make(
        "conv1d",
        strides=(2, 2, 4, 4),
        kernels=(3, 5, 9),
        dilations=(1, 2),
        widths=(0.5, 0.75, 1.0),
        depths=(1, 2),
    ),
    description="series: form, kernel and dilation a block, width and depth a stage",
)

# A thousand samples of a sound bear strides of 64 in all; a hundred frames of features do not: two
# positions would be left of them. The widths reach down, so that stages of one width can be found.
CONV1D_FRAMES = register_space(
    "conv1d_frames",
    Conv1dSpace.make(
        "conv1d_frames",
        strides=(2, 2, 2, 2, 1),
        kernels=(3, 5, 9),
        dilations=(1, 2),
        widths=(0.25, 0.5, 0.75, 1.0),
        depths=(1, 2),
    ),
    description="about 100 frames of features (log-mel, sensors): conv1d with gentler strides, four stages",
)
