"""The small supernet of the strategies' tests: double precision, two channels, one input channel."""

import torch

from darts_core.spaces import get_space
from darts_core.strategies import SearchSettings
from darts_core.supernet import Supernet

SETTINGS = SearchSettings(grad_clip=0.0, weight_decay=0.0, momentum=0.0, learning_rate=0.1)


def supernet(space="nasbench201", layers=1, ops=None, **sizes):
    torch.manual_seed(2)
    net = Supernet(
        get_space(space, ops),
        channels=2,
        layers=layers,
        num_classes=3,
        **{"in_channels": 1, **sizes},
    ).double()
    net.generator = torch.Generator().manual_seed(9)
    return net


def batch(seed=0, size=6):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 1, 6, 6, dtype=torch.float64, generator=generator)
    return images, torch.randint(3, (size,), generator=generator)


def ready(strategy, net, settings=SETTINGS):
    strategy.setup(net, settings)
    return strategy
