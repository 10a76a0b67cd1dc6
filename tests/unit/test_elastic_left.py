"""Layers whose channels stay: each says its own reason."""

import pytest
import torch
from torch import nn

from darts_core.elastic import elastic

LAST = "its outputs are the network's"
UNREAD = "it does not run as a layer, or under no_grad()"


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 32), nn.Linear(32, 32)
        self.gru, self.last = nn.GRU(32, 16, batch_first=True), nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.gru(self.second(self.first(x).relu()))[0][:, -1])


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.attention = (
            nn.Linear(8, 32),
            nn.MultiheadAttention(32, 4, batch_first=True),
        )
        self.up, self.down, self.last = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 5)
        self.forgotten = nn.Linear(3, 3)

    def forward(self, x):
        x = self.first(x)
        x = x + self.attention(x, x, x)[0]
        return self.last((x + self.down(self.up(x).relu())).mean(1))


class Dense(nn.Module):
    """Maps in, maps out; a buffer scales the inner ones."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 4, 1)
        self.register_buffer("gain", torch.ones(1, 32, 1, 1))

    def forward(self, x):
        return self.last((self.second(self.first(x).relu()) * self.gain).relu())


class Helped(nn.Module):
    """A head that runs in training alone reads the first maps."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.helper, self.last = nn.Linear(32 * 64, 4), nn.Linear(32, 4)

    def forward(self, x):
        x = self.first(x).relu()
        output = self.last(self.second(x).relu().mean((2, 3)))
        return (output, self.helper(x.flatten(1))) if self.training else output


class Frozen(nn.Module):
    """Its first layers run under no_grad, one of them as a function of its weights; one does not run."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.forgotten = nn.Conv2d(3, 32, 1)
        self.inner, self.last = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        with torch.no_grad():
            x = torch.conv2d(self.first(x).relu(), self.second.weight).mean((2, 3))
        return self.last(self.inner(x).relu())


class Added(nn.Module):
    """What a skip adds to the outputs is the network's output as well."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.skip = nn.Linear(8, 32), nn.Linear(32, 4), nn.Linear(8, 4)

    def forward(self, x):
        x = x.flatten(1)
        return self.last(self.first(x).relu()) + self.skip(x)


@pytest.mark.parametrize(
    ("kind", "shape", "heads", "reasons"),
    [
        (Recurrent, (6, 8), True, {"second": "a layer that is not cut", "last": LAST}),
        (
            Attentive,
            (6, 8),
            False,
            {
                "attention": "heads=False",
                "attention.out_proj": "a part of torch's own attention",
                "first": "what reads its channels takes no fewer",
                "down": "what reads its channels takes no fewer",
                "last": LAST,
                "forgotten": UNREAD,
            },
        ),
        (Dense, (3, 8, 8), True, {"second": "the network does not run", "last": LAST}),
        (
            Helped,
            (3, 8, 8),
            True,
            {"first": "what runs in training alone may read them", "helper": UNREAD, "last": LAST},
        ),
        (
            Frozen,
            (3, 8, 8),
            True,
            {"first": UNREAD, "second": UNREAD, "forgotten": UNREAD, "last": LAST},
        ),
        (Added, (1, 8), True, {"last": LAST, "skip": LAST}),
    ],
)
def test_a_layer_that_stays_says_its_own_reason(kind, shape, heads, reasons):
    torch.manual_seed(0)
    net = elastic(kind(), torch.randn(2, *shape), heads=heads)
    assert net.left.keys() == reasons.keys()
    for name, words in reasons.items():
        assert words in net.left[name], name
