"""Search spaces: reading, conditions, drawing, sentences for what cannot work."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from darts_core.errors import ConfigError, TuneError
from darts_core.runlog import write_json
from darts_core.settings import Tune
from darts_core.stages.recipe_space import recipe_space
from darts_core.stages.tune import _varied
from darts_core.study.budget import Budget
from darts_core.study.space import check_params, parse_space, space_to_dict, suggest
from darts_core.study.spec import StudySpec, _tell_idle

SPACE = {
    "momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": "sgd"}},
    "optimizer": {"choices": ["sgd", "adamw"]},
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "layers": {"low": 2, "high": 8, "step": 2},
    "flip": [True, False],
}


def draw(space, seed=0, count=30):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [suggest(study.ask(), space) for _ in range(count)]


def test_drawn_values_lie_in_the_space_and_conditions_hold():
    space = parse_space(SPACE)
    assert list(space).index("optimizer") < list(space).index("momentum")
    seen = draw(space)
    for params in seen:
        assert ("momentum" in params) == (params["optimizer"] == "sgd")
        assert 1e-4 <= params["lr"] <= 1e-1
        assert params["layers"] in (2, 4, 6, 8)
        assert isinstance(params["layers"], int)
        for name, value in params.items():
            assert space[name].contains(value), (name, value)
    assert len({p["optimizer"] for p in seen}) == 2
    # logarithmic: about two thirds lie below 1e-2, not a tenth
    assert sum(p["lr"] < 1e-2 for p in seen) > 12


def test_yaml_form_reads_back():
    space = parse_space(SPACE)
    assert parse_space(space_to_dict(space)) == space


def test_choices_that_are_lists_come_back_as_lists():
    space = parse_space({"ops": {"choices": [["a", "b"], ["c"]]}})
    assert {tuple(p["ops"]) for p in draw(space)} == {("a", "b"), ("c",)}
    assert check_params({"ops": ["c"]}, space) == {"ops": '["c"]'}


def test_numbers_and_truth_values_are_told_apart():
    space = parse_space({"x": {"choices": [0, 1]}, "y": {"low": 0, "high": 3}})
    assert space["x"].contains(1)
    assert not space["x"].contains(True)
    assert not space["y"].contains(True)
    assert not space["y"].contains(1.5)


def test_grid_values():
    space = parse_space(
        {"a": {"low": 0.0, "high": 0.3, "step": 0.1}, "b": {"low": 1, "high": 3}, "c": ["u"]}
    )
    assert space["a"].values() == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert space["b"].values() == [1, 2, 3]
    with pytest.raises(TuneError, match="finitely many values"):
        parse_space({"a": {"low": 0.0, "high": 1.0}})["a"].values()


def test_the_last_value_is_drawn_though_the_step_carries_a_rounding_error():
    # as `range(0.3,1.0,step=0.1)` of a sweep works it out
    space = parse_space({"x": {"low": 0.3, "high": 0.9, "step": 0.4 - 0.3}})
    assert space["x"].distribution().high == 0.9
    drawn = {round(p["x"], 6) for p in draw(space, count=100)}
    assert (
        drawn == {round(v, 6) for v in space["x"].values()} == {0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    )
    # a step that is meant as it stands keeps all its digits
    fine = parse_space({"x": {"low": 0.0, "high": 1.0, "step": 2.0**-20}})
    assert fine["x"].distribution().high == 1.0


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "is empty"),
        ({"x": {"low": 1.0, "high": 1.0}}, r"interval of x is empty: low 1.0 .* high 1.0"),
        ({"x": {"low": 2, "high": 1}}, "interval of x is empty"),
        ({"x": {"low": 0, "high": 1, "log": True}}, "low must be above 0"),
        ({"x": {"low": "a", "high": 1}}, "low: 'a'"),
        ({"x": {"low": float("nan"), "high": 1.0}}, "finite"),
        ({"x": {"choices": []}}, "no choices"),
        ({"x": {"lo": 1, "high": 2}}, "Did you mean 'low'"),
        ({"x": 3}, "write"),
        ({"x": {"low": 1, "high": 9, "log": True, "step": 2}}, "cannot have a step"),
        ({"x": {"low": 1, "high": 9, "step": 0}}, "step above 0"),
        (
            {"x": {"low": 1.0, "high": 9.0, "step": float("nan")}},
            "has step: nan; use a step above 0",
        ),
        ({"x": {"low": 1, "high": 9, "step": True}}, "has step: True; use a step above 0"),
        ({"x": {"low": 0.1, "high": 9, "log": "no"}}, r"log: 'no'; .* true or false"),
        ({"x": {"low": 1, "high": 9, "integer": "false"}}, r"integer: 'false'; .* true or false"),
        ({"x": {"low": -1e308, "high": 1e308}}, "wider than a number can hold"),
        ({"x": {"low": 1, "high": 10**400}}, "wider than a number can hold"),
        ({"x": {"low": 1, "high": 9, "step": 16}}, r"step: 16, .* 1 would be its only value"),
        ({"x": {"low": 0.0, "high": 0.3, "step": 0.5}}, r"step: 0\.5, .* 0\.0 would be its only"),
        ({"x": {"low": 0.5, "high": 9, "integer": True}}, r"whole numbers .* has low: 0\.5"),
        ({"x": {"low": 1, "high": 8.5, "integer": True}}, r"whole numbers .* has high: 8\.5"),
        (
            {"x": {"low": 1, "high": 9, "step": 0.5, "integer": True}},
            r"whole numbers .* has step: 0\.5",
        ),
        ({"x": {"low": 1, "high": 9, "when": {"z": 1}}}, "Unknown dimension 'z'"),
        ({"x": [1], "y": {"low": 1, "high": 9, "when": {"x": 2}}}, "never happens"),
        (
            {"x": [1], "y": {"low": 1, "high": 9, "when": "x=1"}},
            r"has when: 'x=1'; .* when: \{NAME",
        ),
        ({"x": [1], "y": {"choices": [1, 2], "when": ["x", 1]}}, r"has when: \['x', 1\]"),
        (
            {"x": {"choices": [1], "when": {"y": 1}}, "y": {"choices": [1], "when": {"x": 1}}},
            "wait for each other",
        ),
    ],
)
def test_malformed_spaces_are_sentences(space, words):
    with pytest.raises(TuneError, match=words):
        parse_space(space)


def test_a_step_as_wide_as_the_range_takes_both_ends_though_it_carries_a_rounding_error():
    space = parse_space(
        {"x": {"low": 0.2, "high": 0.3, "step": 0.1}, "n": {"low": 1, "high": 5, "step": 4}}
    )
    assert [len(space[name].values()) for name in ("x", "n")] == [2, 2]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_whole_number_is_infinite_or_nan(value):
    assert not parse_space({"patience": {"low": 1, "high": 9}})["patience"].contains(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"objectives": ["accuracy", "params"]},
            r"objectives are \['accuracy', 'params'\]; .* maximize",
        ),
        ({"objectives": "accuracy"}, "objectives are 'accuracy'; give each with its direction"),
        ({"constraints": ["params <= 5"]}, r"constraints are \['params <= 5'\]; give each metric"),
        ({"enqueue": {"x": 2}}, r"enqueue is \{'x': 2\}; give a list of settings"),
        ({"enqueue": ["x"]}, r"enqueue is \['x'\]; give a list of settings"),
        ({"sampler": ["tpe"]}, r"sampler is \['tpe'\]; give a name"),
        ({"pruner": 3}, "pruner is 3; give a name"),
    ],
)
def test_a_study_described_by_values_of_the_wrong_kind_is_refused_in_a_sentence(
    tmp_path, given, words
):
    with pytest.raises(TuneError, match=words):
        StudySpec.make({"x": {"low": 1, "high": 9}}, Budget(3), folder=tmp_path, **given)


def test_objectives_in_pairs_and_rows_of_a_table_describe_a_study(tmp_path):
    """A row of pandas has items, and is no mapping."""
    goals = {"accuracy": "maximize", "params": "minimize"}
    row = SimpleNamespace(items=lambda: [("x", np.int64(2))])
    for objectives in (list(goals.items()), zip(goals, goals.values(), strict=True)):
        made = StudySpec.make(
            {"x": {"low": 1, "high": 9}},
            Budget(3),
            folder=tmp_path,
            objectives=objectives,
            enqueue=(r for r in [row]),
        )
        assert (made.objectives, made.enqueue) == (goals, ({"x": 2},))


def test_whole_numbers_may_be_written_with_a_point():
    space = parse_space({"x": {"low": 1.0, "high": 9.0, "step": 2.0, "integer": True}})
    assert {p["x"] for p in draw(space)} == {1, 3, 5, 7, 9}


def test_enqueued_settings_are_checked():
    space = parse_space(SPACE)
    with pytest.raises(TuneError, match="Did you mean 'lr'"):
        check_params({"lrr": 1}, space)
    with pytest.raises(TuneError, match=r"lr = 1.0; it takes 0.0001 to 0.1"):
        check_params({"lr": 1.0}, space)
    with pytest.raises(TuneError, match="steps of 2"):
        check_params({"layers": 3}, space)


@pytest.mark.parametrize(
    ("params", "idle"),
    [
        ({"optimizer": "adamw", "momentum": 0.6, "lr": 0.01}, True),
        ({"optimizer": "sgd", "momentum": 0.6}, False),
        ({"momentum": 0.6}, False),
    ],
)
def test_a_value_to_be_tried_whose_condition_does_not_hold_is_said_not_to_count(
    tmp_path, caplog, params, idle
):
    _tell_idle.cache_clear()
    for _ in range(2):
        StudySpec.make(SPACE, Budget(trials=1), folder=tmp_path, enqueue=[params])
    assert caplog.text.count("which is to be tried, momentum does not count") == idle


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("batch_size", {"low": 16, "high": 64}),
        ("learning_rate", {"choices": [0.1, 0.01]}),
        ("learning_rate", {"choices": [0.1], "when": {"batch_size": 32}}),
        ("ema", {"low": 0.0, "high": 1.0}),
        ("flip", {"choices": [None, True]}),
        ("epochs", {"low": 2.0, "high": 8.0, "integer": True}),
    ],
)
def test_a_dimension_given_over_the_default_s_other_kind_is_what_was_given(name, given):
    # what Hydra makes of '+tune.space.batch_size={low: 16, high: 64}'
    usual = Tune().space
    assert recipe_space({**usual, name: {**usual.get(name, {}), **given}}) == {**usual, name: given}


@pytest.mark.parametrize(
    ("name", "node", "words"),
    [
        ("lerning_rate", {"low": 0.1, "high": 1}, "tune.space 'lerning_rate'.*learning_rate"),
        ("optimizer", ["sgd", "adamX"], r"tune\.space\.optimizer: train\.optimizer 'adamX'"),
        ("batch_size", ["32", 64], r"train\.batch_size='32' is not a whole number"),
        ("layers", {"low": 4, "high": 20.5}, r"train\.layers=20\.5 is not a whole number"),
        ("drop_path", {"low": 0, "high": 1}, r"train\.drop_path=1 is not allowed; .* below 1"),
        ("drop_path", {"low": 0.0, "high": 1.0, "step": 0.5}, r"train\.drop_path=1\.0 is not allowed"),
        ("momentum", {"low": -0.5, "high": 0.9}, r"train\.momentum=-0\.5 is not allowed"),
    ],
)  # fmt: skip
def test_what_no_training_takes_is_refused_before_one_runs(name, node, words):
    with pytest.raises(ConfigError, match=words):
        recipe_space({name: node})


@pytest.mark.parametrize(
    ("given", "begun", "varied"),
    [
        ({"low": 8, "high": 16}, None, {"low": 8, "high": 16}),
        ({"low": 8, "high": 16}, [32, 64, 96, 128], {"choices": [32, 64, 96, 128]}),
        # of 100 samples
        ({"low": 8, "high": 16}, [32, 64, 96], {"choices": [32, 64, 96]}),
        ({"choices": [32, 0]}, [32, 0], {"choices": [32, 0]}),
    ],
)
def test_a_study_of_an_older_program_goes_on_as_that_read_its_space(tmp_path, given, begun, varied):
    if begun is not None:
        write_json(tmp_path / "study.json", {"space": {"batch_size": {"choices": begun}}})
    space = {"batch_size": {**Tune().space["batch_size"], **given}}
    assert _varied(space, 100, tmp_path) == {"batch_size": varied}
    # and so does the study of a network that is compared with it
    assert _varied(space, 100, tmp_path / "baseline", tmp_path) == {"batch_size": varied}


def test_a_study_that_has_begun_keeps_its_space_whatever_another_varies(tmp_path):
    ends = {"low": 8, "high": 16}
    write_json(tmp_path / "study.json", {"space": {"batch_size": Tune().space["batch_size"]}})
    write_json(tmp_path / "baseline" / "study.json", {"space": {"batch_size": ends}})
    space = {"batch_size": {**Tune().space["batch_size"], **ends}}
    assert _varied(space, 1000, tmp_path / "baseline", tmp_path) == {"batch_size": ends}
    assert _varied(space, 1000, tmp_path / "rival", tmp_path) != {"batch_size": ends}


def test_choices_beside_a_range_are_refused():
    with pytest.raises(TuneError, match="x has both choices and low, high; give choices, or low"):
        parse_space({"x": {"choices": [1, 2], "low": 1, "high": 3}})


def test_numbers_and_arrays_of_numpy_and_ranges_are_what_they_say(tmp_path):
    given = {
        "batch": {"choices": 2 ** np.arange(4, 7)},
        "depth": {"choices": range(1, 4)},
        "width": [np.int64(8), np.int64(16)],
        "rate": np.array([0.5, 0.25]),
        "layers": {"low": np.int64(2), "high": np.int64(8), "step": np.int64(2)},
    }
    space = parse_space(given)
    assert [space[name].values() for name in given] == [
        [16, 32, 64], [1, 2, 3], [8, 16], [0.5, 0.25], [2, 4, 6, 8],
    ]  # fmt: skip
    assert all(type(v) in (int, float) for name in given for v in space[name].values())
    mine = {"batch": np.int64(32), "rate": np.float64(0.5)}
    own = {**mine, "depth": 2, "width": 8, "layers": np.int64(4)}
    spec = StudySpec.make(given, Budget(trials=1), folder=tmp_path, enqueue=[mine], baseline=own)
    assert (spec.enqueue, spec.baseline) == (({"batch": 32, "rate": 0.5},), own)
    assert type(spec.baseline["layers"]) is int
    with pytest.raises(TuneError, match=r"The dimension x is .*write {low"):
        parse_space({"x": np.int64(3)})  # as of a number of Python
    for choices, word in (({8, 16}, "a set"), ([np.sum, int], "which the study's files")):
        with pytest.raises(TuneError, match=f"The dimension x has the choice .*{word}"):
            parse_space({"x": {"choices": choices}})
