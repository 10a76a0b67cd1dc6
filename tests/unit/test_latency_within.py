"""The pick of a search under a budget: kept where it meets it, else changed, as measured."""

import zlib

import numpy as np
import pytest

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError
from darts_core.latency import CostModel
from darts_core.latency.within import TOLERANCE, _weight, fastest, within_budget
from darts_core.spaces import get_space
from darts_core.spaces.changes import changes

NB = get_space("nasbench201")
RNG = np.random.default_rng(0)
COSTS = {"cell": RNG.uniform(0.5, 1.0, (6, 5)) * np.array([0.0, 0.0, 1.0, 3.0, 0.8])}
MODEL = CostModel(NB, COSTS, overhead=0.5, lean=True)
WEIGHTS = {"cell": RNG.dirichlet(np.ones(5), 6)}
PICK = NB.discretize(WEIGHTS)


@pytest.fixture(scope="module")
def many_cells():
    """(weight, cost) of cells drawn by the weights, among which the best ones are."""
    rng = np.random.default_rng(4)
    drawn = {
        tuple(rng.choice(5, p=row**0.7 / (row**0.7).sum()) for row in WEIGHTS["cell"])
        for _ in range(3000)
    }
    cells = []
    for columns in drawn:
        a, b, c, d, e, f = (NB.ops[k] for k in columns)
        cells.append(Architecture.from_text(f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"))
    return [(_weight(NB, cell, WEIGHTS), MODEL.of(cell)) for cell in cells]


def test_a_pick_within_the_budget_is_kept_and_measured_once():
    asked = []
    found = within_budget(
        PICK, WEIGHTS, NB, MODEL, 100.0, lambda a: (asked.append(a), 3.0)[1]
    )  # fmt: skip
    assert (found.architecture, found.measured, asked) == (PICK, 3.0, [PICK])
    assert found.steps[0]["architecture"] == PICK.text()


def test_a_pick_that_takes_the_budget_to_the_last_param_is_kept():
    """Costs are kept in fp32, where 0.1 is a little more, and the pick was changed for a smaller one."""
    counted = CostModel(NB, {"cell": np.full((6, 5), 0.1) * [0, 0, 1, 9, 0]}, overhead=1.0)
    most = NB.discretize({"cell": np.eye(5)[[2, 2, 1, 1, 1, 1]]})
    found = within_budget(most, WEIGHTS, NB, counted, 1.2, counted.of)
    assert 1.2 < found.measured == pytest.approx(1.2)
    assert found.architecture == most


def test_what_is_counted_gives_up_no_more_than_it_is_over():
    """2 % of a network that is mostly stem were more than one choice."""
    counted = CostModel(NB, {"cell": np.full((6, 5), 0.1) * [0, 0, 0.9, 1, 0]}, overhead=1.0)
    most = NB.discretize({"cell": np.eye(5)[[3] * 6]})
    weights = {"cell": np.tile([0.01, 0.01, 0.48, 0.49, 0.01], (6, 1))}
    found = within_budget(most, weights, NB, counted, 1.59, counted.of)
    assert found.measured == pytest.approx(1.59)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9])
def test_where_predictions_are_right_the_result_is_nearly_the_best_of_many(share, many_cells):
    least = MODEL.of(fastest(NB, MODEL))
    budget = least + share * (MODEL.of(PICK) - least)
    found = within_budget(PICK, WEIGHTS, NB, MODEL, budget, MODEL.of)
    assert found.measured <= budget
    best = max(weight for weight, cost in many_cells if cost <= budget)
    # changes are taken one after the other; a weight of the best one's or nearly so
    assert _weight(NB, found.architecture, WEIGHTS) >= best - 1.0


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.56, 2.5])
def test_wrong_predictions_are_corrected_by_what_is_measured(factor):
    def takes(architecture):
        noise = 0.9 + 0.2 * (zlib.crc32(architecture.text().encode()) % 100) / 100
        return factor * noise * MODEL.of(architecture)

    budget = 0.6 * takes(PICK)
    found = within_budget(PICK, WEIGHTS, NB, MODEL, budget, takes)
    assert takes(found.architecture) == found.measured <= TOLERANCE * budget
    assert found.architecture != PICK
    assert len(found.steps) <= 13
    assert found.steps[-1]["measured"] == takes(
        Architecture.from_text(found.steps[-1]["architecture"])
    )


def test_a_budget_that_no_network_meets_names_the_fastest_found():
    quickest = fastest(NB, MODEL)
    with pytest.raises(LatencyError) as caught:
        within_budget(PICK, WEIGHTS, NB, MODEL, 1.0, lambda a: 5.0 + MODEL.of(a))
    assert f"{5.0 + MODEL.of(quickest):.3g} ms" in str(caught.value)
    assert "Raise the budget" in str(caught.value)


def test_the_fastest_is_found_where_a_bad_fit_expects_less_than_nothing():
    costs = {"cell": COSTS["cell"].copy()}
    costs["cell"][:, :2] = 0.0  # equally cheap: not to be exchanged for ever
    below = CostModel(NB, costs, overhead=-50.0, lean=True)
    assert below.of(fastest(NB, below)) == pytest.approx(-50.0)


def test_what_may_not_be_returned_is_not_a_way_out():
    def sound(architecture):
        return sum(op == "nor_conv_3x3" for _, _, op in architecture.cell("cell").edges) >= 2

    start = Architecture.from_text(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    )
    floor = MODEL.of(fastest(NB, MODEL, sound, start))
    found = within_budget(start, WEIGHTS, NB, MODEL, 1.05 * floor, MODEL.of, sound)
    assert sound(found.architecture)
    assert found.measured <= 1.05 * floor
    with pytest.raises(LatencyError, match="fastest"):
        within_budget(start, WEIGHTS, NB, MODEL, 0.8 * floor, MODEL.of, sound)


def test_darts_cells_keep_their_two_edges_a_node_and_never_take_none():
    space = get_space("darts")
    rng = np.random.default_rng(1)
    weights = {kind: rng.dirichlet(np.ones(8), 14) for kind in space.cell_kinds}
    costs = {kind: rng.uniform(0.1, 1.0, (14, 8)) for kind in space.cell_kinds}
    model = CostModel(space, costs)
    pick = space.discretize(weights)
    budget = 0.6 * model.of(pick)
    found = within_budget(pick, weights, space, model, budget, model.of).architecture
    assert model.of(found) <= budget
    for kind in space.cell_kinds:
        targets = [target for _, target, _ in found.cell(kind).edges]
        assert targets == [2, 2, 3, 3, 4, 4, 5, 5]
        assert len(set(found.cell(kind).edges)) == 8
        assert all(op != "none" for _, _, op in found.cell(kind).edges)


def test_labels_are_changed_too():
    space = get_space("mobilenet")
    rng = np.random.default_rng(2)
    weights = {k: rng.dirichlet(np.ones(s[1]), 1) for k, s in space.alpha_shapes().items()}
    pick = space.discretize(weights)

    class Depth:
        unit = "blocks"

        def of(self, architecture):
            return sum(architecture.choice(f"stage{i}.depth") for i in (1, 2, 3))

    found = within_budget(pick, weights, space, Depth(), 4.0, Depth().of)
    assert found.measured <= 4.0 < Depth().of(pick)
    kept = [label for label, value in found.architecture.choices if value == pick.choice(label)]
    assert len(kept) >= len(pick.choices) - 3, "only depths save anything"


def test_the_losses_of_changes_are_differences_of_log_weights():
    for space, name in ((NB, "cell"), (get_space("s1"), "normal")):
        rng = np.random.default_rng(3)
        weights = {k: rng.dirichlet(np.ones(s[1]), s[0]) for k, s in space.alpha_shapes().items()}
        start = space.discretize(weights)
        seen = list(changes(space, start, weights))
        assert len({a for a, _ in seen}) == len(seen) > 10
        for other, loss in seen:
            assert loss == pytest.approx(
                _weight(space, start, weights) - _weight(space, other, weights)
            )
            for s, t, op in other.cell(name).edges:
                row = space.edges.index((s, t))
                assert space.allowed(name)[row, space.ops.index(op)]
