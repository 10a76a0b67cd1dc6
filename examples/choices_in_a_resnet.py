"""Choices inside a ResNet of one's own: search kernel, widths and depth, then train on the plain model.

python examples/choices_in_a_resnet.py            # real 8x8 digits, under a minute on a CPU
"""

import argparse

import torch
from torch import nn

from darts_core.data import load_data
from darts_core.search import SearchConfig, search
from darts_core.strategies import FirstOrder
from darts_core.supernet import DepthChoice, LayerChoice, ModuleSupernet, WidthChoice, count


class Block(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = LayerChoice(
            {
                "3x3": nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
                "5x5": nn.Conv2d(channels, hidden, 5, padding=2, bias=False),
            }
        )
        self.norm1 = nn.BatchNorm2d(hidden)
        self.hidden = WidthChoice([hidden // 4, hidden // 2, hidden])
        self.conv2 = nn.Conv2d(hidden, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        # the trunk's width is one decision for all blocks, because they are added
        self.trunk = WidthChoice([channels // 2, channels], label="trunk")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.hidden(torch.relu(self.norm1(self.conv1(x))))
        return self.trunk(torch.relu(x + self.norm2(self.conv2(hidden))))


class ResNet(nn.Module):
    def __init__(self, classes: int, channels: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.trunk = WidthChoice([channels // 2, channels], label="trunk")
        self.blocks = DepthChoice([Block(channels, 2 * channels) for _ in range(blocks)])
        self.head = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.trunk(self.stem(x))).mean((2, 3)))


def main(epochs: int = 3, limit: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    data = load_data("digits", limit=limit).without_test()
    supernet = ModuleSupernet(ResNet(data.num_classes), input_shape=data.image_shape, name="resnet")
    config = SearchConfig(epochs=epochs, batch_size=32, alpha_learning_rate=0.02)
    found = search(supernet, FirstOrder(), data, config)
    print("found", dict(found.architecture.choices))
    plain = supernet.build(found.architecture)
    print("supernet", count(supernet.build(largest(supernet)), data.image_shape), "at its largest")
    print("plain   ", count(plain, data.image_shape))
    print(plain)
    return plain


def largest(supernet: ModuleSupernet):
    from darts_core import Architecture

    picked = tuple((label, options[-1]) for label, options in supernet.space.choices)
    return Architecture(supernet.space.name, choices=picked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.epochs)
