"""Spaces of small transformers: depth of the row; mixing, heads and MLP ratio of every block.

Source: depth, heads and ratio as in AutoFormer (arXiv:2107.00651), where evolution chooses them; mixing of
tokens by attention or by convolution after MetaFormer (arXiv:2111.11418), which finds that either serves.
"""

from __future__ import annotations

from collections.abc import Sequence

from darts_core.spaces.base import register_space
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["GPT_TINY", "VIT_TINY", "transformer_space"]


def transformer_space(
    name: str,
    skeleton: str,
    *,
    mixers: Sequence[str],
    heads: Sequence[int],
    ratios: Sequence[float],
    depths: Sequence[int],
) -> ChoiceSpace:
    """The space with labels `depth`, `block1.mixer`, `block1.heads`, `block1.ratio`, `block2.mixer` ...

    Args:
        name: what saved architectures call it.
        skeleton: "vit" (images; mixers attention, depthwise) or "gpt" (tokens; attention, convolution).
        mixers: how tokens are mixed, per block.
        heads: of the attention, per block; a block without attention has the choice and no use for it.
        ratios: hidden channels of the MLP as multiples of the stream's, per block.
        depths: blocks, from 1.
    """
    choices: dict[str, Sequence[Option]] = {"depth": depths}
    for block in range(1, max(depths) + 1):
        choices[f"block{block}.mixer"] = mixers
        choices[f"block{block}.heads"] = heads
        choices[f"block{block}.ratio"] = ratios
    reads = "tokens" if skeleton == "gpt" else "image"
    return ChoiceSpace.of(name, choices, skeleton=skeleton, reads=reads)


VIT_TINY = register_space(
    "vit_tiny",
    transformer_space(
        "vit_tiny",
        "vit",
        mixers=("attention", "depthwise"),
        heads=(1, 2, 4),
        ratios=(1, 2, 4),
        depths=(2, 3, 4),
    ),
    description="small vision transformers: depth; attention or depthwise mixing, heads, MLP ratio a block",
)
GPT_TINY = register_space(
    "gpt_tiny",
    transformer_space(
        "gpt_tiny",
        "gpt",
        mixers=("attention", "convolution"),
        heads=(1, 2, 4),
        ratios=(1, 2, 4),
        depths=(2, 3, 4),
    ),
    description="small language models: depth; attention or gated convolution, heads, MLP ratio a block",
)
