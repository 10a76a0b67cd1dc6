"""Cost of choice spaces: exact for every network, the expectation of mixtures, timed part by part."""

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.autosearch import contract
from darts_core.autosearch.module_search import searchable
from darts_core.errors import LatencyError
from darts_core.latency import (
    LatencyTable,
    choice_latency_model,
    choice_size_model,
    device_name,
    rows,
    units,
)
from darts_core.latency import table as table_module
from darts_core.ops.macs import macs_by_module
from darts_core.penalties import BudgetPenalty
from darts_core.spaces import ChoiceSpace, get_space
from darts_core.supernet import build
from darts_core.supernet.choices import DepthChoice, LayerChoice, WidthChoice
from darts_core.supernet.count import count
from darts_core.supernet.module_supernet import ModuleSupernet

CPU = torch.device("cpu")


class Block(nn.Module):
    """A residual block whose inner width and kernel are searched."""

    def __init__(self):
        super().__init__()
        self.conv1 = LayerChoice(
            {"k1": nn.Conv2d(6, 8, 1, bias=False), "two": nn.Sequential(
                nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False), nn.Conv2d(6, 8, 1))}
        )  # fmt: skip
        self.norm, self.width = nn.BatchNorm2d(8), WidthChoice([3, 8])
        self.conv2, self.out = nn.Conv2d(8, 6, 3, padding=1), WidthChoice([4, 6], label="trunk")

    def forward(self, x):
        inner = self.width(torch.relu(self.norm(self.conv1(x))))
        return self.out(torch.relu(x + self.conv2(inner)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.stem_width = nn.Conv2d(3, 6, 1), WidthChoice([4, 6], label="trunk")
        self.blocks = DepthChoice([Block(), Block()], [0, 2], label="depth")
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem_width(self.stem(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return ModuleSupernet(Net(), input_shape=(3, 4, 4))


def networks(space):
    for values in itertools.product(*(options for _, options in space.choices)):
        labels = [label for label, _ in space.choices]
        yield Architecture(space.name, choices=tuple(zip(labels, values, strict=True)))


def test_size_is_exact_for_every_network_of_a_users_model(supernet):
    sample = torch.randn(2, 3, 4, 4)
    params, macs = (
        choice_size_model(supernet.space, supernet.build, sample, what)
        for what in ("params", "macs")
    )
    for architecture in networks(supernet.space):
        real = count(supernet.build(architecture), (3, 4, 4))
        one_hot = supernet.one_hot(architecture)
        for model, expected in ((params, real.params / 1e3), (macs, real.macs / 1e6)):
            assert model.of(architecture) == pytest.approx(expected, rel=1e-5)
            assert float(model(one_hot)) == pytest.approx(expected, rel=1e-5)


class Tied(nn.Module):
    """Two layers of one weight around a choice of depth, which may leave out a third one of it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.blocks = DepthChoice([nn.Linear(6, 6), nn.Linear(6, 6)], [0, 1, 2], label="depth")
        self.last.weight = self.first.weight
        self.blocks.blocks[1].weight = self.first.weight

    def forward(self, x):
        return self.last(self.blocks(torch.relu(self.first(x))))


def test_a_tied_weight_counts_once():
    torch.manual_seed(0)
    tied = ModuleSupernet(Tied(), input_shape=(6,))
    model = choice_size_model(tied.space, tied.build, torch.randn(2, 6), "params")
    sizes = [model.of(architecture) for architecture in networks(tied.space)]
    assert sizes == pytest.approx([0.048, 0.09, 0.096])
    reals = [count(tied.build(a), (1, 6)).params / 1e3 for a in networks(tied.space)]
    assert sizes == pytest.approx(reals)


def test_a_mixtures_cost_is_the_expectation_over_its_networks_and_has_gradients(supernet):
    space = supernet.space
    model = choice_size_model(space, supernet.build, torch.randn(2, 3, 4, 4), "macs")
    with torch.no_grad():
        for alpha in supernet.alphas():
            alpha.normal_()
    weights = supernet.mixing_weights()
    expected = 0.0
    for architecture in networks(space):
        columns = space.index(architecture)
        chance = np.prod([float(weights[n][0, c].detach()) for n, c in columns.items()])
        expected += chance * model.of(architecture)
    cost = model(weights)
    assert float(cost.detach()) == pytest.approx(expected, rel=1e-4)
    # sigmoids need not add up to 1
    doubled = {label: 2.0 * weight for label, weight in weights.items()}
    assert float(model(doubled).detach()) == pytest.approx(expected, rel=1e-4)
    gradients = torch.autograd.grad(cost, supernet.alphas())
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_size_is_exact_for_the_shipped_mobilenet():
    space = get_space("mobilenet")

    def make(found):
        return build(found, channels=4, layers=3, num_classes=3, in_channels=1)

    model = choice_size_model(space, make, torch.randn(2, 1, 8, 8), "macs")
    rng = np.random.default_rng(5)
    for _ in range(10):
        architecture = space.random(rng)
        real = count(make(architecture), (1, 8, 8))
        assert model.of(architecture) == pytest.approx(real.macs / 1e6, rel=1e-5)
    assert model.least() <= min(model.of(space.random(rng)) for _ in range(200))


def test_choices_inside_a_layer_that_the_largest_network_lacks_cost_what_they_do():
    inner = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), WidthChoice([2, 8], label="w"), nn.Conv2d(8, 4, 1)
    )
    layers = LayerChoice({"plain": nn.Conv2d(2, 4, 1), "deep": inner}, label="layer")
    net = ModuleSupernet(nn.Sequential(layers, nn.Flatten()), input_shape=(2, 3, 3))
    model = choice_size_model(net.space, net.build, torch.randn(2, 2, 3, 3), "macs")
    for architecture in networks(net.space):
        real = count(net.build(architecture), (2, 3, 3)).macs / 1e6
        assert model.of(architecture) == pytest.approx(real, rel=1e-5)


def work_as_time(monkeypatch):
    """Rows that take a millisecond for every thousand multiply-accumulates; returns the inputs."""
    shapes = []

    def alone(wanted, runtime, device, dtype):
        # the parts of one network one after another: it is made once
        for key, subject in sorted(wanted.items(), key=lambda row: repr(row[1].changes)):
            yield {key: subject.forms(runtime, device)}

    def fake(group, device, **_):
        ((key, (_, module, x)),) = group.items()
        shapes.append(tuple(x.shape))
        return {key: sum(macs_by_module(module.eval(), x).values()) / 1e3}, False

    monkeypatch.setattr(table_module, "groups_of", alone)
    monkeypatch.setattr(table_module, "time_group", fake)
    return shapes


def test_expected_latency_is_the_sum_of_the_parts_as_they_were_timed(supernet, monkeypatch):
    shapes = work_as_time(monkeypatch)
    table = LatencyTable(device_name("cpu"), "onnx", 1)
    arguments = (supernet.space, supernet.build, torch.randn(2, 3, 4, 4), table)
    model = choice_latency_model(*arguments, batch=3, device=CPU)
    for architecture in networks(supernet.space):
        real = 3 * count(supernet.build(architecture), (3, 4, 4)).macs / 1e3
        assert model.of(architecture) == pytest.approx(real, rel=1e-5)
    assert {shape[0] for shape in shapes} == {3}
    # rows that the table holds are not timed again
    timed = len(shapes)
    table.fits[model.fit_key] = {"overhead_ms": 1.0, "slope": 2.0}
    again = choice_latency_model(*arguments, batch=3, device=CPU)
    assert len(shapes) == timed
    first = next(networks(supernet.space))
    assert again.of(first) == pytest.approx(1.0 + 2.0 * model.of(first))


@pytest.mark.parametrize("name", ["convnet", "resnet"])
def test_every_layer_of_the_shipped_spaces_is_timed(name, monkeypatch):
    work_as_time(monkeypatch)
    space = get_space(name)

    def make(found):
        return build(found, channels=4, layers=3, num_classes=3, in_channels=1)

    table = LatencyTable(device_name("cpu"), "onnx", 1)
    sample = torch.randn(2, 1, 8, 8)
    model = choice_latency_model(space, make, sample, table, batch=3, device=CPU)
    rng = np.random.default_rng(5)
    for _ in range(10):
        architecture = space.random(rng)
        real = 3 * count(make(architecture), (1, 8, 8)).macs / 1e3
        assert model.of(architecture) == pytest.approx(real, rel=1e-5)


def test_parts_run_alone_in_onnx_and_eager():
    layers = LayerChoice({"a": nn.Conv2d(2, 4, 1), "b": nn.Conv2d(2, 4, 3, padding=1)}, label="l")
    net = ModuleSupernet(nn.Sequential(layers, nn.BatchNorm2d(4)), input_shape=(2, 6, 6))
    for runtime in ("eager", "onnx"):
        table = LatencyTable(device_name("cpu"), runtime, torch.get_num_threads())
        model = choice_latency_model(
            net.space, net.build, torch.randn(2, 2, 6, 6), table,
            batch=1, device=CPU, seconds=1e-4,
        )  # fmt: skip
        assert len(table.rows) == 2
        assert all(ms > 0 for ms in table.rows.values())
        assert model.least() == pytest.approx(min(table.rows.values()))


def test_a_part_that_is_moved_to_be_timed_is_not_missing_in_its_network(monkeypatch):
    """On a GPU, and in its number format: the network is run again for the input of its next part."""

    def deployed(module, x, _):
        return module.double(), x.double()  # stands for another device

    monkeypatch.setattr(rows, "as_deployed", deployed)
    monkeypatch.setattr(
        table_module, "time_group", lambda g, _, **__: (dict.fromkeys(g.calls, 1.0), False)
    )
    monkeypatch.setattr(units, "_MOST", 1)  # part by part
    layers = LayerChoice({"a": nn.Conv2d(4, 4, 1), "b": nn.Conv2d(4, 4, 3, padding=1)}, label="l")
    net = ModuleSupernet(nn.Sequential(nn.Conv2d(2, 4, 1), layers), input_shape=(2, 6, 6))
    table = LatencyTable(device_name("cpu"), "eager", torch.get_num_threads())
    sample = torch.randn(2, 2, 6, 6)
    choice_latency_model(net.space, net.build, sample, table, batch=1, device=CPU)
    assert list(table.rows.values()) == [1.0] * 3


def test_a_budget_holds_a_search_by_gradient_below_it():
    torch.manual_seed(0)
    net = ModuleSupernet(Net(), input_shape=(3, 4, 4))
    model = choice_size_model(net.space, net.build, torch.randn(2, 3, 4, 4), "macs")
    dearest = max(model.of(a) for a in networks(net.space))
    penalty = BudgetPenalty(model, budget=0.5 * dearest, rate=0.2)
    optimizer = torch.optim.Adam(net.alphas(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        # a task that wants everything to be large
        task = -sum(w[0, -1] for w in net.mixing_weights().values()) / 10
        (task + penalty(net.mixing_weights())).backward()
        optimizer.step()
    assert float(model(net.mixing_weights()).detach()) <= 0.55 * dearest


def test_a_part_that_depends_on_too_much_is_named():
    space = ChoiceSpace.of("s", {f"w{i}": list(range(1, 6)) for i in range(5)})

    def make(found):
        return nn.Conv2d(sum(int(v) for _, v in found.choices), 2, 1)

    class Fed(nn.Module):
        def __init__(self, conv):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv(x[:, :1].expand(-1, self.conv.in_channels, -1, -1))

    with pytest.raises(LatencyError, match="w0, w1, w2, w3, w4: 3125 combinations"):
        choice_size_model(space, lambda a: Fed(make(a)), torch.randn(2, 1, 2, 2), "macs")


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        (nn.Conv1d(3, 4, 3, stride=2), [(1, 3, 9)], 4 * 4 * 9),
        (nn.Conv3d(3, 4, (1, 2, 3)), [(1, 3, 4, 5, 6)], 4 * 4 * 4 * 4 * 18),
        (nn.Conv2d(4, 4, 3, groups=4), [(1, 4, 5, 5)], 4 * 9 * 9),
        (nn.Linear(5, 7), [(1, 3, 5)], 3 * 35),
        # 5 steps of 4 gates from 4 inputs and 8 states; a GRU has 3 of them
        (nn.LSTM(4, 8, batch_first=True), [(1, 5, 4)], 5 * 4 * 8 * (4 + 8)),
        (nn.LSTM(4, 8, bidirectional=True), [(5, 1, 4)], 2 * 5 * 4 * 8 * (4 + 8)),
        (nn.GRU(4, 8, batch_first=True), [(1, 5, 4)], 5 * 3 * 8 * (4 + 8)),
        # 24 x 8 in, 8 x 8 out, a dot product of 4 each for scores and sums of 2 heads over 5 x 5 pairs
        (nn.MultiheadAttention(8, 2, batch_first=True), [(1, 5, 8)] * 3, 5 * 256 + 2 * 2 * 25 * 4),
    ],
)
def test_multiply_accumulates_of_every_kind_of_product(module, inputs, expected):
    found = macs_by_module(module.eval(), *(torch.zeros(shape) for shape in inputs))
    assert sum(found.values()) == expected


class _Called(nn.Module):
    """Calls torch's recurrence by itself, without a layer of torch's around it."""

    def __init__(self, call, gates, directions):
        super().__init__()
        self.call, self.several = call, directions > 1
        sizes = [(gates * 8, 4), (gates * 8, 8), (gates * 8,), (gates * 8,)] * directions
        self.weights = nn.ParameterList(torch.zeros(size) for size in sizes)

    def forward(self, x):
        state = x.new_zeros(1 + self.several, len(x), 8)
        states = (state, state) if self.call is torch.lstm else state
        return self.call(x, states, [*self.weights], True, 1, 0.0, False, self.several, True)[0]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("call", "gates"), [(torch.lstm, 4), (torch.gru, 3)])
def test_a_recurrence_that_no_layer_calls_is_counted(call, gates, directions):
    found = macs_by_module(_Called(call, gates, directions).eval(), torch.zeros(2, 5, 4))
    assert found[""] == 2 * 5 * directions * gates * 8 * (4 + 8)


def test_a_network_without_a_recurrent_layer_is_counted_on_its_usual_kernels():
    """Without oneDNN's, counting a convolution over volumes took six times the memory."""
    seen = []
    for layer in (nn.Conv3d(3, 4, 1), nn.LSTM(3, 4)):
        net = nn.ModuleList([layer])
        net.forward = lambda _: seen.append(torch.backends.mkldnn.enabled)
        macs_by_module(net, torch.zeros(1))
    assert seen == [True, False]
    assert torch.backends.mkldnn.enabled


def test_attention_counts_in_the_module_that_calls_it():
    class Attend(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    net = nn.Sequential(nn.Linear(4, 4), Attend())
    found = macs_by_module(net, torch.zeros(1, 2, 5, 4))
    assert found == {"": 0, "0": 10 * 16, "1": 2 * 2 * 25 * 4}


def test_a_users_own_module_is_pulled_to_its_target_cost_and_meets_it(tmp_path, monkeypatch):
    def trained(weight):
        (tmp_path / "trial.json").write_text(
            json.dumps({
                "config": {"architecture": "search:"}, "trial_id": "a",
                "differentiable": {
                    "target_cost": 0.015, "cost_weight": weight,
                    "alpha_learning_rate": 0.2, "warmup": 1,
                },
            })
        )  # fmt: skip
        trial = contract.Trial(tmp_path)
        monkeypatch.setattr(contract, "_current", trial)
        torch.manual_seed(0)
        net = searchable(Net(), (3, 4, 4))
        x, y = torch.randn(8, 3, 4, 4), torch.arange(8) % 5
        for _ in range(20):
            nn.functional.cross_entropy(net(x), y).backward()
        return net, trial.searchables[-1]

    free, _ = trained(0.0)
    net, derived = trained(5.0)
    model = choice_size_model(net.space, net.build, torch.randn(2, 3, 4, 4), "macs")
    with torch.no_grad():
        assert float(model(net.mixing_weights())) < float(model(free.mixing_weights()))
    found = tuple(json.loads(derived.derive()).items())
    dearest = max(model.of(a) for a in networks(net.space))
    assert model.of(Architecture(net.space.name, choices=found)) <= 0.015 * dearest * 1.05
