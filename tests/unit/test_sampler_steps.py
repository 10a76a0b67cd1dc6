"""Settings that run in steps: the samplers of our own draw no value between two of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from darts_core.study import run_study
from darts_core.study.samplers.steps import step, uniform
from darts_core.study.space import parse_space

SPACE = {"x": {"low": 0.0, "high": 1.0, "step": 0.25}, "width": {"low": 8, "high": 64, "step": 8}}


@pytest.mark.parametrize(
    "sampler",
    ["anneal", {"name": "evolution", "population": 4}, {"name": "acquisition", "n_initial_points": 4}],
)  # fmt: skip
def test_no_trial_lies_between_two_steps(tmp_path, sampler):
    result = run_study(
        lambda trial: trial.params["x"] - trial.params["width"] / 100,
        SPACE, folder=tmp_path, trials=10, sampler=sampler, pruner="none",
    )  # fmt: skip
    space = parse_space(SPACE)
    for record in result.trials:
        for name, value in record.params.items():
            assert space[name].contains(value), (name, value)
    assert len({tuple(record.params.items()) for record in result.trials}) > 3


@pytest.mark.parametrize(
    "distribution",
    [FloatDistribution(0.0, 1.0, step=0.5), IntDistribution(2, 6, step=2), IntDistribution(1, 3)],
)
def test_all_steps_are_equally_likely_and_each_can_be_left(distribution):
    rng = np.random.default_rng(0)
    drawn = Counter(uniform(distribution, rng) for _ in range(3000))
    assert len(drawn) == 3
    assert all(900 < count < 1100 for count in drawn.values())
    middle = sorted(drawn)[1]
    # a small step reaches both neighbours
    assert {step(distribution, middle, 0.1, rng) for _ in range(100)} == set(drawn)


def test_whole_numbers_on_a_logarithmic_scale_have_their_share_and_can_be_left():
    distribution, rng = IntDistribution(1, 4, log=True), np.random.default_rng(0)
    drawn = Counter(uniform(distribution, rng) for _ in range(4000))
    # of [0.5, 4.5], cut in the middle between two numbers
    shares = [np.log((n + 0.5) / (n - 0.5)) / np.log(9) for n in (1, 2, 3, 4)]
    assert [drawn[n] / 4000 for n in (1, 2, 3, 4)] == pytest.approx(shares, abs=0.02)
    assert {step(distribution, 1, 0.1, rng) for _ in range(100)} == {1, 2}
    assert {step(distribution, 4, 0.1, rng) for _ in range(100)} == {3, 4}
