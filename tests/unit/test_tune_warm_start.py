"""What a study may begin with: the trials of another one that is judged by the same numbers."""

from __future__ import annotations

import pytest
from optuna.search_space import intersection_search_space

from darts_core.errors import TuneError
from darts_core.study import run_study
from darts_core.study.budget import Budget
from darts_core.study.spec import StudySpec
from darts_core.study.study import open_study

SPACE = {"x": {"low": 0.0, "high": 1.0}}


def value(trial):
    return trial.params["x"]


def test_a_study_that_is_better_the_other_way_is_no_knowledge(tmp_path):
    less = {"metric": "val_loss", "direction": "minimize", "sampler": "random"}
    run_study(value, SPACE, folder=tmp_path / "first", trials=2, **less)
    words = r"judged by val_loss \(minimized\), this one by val_loss \(maximized\)"
    with pytest.raises(TuneError, match=words):
        run_study(
            value, SPACE, folder=tmp_path / "more", trials=1, warm_start=tmp_path / "first",
            metric="val_loss", sampler="random",
        )  # fmt: skip
    with pytest.raises(TuneError, match=r"this one by val_accuracy \(maximized\)"):
        run_study(value, SPACE, folder=tmp_path / "other", trials=1, warm_start=tmp_path / "first")
    found = run_study(
        value, SPACE, folder=tmp_path / "same", trials=1, warm_start=tmp_path / "first", **less
    )
    assert len(found.trials) == 1


def test_a_configuration_outside_of_the_other_space_leaves_samplers_the_settings(tmp_path):
    run_study(
        value, SPACE, folder=tmp_path / "first", trials=4, sampler="random", pruner="none",
        baseline={"x": 7.0},
    )  # fmt: skip
    spec = StudySpec.make(SPACE, Budget(trials=3), folder=tmp_path / "second", pruner="none")
    study = open_study(spec, warm_start=tmp_path / "first").study
    assert len(study.trials) == 3
    # what the samplers that model settings together go by
    assert list(intersection_search_space(study.get_trials(deepcopy=False))) == ["x"]
