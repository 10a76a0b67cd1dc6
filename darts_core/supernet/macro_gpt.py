"""The language model, with its choices open (to search) or made (plain)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from darts_core.spaces.choices import ChoiceSpace
from darts_core.supernet.choice_maker import ChoiceMaker
from darts_core.supernet.choice_network import ChoiceNetwork, register_choice_network
from darts_core.supernet.transformer import GatedConvolution, TransformerBlock

__all__ = ["LanguageModel"]


@register_choice_network("gpt", description="a row of transformer blocks over token ids")
class LanguageModel(ChoiceNetwork):
    """Embedding, a row of causal transformer blocks, head over the vocabulary.

    Shapes: token ids [B, T] -> logits [B, T, V]; those at t depend on the tokens up to t only.

    The causal mask alone tells attention where a token stands (Haviv et al., "Transformer Language Models
    without Positional Encodings Still Learn Positional Information", arXiv:2203.16634); a gated
    convolution before the row tells it the order of neighbours. So texts of any length fit.

    Args:
        space: what may be chosen.
        channels: of the stream; a multiple of the most heads.
        num_classes: V, of the tokens that are predicted.
        in_channels: how many different tokens are read.
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
        self.embedding = nn.Embedding(in_channels, channels)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.neighbours = GatedConvolution(channels, kernel=3)

        def block(number: int) -> nn.Module:
            label = f"block{number}"
            mixers = {
                "attention": lambda: maker.heads(f"{label}.heads", channels, causal=True),
                "convolution": lambda: GatedConvolution(channels),
            }
            return TransformerBlock(maker, label, channels, mixers)

        self.blocks = maker.depth("depth", block)
        self.norm = nn.LayerNorm(channels)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits [B, T, V] of the token that follows each."""
        self.spread_drop()
        x_BTC = self.embedding(ids_BT)
        x_BTC = x_BTC + self.neighbours(x_BTC)
        logits: Tensor = self.head(self.norm(self.blocks(x_BTC)))
        return logits
