"""What a study may begin with: the trials of another one that is judged by the same numbers."""

from __future__ import annotations

import math

import pytest
from optuna.search_space import intersection_search_space

from darts_core.errors import TuneError
from darts_core.settings import from_plain
from darts_core.stages.schema import TuneStage
from darts_core.stages.tune import tune
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


@pytest.mark.parametrize(("sampler", "told"), [("anneal", True), ("tpe", False)])
def test_a_setting_that_the_other_study_lacks_is_told_where_no_sampler_learns_of_it(
    tmp_path, caplog, sampler, told
):
    run_study(value, SPACE, folder=tmp_path / "first", trials=2, sampler="random")
    wider = {**SPACE, "y": SPACE["x"], "z": {**SPACE["x"], "when": {"kind": "b"}}, "kind": ["b"]}
    spec = StudySpec.make(wider, Budget(trials=3), folder=tmp_path / "second", sampler=sampler)
    study = open_study(spec, warm_start=tmp_path / "first").study
    assert len(study.trials) == 2
    assert (f"have no kind, y, which the sampler {sampler} will draw" in caplog.text) == told


def test_one_of_several_studies_in_a_database_is_named(tmp_path):
    pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path}/all.db"
    for name, trials in (("a/tune", 2), ("b/tune", 3)):
        run_study(
            value, SPACE, folder=tmp_path / name, study_name=name, trials=trials, storage=url,
            sampler="random",
        )  # fmt: skip

    def known(source, name):
        spec = StudySpec.make(
            SPACE, Budget(trials=1), folder=tmp_path / name, storage=url, study_name=name
        )
        return len(open_study(spec, warm_start=source).study.trials)

    with pytest.raises(
        TuneError, match=r"2 studies in .*\"warm_start='.*all\.db#a/tune'\".*a/tune, b/tune"
    ):
        known(url, "c")
    with pytest.raises(
        TuneError, match=r"Unknown study in .*all\.db 'b'\. Known: a/tune, b/tune, c"
    ):
        known(f"{url}#b", "d")
    assert known(f"{url}#b/tune", "c") == 3


def sized(trial):
    return {"val_accuracy": trial.params["x"], "size": trial.params["x"]}


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_knowledge_comes_with_how_far_it_breaks_the_constraints(tmp_path, sampler):
    points = [{"x": x} for x in (0.2, 0.8, 0.3, 0.9)]
    first = {"trials": 4, "enqueue": points, "sampler": "random", "pruner": "none"}
    run_study(sized, SPACE, folder=tmp_path / "first", **first)
    options = {
        "sampler": {"name": sampler, "n_startup_trials": 1}, "pruner": "none",
        "constraints": {"size": "<= 0.5"},
    }  # fmt: skip
    spec = StudySpec.make(SPACE, Budget(trials=2), folder=tmp_path / "second", **options)
    study = open_study(spec, warm_start=tmp_path / "first").study
    broken = [trial.user_attrs["violations"][0] > 0 for trial in study.get_trials(deepcopy=False)]
    assert broken == [False, True, False, True]
    # what samplers see of it
    attrs = [trial.system_attrs["constraints"][0] > 0 for trial in study.get_trials(deepcopy=False)]
    assert attrs == broken
    # what follows has a number of violations, too, and samplers compare the two
    found = run_study(
        lambda trial: {**sized(trial), "size": 0.1},
        SPACE,
        folder=tmp_path / "second",
        trials=2,
        **options,
    )
    assert len(found.trials) == 2


def test_knowledge_that_lacks_a_constrained_metric_is_left_out(tmp_path, caplog):
    run_study(value, SPACE, folder=tmp_path / "first", trials=2, sampler="random")
    spec = StudySpec.make(
        SPACE, Budget(trials=2), folder=tmp_path / "second", constraints={"size": "<= 0.5"}
    )
    assert open_study(spec, warm_start=tmp_path / "first").study.trials == []
    assert "2 trials of" in caplog.text
    assert "lack a metric that is constrained here" in caplog.text


def test_a_constrained_metric_that_is_no_number_fails_its_trial_by_name(tmp_path):
    def outcome(trial):
        return {"val_accuracy": 0.5, "size": math.nan if trial.number == 0 else 0.1}

    found = run_study(
        outcome, SPACE, folder=tmp_path, trials=2, constraints={"size": "<= 0.5"}, pruner="none"
    )
    assert [record.state for record in found.trials] == ["fail", "complete"]
    assert "constraint 'size' is nan" in found.trials[0].reason


def test_a_password_in_its_url_is_refused_before_it_is_written(tmp_path):
    config = from_plain(TuneStage, {"tune": {"warm_start": "postgresql://me:secret@h/db"}})
    with pytest.raises(TuneError, match=r"tune\.warm_start=.*me:\*\*\*@h/db holds a password"):
        tune(config, tmp_path / "tune")
    assert list(tmp_path.iterdir()) == []
