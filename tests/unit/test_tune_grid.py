"""A grid runs each setting once, also under conditions and beside another study's knowledge."""

from __future__ import annotations

from darts_core.study import run_study
from darts_core.study.samplers import grid_size
from darts_core.study.space import parse_space

PLAIN = {"x": {"choices": [1, 2, 3, 4]}}
CONDITIONS = {
    "optimizer": {"choices": ["sgd", "adamw", "lion"]},
    "momentum": {"choices": [0.5, 0.9], "when": {"optimizer": "sgd"}},
    "decay": {"low": 0, "high": 2, "when": {"optimizer": ["adamw", "lion"]}},
}


def run(folder, space, **options):
    """All that the grid has to run, in the order in which it was run."""
    settings = {"sampler": "grid", "pruner": "none", "trials": 50, **options}
    found = run_study(lambda trial: float(trial.number), space, folder=folder, **settings)
    return [record.params for record in found.trials]


def distinct(points):
    return {tuple(sorted(point.items())) for point in points}


def test_what_a_condition_leaves_out_makes_no_other_point(tmp_path):
    points = run(tmp_path, CONDITIONS)
    # sgd with two momenta, the two others with three decays each; 18 combinations in all
    assert len(points) == len(distinct(points)) == 2 + 2 * 3
    assert grid_size(parse_space(CONDITIONS)) == 8


def test_a_grid_does_not_run_again_what_another_study_knows(tmp_path):
    first = run(tmp_path / "first", PLAIN, trials=2)
    second = run(tmp_path / "second", PLAIN, warm_start=tmp_path / "first")
    assert len(second) == 2
    assert len(distinct([*first, *second])) == 4
    # but for what is asked for, the user's own configuration among it
    options = {"warm_start": tmp_path / "first", "baseline": first[0]}
    third = run(tmp_path / "third", PLAIN, **options)
    assert third[0] == first[0]
    assert distinct(third) == distinct([first[0], *second])
    assert len(third) == 3


def test_a_conditional_grid_knows_the_other_study_s_points_too(tmp_path):
    first = run(tmp_path / "first", CONDITIONS, trials=3)
    second = run(tmp_path / "second", CONDITIONS, warm_start=tmp_path / "first")
    assert len(second) == 5
    assert len(distinct([*first, *second])) == 8
