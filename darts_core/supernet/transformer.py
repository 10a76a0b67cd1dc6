"""What transformers with choices are built of: the block, and the ways in which it mixes tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from darts_core.errors import ConfigError, unknown_name
from darts_core.supernet.choice_maker import ChoiceMaker
from darts_core.supernet.choice_network import ResidualPath

__all__ = ["GatedConvolution", "GridAttention", "GridConvolution", "TransformerBlock"]


class TransformerBlock(ResidualPath):
    """Tokens are mixed, then every token passes an MLP; norms stand before both (pre-norm).

    Shapes: [B, ..., C] -> the same.

    Args:
        maker: of the choices.
        label: the block's; its choices are `label.mixer`, `label.ratio` and what the mixers add.
        channels: C.
        mixers: how to make each mixer, by the name of its option.

    Raises:
        ConfigError: the space names a mixer that this network does not have.

    Source: Xiong et al., "On Layer Normalization in the Transformer Architecture", arXiv:2002.04745.
    """

    def __init__(
        self,
        maker: ChoiceMaker,
        label: str,
        channels: int,
        mixers: Mapping[str, Callable[[], nn.Module]],
    ) -> None:
        super().__init__()

        def mixer(name: str) -> nn.Module:
            if name not in mixers:
                raise ConfigError(unknown_name("mixer", str(name), mixers))
            return mixers[name]()

        hidden = maker.width(f"{label}.ratio", channels, dim=-1)
        self.mixer_norm = nn.LayerNorm(channels)
        self.mixer = maker.layer(f"{label}.mixer", mixer)
        self.mlp_norm = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden.channels),
            nn.GELU(),
            hidden.mask(),
            nn.Linear(hidden.channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        x = x + self.dropped(self.mixer(self.mixer_norm(x)))
        return x + self.dropped(self.mlp(self.mlp_norm(x)))


class GridAttention(nn.Module):
    """Self-attention among all places of a grid: [B, H, W, C] -> the same."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """The attended grid."""
        mixed: Tensor = self.attention(x_BHWC.flatten(1, 2))
        return mixed.unflatten(1, x_BHWC.shape[1:3])


class GridConvolution(nn.Module):
    """Places of a grid mixed with their neighbours, channel by channel, then the channels of each place.

    Shapes: [B, H, W, C] -> the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """The mixed grid."""
        mixed = self.depthwise(x_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        result: Tensor = self.output(F.gelu(mixed))
        return result


class GatedConvolution(nn.Module):
    """Tokens mixed with those just before them, channel by channel, and let through by a gate.

    Shapes: [B, T, C] -> the same. A token sees itself and the `kernel - 1` before it only.

    Source: Dauphin et al., "Language Modeling with Gated Convolutional Networks", arXiv:1612.08083,
    section 2, with depthwise convolutions.
    """

    def __init__(self, channels: int, kernel: int = 7) -> None:
        super().__init__()
        self.before = kernel - 1
        self.content = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, channels)
        self.depthwise = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """The mixed tokens."""
        past = F.pad(self.content(x_BTC).transpose(1, 2), (self.before, 0))
        mixed = self.depthwise(past).transpose(1, 2) * self.gate(x_BTC).sigmoid()
        result: Tensor = self.mix(mixed)
        return result
