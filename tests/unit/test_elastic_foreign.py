"""Networks and loops with ways of their own: what only training shows, and what is given in a wrong form."""

import pytest
import torch
from elastic_cases import drawn
from torch import nn

from darts_core.elastic import elastic

SHAPE = (3, 8, 8)


class Net(nn.Module):
    def __init__(self, drop=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.drop, self.head = nn.BatchNorm2d(16), drop(), nn.Linear(16, 5)

    def features(self, x):
        return self.norm(self.b(self.a(x).relu())).relu()

    def forward(self, x):
        return self.head(self.drop(self.features(x).mean((2, 3))))


class Helped(Net):
    """A head that helps in training reads the first channels."""

    def __init__(self, drop=nn.Identity):
        super().__init__(drop)
        self.aux = nn.Linear(4, 5)

    def forward(self, x):
        y = self.features(x)
        out = self.head(self.drop(y.mean((2, 3))))
        return {"out": out, "aux": self.aux(y[:, :4].mean((2, 3)))} if self.training else out


class Smooth(Net):
    """A penalty on neighbouring channels, which a loss reads beside the outputs."""

    def forward(self, x):
        y = self.features(x)
        self.penalty = (y[:, 1:] - y[:, :-1]).abs().mean() if self.training else 0.0
        return self.head(y.mean((2, 3)))


class Random(Net):
    """Whatever draws in training is no reading by position."""

    def forward(self, x):
        y = self.features(x)
        y = y + 0.1 * torch.rand_like(y) if self.training else y
        return self.head(self.drop(y.mean((2, 3))))


@pytest.mark.parametrize("kind", [Helped, Smooth])
@pytest.mark.parametrize("drop", [nn.Identity, nn.Dropout])
def test_channels_that_are_read_by_position_in_training_alone_stay(kind, drop):
    model, x = kind(drop).double(), drawn(4, *SHAPE, dtype=torch.float64)
    wanted, penalty = _trained(model, x)
    net = elastic(model.eval(), x)
    assert [variable.name for variable in net.variables] == ["a"]
    assert "fixed places" in net.left["b"]
    found, own = _trained(model, x)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-10)
    assert own == pytest.approx(penalty, abs=1e-10)


@pytest.mark.parametrize("kind", [Net, Random])
def test_random_numbers_in_training_leave_all_channels_free(kind):
    net = elastic(kind(nn.Dropout).eval(), drawn(4, *SHAPE))
    assert {variable.name for variable in net.variables} == {"a", "b"}


def _trained(model, x):
    """What the network gives in training without dropout: its outputs, and its penalty."""
    model.train()
    if isinstance(model.drop, nn.Dropout):
        model.drop.eval()
    output = model(x)
    parts = [*output.values()] if isinstance(output, dict) else [output]
    return torch.cat(parts, 1).detach(), float(torch.as_tensor(getattr(model, "penalty", 0.0)).detach())
