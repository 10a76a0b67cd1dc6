"""Hand-designed networks to compare a searched one with; of those for images the stem does not shrink it.

Shapes: x_BCHW in, logits [B, classes] out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from darts_core.errors import ConfigError, unknown_name
from darts_core.models.sequences import dscnn, transformer

__all__ = [
    "BASELINES",
    "baseline",
    "default_baseline",
    "is_baseline",
    "mobilenetv2",
    "reads",
    "resnet",
]


def _conv_bn(c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(c_out),
    )


class _Residual(nn.Module):
    """relu(body(x) + shortcut(x)); the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, body: nn.Module, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = c_in == c_out and stride == 1
        self.shortcut = nn.Identity() if same else _conv_bn(c_in, c_out, 1, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return functional.relu(self.body(x_BCHW) + self.shortcut(x_BCHW))


def _basic(c_in: int, width: int, stride: int) -> tuple[nn.Module, int]:
    body = nn.Sequential(
        _conv_bn(c_in, width, 3, stride), nn.ReLU(inplace=True), _conv_bn(width, width, 3)
    )
    return _Residual(body, c_in, width, stride), width


def _bottleneck(c_in: int, width: int, stride: int) -> tuple[nn.Module, int]:
    body = nn.Sequential(
        _conv_bn(c_in, width, 1),
        nn.ReLU(inplace=True),
        _conv_bn(width, width, 3, stride),
        nn.ReLU(inplace=True),
        _conv_bn(width, 4 * width, 1),
    )
    return _Residual(body, c_in, 4 * width, stride), 4 * width


# name -> (block, blocks a stage); a stage doubles the width and halves the size
_RESNETS: dict[str, tuple[Callable[[int, int, int], tuple[nn.Module, int]], Sequence[int]]] = {
    "resnet8": (_basic, (1, 1, 1)),
    "resnet14": (_basic, (2, 2, 2)),
    "resnet20": (_basic, (3, 3, 3)),
    "resnet18": (_basic, (2, 2, 2, 2)),
    "resnet34": (_basic, (3, 4, 6, 3)),
    "resnet50": (_bottleneck, (3, 4, 6, 3)),
}


_SHAPE = re.compile(r"[1-9][0-9]?x[1-9][0-9]{0,3}(-[1-9][0-9]?x[1-9][0-9]{0,3}){0,7}")


class _Network(nn.Module):
    def __init__(self, features: nn.Module, channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.classifier(self.features(x_BCHW).mean((2, 3)))


def resnet(name: str, num_classes: int, in_channels: int = 3, width: int = 64) -> nn.Module:
    """A residual network whose first stage has `width` channels.

    `resnet8/14/20` have three stages (made for small images: 8x8 ends at 2x2), `resnet18/34/50`
    four. `resnet18:1x16-2x24-1x64` has the blocks of ResNet-18 in another shape: blocks x width of each
    stage, whose widths are absolute; this is the notation of a depth and width search.

    Raises:
        ConfigError: unknown name, or a shape that cannot be read.

    Source: Deep Residual Learning (He et al. 2016), sections 4.1 and 4.2.
    """
    name, colon, shape = name.partition(":")
    if name not in _RESNETS:
        raise ConfigError(unknown_name("residual network", name, _RESNETS))
    block, depths = _RESNETS[name]
    stages = [(depth, width * 2**stage) for stage, depth in enumerate(depths)]
    if colon:
        stages = _stages(shape)
    layers: list[nn.Module] = [_conv_bn(in_channels, width, 3), nn.ReLU(inplace=True)]
    channels = width
    for stage, (depth, own) in enumerate(stages):
        for index in range(depth):
            stride = 2 if stage > 0 and index == 0 else 1
            module, channels = block(channels, own, stride)
            layers.append(module)
    return _start(_Network(nn.Sequential(*layers), channels, num_classes))


def _stages(shape: str) -> list[tuple[int, int]]:
    """(blocks, width) of each stage of a shape such as `1x16-2x32`."""
    if not _SHAPE.fullmatch(shape):
        raise ConfigError(
            f"The shape {shape!r} of a residual network must be blocks x width of 1 to 8 stages with "
            "hyphens between, such as 1x16-2x32-1x64."
        )
    return [(int(depth), int(own)) for depth, own in (s.split("x") for s in shape.split("-"))]


def is_baseline(name: str | None) -> bool:
    """Whether `baseline` knows the name, a residual network's shape behind a colon included.

    `resnet18:net` is the function of a module of the user's own.
    """
    if name is None or name in BASELINES:
        return name is not None
    family, _, shape = name.partition(":")
    return family in _RESNETS and not shape.isidentifier()


# expansion, channels, blocks, stride of each stage
_MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class _Inverted(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = c_in * expand
        steps: list[nn.Module] = []
        if expand != 1:
            steps += [_conv_bn(c_in, hidden, 1), nn.ReLU6(inplace=True)]
        steps += [_conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU6(inplace=True)]
        self.body = nn.Sequential(*steps, _conv_bn(hidden, c_out, 1))
        self.skip = stride == 1 and c_in == c_out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.body(x_BCHW)
        return x_BCHW + y_BCHW if self.skip else y_BCHW


def mobilenetv2(num_classes: int, in_channels: int = 3, width: int = 32) -> nn.Module:
    """MobileNetV2 for small images: strides of the stem and of the second stage are 1.

    Args:
        num_classes: outputs.
        in_channels: of the images.
        width: channels of the stem; 32 is the published network, all others scale with it.

    Source: MobileNetV2 (Sandler et al. 2018), Table 2.
    """

    def scaled(channels: int) -> int:
        return max(4, round(channels * width / 32 / 4) * 4)

    channels = scaled(32)
    layers: list[nn.Module] = [_conv_bn(in_channels, channels, 3), nn.ReLU6(inplace=True)]
    for expand, c_out, count, stride in _MOBILE_STAGES:
        for index in range(count):
            step = stride if index == 0 else 1
            layers.append(_Inverted(channels, scaled(c_out), step, expand))
            channels = scaled(c_out)
    last = scaled(1280)
    layers += [_conv_bn(channels, last, 1), nn.ReLU6(inplace=True)]
    return _start(_Network(nn.Sequential(*layers), last, num_classes))


def _start(model: nn.Module) -> nn.Module:
    """He initialisation of the convolutions (PyTorch's default is smaller than ReLU nets want)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            with torch.no_grad():
                module.bias.zero_()
    return model


# those that read no images: name -> (what they read, how they are made, published width)
_SEQUENCES: dict[str, tuple[str, Callable[[int, int, int], nn.Module], int]] = {
    "dscnn": ("series", dscnn, 64),
    "transformer": ("tokens", transformer, 64),
}
BASELINES = (*_RESNETS, "mobilenetv2", *_SEQUENCES)


def reads(name: str) -> str:
    """What the hand-designed network reads: image, series or tokens."""
    return _SEQUENCES[name][0] if name in _SEQUENCES else "image"


def default_baseline(kind: str) -> str:
    """The hand-designed network that a searched one is compared with, by what both read."""
    return next((name for name in _SEQUENCES if reads(name) == kind), "resnet8")


def baseline(
    name: str, num_classes: int, in_channels: int = 3, width: int | None = None
) -> nn.Module:
    """The hand-designed network called `name` (see `BASELINES`); `width` None is the published one.

    Args:
        name: see `reads` for what it takes.
        num_classes: outputs a sample, or a position of tokens.
        in_channels: of images and series; how many different tokens.
        width: channels of its first layer.

    Raises:
        ConfigError: unknown name or a width below 1.
    """
    if not is_baseline(name):
        raise ConfigError(unknown_name("baseline", name, BASELINES))
    if width is not None and width < 1:
        raise ConfigError(f"The width {width} of {name} must be at least 1.")
    if name in _SEQUENCES:
        _, make, published = _SEQUENCES[name]
        return make(num_classes, in_channels, width or published)
    if name == "mobilenetv2":
        return mobilenetv2(num_classes, in_channels, width or 32)
    published = 16 if name.startswith(("resnet8", "resnet14", "resnet20")) else 64
    return resnet(name, num_classes, in_channels, width or published)
