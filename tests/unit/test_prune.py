"""Pruning: exact plans, exact surgery, importance, costs and what may be cut."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from prune_cases import SHAPE, Data, by_macs, count_costs, darts, settled
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import PruneError
from darts_core.models.baselines import baseline
from darts_core.prune import channel_importance, find_groups, remove_channels
from darts_core.prune import cost as cost_module
from darts_core.prune.cost import LayerCosts
from darts_core.prune.plan import Item, Option, solve, widths_of
from darts_core.prune.rounds import Pruner, Round
from darts_core.prune.structure import Cut, find_cuts, find_dead, loss_increases
from darts_core.supernet import build, count
from darts_core.train import load_model, save_model
from darts_core.train.save import replace_modules


@pytest.fixture(autouse=True)
def counted_costs(monkeypatch):
    count_costs(monkeypatch)


def test_knapsack_equals_brute_force():
    rng = np.random.default_rng()
    for _ in range(30):
        # whole-number savings over a need of 1000 units leave nothing to rounding
        items = [
            Item(
                str(number),
                tuple(
                    Option(float(rng.integers(1, 600)), float(rng.random()), width)
                    for width in range(rng.integers(1, 4))
                ),
            )
            for number in range(5)
        ]
        best = None
        for picks in itertools.product(*[(None, *item.options) for item in items]):
            taken = [option for option in picks if option is not None]
            if sum(option.saved_ms for option in taken) >= 1000:
                loss = sum(option.loss for option in taken)
                best = loss if best is None else min(best, loss)
        plan = solve(items, 1000.0)
        if best is None:
            assert plan is None
        else:
            assert plan is not None
            assert sum(option.saved_ms for option in plan.values()) >= 1000
            assert sum(option.loss for option in plan.values()) == pytest.approx(best)


def test_knapsack_keeps_steps_and_needs_nothing_for_nothing():
    # the narrower width is no faster: it is never taken
    items = [
        Item("a", (Option(1.0, 0.1, 8), Option(1.0, 0.5, 4))),
        Item("b", (Option(1.0, 9.0, 8),)),
    ]
    assert solve(items, 1.0) == {"a": items[0].options[0]}
    assert solve(items, 0.0) == {}
    assert solve([], 1.0) is None


def test_widths_are_multiples_within_bounds():
    assert widths_of(32, least=4, step=8) == [24, 16, 8]
    assert widths_of(6, least=1, step=1) == [5, 4, 3, 2, 1]
    many = widths_of(256, least=32, step=8)
    assert len(many) == 8
    assert all(width % 8 == 0 and 32 <= width < 256 for width in many)
    assert widths_of(4, least=4, step=1) == []


@pytest.mark.parametrize("make", [darts, lambda: settled(baseline("resnet8", 3, 3, 6))])
def test_cut_channels_equal_silenced_channels(make):
    """Removing channels gives what setting their producers to zero gives: nothing else changed."""
    model = make()
    groups = find_groups(model, SHAPE)
    modules = dict(model.named_modules())
    rng = np.random.default_rng(1)
    picked = [group for group in groups if group.channels > 2]
    assert len(picked) >= 5
    silenced, removed = copy.deepcopy(model), {}
    for group in picked:
        lost = sorted(rng.choice(group.channels, group.channels // 2, replace=False).tolist())
        removed[group.root] = lost
        for member in group.members:
            if member.side == "out":
                own = [
                    i for p, i in zip(member.positions, member.indices, strict=False) if p in lost
                ]
                layer = silenced.get_submodule(member.name)
                with torch.no_grad():
                    layer.weight[own] = 0
                    if layer.bias is not None:
                        layer.bias[own] = 0
                    if isinstance(layer, nn.BatchNorm2d):
                        layer.running_mean[own] = 0
    small = remove_channels(copy.deepcopy(model), SHAPE, removed)
    x = torch.randn(4, *SHAPE)
    torch.testing.assert_close(small(x), silenced(x), rtol=1e-4, atol=1e-5)
    assert count(small, SHAPE).macs < count(model, SHAPE).macs
    assert small(x).shape == (4, 3)
    assert {member.name for group in groups for member in group.members} <= set(modules)


def test_taylor_importance_is_the_gradient_of_a_gate():
    model, data = settled(baseline("resnet8", 3, 3, 4)), Data(32)
    groups = find_groups(model, SHAPE)
    scores = channel_importance(model, groups, "taylor", [(data.x, data.y)])
    name = next(g.root for g in groups if len([m for m in g.members if m.side == "out"]) == 2)
    (norm,) = [
        m.name
        for g in groups
        if g.root == name
        for m in g.members
        if m.side == "out" and isinstance(model.get_submodule(m.name), nn.BatchNorm2d)
    ]
    gate = torch.ones(len(scores[name]), requires_grad=True)
    hook = model.get_submodule(norm).register_forward_hook(
        lambda module, inputs, output: output * gate.view(1, -1, 1, 1)
    )
    F.cross_entropy(model(data.x), data.y).backward()
    hook.remove()
    np.testing.assert_allclose(scores[name], gate.grad.abs().numpy(), rtol=1e-4, atol=1e-7)


def test_magnitude_and_bn_scale_read_the_norms():
    model = settled(baseline("resnet8", 3, 3, 4))
    groups = find_groups(model, SHAPE)
    for kind in ("magnitude", "bn_scale"):
        scores = channel_importance(model, groups, kind)
        group = next(g for g in groups if "body" in g.root)
        norms = [
            model.get_submodule(m.name)
            for m in group.members
            if m.side == "out" and isinstance(model.get_submodule(m.name), nn.BatchNorm2d)
        ]
        wanted = sum(norm.weight.detach().abs() for norm in norms)
        np.testing.assert_allclose(scores[group.root], wanted.numpy(), rtol=1e-5)
    with pytest.raises(PruneError, match=r"'tailor'.*'taylor'"):
        channel_importance(model, groups, "tailor")
    with pytest.raises(PruneError, match="batch of data"):
        channel_importance(model, groups, "taylor")


def test_savings_follow_the_layers_that_change():
    model = settled(baseline("resnet8", 3, 3, 8))
    groups = find_groups(model, SHAPE)
    costs = LayerCosts(torch.device("cpu"))
    costs.observe(model, SHAPE, 2)
    asked = []
    costs._time = lambda key: asked.append(key) or float(key[1] * key[2])
    group = next(g for g in groups if "body" in g.root)
    conv = model.get_submodule(group.root)
    outs = [m.name for m in group.members if m.side == "out" and m.name != group.root]
    ins = [m.name for m in group.members if m.side == "in"]
    assert len(outs) == 1
    assert len(ins) == 1
    follower = model.get_submodule(ins[0])
    half = group.channels // 2
    wanted = conv.in_channels * half + (group.channels**2 - half**2)  # the norm: width * width
    wanted += half * follower.out_channels
    assert costs.saving_ms(group, half) == pytest.approx(wanted)
    before = len(asked)
    costs.saving_ms(group, half)
    assert len(asked) == before  # every shape is timed once


@pytest.mark.parametrize("make", [darts, lambda: baseline("resnet8", 3, 3, 4)])
def test_every_layer_can_be_timed_alone(monkeypatch, make):
    monkeypatch.undo()
    costs = LayerCosts(torch.device("cpu"))
    monkeypatch.setattr(cost_module, "quick_ms", lambda fn, **_: fn().numel())
    model = make()
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, cost_module._TIMED):
            hook = lambda m, i, o, name=name: shapes.__setitem__(name, o.numel())  # noqa: E731
            module.register_forward_hook(hook)
    costs.observe(model, SHAPE, 2)
    assert set(shapes) == set(costs.layers)
    assert {name: costs.layer_ms(name) for name in shapes} == shapes
    folded = LayerCosts(torch.device("cpu"), folded=True)
    folded.observe(model, SHAPE, 2)
    norm = next(n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d))
    assert folded.layer_ms(norm) == 0.0


class Rooted(nn.Module):
    """What its block gives is not negative, and a root is taken of it."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)
        self.blocks = nn.Sequential(Squared())

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).sqrt().mean((2, 3)))


class Squared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.last(self.first(x)).square()


def test_a_cut_that_makes_the_loss_nan_is_no_free_one():
    torch.manual_seed(0)
    model, data = Rooted().eval(), Data(16)
    cuts = find_cuts(model, SHAPE)
    assert cuts == [Cut("blocks.0", "skip_connect")]
    assert loss_increases(model, cuts, [(data.x, data.y)]) == [math.inf]
    pruner = Pruner(SHAPE, 2, by_macs, LayerCosts(torch.device("cpu"), analytic=True))
    result = Round(model, by_macs(model))
    pruner._cut(result, 0.9 * result.timing.median_ms, [(data.x, data.y)])
    assert result.replaced == {}


def test_cut_operations_cost_nothing_and_are_rebuilt(tmp_path):
    model = darts(layers=4)
    cuts = find_cuts(model, SHAPE)
    assert {cut.by for cut in cuts} == {"none", "skip_connect", "pass_cell"}
    data = Data(16)
    state = copy.deepcopy(model.state_dict())
    rises = loss_increases(model, cuts, [(data.x, data.y)])
    assert all(rise >= 0 for rise in rises)
    assert max(rises) > 0
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    cut = next(cut for cut in cuts if cut.by == "none")
    small = replace_modules(copy.deepcopy(model), {cut.path: "none"})
    # the same network with that edge left out of the sum
    x = torch.randn(2, *SHAPE)
    handle = model.get_submodule(cut.path).register_forward_hook(lambda m, i, o: o * 0)
    torch.testing.assert_close(small(x), model(x))
    handle.remove()
    spec = {"channels": 4, "layers": 4, "num_classes": 3}
    meta = {
        "architecture": Architecture.named("DARTS_V2").to_dict(),
        "build": spec,
        "replaced": {cut.path: "none"},
    }
    save_model(tmp_path / "m.pt", small, meta)
    again, _ = load_model(tmp_path / "m.pt")
    torch.testing.assert_close(again(x), small(x))


def test_dead_parts_are_found():
    model = darts()
    assert find_dead(model, SHAPE) == {}
    cell = model.cells[1]
    readers = {
        f"cells.1.ops.{i}": "none" for i, (source, _) in enumerate(cell.edges) if source == 0
    }
    replace_modules(model, readers)
    dead = find_dead(model, SHAPE)
    assert dead == {"cells.1.preprocess.older": "skip_connect"}
    x = torch.randn(2, *SHAPE)
    before = model(x)
    torch.testing.assert_close(replace_modules(model, dead)(x), before)


def test_states_that_nothing_reads_are_dead_with_their_identities():
    """State 2 joins states 0 and 1, but only on the way to nowhere: they may differ in width."""
    text = "|nor_conv_3x3~0|+|skip_connect~0|skip_connect~1|+|nor_conv_3x3~0|skip_connect~1|none~2|"
    model = settled(build(Architecture.from_text(text), channels=4, layers=1, num_classes=3))
    dead = find_dead(model, SHAPE)
    assert dead == {f"cells.{cell}.ops.{edge}": "none" for cell in (0, 2, 4) for edge in (1, 2)}
    x = torch.randn(2, *SHAPE)
    before = model(x)
    torch.testing.assert_close(replace_modules(model, dead)(x), before)
    groups = {group.root: group for group in find_groups(model, SHAPE)}
    small = remove_channels(model, SHAPE, {"cells.4.ops.0.1": [0, 1, 2]})
    assert groups["cells.4.ops.0.1"].channels == 16
    assert small(x).shape == (2, 3)
