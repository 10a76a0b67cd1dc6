"""Channels in parts that keep as many as each other: groups of norms and convolutions, a gate's halves."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.distributed import Group
from darts_core.elastic import Sandwich, elastic
from darts_core.elastic import shrink as growing
from darts_core.elastic.cost_table import measure_cost
from darts_core.elastic.gates import Gates
from darts_core.elastic.norms import batch_statistics
from darts_core.errors import PruneError
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import find_groups, remove_channels
from darts_core.runlog import read_json, write_json
from darts_core.settings import Shrink, ShrinkOptions
from darts_core.tasks import Classification
from darts_core.train.save import fit_to

SHAPE = (3, 8, 8)


class Block(nn.Module):
    def __init__(self, groups, norm):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Conv2d(32, 16, 1),
            nn.Conv2d(16, 16, 3, padding=1, groups=groups),
            nn.Conv2d(16, 32, 1),
        )
        self.norms = nn.ModuleList(norm(width) for width in (16, 16, 32))

    def forward(self, x):
        y = x
        for layer, norm in zip((self.a, self.b, self.c), self.norms, strict=True):
            y = norm(layer(y.relu()))
        return x + y


class Net(nn.Module):
    """As ResNeXt is built, with norms of a kind."""

    def __init__(self, groups, norm):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), norm(32)
        self.blocks = nn.Sequential(Block(groups, norm), Block(groups, norm))
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.blocks(self.norm(self.stem(x))).mean((2, 3)))


class UNet(nn.Module):
    """A down and an up with a concatenation, in three dimensions."""

    def __init__(self, norm):
        super().__init__()
        self.down, self.deep = nn.Conv3d(3, 16, 3, padding=1), nn.Conv3d(16, 32, 3, 2, 1)
        self.up, self.out = nn.Conv3d(48, 16, 3, padding=1), nn.Conv3d(16, 5, 1)
        self.norms = nn.ModuleList(norm(width) for width in (16, 32, 16))

    def forward(self, x):
        first, second, third = self.norms
        left = first(self.down(x)).relu()
        right = nn.functional.interpolate(second(self.deep(left)).relu(), scale_factor=2)
        return self.out(third(self.up(torch.cat([left, right], 1))).relu()).mean((2, 3, 4))


class Gated(nn.Module):
    """A gated linear unit: halves of a layer's channels are multiplied."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        value, gate = self.up(x).chunk(2, 1)
        return self.down(value * gate.sigmoid()).mean((2, 3))


def _grouped(width):
    return nn.GroupNorm(4, width)


def _bare(width):
    return nn.GroupNorm(4, width, affine=False)


CASES = {
    "resnext": (lambda: Net(4, nn.BatchNorm2d), 5),
    "group norm": (lambda: Net(1, _grouped), 5),
    "both": (lambda: Net(2, _grouped), 5),
    "instance norm": (lambda: Net(1, nn.InstanceNorm2d), 5),
    "group norm without weights": (lambda: UNet(_bare), 3),
    "instance norm, 3-D": (lambda: UNet(lambda width: nn.InstanceNorm3d(width, affine=True)), 3),
    "gate": (Gated, 1),
}


def _made(name):
    torch.manual_seed(0)
    model = CASES[name][0]()
    for module in model.modules():
        if "Norm" in type(module).__name__ and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    shape = (
        SHAPE if name not in ("group norm without weights", "instance norm, 3-D") else (3, 8, 8, 8)
    )
    return model.double().eval(), torch.randn(4, *shape).double()


def _some(net, count=4):
    generator = np.random.default_rng(3)
    return [net.smallest, *(net.draw(generator) for _ in range(count))]


def _lost(net, choices, given, shape):
    """Root -> the channels of the given network that a sub-network lacks, where none were moved."""
    lost = {}
    for group in find_groups(given, shape):
        width = next(v for v in net.variables if v.name == group.root)
        own = next(m for m in width.members if m.name == group.root)
        pairs = zip(own.positions, own.indices, strict=True)
        lost[group.root] = sorted(index for place, index in pairs if place >= choices[width.name])
    return lost


@torch.no_grad()
def _out(model, x):
    return model.eval()(x)


@pytest.mark.parametrize("name", CASES)
def test_they_vary_together(name):
    model, x = _made(name)
    given, wanted = copy.deepcopy(model), _out(model, x)
    net = elastic(model, x, depth=False)
    assert len(net.variables) == CASES[name][1]
    assert _close(_out(model, x), wanted)
    for choices in _some(net):
        with net.running(choices) as network:
            found = _out(network, x)
        plain = net.cut(choices)
        assert _close(_out(plain, x), found)
        # and what torch-pruning leaves of the given network
        if all(variable.blocks > 1 for variable in net.variables):
            lost = _lost(net, choices, given, x.shape[1:])
            assert _close(_out(remove_channels(copy.deepcopy(given), x.shape[1:], lost), x), found)
        again = fit_to(copy.deepcopy(given), plain.state_dict(), **net.described(choices))
        assert _close(_out(again, x), found)
        for path, module in plain.named_modules():
            if isinstance(module, (nn.GroupNorm, nn.InstanceNorm2d)):
                assert _width(again.get_submodule(path)) == _width(module)


def _close(found, wanted):
    return bool((found - wanted).abs().max() <= 1e-10)


def _width(norm):
    return norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features


def test_a_step_s_gradients_reach_all_groups():
    model, x = _made("both")
    net = elastic(model, x)
    model.train()
    Sandwich(net, share=0, drawn=0).backward(x, lambda output: output.square().mean())
    weight = model.blocks[0].b.weight
    assert weight.shape == (16, 8, 3, 3)
    assert all(bool((part != 0).any()) for part in weight.grad.chunk(2))


@pytest.mark.parametrize("name", ["resnext", "gate"])
def test_gates_and_costs_are_those_of_the_sub_network(name):
    model, x = _made(name)
    net = elastic(model, x)
    gates, before = Gates(net), copy.deepcopy(model.state_dict())
    costs = LayerCosts(torch.device("cpu"), folded=True, analytic=True)
    cost = measure_cost(net, SHAPE, 1, costs)
    for choices in _some(net):
        plain = net.cut(choices)
        one_hot = {
            v.name: torch.tensor([float(o == choices[v.name]) for o in v.options]).double()
            for v in net.variables
        }
        with torch.no_grad(), batch_statistics(model), batch_statistics(plain):
            with gates(one_hot) as network:
                found = network(x)
            wanted = plain(x)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
        model.load_state_dict(before)
        alone = LayerCosts(torch.device("cpu"), folded=True, analytic=True)
        alone.observe(plain, SHAPE, 1)
        assert cost.layers(choices) == pytest.approx(alone.total_ms(), rel=1e-9)


def test_parts_keep_the_same_channels_in_order_of_their_importance():
    model, x = _made("group norm")
    with torch.no_grad():  # the third channel of each of the stem's groups is the largest
        model.stem.weight[2::8] *= 50
    net = elastic(model, x)
    for variable in net.variables:
        if variable.kind == "channels":
            assert variable.blocks == 4
            assert all(option % 4 == 0 for option in variable.options)
    stream = next(v for v in net.variables if v.options[-1] == 32)
    stem = next(m for m in stream.members if m.name == "stem")
    first = [i for p, i in zip(stem.positions, stem.indices, strict=True) if p < 4]
    assert sorted(first) == [2, 10, 18, 26]


class Head(nn.Module):
    """Layers, and a linear one behind the mean."""

    def __init__(self, *layers, width):
        super().__init__()
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


class Joined(nn.Module):
    """Two layers of other widths, one of which lies in one part of what they are joined to."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 24, 1), nn.Conv2d(3, 8, 1)

    def forward(self, x):
        return torch.cat([self.wide(x), self.narrow(x)], 1)


def test_channels_in_parts_that_are_read_by_position_stay():
    x = torch.randn(2, *SHAPE)
    norms = nn.GroupNorm(4, 32), nn.LocalResponseNorm(5, alpha=1.0)
    with pytest.raises(PruneError, match="0: its channels have fixed places"):
        elastic(Head(nn.Conv2d(3, 32, 1), *norms, width=32).eval(), x)
    # torch-pruning takes other channels for those behind the shuffle; the others vary all the same
    layers = nn.Conv2d(3, 32, 1), nn.GroupNorm(4, 32), nn.PixelShuffle(2), nn.Conv2d(8, 16, 1)
    net = elastic(Head(*layers, width=16).eval(), x)
    assert [variable.name for variable in net.variables] == ["layers.3"]


class Stream(nn.Module):
    """Two layers whose joined channels are added to the stream, which is read as `read` gives it."""

    def __init__(self, read):
        super().__init__()
        self.stem, self.read = nn.Conv2d(3, 16, 1), read
        self.a, self.b, self.out = nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x + torch.cat([self.a(x), self.b(x)], 1)
        return self.out(self.read(x).relu())


@pytest.mark.parametrize("name", ["as it is", "mirrored", "halves"])
def test_channels_that_several_layers_own_are_proven_as_others_are(name):
    torch.manual_seed(0)
    read = {
        "as it is": nn.Identity(),
        "mirrored": lambda y: y.flip(1),
        "halves": lambda y: y.roll(8, 1),
    }
    x = torch.randn(2, *SHAPE)
    model = Stream(read[name]).eval()
    if name == "as it is":
        assert [variable.name for variable in elastic(model, x).variables] == ["stem"]
        return
    with pytest.raises(PruneError, match="stem: its channels have fixed places"):
        elastic(model, x)


def test_every_layer_keeps_channels_where_parts_lie_across_several():
    joined = Joined()
    model = Head(joined, nn.BatchNorm2d(32), nn.GroupNorm(2, 32), width=32).eval()
    net = elastic(model, torch.randn(2, *SHAPE))
    plain = net.cut(net.smallest).layers[0]
    assert net.variables[0].blocks == 2
    assert min(plain.wide.out_channels, plain.narrow.out_channels) >= 1
    assert (
        plain.wide.out_channels + plain.narrow.out_channels == net.smallest[net.variables[0].name]
    )


def test_an_order_that_parts_the_columns_is_not_taken_over():
    model, x = _made("gate")
    net = elastic(copy.deepcopy(model), x)
    apart = {name: sorted(order) for name, order in net.orders.items()}
    apart["up"] = [*range(0, 32, 2), *range(1, 32, 2)]
    again = elastic(model, x, orders=apart)
    assert again.orders["up"] == net.orders["up"]
    assert elastic(model, x, orders=again.orders).orders == again.orders


def test_what_was_begun_before_parts_could_vary_goes_on(tmp_path):
    model, x = _made("group norm")
    batches, kept = [(x, torch.arange(4))], tmp_path / "widths.json"
    settings = Shrink(options=ShrinkOptions())

    def made():
        copied = copy.deepcopy(model)
        return growing._made_elastic(
            copied, Classification(), settings, batches, tmp_path, Group.alone()
        )

    now = made()
    before = {v.name: list(now.orders[v.name]) for v in now.variables if v.kind == "blocks"}
    assert 0 < len(before) < len(now.variables)
    write_json(kept, {**read_json(kept), "orders": before})
    for _ in range(2):
        net = made()
        assert [variable.name for variable in net.variables] == [*before]
        assert read_json(kept)["orders"] == before
