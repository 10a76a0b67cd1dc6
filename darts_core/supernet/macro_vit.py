"""The vision transformer, with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from darts_core.spaces.choices import ChoiceSpace
from darts_core.supernet.choice_maker import ChoiceMaker
from darts_core.supernet.choice_network import ChoiceNetwork, register_choice_network
from darts_core.supernet.transformer import GridAttention, GridConvolution, TransformerBlock

__all__ = ["VisionTransformer"]


@register_choice_network("vit", description="a row of transformer blocks over patches of an image")
class VisionTransformer(ChoiceNetwork):
    """Convolutional stem, a row of transformer blocks over a grid of places, mean, head.

    The stem's two 3x3 convolutions of stride 2 replace patches of 4x4 (Xiao et al., "Early Convolutions
    Help Transformers See Better", arXiv:2106.14881). Positions are told by a depthwise convolution (Chu
    et al., "Conditional Positional Encodings for Vision Transformers", arXiv:2102.10882), so images of
    any size fit.

    Args:
        space: what may be chosen.
        channels: of the stream; a multiple of the most heads.
        num_classes: size of the classifier.
        in_channels: channels of the images.
        made: choices by label; None leaves them open for `ModuleSupernet`.

    Raises:
        ConfigError: the heads cannot share the channels out.
    """

    def __init__(
        self,
        space: ChoiceSpace,
        *,
        channels: int,
        num_classes: int,
        in_channels: int,
        made: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        maker = ChoiceMaker(space, made)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, 2, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 2, 1),
        )
        self.positions = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

        def block(number: int) -> nn.Module:
            label = f"block{number}"
            mixers = {
                "attention": lambda: GridAttention(maker.heads(f"{label}.heads", channels)),
                "depthwise": lambda: GridConvolution(channels),
            }
            return TransformerBlock(maker, label, channels, mixers)

        self.blocks = maker.depth("depth", block)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        self.spread_drop()
        x_BCHW = self.stem(x_BCHW)
        x_BHWC = (x_BCHW + self.positions(x_BCHW)).permute(0, 2, 3, 1)
        features = self.norm(self.blocks(x_BHWC)).mean((1, 2))
        logits: Tensor = self.head(features)
        return logits
