"""What stands around the cells: stems, preprocessing, reduction blocks, heads, and the stacking rules.

Shared by the supernet and by plain networks, so that both have the same parameters outside the cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from darts_core.errors import ConfigError
from darts_core.ops.conv import ReluConvNorm

__all__ = [
    "AuxiliaryHead",
    "CellSpec",
    "Head",
    "ResidualReduction",
    "cifar_stem",
    "darts_specs",
    "imagenet_stems",
    "nasbench201_channels",
]


@dataclass(frozen=True)
class CellSpec:
    """Where a DARTS cell stands: its kind and its channels.

    Attributes:
        kind: "normal" or "reduce".
        channels_before_last: channels of the output of the cell before the last one.
        channels_last: channels of the output of the last cell.
        channels: channels of each state in this cell.
        reduces: whether the cell halves the resolution.
        last_reduced: whether the last cell did, so that the older input must be halved.
    """

    kind: str
    channels_before_last: int
    channels_last: int
    channels: int
    reduces: bool
    last_reduced: bool


def darts_specs(
    channels: int, layers: int, nodes: int, *, stem_channels: int, stem_reduces: bool
) -> Iterator[CellSpec]:
    """The cells of a DARTS network: width doubles at 1/3 and 2/3 of the depth (arXiv:1806.09055)."""
    before_last = last = stem_channels
    width, last_reduced = channels, stem_reduces
    for layer in range(layers):
        reduces = layer in (layers // 3, 2 * layers // 3)
        if reduces:
            width *= 2
        yield CellSpec(
            "reduce" if reduces else "normal", before_last, last, width, reduces, last_reduced
        )
        before_last, last, last_reduced = last, nodes * width, reduces


def nasbench201_channels(channels: int, cells_per_stage: int) -> list[tuple[str, int]]:
    """("cell", C) and ("reduction", C) in order: three stages with a reduction block between them."""
    stages: list[tuple[str, int]] = []
    for stage in range(3):
        if stage:
            stages.append(("reduction", channels * 2**stage))
        stages += [("cell", channels * 2**stage)] * cells_per_stage
    return stages


def cifar_stem(in_channels: int, channels: int) -> nn.Sequential:
    """3x3 convolution and batch norm at full resolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )


def imagenet_stems(in_channels: int, channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The two stems of the ImageNet form: resolution / 4, then / 8."""
    first = nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, 2, 1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, 2, 1, bias=False),
        nn.BatchNorm2d(channels),
    )
    second = nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, 2, 1, bias=False),
        nn.BatchNorm2d(channels),
    )
    return first, second


class ResidualReduction(nn.Module):
    """The block between NAS-Bench-201 stages: two 3x3 convolutions, the first of stride 2, and a shortcut.

    Shapes: [B, in_channels, H, W] -> [B, out_channels, ceil(H / 2), ceil(W / 2)].
    Source: NAS-Bench-201 (arXiv:2001.00326), section 2.1.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_a = ReluConvNorm(in_channels, out_channels, 3, 2, affine=True)
        self.conv_b = ReluConvNorm(out_channels, out_channels, 3, 1, affine=True)
        self.shortcut = nn.Sequential(
            # ceil_mode only matters for odd sizes, where the convolution rounds up too
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The halved feature map."""
        result: Tensor = self.shortcut(x_BCHW) + self.conv_b(self.conv_a(x_BCHW))
        return result


class Head(nn.Module):
    """Optional norm and relu, global average pool, linear classifier."""

    def __init__(self, channels: int, num_classes: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if norm else None
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes]."""
        if self.norm is not None:
            x_BCHW = F.relu(self.norm(x_BCHW))
        logits: Tensor = self.classifier(F.adaptive_avg_pool2d(x_BCHW, 1).flatten(1))
        return logits


class AuxiliaryHead(nn.Module):
    """The second classifier, at two thirds of the depth.

    At features of 8x8 and more on small images: 5x5 average pool of stride 3, 1x1 convolution to 128,
    2x2 convolution to 768, each with norm. The ImageNet form pools with stride 2 and has no second norm.
    Below 8x8 (small images only) a pooled linear layer takes its place.
    Source: DARTS (arXiv:1806.09055), its released code.
    """

    def __init__(
        self, channels: int, num_classes: int, *, feature_size: int, imagenet: bool
    ) -> None:
        super().__init__()
        if imagenet and feature_size < 7:
            raise ConfigError(
                f"The ImageNet auxiliary head needs features of 7x7 or more, not {feature_size}; use "
                "larger images or auxiliary=false."
            )
        pooled = not imagenet and feature_size < 8
        # what the pool and the 2x2 convolution leave at least one position of
        self.least_size = 1 if pooled else 7 if imagenet else 8
        if pooled:
            self.features = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1))
            self.classifier = nn.Linear(channels, num_classes)
            return
        layers: list[nn.Module] = [
            nn.ReLU(),
            nn.AvgPool2d(5, stride=2 if imagenet else 3, padding=0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
        ]
        if not imagenet:
            layers.append(nn.BatchNorm2d(768))
        # the pool is the identity at the paper's sizes, where one position is left
        self.features = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits [B, classes].

        Raises:
            ConfigError: the features are smaller than the head was made for.
        """
        if min(x_BCHW.shape[-2:]) < self.least_size:
            height, width = x_BCHW.shape[-2:]
            raise ConfigError(
                f"The auxiliary head needs features of {self.least_size}x{self.least_size} or more, "
                f"not {height}x{width}; give build the images' height as image_size=, or use "
                "auxiliary=False."
            )
        logits: Tensor = self.classifier(self.features(x_BCHW).flatten(1))
        return logits
