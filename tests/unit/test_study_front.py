"""Ranks, hypervolume and contributions against their definitions; how trials stand at a rung."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from darts_core.study.hypervolume import by_contribution, hypervolume
from darts_core.study.pareto import pareto_mask, pareto_ranks
from darts_core.study.ranking import Ranking, reported_at

POINTS = st.integers(1, 3).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, 4)] * d), min_size=1, max_size=9)
)


def cells(points, reference):
    """The unit cells below the reference that some point dominates, counted one by one."""
    return sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points)
        for cell in product(range(reference), repeat=len(points[0]))
    )


@settings(max_examples=80, deadline=None)
@given(POINTS)
def test_ranks_are_fronts_peeled_one_after_another(points):
    table = np.array(points, dtype=float)
    wanted, left, rank = np.zeros(len(table), dtype=int), np.arange(len(table)), 0
    while len(left):
        front = pareto_mask(table[left])
        wanted[left[front]] = rank
        left, rank = left[~front], rank + 1
    assert pareto_ranks(table).tolist() == wanted.tolist()


def test_ranks_of_what_is_no_number_and_of_no_column():
    assert pareto_ranks([[1.0, np.nan], [2.0, 2.0], [3.0, 3.0], [0.0, np.inf]]).tolist() == [
        2,
        0,
        1,
        2,
    ]
    assert pareto_ranks(np.zeros((3, 0))).tolist() == [0, 0, 0]
    assert pareto_ranks(np.zeros((0, 2))).tolist() == []


@settings(max_examples=80, deadline=None)
@given(POINTS)
def test_hypervolume_counts_the_dominated_cells(points):
    assert hypervolume(points, [4] * len(points[0])) == cells(points, 4)


def test_hypervolume_by_hand():
    # [1, 3] x [1, 3] and [2, 3] x [0, 1]; what lies on or beyond the reference adds nothing
    assert hypervolume([[1, 1], [2, 0], [3, -5], [0, 3], [1, 1]], [3, 3]) == 4 + 1
    # a box of 2 x 2 x 2, and what one of 1 x 1 x 3 adds to it
    assert hypervolume([[1, 1, 1], [2, 2, 0]], [3, 3, 3]) == 8 + 1
    assert hypervolume([], [1, 1]) == 0.0


@settings(max_examples=50, deadline=None)
@given(POINTS)
def test_each_next_row_adds_the_most(points):
    reference = 5
    order = by_contribution(points, [reference] * len(points[0]))
    assert sorted(order) == list(range(len(points)))
    for place, index in enumerate(order):
        before = [points[i] for i in order[:place]]
        volume = cells(before, reference) if before else 0
        gains = {i: cells([*before, points[i]], reference) - volume for i in order[place:]}
        best = max(gains.values())
        assert index == min(i for i, gain in gains.items() if gain == best)


def test_contributions_by_hand():
    # alone each has 4; after the first the other end adds 3, the middle 2 and then 1, its double nothing
    assert by_contribution([[0, 3], [2, 2], [3, 0], [2, 2]], [4, 4]) == [0, 2, 1, 3]
    assert hypervolume([[0, 3], [2, 2], [3, 0]], [4, 4]) == 4 + 3 + 1


TWO = Ranking({"accuracy": "maximize", "ms": "minimize"})


def trial(number, step=1, **metrics):
    made = create_trial(
        state=TrialState.PRUNED,
        intermediate_values={step: next(iter(metrics.values()))},
        user_attrs={reported_at(step): metrics},
    )
    made.number = number
    return made


def ranking(rule, trials, step=1):
    return [trials[i].number for i in rule.order(trials, [step] * len(trials))]


def test_trials_stand_by_rank_then_by_contribution():
    trials = [
        trial(0, accuracy=0.5, ms=5.0),  # behind all others
        trial(1, accuracy=0.9, ms=4.0),  # an end of the front
        trial(2, accuracy=0.8, ms=1.5),  # its middle
        trial(3, accuracy=0.6, ms=1.0),  # the other end
        trial(4, accuracy=0.6, ms=1.6),  # behind the middle alone
    ]
    # the front, scaled to 0 .. 1, up to 1.1: alone the middle has 0.767 x 0.933; then the ends
    assert ranking(TWO, trials) == [2, 1, 3, 4, 0]
    assert ranking(TWO, trials[::-1]) == [2, 1, 3, 4, 0]
    # the units do not count
    scaled = [trial(t.number, accuracy=t.user_attrs["reported:1"]["accuracy"],
                    ms=1000 * t.user_attrs["reported:1"]["ms"]) for t in trials]  # fmt: skip
    assert ranking(TWO, scaled) == [2, 1, 3, 4, 0]


def test_what_breaks_a_constraint_stands_behind_and_units_do_not_count():
    rule = Ranking(TWO.goals, (("params", "<=", 1e6), ("recall", ">=", 0.5)))
    trials = [
        trial(0, accuracy=0.99, ms=0.1, params=3e6, recall=0.9),
        trial(1, accuracy=0.5, ms=9.0, params=1e6, recall=0.5),
        trial(2, accuracy=0.6, ms=9.5, params=5e5, recall=0.6),
        trial(3, accuracy=0.99, ms=0.1, params=2e6, recall=0.4),
        trial(4, accuracy=0.99, ms=0.1, params=3e6, recall=0.4),
    ]
    # 1 and 2 meet both; 0 and 3 each break less of something; 4 is behind both
    assert ranking(rule, trials) == [1, 2, 0, 3, 4]


def test_one_objective_under_a_constraint_is_judged_by_both():
    rule = Ranking({"accuracy": "maximize"}, (("params", "<=", 100),))
    trials = [trial(0, accuracy=0.9, params=200), trial(1, accuracy=0.1, params=50),
              trial(2, accuracy=0.3, params=100), trial(3, accuracy=0.2, params=150)]  # fmt: skip
    assert ranking(rule, trials) == [2, 1, 3, 0]


def test_a_metric_that_one_trial_lacks_counts_for_none():
    trials = [
        trial(0, accuracy=0.5, ms=1.0),
        trial(1, accuracy=0.7),
        trial(2, accuracy=0.6, ms=9.0),
    ]
    assert ranking(TWO, trials) == [1, 2, 0]


def test_what_is_not_finite_stands_last():
    trials = [trial(0, accuracy=-np.inf, ms=0.1), trial(1, accuracy=0.1, ms=9.0)]
    assert ranking(TWO, trials) == [1, 0]


@pytest.mark.parametrize(
    ("direction", "wanted"), [("maximize", [1, 0, 2]), ("minimize", [0, 2, 1])]
)
def test_one_objective_stands_by_its_value_and_number(direction, wanted):
    trials = [trial(0, loss=0.2), trial(2, loss=0.2), trial(1, loss=0.3)]
    assert ranking(Ranking({"loss": direction}), trials) == wanted
