"""Table, expected latency and penalties: exact on known costs, refused on other devices."""

import json

import numpy as np
import pytest
import torch
from latency_cases import supernet
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError
from darts_core.latency import (
    CostModel,
    LatencyTable,
    build_table,
    latency_model,
    size_model,
)
from darts_core.latency import rows as rows_module
from darts_core.latency import table as table_module
from darts_core.latency.check import (
    spearman,
)
from darts_core.latency.deployed import in_runtime, without_norms
from darts_core.latency.edge_shapes import find_places
from darts_core.latency.expected import fit_overhead
from darts_core.ops import OPS, create_op
from darts_core.penalties import BudgetPenalty, SoftPenalty
from darts_core.spaces import get_space
from darts_core.supernet import build, count

SHAPE = (3, 8, 8)


def one_hot(space, architecture) -> dict[str, torch.Tensor]:
    """Weights that choose exactly the architecture; edges that it drops choose `none`."""
    rows = {edge: row for row, edge in enumerate(space.edges)}
    weights = {kind: torch.zeros(shape) for kind, shape in space.alpha_shapes().items()}
    for kind, weight in weights.items():
        weight[:, space.ops.index("none")] = 1.0
        for source, target, op in architecture.cell(kind).edges:
            weight[rows[(source, target)]] = 0.0
            weight[rows[(source, target)], space.ops.index(op)] = 1.0
    return weights


def test_places_are_all_edges_of_all_cells():
    net = supernet()
    places = find_places(net, SHAPE)
    assert len(places) == 3 * 14
    by_stride = [place for place in places if place.stride == 2]
    assert len(by_stride) == 2 * 8  # two reducing cells; 8 edges leave the two inputs
    assert {(p.channels, p.height) for p in places if p.kind == "normal"} == {(4, 8)}
    assert {(p.channels, p.height) for p in by_stride} == {(8, 8), (16, 4)}
    with pytest.raises(LatencyError, match="no cells"):
        find_places(torch.nn.Conv2d(3, 3, 1), SHAPE)


def test_table_is_timed_once_resumed_and_kept_to_its_device(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "FOREIGN_CORES", 1e9)  # whatever else runs here
    net, space = supernet("nasbench201", 1), get_space("nasbench201")
    path = tmp_path / "table.json"
    options = {"path": path, "batch_sizes": (1,), "seconds": 0.001}
    table = build_table(net, space.ops, SHAPE, runtime="eager", **options)
    assert all(ms > 0 for ms in table.rows.values())
    assert {key.split("/")[0] for key in table.rows} == set(space.ops) - {"none", "skip_connect"}
    monkeypatch.setattr(table_module, "time_group", lambda *a, **k: pytest.fail("timed again"))
    again = build_table(net, space.ops, SHAPE, runtime="eager", **options)
    assert again.rows == table.rows
    with pytest.raises(LatencyError, match="name another file"):
        build_table(net, space.ops, SHAPE, runtime="onnx", **options)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"device": "another card"}))
    with pytest.raises(LatencyError, match="'another card'"):
        LatencyTable.load(path, device="cpu")
    path.write_text(json.dumps(content | {"schema_version": 1}))
    with pytest.raises(LatencyError, match=r"timed another way.*build table=FILE"):
        LatencyTable.load(path)
    path.write_text(json.dumps(content | {"schema_version": 9}))
    with pytest.raises(LatencyError, match="has schema_version 9; this program reads up to"):
        LatencyTable.load(path)
    with pytest.raises(LatencyError, match="no file"):
        LatencyTable.load(tmp_path / "missing.json")


def test_interrupted_build_keeps_what_it_timed(tmp_path, monkeypatch):
    net, space = supernet("nasbench201", 1), get_space("nasbench201")
    monkeypatch.setattr(table_module, "_SAVE_EVERY_SECONDS", 0.0)
    calls = []

    def fails_late(group, *_, **__):
        calls.append(group)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return dict.fromkeys(group.calls, 1.0), False

    monkeypatch.setattr(table_module, "time_group", fails_late)
    options = {"path": tmp_path / "t.json", "runtime": "eager", "batch_sizes": (1,)}
    with pytest.raises(KeyboardInterrupt):
        build_table(net, space.ops, SHAPE, **options)
    # a group is one shape at which three operations occur
    assert len(LatencyTable.load(tmp_path / "t.json").rows) == 6


def test_rows_that_share_what_is_taken_off_are_timed_in_turns_with_it_once():
    net, space = supernet("nasbench201", 1), get_space("nasbench201")
    place = find_places(net, SHAPE)[0]
    wanted = {
        f"{op}/{batch}": table_module._Operation(place, op, batch)
        for batch in (1, 2)
        for op in (*space.ops[1:], *space.ops[2:] * 4)
    }
    wanted |= {f"again{i}": table_module._Operation(place, "nor_conv_1x1", 1) for i in range(7)}
    groups = list(rows_module.groups_of(wanted, "onnx", torch.device("cpu"), torch.float32))
    assert [len(group.calls) + len(group.free) for group in groups] == [8, 3, 4]
    assert all(group.base is not None for group in groups)
    # between two convolutions a skip is run, alone it would not be
    assert not any(group.free for group in groups)


def test_what_hands_its_input_on_takes_nothing():
    x = torch.randn(1, 2, 3, 3)

    class Part:
        def beside(self):
            return ()

        def forms(self, runtime, device):
            return nn.ReLU(), nn.Identity(), x

    (group,) = rows_module.groups_of(
        {"a": Part(), "b": Part()}, "onnx", torch.device("cpu"), torch.float32
    )
    assert group.free == ["a", "b"]
    found, disturbed = rows_module.time_group(
        group, torch.device("cpu"), seconds=0.001, settle=True
    )
    assert found == {"a": 1e-4, "b": 1e-4}
    assert not disturbed


def test_operations_run_in_onnx_and_without_their_norms():
    op = create_op("sep_conv_3x3", 4, 1)
    x = torch.randn(2, 4, 6, 6)
    bare = without_norms(op, x)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in bare.modules())
    (found,) = in_runtime(bare, x, "onnx")()
    np.testing.assert_allclose(found, bare(x).numpy(), atol=1e-5)
    with pytest.raises(LatencyError, match="needs a cuda device"):
        in_runtime(bare, x, "graph")
    with pytest.raises(LatencyError, match="'onnx' is timed on a CPU, not on meta"):
        in_runtime(torch.nn.Identity(), x.to("meta"), "onnx")
    with pytest.raises(LatencyError, match="'tensorrt'"):
        in_runtime(bare, x, "tensorrt")

    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x)

    with pytest.raises(LatencyError, match="Odd cannot run in ONNX Runtime"):
        in_runtime(Odd(), x, "onnx")


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_a_one_hot_choice_costs_what_its_network_costs(name):
    space, net = get_space(name), supernet(name, 3 if name == "darts" else 1)
    rng = np.random.default_rng(3)
    layers = 3 if name == "darts" else 1
    for what, scale in (("macs", 1e6), ("params", 1e3)):
        model = size_model(space, net, SHAPE, what)
        sizes = []
        for _ in range(3):
            architecture = space.random(rng)
            plain = build(architecture, channels=4, layers=layers, num_classes=3)
            sizes.append((getattr(count(plain, SHAPE), what) / scale, model.of(architecture)))
            mixed = model(one_hot(space, architecture))
            assert float(mixed) == pytest.approx(model.of(architecture), rel=1e-5)
        # what stands around the operations is the same in every network
        rest = [whole - chosen for whole, chosen in sizes]
        assert rest == pytest.approx([rest[0]] * 3, rel=1e-4)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_no_architecture_is_cheaper_than_the_least(name):
    space = get_space(name)
    rng = np.random.default_rng(0)
    costs = {kind: rng.uniform(1, 2, shape) for kind, shape in space.alpha_shapes().items()}
    model = CostModel(space, costs, overhead=3.0, slope=0.5)
    found = min(model.of(space.random(rng)) for _ in range(200))
    edges = sum(len(cell.edges) for _, cell in space.random(rng).cells)
    assert 3.0 + 0.5 * edges <= model.least() <= found
    weights = {kind: torch.zeros(shape) for kind, shape in space.alpha_shapes().items()}
    for kind, weight in weights.items():  # the cheapest operation everywhere
        cost = torch.tensor(costs[kind])
        if space.keep_edges is not None:
            cost[:, space.ops.index("none")] = 9.0
        weight[torch.arange(len(weight)), cost.argmin(1)] = 1.0
    if space.keep_edges is None:
        assert float(model(weights)) == pytest.approx(model.least(), rel=1e-5)


def test_the_least_counts_what_an_edge_may_choose():
    space = get_space("s1")
    costs = {kind: np.where(space.allowed(kind), 2.0, 1.0) for kind in space.cell_kinds}
    model = CostModel(space, costs)
    found = space.random(np.random.default_rng(0))
    assert model.least() == model.of(found) == 2.0 * sum(len(cell.edges) for _, cell in found.cells)


@pytest.mark.parametrize("name", ["darts", "s1", "s2", "s3", "s4", "nasbench201"])
@pytest.mark.parametrize(
    "relax", [lambda a: a.softmax(1), torch.sigmoid, lambda a: a.softmax(1) / 3]
)
def test_where_every_operation_costs_one_the_expectation_counts_the_edges_kept(name, relax):
    space = get_space(name)
    model = CostModel(space, {k: np.ones(shape) for k, shape in space.alpha_shapes().items()})
    torch.manual_seed(0)
    weights = {k: relax(torch.randn(shape)) for k, shape in space.alpha_shapes().items()}
    kept = sum(len(cell.edges) for _, cell in space.random(np.random.default_rng(0)).cells)
    # an edge that holds more than half of its node's weights counts once, which leaves less for the second
    near = 1e-5 if space.keep_edges is None else 0.05
    assert float(model(weights)) == pytest.approx(kept, rel=near)


def test_penalties_say_what_they_expect_and_how_hard_they_push():
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    model = size_model(space, net, SHAPE, "macs")
    weights = {"cell": torch.full((6, 5), 0.2)}
    expected = pytest.approx(float(model(weights)))
    soft = SoftPenalty(model, strength=1.0, target=1.0)
    assert soft.measurements(weights) == {"expected_MMACs": expected}
    hard = BudgetPenalty(model, budget=float(model(weights)) / 2, rate=0.1)
    hard(weights)
    for _ in range(2):  # asking moves nothing
        assert hard.measurements(weights) == {
            "expected_MMACs": expected, "multiplier": pytest.approx(0.1),
        }  # fmt: skip


def test_expectation_is_differentiable_in_alpha():
    space, net = get_space("darts"), supernet()
    model = size_model(space, net, SHAPE, "macs")
    weights = {
        kind: torch.rand(shape, dtype=torch.float64).softmax(1).requires_grad_()
        for kind, shape in space.alpha_shapes().items()
    }
    model.double()
    names = list(weights)
    assert torch.autograd.gradcheck(
        lambda *values: model(dict(zip(names, values, strict=True))), tuple(weights.values())
    )


def test_the_gradient_of_a_node_that_drew_none_on_all_its_edges_is_of_the_costs_size():
    space = get_space("darts")
    model = CostModel(space, {k: np.ones(shape) for k, shape in space.alpha_shapes().items()})
    weights = {kind: torch.zeros(shape) for kind, shape in space.alpha_shapes().items()}
    for weight in weights.values():
        weight[:2, space.ops.index("none")] = 1.0  # both edges of the first node
        weight[2:, space.ops.index("sep_conv_3x3")] = 1.0
        weight.requires_grad_()
    expected = model(weights)
    assert float(expected) == pytest.approx(2 * 3 * 2), "two kinds, three nodes with two edges"
    for gradient in torch.autograd.grad(expected, list(weights.values())):
        assert gradient[:2].max() == 1.0
        assert gradient.abs().max() <= 1.0


def test_latency_model_reads_the_table_and_its_fit():
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    places = find_places(net, SHAPE)
    table = LatencyTable("card", "eager")
    for place in places:
        for op in space.ops:
            table.rows[place.key(op, 1)] = float(place.channels)
    key = latency_model(table, space, net, SHAPE, batch=1).fit_key
    table.fits[key] = {"overhead_ms": 5.0, "slope": 2.0}
    model = latency_model(table, space, net, SHAPE, batch=1)
    assert latency_model(table, space, supernet("nasbench201", 2), SHAPE, batch=1).slope == 1.0
    cell = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    architecture = Architecture.from_text(cell)
    # two operations that take time in each of three cells of 4, 8 and 16 channels
    assert model.of(architecture) == pytest.approx(5.0 + 2.0 * 2 * (4 + 8 + 16))
    with pytest.raises(LatencyError, match="lacks 'nor_conv_1x1"):
        latency_model(table, space, net, SHAPE, batch=32)
    with pytest.raises(LatencyError, match="measured on 'card'"):
        latency_model(table, space, net, SHAPE, batch=1, device="cpu")


def test_an_edited_operation_of_a_users_own_is_timed_anew(monkeypatch):
    monkeypatch.setattr(OPS, "_entries", dict(OPS._entries))
    place, keys = find_places(supernet(), SHAPE)[0], []
    for kernel in (1, 3):
        OPS.put(
            "own", lambda c, stride, affine, k=kernel: nn.Conv2d(c, c, k, stride), description=""
        )
        keys.append(place.key("own", 1))
    assert keys[0] != keys[1]
    assert place.key("own", 1) == keys[1]
    older = place.key("own", 1, by_name=True)
    table = LatencyTable("card", "eager", rows={older: 7.0, keys[0]: 8.0})
    assert (older, table.ms(place, "own", 1)) == ("own/c4/8x8/s1/b1", 7.0)
    table.rows[keys[1]] = 9.0
    assert table.ms(place, "own", 1) == 9.0
    assert place.key("sep_conv_3x3", 1) == "sep_conv_3x3/c4/8x8/s1/b1"


def test_soft_penalty_pulls_towards_cheap_operations():
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    model = size_model(space, net, SHAPE, "macs")
    alpha = torch.zeros(space.alpha_shapes()["cell"], requires_grad=True)
    penalty = SoftPenalty(model, strength=0.5, target=2.0)
    value = penalty({"cell": alpha.softmax(1)})
    assert value.detach().item() == pytest.approx(0.25 * model({"cell": alpha.softmax(1)}).item())
    value.backward()
    dear, free = space.ops.index("nor_conv_3x3"), space.ops.index("none")
    assert (alpha.grad[:, dear] > 0).all()
    assert (alpha.grad[:, free] < 0).all()
    with pytest.raises(LatencyError, match="strength=-1"):
        SoftPenalty(model, strength=-1, target=1)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_budget_penalty_meets_its_budget(share):
    """A loss that likes dear operations, against a budget: the optimum lies on the budget."""
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    model = size_model(space, net, SHAPE, "macs")
    dear = space.ops.index("nor_conv_3x3")
    alpha = torch.zeros(space.alpha_shapes()["cell"], requires_grad=True)
    with torch.no_grad():
        start = torch.full_like(alpha, -20.0)
        start[:, dear] = 20.0
        budget = share * float(model({"cell": start.softmax(1)}))
    penalty = BudgetPenalty(model, budget=budget, rate=0.02)
    optimizer = torch.optim.Adam([alpha], lr=0.05)
    for _ in range(400):
        weight = alpha.softmax(1)
        loss = -weight[:, dear].log().mean() + penalty({"cell": weight})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        before = penalty.multiplier.clone()
        found = float(model({"cell": alpha.softmax(1)}))
        penalty({"cell": alpha.softmax(1)})
    assert found == pytest.approx(budget, rel=0.05)
    assert float(before) > 0
    assert torch.equal(penalty.multiplier, before)  # evaluation moves nothing
    again = BudgetPenalty(model, budget=budget)
    again.load_state_dict(penalty.state_dict())
    assert torch.equal(again.multiplier, before)


def test_fit_recovers_overhead_and_slope():
    sums = [1.0, 2.0, 5.0, 9.0]
    fit = fit_overhead(sums, [0.7 + 1.3 * value for value in sums])
    assert fit["overhead_ms"] == pytest.approx(0.7)
    assert fit["slope"] == pytest.approx(1.3)
    with pytest.raises(LatencyError, match="at least 3"):
        fit_overhead([1.0, 1.0], [1.0, 1.0])
    noise = fit_overhead([1.0, 2.0, 3.0], [9.0, 8.0, 7.0])  # more work never takes less time
    assert (noise["slope"], noise["overhead_ms"]) == (1.0, pytest.approx(6.0))
    # nor does any network take less than nothing
    noise = fit_overhead([10.0, 20.0, 30.0], [6.0, 5.0, 3.0])
    assert (noise["slope"], noise["overhead_ms"]) == (pytest.approx(0.25), 0.0)
    assert spearman([1, 2, 3], [10, 30, 20]) == pytest.approx(0.5)


def test_disturbed_rows_are_taken_anew(tmp_path, monkeypatch, caplog):
    net, space = supernet("nasbench201", 1), get_space("nasbench201")
    options = {"path": tmp_path / "t.json", "batch_sizes": (1,), "seconds": 0.001}
    monkeypatch.setattr(rows_module, "FOREIGN_CORES", -1.0)
    table = build_table(net, space.ops, SHAPE, runtime="eager", **options)
    assert set(table.flagged) == set(table.rows)
    assert "were timed while other processes were busy" in caplog.text
    monkeypatch.setattr(rows_module, "FOREIGN_CORES", 1e9)
    assert build_table(net, space.ops, SHAPE, runtime="eager", **options).flagged == []
    assert LatencyTable.load(tmp_path / "t.json").flagged == []
    with pytest.raises(LatencyError, match="fp32 on a CPU"):
        build_table(net, space.ops, SHAPE, dtype=torch.bfloat16)


def test_cost_shapes_must_fit():
    with pytest.raises(LatencyError, match="shape"):
        CostModel(get_space("nasbench201"), {"cell": np.zeros((2, 2))})
