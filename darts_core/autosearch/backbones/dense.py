"""Densely connected backbones: every layer reads all earlier outputs of its stage.

The published service named these spaces (`dense_fc`, `dense_conv`) and their `start_channel`, but not
their grammar; the code here is ours: stages split by `-`, one digit 1..4 a layer, which adds
digit * start_channel features. Between two stages a transition halves the features (and, for images,
the size).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from darts_core.autosearch.backbones.dense_grammar import check_dense_code

__all__ = ["DenseConv", "DenseFC"]


class _DenseStage(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class _Dense(nn.Module):
    """The stages and transitions that both dense backbones share."""

    def __init__(self, code: str, first: nn.Module, start_channel: int) -> None:
        super().__init__()
        self.code = check_dense_code(code)
        parts: list[nn.Module] = [first]
        features = start_channel
        for stage, digits in enumerate(self.code.split("-")):
            if stage:
                parts.append(self._transition(features, features // 2))
                features //= 2
            layers = []
            for digit in digits:
                growth = int(digit) * start_channel
                layers.append(self._layer(features, growth))
                features += growth
            parts.append(_DenseStage(layers))
        self.body = nn.Sequential(*parts)
        self.out_channels = features

    def _layer(self, features: int, growth: int) -> nn.Module:
        raise TypeError("_Dense is a base class; use DenseConv or DenseFC.")

    def _transition(self, features_in: int, features_out: int) -> nn.Module:
        raise TypeError("_Dense is a base class; use DenseConv or DenseFC.")

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, out_channels] (DenseFC) or [B, out_channels, H', W'] (DenseConv)."""
        return self.body(x)


class DenseFC(_Dense):
    """Densely connected linear layers over flattened inputs with `in_features` values."""

    def __init__(self, code: str = "11-11", *, in_features: int, start_channel: int = 32) -> None:
        first = nn.Sequential(nn.Flatten(), nn.Linear(in_features, start_channel))
        super().__init__(code, first, start_channel)

    def _layer(self, features: int, growth: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, growth))

    def _transition(self, features_in: int, features_out: int) -> nn.Module:
        return nn.Linear(features_in, features_out)


class DenseConv(_Dense):
    """Densely connected 3x3 convolutions over images with `in_channels` channels."""

    def __init__(
        self, code: str = "11-11", *, in_channels: int = 3, start_channel: int = 16
    ) -> None:
        first = nn.Conv2d(in_channels, start_channel, 3, padding=1, bias=False)
        super().__init__(code, first, start_channel)

    def _layer(self, features: int, growth: int) -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(features),
            nn.ReLU(),
            nn.Conv2d(features, growth, 3, padding=1, bias=False),
        )

    def _transition(self, features_in: int, features_out: int) -> nn.Module:
        return nn.Sequential(
            nn.BatchNorm2d(features_in),
            nn.ReLU(),
            nn.Conv2d(features_in, features_out, 1, bias=False),
            # ceil_mode keeps a one-pixel image from vanishing
            nn.AvgPool2d(2, ceil_mode=True),
        )
