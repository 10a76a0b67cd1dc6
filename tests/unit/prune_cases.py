"""Small networks, data and a clock without noise for the tests of pruning."""

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.latency import Timing
from darts_core.prune import cost as cost_module
from darts_core.prune.cost import LayerCosts
from darts_core.supernet import build, count
from darts_core.tasks import Classification

SHAPE = (3, 8, 8)
# what `save_model` keeps of `darts()`
META = {
    "architecture": Architecture.named("DARTS_V2").to_dict(),
    "build": {"channels": 4, "layers": 3, "num_classes": 3},
}


def count_costs(monkeypatch) -> None:
    """Single layers cost what they compute, so that no test depends on the machine's speed."""
    monkeypatch.setattr(
        LayerCosts, "_time", lambda self, key: cost_module._work(*cost_module._build(key))
    )


class Data:
    """Random images with learnable labels, in the form of a data bundle."""

    name, num_classes, class_names = "toy", 3, ("a", "b", "c")
    input_shape, num_outputs, in_channels, kind = SHAPE, 3, SHAPE[0], "image"
    image_shape, mean, std = SHAPE, (0.5,) * 3, (0.2,) * 3
    task = Classification(outputs=3, names=("a", "b", "c"))

    def __init__(self, count: int = 64) -> None:
        generator = torch.Generator().manual_seed(0)
        self.y = torch.randint(0, 3, (count,), generator=generator)
        self.x = torch.randn(count, *SHAPE, generator=generator) + self.y.view(-1, 1, 1, 1)

    def size(self, names) -> int:
        return len(self.y)

    def split(self, names):
        return self.y

    def steps(self, names, batch_size, *, drop_last=True) -> int:
        return len(self.y) // batch_size

    def batches(self, names, batch_size, **_):
        for start in range(0, len(self.y) - batch_size + 1, batch_size):
            yield self.x[start : start + batch_size], self.y[start : start + batch_size]


def darts(seed: int = 0, layers: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    model = build(Architecture.named("DARTS_V2"), channels=4, layers=layers, num_classes=3)
    return settled(model)


def settled(model: nn.Module) -> nn.Module:
    """With statistics, scales and shifts away from their start."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        model.train()(torch.randn(16, *SHAPE))
    return model.eval()


def by_macs(model: nn.Module) -> Timing:
    """A clock without noise: one millisecond per 10,000 multiply-adds."""
    ms = count(model, SHAPE).macs / 1e4
    return Timing(ms, ms, ms, 5, "a clock in the tests")
