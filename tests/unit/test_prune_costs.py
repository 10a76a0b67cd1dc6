"""What single layers cost: layers of somebody's own class, and widths that a grouped convolution can have."""

import torch
from prune_cases import Data, by_macs, count_costs
from torch import nn

from darts_core.prune import cost as cost_module
from darts_core.prune import prune_to_budget
from darts_core.prune.cost import LayerCosts
from darts_core.prune.groups import find_groups
from darts_core.prune.importance import taylor_products
from darts_core.prune.proof import movable
from darts_core.prune.rounds import Pruner
from darts_core.prune.structure import find_dead

CPU = torch.device("cpu")
SHAPE = (3, 8, 8)


class Same(nn.Conv2d):
    """Pads by itself and states no padding, as timm's Conv2dSame."""

    def forward(self, x):
        size, step, kernel = x.shape[-1], self.stride[0], self.kernel_size[0]
        total = max((-(-size // step) - 1) * step + kernel - size, 0)
        x = nn.functional.pad(x, [total // 2, total - total // 2] * 2)
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride)


class Standardized(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class NormAct(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Gained(nn.Linear):
    def forward(self, x):
        return 2.0 * super().forward(x)


def own_layers():
    return nn.Sequential(
        Same(3, 8, 3, 2), NormAct(8), Standardized(8, 16, 3, padding=1), Same(16, 6, 3, 2),
        Same(6, 4, 3, 2), nn.Flatten(), Gained(4, 5),
    ).eval()  # fmt: skip


def test_a_layer_of_a_class_of_its_own_costs_what_it_computes_and_not_a_relu():
    model = own_layers()
    costs = LayerCosts(CPU)
    costs.observe(model, SHAPE, 2)
    outputs, kinds = {}, {}

    def look(key):
        layer, x = cost_module._build(key)
        with torch.no_grad():
            outputs[key] = layer.eval()(x).numel()
        kinds[key] = type(layer)
        return float(len(outputs))

    costs._time = look
    wanted = {"0": nn.Conv2d, "1": nn.BatchNorm2d, "2": nn.Conv2d, "3": nn.Conv2d, "4": nn.Conv2d}
    wanted["6"] = nn.Linear
    for name in wanted:
        costs.layer_ms(name)
    assert list(kinds.values()) == list(wanted.values())
    # the last `Same` gets maps of 2x2, smaller than its kernel
    assert list(outputs.values()) == [
        2 * 8 * 16, 2 * 8 * 16, 2 * 16 * 16, 2 * 6 * 4, 2 * 4 * 1, 2 * 5,
    ]  # fmt: skip


def test_narrower_layers_of_an_own_class_are_expected_to_cost_less():
    costs = LayerCosts(CPU, analytic=True)
    costs.observe(own_layers(), SHAPE, 2)
    # 8 of its 16 channels, each of 3x3 weights on 8 channels
    assert costs.layer_ms("2") - costs.layer_ms("2", outs=8) > 2 * 8 * 16 * 8 * 9
    assert costs.layer_ms("0") > 2 * 8 * 16 * 3 * 9


def grouped():
    return nn.Sequential(
        nn.Conv2d(3, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(24, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    ).eval()  # fmt: skip


def test_widths_of_a_grouped_convolution_are_such_that_each_group_has_as_many():
    model = grouped()
    costs = LayerCosts(CPU, analytic=True)
    pruner = Pruner(SHAPE, 2, by_macs, costs, step=4)
    costs.observe(model, SHAPE, 2)
    found = {g.root: g for g in find_groups(model, SHAPE) if g.blocks == 8}
    assert found
    for group in found.values():
        assert pruner._widths(group) == [16, 8]
        savings = [costs.saving_ms(group, width) for width in pruner._widths(group)]
        assert 0 < savings[0] < savings[1]


def test_a_network_of_grouped_convolutions_is_pruned_to_its_budget(monkeypatch):
    """Steps of 4 channels do not fit 8 groups: the layer that was to be timed could not be made."""
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = grouped()
    found = prune_to_budget(
        model, Data(), budget="70%", batch=2, timer=by_macs, round_to=4, structure=False,
        tune=lambda *_: None,
    )  # fmt: skip
    assert found.after.median_ms <= 1.05 * 0.7 * by_macs(model).median_ms
    conv = found.model[2]
    assert conv.groups == 8
    assert conv.in_channels % 8 == conv.out_channels % 8 == 0


def test_a_width_that_groups_cannot_share_is_timed_with_fewer():
    costs = LayerCosts(CPU, analytic=True)
    costs.observe(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2)), SHAPE, 2)
    assert costs.layer_ms("1", 7, 7) > 0


def test_a_norm_that_is_held_fast_stays_so_while_layers_are_timed_and_weighed():
    model = nn.Sequential(nn.Conv2d(3, 8, 8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 5))
    model[1].eval()
    LayerCosts(CPU, analytic=True).observe(model, SHAPE, 2)
    assert [layer.training for layer in model] == [True, False, True, True]
    taylor_products(model, [(torch.randn(2, *SHAPE), torch.tensor([0, 4]))])
    assert [layer.training for layer in model] == [True, False, True, True]


def test_gradients_in_evaluation_mode_come_from_torchs_own_recurrent_layers():
    """cuDNN's, on a GPU, give none outside of training mode; other networks keep cuDNN."""
    seen = []

    class Read(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.layer, self.head = kind(8, 8), nn.Linear(8, 5)

        def forward(self, x):
            seen.append(torch.backends.cudnn.enabled)
            found = self.layer(x.flatten(2).mean(1, keepdim=True)[..., :8])
            return self.head((found[0] if isinstance(found, tuple) else found)[:, 0])

    before = torch.backends.cudnn.enabled
    for kind in (nn.GRU, nn.LSTM, nn.Linear):
        taylor_products(Read(kind), [(torch.randn(2, *SHAPE), torch.tensor([0, 4]))])
    assert seen == [False, False, before]
    assert torch.backends.cudnn.enabled == before


class Fused(nn.Module):
    """Two branches weighed by numbers that a ReLU keeps above 0, and a query's projection, pooled to 1x1."""

    def __init__(self):
        super().__init__()
        self.weights, self.query = (
            nn.Parameter(torch.tensor([1.0, 2.0])),
            nn.Parameter(torch.ones(4)),
        )
        self.keep, self.project = nn.ReLU(), nn.Linear(4, 8)
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.pool, self.head = nn.AvgPool2d(2, 2, ceil_mode=True), nn.Linear(8, 3)
        self.alone = Same(3, 3, 3)

    def forward(self, x):
        x = torch.stack([self.alone(one) for one in x])
        weights = self.keep(self.weights)
        x = (
            weights[0] * self.one(x)
            + weights[1] * self.two(x)
            + self.project(self.query)[:, None, None]
        )
        for _ in range(4):
            x = self.pool(x)
        return self.head(x.flatten(1))


def test_layers_that_get_no_batch_and_pools_of_the_last_pixel_have_a_cost(monkeypatch):
    model = Fused().eval()
    costs = LayerCosts(CPU, analytic=True)
    costs.observe(model, SHAPE, 2)
    shapes = {name: shape for name, (_, shape) in costs.layers.items()}
    assert shapes["keep"] == (1, 2)
    assert shapes["project"] == (1, 4)
    assert shapes["alone"] == (1, 3, 8, 8)
    # numbers that go in and out, 4 bytes each, and products
    assert costs.layer_ms("keep") == 2 + 4 * (2 + 2)
    assert costs.layer_ms("project") == 8 * 4 + 4 * (4 + 8)
    assert costs.layer_ms("pool") == 2 * 8 + 4 * (2 * 8 + 2 * 8)  # of 1x1, which ceil_mode keeps
    count_costs(monkeypatch)
    found = prune_to_budget(
        model, Data(), budget="70%", batch=2, timer=by_macs, round_to=1, tune=lambda *_: None
    )
    assert found.after.median_ms <= 1.05 * 0.7 * by_macs(model).median_ms


class Stepped(nn.Conv2d):
    """Keeps one number for all of its channels, as a quantiser's step, and one for each."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.step, self.shift = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.ones(1))
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def forward(self, x):
        weight = self.weight * self.step * self.gain
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding) + self.shift


def test_numbers_that_a_layer_keeps_for_all_channels_speak_for_none_of_them():
    torch.manual_seed(0)
    model = nn.Sequential(Stepped(3, 8, 8), nn.Flatten(), nn.Linear(8, 5))
    x, y = torch.randn(2, *SHAPE), torch.tensor([0, 4])
    [found] = taylor_products(model, [(x, y)])
    nn.functional.cross_entropy(model(x), y).backward()
    own = [model[0].weight, model[0].bias, model[0].gain]
    wanted = sum((p * p.grad).detach().double().reshape(8, -1).sum(1) for p in own)
    assert torch.allclose(torch.from_numpy(found["0"]), wanted, atol=1e-6)


class Inward(nn.Conv2d):
    """Keeps a number for each input channel, of which it has as many as outputs."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.scale = nn.Parameter(torch.ones(self.in_channels))

    def forward(self, x):
        return super().forward(x * self.scale.view(1, -1, 1, 1))


def test_channels_that_a_layer_keeps_a_gain_for_can_be_pruned(monkeypatch):
    """They were taken for channels that something reads by position, as the gains did not move along."""
    count_costs(monkeypatch)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.ReLU(), Stepped(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip
    kinds = movable(model, SHAPE, find_groups(model, SHAPE))
    assert kinds == {"0": True, "2": True, "4": True}
    model[2] = Inward(16, 16, 3)
    # its numbers are for what goes in: neither they nor what they meet may be cut as what comes out
    assert movable(model, SHAPE, find_groups(model, SHAPE)) == {"0": False, "2": False, "4": True}
    found = prune_to_budget(
        model, Data(), budget="90%", batch=2, timer=by_macs, round_to=1, tune=lambda *_: None
    )
    assert found.model[2].weight.shape[:2] == (16, 16)
    assert found.model[4].out_channels < 8


class Rising(nn.Module):
    """Writes into its input, and runs a layer of which nothing reaches the output."""

    def __init__(self):
        super().__init__()
        self.dead, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 3)

    def forward(self, x):
        x += 1
        self.dead(x)
        return self.head(x.mean((2, 3)))


def test_what_is_dead_is_found_in_a_network_that_writes_into_its_input_and_in_double_precision():
    assert find_dead(Rising().eval(), SHAPE) == {"dead": "skip_connect"}
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    model.double().eval()
    found = prune_to_budget(
        model, Data(), budget="70%", batch=2, timer=by_macs, round_to=1, importance="magnitude",
        structure=False, tune=lambda *_: None,
    )  # fmt: skip
    assert found.model[0].out_channels < 8


class Shared(nn.Module):
    """One head for two scales."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, 2)
        self.head, self.out = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.act = nn.ReLU()

    def forward(self, x):
        large = self.act(self.a(x))
        found = [self.out(self.act(self.head(y))) for y in (large, self.act(self.b(large)))]
        return torch.cat([y.flatten(2) for y in found], 2).mean(2)


def test_a_layer_that_is_called_several_times_costs_all_of_its_calls():
    """It was timed once, at the shape of its last call: a head of a pyramid at the smallest scale."""
    model = Shared().eval()
    costs = LayerCosts(CPU, analytic=True)
    costs.observe(model, SHAPE, 2)
    small, large = torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 8, 8)
    calls = [cost_module._work(model.head, x) for x in (large, small)]
    assert costs.layer_ms("head") == sum(calls)
    groups = {group.root: group for group in find_groups(model, SHAPE)}
    narrow = nn.Conv2d(8, 4, 3, padding=1)
    after = sum(cost_module._work(narrow, x) for x in (large, small))
    saved = costs.saving_ms(groups["head"], 4)
    reads = [
        2 * size * (4 * 4 + 4 * 4) for size in (64, 16)
    ]  # of `out`: products, and bytes of its input
    assert saved == sum(calls) - after + sum(reads)
