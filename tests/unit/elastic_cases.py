"""Small networks for the tests of elastic networks, and a plain foreign one."""

import functools

import torch
from prune_cases import Data
from torch import nn

from darts_core.elastic import elastic
from darts_core.models.baselines import baseline
from darts_core.supernet.attention import SelfAttention
from darts_core.tasks import Classification


def drawn(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normed(norm):
    """A network of one norm behind what may vary, which has met a batch."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3), norm(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    model(drawn(8, 3, 8, 8))
    return model


class Fused(nn.Module):
    """Attention with one layer for queries, keys and values, and a number of heads."""

    def __init__(self, channels, heads):
        super().__init__()
        self.num_heads, self.head_dim = heads, channels // heads
        self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.proj(y.reshape(b, t, self.num_heads * self.head_dim))


class Encoder(nn.Module):
    def __init__(self, channels, attention):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(channels), attention
        self.norm2 = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 24), nn.Linear(24, channels)

    def forward(self, x_BTC):
        x_BTC = x_BTC + self.attention(self.norm1(x_BTC))
        return x_BTC + self.down(nn.functional.gelu(self.up(self.norm2(x_BTC))))


class Vit(nn.Module):
    """Patches, positions as a free parameter, blocks, a head."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 4, 16))
        own = [SelfAttention(16, 4), Fused(16, 4), SelfAttention(16, 2)]
        self.blocks = nn.ModuleList(Encoder(16, attention) for attention in own)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x_BTC = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return self.head(self.norm(x_BTC).mean(1))


class Foreign(nn.Module):
    """A network as people write them: a concatenation, a flattening, a shuffle by position."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 12, 1)
        self.norm = nn.BatchNorm2d(20)
        self.mixed = nn.Conv2d(20, 16, 3, 2, 1)
        self.act = nn.PReLU(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.fixed = nn.Conv2d(16, 16, 1)
        self.hidden, self.out = nn.Linear(8 * 4 * 8, 32), nn.Linear(32, 5)

    def forward(self, x):
        y = torch.cat([self.left(x), self.right(x)], 1).relu()
        y = self.depthwise(self.act(self.mixed(self.norm(y))))
        y = nn.functional.pixel_shuffle(self.fixed(y), 2)  # shares out channels by position
        y = nn.functional.avg_pool2d(y, (2, 1)).repeat(1, 2, 1, 1)
        return self.out(self.hidden(y.flatten(1)).relu())


def resnet14():
    return baseline("resnet14", 5, 3, 8)


def resnet50():
    return baseline("resnet50:2x4-2x8", 5, 3, 4)


def mobilenetv2():
    return baseline("mobilenetv2", 5, 3, 8)


def vit():
    return Vit()


def foreign():
    return Foreign()


NETWORKS = {make.__name__: make for make in (resnet14, resnet50, mobilenetv2, vit, foreign)}
SHAPE = (3, 8, 8)


def settled(name, seed=0):
    """The network in double precision, statistics, scales and shifts away from their start."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().double()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        model.train()(torch.randn(16, *SHAPE).double())
    return model.eval()


@functools.cache
def made(name, dtype=torch.float64):
    """One for all tests; who changes it takes a copy."""
    return elastic(settled(name).to(dtype), torch.randn(2, *SHAPE, dtype=dtype))


class Images(Data):
    """The pruning tests' data with five classes."""

    num_classes, input_shape = 5, SHAPE
    task = Classification(outputs=5)

    def batches(self, names, batch_size, **_):
        yield from super().batches(names, min(batch_size, len(self.y)))
