"""Hand-designed networks over series and over tokens, to compare a searched one with.

Shapes: B batch, C channels, T positions, V tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from darts_core.supernet.attention import SelfAttention

__all__ = ["dscnn", "transformer"]

_BLOCKS = 4
_KERNEL = 9


class _Series(nn.Module):
    def __init__(self, features: nn.Module, channels: int, outputs: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(channels, outputs)

    def forward(self, x_BCT: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.features(x_BCT).mean(2))
        return result


def dscnn(outputs: int, in_channels: int = 1, width: int = 64) -> nn.Module:
    """A DS-CNN over time: a convolution, four depthwise separable ones of equal width, the mean.

    The published network reads spectrograms; here its convolutions go over time alone, and every one but
    the last halves the number of positions.

    Shapes: [B, C, T] -> [B, outputs].

    Args:
        outputs: numbers a sample.
        in_channels: C.
        width: channels of every layer.

    Source: Zhang et al., "Hello Edge: Keyword Spotting on Microcontrollers", arXiv:1711.07128, section 3.4.
    """

    def conv(
        c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        return [
            nn.Conv1d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm1d(c_out),
            nn.ReLU(inplace=True),
        ]

    layers = conv(in_channels, width, _KERNEL, 2)
    for index in range(_BLOCKS):
        stride = 1 if index == _BLOCKS - 1 else 2
        layers += conv(width, width, _KERNEL, stride, groups=width) + conv(width, width, 1)
    return _Series(nn.Sequential(*layers), width, outputs)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.mixer_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixer = SelfAttention(width, heads, causal=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.mixer(self.mixer_norm(x_BTC))
        result: Tensor = x_BTC + self.mlp(self.mlp_norm(x_BTC))
        return result


class _Transformer(nn.Module):
    def __init__(self, outputs: int, tokens: int, width: int) -> None:
        super().__init__()
        heads = next(count for count in (4, 2, 1) if width % count == 0)
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.blocks = nn.Sequential(*[_Block(width, heads) for _ in range(_BLOCKS)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTC = self.embedding(ids_BT)
        x_BTC = x_BTC + _positions(x_BTC.shape[1], x_BTC)
        logits: Tensor = self.head(self.norm(self.blocks(x_BTC)))
        return logits


def _positions(count: int, like_BTC: Tensor) -> Tensor:
    """Sines of geometric wavelengths [T, C], of a tenth: the size of the embedding."""
    width = like_BTC.shape[-1]
    place_T1 = torch.arange(count, device=like_BTC.device, dtype=like_BTC.dtype)[:, None]
    channel_C = torch.arange(width, device=like_BTC.device)
    rate_C = torch.exp((channel_C // 2) * (-2.0 * math.log(10_000.0) / width))
    return 0.1 * torch.sin(place_T1 * rate_C + (channel_C % 2) * (math.pi / 2))


def transformer(outputs: int, in_channels: int = 256, width: int = 64) -> nn.Module:
    """A plain causal transformer: sines as positions, four blocks of attention and an MLP, norms first.

    Shapes: token numbers [B, T] -> [B, T, outputs]; those at t depend on the tokens up to t only.

    Args:
        outputs: numbers a position.
        in_channels: V, how many different tokens are read.
        width: of the stream.

    Source: Vaswani et al., arXiv:1706.03762, sections 3.1 and 3.5; norms as in Xiong et al.,
    arXiv:2002.04745.
    """
    return _Transformer(outputs, in_channels, width)
