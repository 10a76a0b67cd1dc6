"""Pruning of networks that join their input, or one of several, to channels of a layer."""

import copy

import pytest
import torch
from torch import nn

from darts_core.models.by_name import ByName
from darts_core.named_inputs import NamedInput
from darts_core.prune.groups import find_groups, remove_channels


class Joined(nn.Module):
    """The image stands before (or behind) the channels that are computed from it."""

    def __init__(self, first):
        super().__init__()
        self.first = first
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(11, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        y = self.a(x).relu()
        joined = torch.cat([x, y] if self.first else [y, x], 1)
        return self.head(self.b(joined).relu().mean((2, 3)))


class Several(nn.Module):
    """Values join the channels of a picture and of an embedding as they come."""

    def __init__(self):
        super().__init__()
        self.picture, self.words = nn.Conv2d(3, 8, 3), nn.Embedding(7, 5)
        self.hidden, self.head = nn.Linear(15, 6), nn.Linear(6, 2)

    def forward(self, image, words, sizes):
        parts = [sizes, self.picture(image).relu().mean((2, 3)), self.words(words).mean(1)]
        return self.head(self.hidden(torch.cat(parts, 1)).relu())


def without(model, layers):
    """A copy in which channel 2 of each layer is zero."""
    silent = copy.deepcopy(model)
    with torch.no_grad():
        for name in layers:
            for parameter in silent.get_submodule(name).parameters():
                parameter[2] = 0
    return silent


def output(model, x):
    with torch.no_grad():
        return model(x)


class Sloped(nn.Module):
    """An activation with a slope that is learned stands before a join, or before a flattening."""

    def __init__(self, flat):
        super().__init__()
        self.flat, self.act = flat, nn.PReLU()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8 * 64 if flat else 16, 4)

    def forward(self, x):
        a = self.act(self.a(x))
        if self.flat:
            return self.head(a.flatten(1))
        return self.head(torch.cat([self.b(x), a], 1).relu().mean((2, 3)))


class Halved(nn.Module):
    """Halves of channels, of which one is added to the other, join each other again, as in Res2Net."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        left, right = self.a(x).chunk(2, 1)
        return self.head(self.b(torch.cat([left, left + right], 1)).relu())


class Apart(nn.Module):
    """Each half of a layer's channels is read by a layer of its own, or as it is."""

    def __init__(self, halves, second):
        super().__init__()
        self.halves, self.second = halves, second
        self.stem, self.d = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1)
        self.a, self.b = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        left, right = self.halves(self.d(self.stem(x).relu()).tanh())
        return self.b(right) + self.a(left) if self.second else self.a(left)


@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("name", ["chunk", "slices"])
def test_channels_that_lie_in_halves_at_fixed_places_stay(name, second):
    halves = {"chunk": lambda y: y.chunk(2, 1), "slices": lambda y: (y[:, :8], y[:, 8:])}
    model = Apart(halves[name], second).eval()
    assert {group.root for group in find_groups(model, (3, 8, 8))} == {"stem"}


@pytest.mark.parametrize("flat", [True, False])
def test_channels_of_a_learned_slope_are_joined_or_flattened(flat):
    torch.manual_seed(1)
    model, x = Sloped(flat).eval(), torch.randn(2, 3, 8, 8)
    layers = ["a"] if flat else ["a", "b"]
    assert {group.root for group in find_groups(model, (3, 8, 8))} == {*layers}
    wanted = output(without(model, layers), x)
    cut = remove_channels(model, (3, 8, 8), {name: [2] for name in layers})
    assert cut.head.in_features == (7 * 64 if flat else 14)
    assert torch.allclose(output(cut, x), wanted, atol=1e-6)


def test_a_join_of_channels_whose_numbers_cannot_be_inferred_stays_and_the_rest_is_pruned():
    assert {group.root for group in find_groups(Halved().eval(), (3, 8, 8))} == {"b"}


class Scaled(nn.Module):
    """Scaled tokens, whose number of channels is not inferred, join a layer's in the last dimension."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.a, self.head = nn.Linear(24, 8), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(torch.cat([self.scale * x, self.a(x)], -1))


def test_the_channels_behind_a_join_of_tokens_are_those_that_were_cut():
    torch.manual_seed(1)
    model, x = Scaled().eval(), torch.randn(2, 16, 24)  # half as many tokens as channels are joined
    assert {group.root for group in find_groups(model, (16, 24))} == {"a"}
    wanted = output(without(model, ["a"]), x)
    cut = remove_channels(model, (16, 24), {"a": [2]})
    assert cut.head.in_features == 31
    assert torch.allclose(output(cut, x), wanted, atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_the_channels_behind_a_join_are_those_that_were_cut(first):
    torch.manual_seed(1)
    model = Joined(first).eval()
    assert {group.root for group in find_groups(model, (3, 8, 8))} == {"a", "b"}
    x = torch.randn(2, 3, 8, 8)
    wanted = output(without(model, ["a"]), x)
    cut = remove_channels(model, (3, 8, 8), {"a": [2]})
    assert cut.b.in_channels == 10
    assert torch.allclose(output(cut, x), wanted, atol=1e-6)


def test_several_named_inputs_of_which_one_joins_the_channels():
    torch.manual_seed(1)
    image = NamedInput("image", (3, 6, 6), mean=(0.0, 1.0, 2.0), std=(1.0, 2.0, 3.0))
    inputs = [
        image,
        NamedInput("sizes", (2,), mean=(0.0, 0.0), std=(1.0, 1.0)),
        NamedInput("words", (4,), tokens=7),
    ]
    model = ByName(Several(), inputs).eval()
    shape = (1, 3 * 6 * 6 + 2 + 4)
    groups = {group.root: group for group in find_groups(model, shape)}
    assert set(groups) == {"model.picture", "model.hidden"}
    assert {m.name for m in groups["model.picture"].members} == {"model.picture", "model.hidden"}
    x = torch.cat([torch.randn(3, 1, 110), torch.randint(7, (3, 1, 4)).float()], 2)
    wanted = output(without(model, ["model.picture", "model.hidden"]), x)
    cut = remove_channels(model, shape, {"model.picture": [2], "model.hidden": [2]})
    assert (cut.model.hidden.in_features, cut.model.hidden.out_features) == (14, 5)
    assert torch.allclose(output(cut, x), wanted, atol=1e-6)
