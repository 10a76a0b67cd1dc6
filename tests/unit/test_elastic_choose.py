"""The latency of sub-networks, and the search for one at every budget."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from elastic_cases import SHAPE, made
from torch import nn

from darts_core.elastic import elastic
from darts_core.elastic.alphas import descend, fitted
from darts_core.elastic.archive import Archive
from darts_core.elastic.choose import SEARCHES, budgets_of, choose
from darts_core.elastic.cost_table import fit_cost, measure_cost
from darts_core.elastic.gates import Gates
from darts_core.elastic.norms import batch_statistics
from darts_core.elastic.rivals import _rate
from darts_core.errors import LatencyError
from darts_core.prune.cost import LayerCosts
from darts_core.supernet import count

LOSS = nn.functional.cross_entropy


def _counted():
    return LayerCosts(torch.device("cpu"), folded=True, analytic=True)


def _cost(net, shape=SHAPE):
    return measure_cost(net, shape, 1, _counted())


def _one_hot(net, choices, dtype=torch.float64):
    return {
        v.name: torch.tensor([float(o == choices[v.name]) for o in v.options], dtype=dtype)
        for v in net.variables
    }


@pytest.mark.parametrize("name", ["resnet14", "vit"])
def test_the_cost_of_a_sub_network_is_the_sum_over_its_layers(name):
    net = made(name, torch.float32)
    cost = _cost(net)
    generator = np.random.default_rng(0)
    for choices in [net.smallest, net.largest, *(net.draw(generator) for _ in range(3))]:
        alone = _counted()
        alone.observe(net.cut(choices), SHAPE, 1)
        kinds = (nn.Conv2d, nn.Linear)
        layers = [n for n, (module, _) in alone.layers.items() if isinstance(module, kinds)]
        wanted = sum(alone.layer_ms(n) for n in layers)
        assert cost.of(choices) == pytest.approx(wanted, rel=0.02 if name == "vit" else 1e-9)
        expected = cost(_one_hot(net, choices))
        assert float(expected) == pytest.approx(cost.of(choices), rel=1e-9)


def test_the_expected_cost_is_the_mean_over_draws():
    net = made("resnet14", torch.float32)
    cost = _cost(net)
    generator = np.random.default_rng(1)
    weights = {v.name: generator.dirichlet(np.ones(len(v.options))) for v in net.variables}
    draws = [
        cost.of(
            {v.name: int(generator.choice(v.options, p=weights[v.name])) for v in net.variables}
        )
        for _ in range(4000)
    ]
    exact = float(cost({name: torch.tensor(w) for name, w in weights.items()}))
    assert exact == pytest.approx(np.mean(draws), rel=0.02)


def test_overhead_and_slope_are_fitted_and_a_saved_table_is_not_timed_again():
    net = made("resnet14", torch.float32)
    cost = _cost(net)
    rows = fit_cost(cost, net, lambda model: 3.0 + 2e-5 * count(model, SHAPE).macs)
    measured = [r["measured_ms"] for r in rows]
    assert max(measured) > 3 * min(measured)  # else any overhead without a slope would do
    assert [r["predicted_ms"] for r in rows] == pytest.approx(measured, rel=0.03)
    saved = json.loads(json.dumps(cost.to_dict()))
    blind = _counted()
    blind.layer_ms = None  # anything timed would end here
    again = measure_cost(net, SHAPE, 1, blind, known=saved)
    assert again.of(net.smallest) == cost.of(net.smallest)
    with pytest.raises(LatencyError, match="does not fit"):
        measure_cost(made("vit", torch.float32), SHAPE, 1, blind, known=saved)


@pytest.mark.parametrize("name", ["resnet14", "foreign"])
def test_gates_of_one_option_each_give_the_sub_network(name):
    net = made(name)
    x = torch.randn(8, *SHAPE).double()
    generator = np.random.default_rng(2)
    gates = Gates(net)
    before = copy.deepcopy(net.model.state_dict())
    for choices in [net.smallest, net.largest, *(net.draw(generator) for _ in range(3))]:
        plain = net.cut(choices)
        with torch.no_grad(), batch_statistics(net.model), batch_statistics(plain):
            with gates(_one_hot(net, choices)) as network:
                found = network(x)
            wanted = plain(x)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))
        net.model.load_state_dict(before)


class _Branches(nn.Module):
    """Two branches of one cost; nothing depends on the second."""

    def __init__(self):
        super().__init__()
        self.useful = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        self.idle = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
        with torch.no_grad():
            self.useful[2].weight.mul_(6)
            self.idle[2].weight.zero_()

    def forward(self, x):
        x = x.flatten(1)
        return self.useful(x) + self.idle(x)


def _branches():
    torch.manual_seed(0)
    net = elastic(_Branches(), torch.randn(2, 4, 4), step=8, least=0.25)
    x = torch.randn(256, 4, 4)
    return net, _cost(net, (4, 4)), [(x, net.model(x).argmax(1).detach())]


def test_alphas_cut_what_the_loss_does_not_need():
    net, cost, batches = _branches()
    budget = 1.01 * cost.of({"useful.0": 32, "idle.0": 8})
    weights = descend(net, cost, batches, LOSS, budget, steps=80)
    choices = fitted(cost, weights, budget)
    assert cost.of(choices) <= budget
    assert choices == {"useful.0": 32, "idle.0": 8}
    assert all(p.requires_grad for p in net.model.parameters())
    assert fitted(cost, weights, 0.5 * cost.of(net.smallest)) is None


def _judge(batches):
    def judge(model):
        with torch.no_grad():
            x, y = batches[0]
            output = model(x)
        return float(LOSS(output, y)), float((output.argmax(1) == y).float().mean())

    return judge


def test_every_budget_gets_the_best_of_three_searches_and_nothing_is_judged_twice(tmp_path):
    net, cost, batches = _branches()
    asked = []

    def judge(model):
        asked.append(1)
        return _judge(batches)(model)

    budgets = budgets_of(cost.of(net.smallest), cost.of(net.largest), (), 4)
    kept = {}

    def go():
        archive = Archive(net, cost, judge, tmp_path / "judged.jsonl")
        final = lambda model: _judge(batches)(model)[1]  # noqa: E731
        return archive, choose(
            archive,
            budgets,
            batches,
            LOSS,
            final,
            looks=8,
            examples=512,
            kept=kept,
            keep=kept.update,
        )

    archive, found = go()
    for row, budget in zip(found.rows, budgets, strict=True):
        assert row.predicted_ms <= budget
        able = [r.loss for r in archive.rows.values() if r.predicted_ms <= budget]
        assert row.loss <= sorted(able)[min(2, len(able) - 1)]
    assert sum(found.found_by.values()) == 4
    assert set(found.found_by) == set(SEARCHES)
    assert found.metrics[0] == 1.0
    assert len(asked) == found.judged
    with (tmp_path / "judged.jsonl").open("a") as stream:
        stream.write('{"choices": {"us')  # a kill while writing
    again, same = go()
    assert len(asked) == found.judged
    assert [row.choices for row in same.rows] == [row.choices for row in found.rows]
    assert again.rows == archive.rows


def test_of_the_finalists_one_of_nan_loses_to_any_other():
    net, cost, batches = _branches()
    given = iter([math.nan, 0.25, 0.5])
    budgets = [cost.of(net.largest)]
    found = choose(
        Archive(net, cost, _judge(batches)), budgets, batches, LOSS, lambda _: next(given),
        looks=8, examples=512,
    )  # fmt: skip
    assert found.metrics == [0.5]


def test_a_sub_network_whose_loss_is_nan_is_the_last_one():
    net, cost, _ = _branches()
    given = iter([0.5, math.nan, 0.25])
    archive = Archive(net, cost, lambda _: (next(given), 0.0))
    parts = [net.largest, {**net.largest, "useful.0": 8}, {**net.largest, "idle.0": 8}]
    first, nan, last = [archive(choices, "greedy") for choices in parts]
    assert archive.best(cost.of(net.largest), 2) == [last, first]
    assert min([nan, last], key=lambda row: _rate(row, first)) is last


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("10%", "below the smallest"),
        ("fast", "not understood"),
        ("nan", "not understood"),
        ("inf", "not understood"),
    ],
)
def test_a_budget_that_cannot_be_met_is_refused(budget, words):
    with pytest.raises(LatencyError, match=words):
        budgets_of(2.0, 10.0, [budget], 8)


def test_budgets_are_written_as_shares_and_milliseconds():
    assert budgets_of(2.0, 10.0, ["3ms", "50%", "9.5"], 8) == [9.5, 5.0, 3.0]
    spread = budgets_of(2.0, 10.0, [], 8)
    assert len(spread) == 8
    assert spread[0] == pytest.approx(10.0)
    assert spread[-1] == pytest.approx(2.04)
