import math
from dataclasses import replace
from pathlib import Path

import pytest
from autosearch_workshop import write

import darts_core
from darts_core.autosearch.catalogue import ALGORITHMS
from darts_core.autosearch.forecast import forecast_text, plan_notes, trainings
from darts_core.autosearch.job_yaml import parse_file
from darts_core.autosearch.plan_files import build_plan
from darts_core.autosearch.spec import Limits, stand_in
from darts_core.autosearch.yaml_lines import load
from darts_core.errors import ConfigError

TEMPLATES = sorted(Path(darts_core.__file__).parent.joinpath("autosearch/templates").glob("*.yaml"))
FOUR = """\
general:
  gpu_per_instance: 1
  instance_per_trial: 1
  cpu_per_instance: 2
search_space:
  - type: discrete
    params:
      - name: resnet50
        values: ["1-1-1-2112112", "111-2111-211111-211"]
  - params:
      - {type: continuous_param, name: lr, start: -1, stop: -5, num: 5, base: 10}
      - {type: continuous_param, name: layers, start: 2, stop: 4, num: 3}
      - {type: continuous_param, name: wd, start: 1e-5, stop: 0.1}
      - {type: continuous_param, name: drop, start: -3, stop: -1, base: 10}
      - {type: discrete_param, name: opt, values: [sgd, 3, true, null]}
search_algorithm:
  type: tpe_search
  reward_attr: mean_accuracy
  mode: max
  num_samples: 12
  max_concurrent: 4
  save_model_count: 3
  gamma: 0.3
  n_initial_points: 4
  seed: 7
scheduler:
  type: FIFOScheduler
max_iterations: 6
"""


def test_every_field_of_the_four_part_form(tmp_path):
    spec = parse_file(write(tmp_path, FOUR))
    space = {d.name: d for d in spec.dimensions}
    assert space["resnet50"].choices == ("1-1-1-2112112", "111-2111-211111-211")
    assert space["lr"].choices == pytest.approx((1e-1, 1e-2, 1e-3, 1e-4, 1e-5), rel=1e-12)
    assert space["layers"].choices == (2, 3, 4)
    assert all(isinstance(v, int) for v in space["layers"].choices)
    assert (space["wd"].integer, space["wd"].low, space["wd"].high) == (False, 1e-5, 0.1)
    assert space["drop"].log
    assert space["drop"].contains(0.01)
    assert space["opt"].choices == ("sgd", 3, True, None)
    assert (spec.algorithm, spec.objectives[0].metric, spec.objectives[0].mode) == (
        "tpe_search", "mean_accuracy", "max",
    )  # fmt: skip
    assert (spec.num_samples, spec.max_concurrent, spec.save_model_count, spec.seed) == (
        12,
        4,
        3,
        7,
    )
    assert spec.algorithm_options == {"gamma": 0.3, "n_initial_points": 4}
    assert (spec.scheduler, spec.max_iterations) == ("FIFOScheduler", 6)
    assert (spec.cpu_per_trial, spec.gpu_per_trial) == (2, 1)


def test_training_input_form(tmp_path):
    path = next(t for t in TEMPLATES if t.stem == "training_input")
    spec = parse_file(path)
    assert spec.algorithm == "tpe_search"
    assert (spec.objectives[0].metric, spec.objectives[0].mode) == ("loss", "min")
    assert spec.scheduler == "FIFOScheduler"  # early stopping is off in the sample
    assert (spec.num_samples, spec.max_concurrent, spec.max_iterations) == (16, 8, 1000)
    assert (spec.cpu_per_trial, spec.gpu_per_trial) == (2, 1)
    lr = spec.dimensions[0]
    assert (lr.name, lr.low, lr.high) == ("learning_rate", 0.0001, 0.0015)
    assert spec.baseline == {"learning_rate": 0.0001}
    on = write(tmp_path, path.read_text().replace("EarlyStopping: false", "EarlyStopping: true"))
    assert parse_file(on).scheduler == "async_hyperband"
    whole = (
        path.read_text()
        .replace("type: float", "type: INT")
        .replace("0.0001\n        maxValue", "1\n        maxValue")
    )
    whole = whole.replace("0.0015", "9").replace("priorBestValue: 0.0001", "priorBestValue: 4")
    assert parse_file(write(tmp_path, whole)).dimensions[0].integer
    other = path.read_text().replace("schedulerMetric: loss", "schedulerMetric: acc")
    with pytest.raises(ConfigError, match="schedulerMetric = 'acc'"):
        parse_file(write(tmp_path, other))
    assert [parse_file(write(tmp_path, path.read_text().replace("verbose: 1", f"verbose: {level}"))).verbose
            for level in (0, 1, 2)] == [0, 1, 2]  # fmt: skip
    none = path.read_text().partition("    params:")[0] + "    params: []\n"
    with pytest.raises(ConfigError, match=r"params = \[\]: no parameters"):
        parse_file(write(tmp_path, none))


def test_native_form_takes_defaults_from_the_configuration_and_refuses_code(tmp_path):
    text = (
        "space:\n  lr: {low: 0.001, high: 0.1, log: true}\n  n: {low: 2, high: 5}\n"
        "  k: {low: 0, high: 1, step: 0.25}\ntrials: 7\nworkers: ${trials}\n"
    )
    spec = parse_file(write(tmp_path, text))
    assert (spec.num_samples, spec.max_concurrent, spec.confirm_seeds) == (7, 7, 3)
    kinds = {d.name: (d.integer, bool(d.choices)) for d in spec.dimensions}
    assert kinds == {"lr": (False, False), "n": (True, False), "k": (False, True)}
    assert spec.dimensions[0].log
    assert spec.dimensions[2].choices == (0, 0.25, 0.5, 0.75, 1)
    with pytest.raises(ConfigError, match=r"space\.a\.high = 0: not above low 1"):
        parse_file(write(tmp_path, "space: {a: {low: 1, high: 0}}\n"))
    bad = "space: {a: {choices: [1, 2]}}\nalgorithm: {type: random_search}\ntrials: many\n"
    with pytest.raises(ConfigError, match=r"line 3.*'many'.*expected a number"):
        parse_file(write(tmp_path, bad))
    with pytest.raises(ConfigError, match="_target_"):
        parse_file(write(tmp_path, "space: {a: {_target_: os.system, choices: [1]}}\n"))
    with pytest.raises(ConfigError, match="resolvers"):
        parse_file(write(tmp_path, "space: {a: {choices: ['${oc.env:HOME}']}}\n"))


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("type: tpe_search", "type: tpe_serch", 17, "search_algorithm.type", "did you mean tpe_search"),
        ("gamma: 0.3", "gamma: 3", 23, "search_algorithm.gamma", "between 0.001 and 0.999"),
        ("gamma: 0.3", "kappa: 3", 23, "search_algorithm.kappa", "knows gamma"),
        ("num_samples: 12", "num_samples: many", 20, "search_algorithm.num_samples", "expected a number"),
        ("values: [sgd, 3, true, null]", "vals: [1]", 15, "vals", "known fields"),
        ("mode: max", "mode: up", 19, "search_algorithm.mode", "use one of max, min"),
        ("num: 3", "num: 1", 12, "num", "at least|between"),
        ("start: 1e-5", "start: 0.1", 13, "stop", "equal"),
        ("instance_per_trial: 1", "instance_per_trial: 2", 3, "general.instance_per_trial", "use 1"),
        ("name: wd", "name: lr", 13, "params", "stands twice"),
        ("seed: 7", "seed: !!python/object/apply:os.system [ls]", 25, "seed", "tag is not allowed"),
        ("general:", "generl:", 1, "generl", "did you mean general"),
        ("seed: 7", "seed: 7\n  seed: 8", 26, "seed", "stands twice"),
        ("reward_attr: mean_accuracy", "reward_attr: a b", 18, "search_algorithm.reward_attr", "not a"),
        ("start: -3, stop: -1, base: 10", "start: -400, stop: -1, base: 10", 14, "base", "nearer to 0"),
        ("num: 5, base: 10", "num: 5, base: 1", 11, "base", "use 10 or 2"),
    ],
)  # fmt: skip
def test_errors_name_file_line_field_value_and_remedy(tmp_path, old, new, line, field, words):
    path = write(tmp_path, FOUR.replace(old, new, 1))
    with pytest.raises(ConfigError) as info:
        parse_file(path)
    text = str(info.value)
    assert f"{path}, line {line}: " in text
    assert field in text
    import re

    assert re.search(words, text), text


def test_a_grid_refuses_continuous_settings_and_endless_products(tmp_path):
    tail = "search_algorithm:\n  type: grid_search\n  reward_attr: acc\n"
    wide = "search_space:\n  - {type: continuous_param, name: wd, start: 0.1, stop: 1}\n"
    with pytest.raises(
        ConfigError, match=r"line 4: search_algorithm\.type.*'wd' is continuous; give"
    ):
        parse_file(write(tmp_path, wide + tail))
    axis = "  - {{type: continuous_param, name: {}, start: 0, stop: 1, num: 1000}}\n"
    huge = "search_space:\n" + axis.format("a") + axis.format("b")
    with pytest.raises(ConfigError, match="1000000 combinations; leave at most 100000"):
        parse_file(write(tmp_path, huge + tail))


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("{name: acc}", "either regex"),
        ("{name: acc, regex: a, file: metric.json}", "either regex"),
        ("{name: acc, file: ../metric.json}", "relative to that"),
        ("{name: acc, file: /etc/metric.json}", "relative to that"),
        ("{name: acc, regex: '('}", "not a regular expression"),
        ("{name: 'a b', regex: a}", "not a metric name"),
    ],
)
def test_sources_of_zero_code_metrics(tmp_path, member, words):
    text = f"general: {{metrics: [{member}]}}\nsearch_space" + FOUR.partition("\nsearch_space")[2]
    with pytest.raises(ConfigError, match=words):
        parse_file(write(tmp_path, text))
    good = text.replace(member, "{name: acc, file: metric.json}, {name: b, regex: 'b=(.*)'}")
    assert parse_file(write(tmp_path, good)).metrics == (
        {"name": "acc", "file": "metric.json", "key": "acc"},
        {"name": "b", "regex": "b=(.*)"},
    )


def test_hostile_yaml(tmp_path):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for i, name in enumerate("bcdefg"):
        bomb += f"{name}: &{name} [{','.join(['*' + 'abcdefg'[i]] * 10)}]\n"
    with pytest.raises(ConfigError, match="more than"):
        load(write(tmp_path, bomb))
    with pytest.raises(ConfigError, match="line 3"):
        load(write(tmp_path, "a: 1\nb: [1,\n"))
    with pytest.raises(ConfigError, match="no file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda p: p.stem)
def test_templates_are_valid(path):
    spec = parse_file(path)
    assert path.read_text().startswith("# ")
    assert spec.total_trials() >= 3


def test_the_augmentation_template_names_policies_that_there_are():
    import torch

    from darts_core.augment import Augment

    (setting,) = parse_file(TEMPLATES[0].with_name("augment.yaml")).dimensions
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
    for name in setting.choices:
        generator = torch.Generator().manual_seed(1)
        same = torch.equal(Augment(policy=name)(images, generator), images)
        assert same is (name == "none"), name


def test_code_settings_reject_bad_codes_with_line_and_position(tmp_path):
    text = (
        "search_space:\n  - {type: resnet_code, name: c, values: ['11-21', '11-3']}\n"
        "search_algorithm: {type: grid_search, reward_attr: acc}\n"
    )
    with pytest.raises(ConfigError, match=r"line 2: search_space\[0\].values\[1\].*position 4"):
        parse_file(write(tmp_path, text))
    spec = parse_file(write(tmp_path, text.replace(", values: ['11-21', '11-3']", ", count: 20")))
    assert len(spec.dimensions[0].choices) == 20
    assert len(spec.dimensions[0].near) == 20
    shapes = text.replace("'11-21', '11-3'", "'2x64-2x128', '11-21', '11-12', '4x64-9x512'")
    near = parse_file(write(tmp_path, shapes)).dimensions[0].near
    assert near[0] == (1,)  # a shape lies nearest to the code that writes the same network
    with pytest.raises(ConfigError, match=r"values\[1\] = '11-21': this code stands twice"):
        parse_file(write(tmp_path, text.replace("11-3", "11-21")))


def test_an_own_code_is_read_as_those_of_the_space(tmp_path):
    text = (
        "search_space:\n"
        "  - {type: resnet_code, name: c, values: [resnet50/5, resnet50/10, '111', '11-11']%s}\n"
        "search_algorithm: {type: grid_search, reward_attr: acc}\n"
    )
    named, whole = write(tmp_path, text % ", default: resnet50/10", "b.yaml"), "111-2111-211111-211"
    assert parse_file(named).baseline == {"c": whole}
    path = write(tmp_path, text % "")
    for arguments, settings, meant in (
        ({"c": "resnet50"}, {}, whole),
        ({}, {"general.baseline": {"c": "resnet50/10"}}, whole),
        ({"c": "111"}, {}, "111"),  # no number
        ({}, {"general.baseline.c": 111}, "111"),
    ):
        (step,) = build_plan([path], arguments=arguments, settings=settings).steps
        assert step.baseline == {"c": meant}
        assert step.total_trials() == 4  # trial 0 is one of the four
    dense = text.replace("resnet_code", "dense_code").replace("resnet50/5, resnet50/10", "'12'")
    dense = write(tmp_path, dense % "")
    assert build_plan([dense], arguments={"c": "11-34"}).steps[0].baseline == {"c": "11-34"}
    with pytest.raises(ConfigError, match="default = 'resnet50/3': not among"):
        parse_file(write(tmp_path, text % ", default: resnet50/3"))


def test_the_standard_network_stands_in_for_an_unnamed_code(tmp_path):
    text = (
        "search_space:\n  - {type: discrete, params: [{name: net, values: ['1-1-1-2112112', "
        "'111-2111-211111-211']}]}\nsearch_algorithm: {type: grid_search, reward_attr: acc}\n"
    )
    plan = build_plan([write(tmp_path, text)])
    assert plan.steps[0].baseline_configuration() == {"net": "111-2111-211111-211"}
    notes = plan_notes(plan, ["cpu"])
    assert len(notes) == 1
    assert "'111-2111-211111-211' stands in for trial 0" in notes[0]


def test_a_field_set_on_the_command_line_leaves_the_others_their_lines(tmp_path):
    path = write(tmp_path, FOUR.replace("mode: max", "mode: up"))
    with pytest.raises(ConfigError, match=r"job\.yaml, line 19: search_algorithm\.mode"):
        parse_file(path, {"search_algorithm.num_samples": 3})
    path = write(tmp_path, FOUR)
    with pytest.raises(ConfigError) as info:
        parse_file(path, {"search_space.1.params.0.num": 1})
    text = str(info.value)
    assert "--set search_space.1.params.0.num: search_space[1].params[0].num = 1: " in text
    assert "line" not in text


def test_defaults_of_the_published_algorithms():
    values = {name: plugin.defaults() for name, plugin in ALGORITHMS.items()}
    assert values["bayes_opt_search"] == {
        "kind": "ucb", "kappa": 2.5, "xi": 0.0, "n_initial_points": 5,
    }  # fmt: skip
    # 20 start points of 20 trials would be random search
    assert values["tpe_search"] == {"gamma": 0.25, "n_initial_points": 5}
    assert values["anneal_search"] == {"avg_best_idx": 2.0, "shrink_coef": 0.1}


def test_several_files_make_a_multi_search_in_order(tmp_path):
    def one(name, setting, default):
        text = (
            f"search_space:\n  - params: [{{type: discrete_param, name: {setting}, values: [1, 2, 3], "
            f"default: {default}}}]\nsearch_algorithm: {{type: grid_search, reward_attr: acc}}\n"
        )
        return write(tmp_path, text, name)

    files = [one("b.yaml", "policy", 1), one("a.yaml", "lr", 2)]
    plan = build_plan(files)
    assert (plan.mode, [s.name for s in plan.steps]) == ("serial", ["b", "a"])
    assert plan.trial_count() == 3 + 3 - 1
    assert build_plan(files, mode="nested").trial_count() == 9
    joint = build_plan(files, mode="joint")
    assert joint.steps[0].points == 9
    assert joint.steps[0].baseline == {"policy": 1, "lr": 2}
    with pytest.raises(ConfigError, match="stands in two"):
        build_plan([files[0], files[0]])


def test_a_differentiable_search_is_a_serial_step_and_forecast_by_its_share(tmp_path):
    text = (
        "general: {baseline: {code: resnet50}}\nmax_iterations: 10\n"
        "search_algorithm: {type: differentiable_search, supernet_share: 0.4, reward_attr: acc}\n"
    )
    rates = (
        "search_space:\n  - params: [{type: discrete_param, name: lr, values: [1, 2], default: 1}]\n"
        "search_algorithm: {type: grid_search, reward_attr: acc}\n"
    )
    alone = build_plan([write(tmp_path, text, "net.yaml")])
    assert trainings(alone) == (pytest.approx(2.4), 6.0)
    assert "3 trials (yours first), 2.4 trainings, and 6 to confirm" in forecast_text(alone)
    # a budget ends no supernet, and is not said to
    capped = replace(alone, steps=(replace(alone.last, limits=Limits(trainings=1.0)),))
    assert "2.4 trainings, and" in forecast_text(capped)
    assert "a budget does not end differentiable_search" in plan_notes(capped, ["cpu"])[-1]
    files = [write(tmp_path, rates, "rate.yaml"), tmp_path / "net.yaml"]
    assert trainings(build_plan(files))[0] == pytest.approx(2 + 3 - 1 - 0.6)
    for mode in ("nested", "joint"):
        with pytest.raises(ConfigError, match="cannot be part of"):
            build_plan(files, mode=mode)


def test_older_run_parameters(tmp_path):
    plan = build_plan([], arguments={"search_space": "resnet50"})
    assert plan.mode == "single"
    assert len(plan.steps[0].dimensions[0].choices) == 11
    assert plan.steps[0].baseline_configuration() == {"code": "111-2111-211111-211"}
    path = next(t for t in TEMPLATES if t.stem == "training_input")
    plan = build_plan(
        [], arguments={"search_space": "resnet50", "multi_search": "True", "config_path": str(path)}
    )
    assert plan.mode == "nested"
    assert plan.steps[0].objectives == plan.steps[1].objectives
    with pytest.raises(ConfigError, match="resnet18"):
        build_plan([], arguments={"search_space": "vgg"})


def test_own_arguments_are_the_baseline_and_set_replaces_fields(tmp_path):
    path = write(tmp_path, FOUR)
    plan = build_plan(
        [path], arguments={"wd": "0.05"}, settings={"search_algorithm.num_samples": 3}
    )
    assert plan.steps[0].num_samples == 3
    assert plan.steps[0].baseline_configuration()["wd"] == 0.05
    assert plan.steps[0].stand_ins() == ["resnet50", "lr", "layers", "drop", "opt"]
    with pytest.raises(ConfigError, match=r"check the (field's )?path"):
        build_plan([path], settings={"search_space.9.name": 3})


def test_what_stands_in_lies_in_the_space_and_survives_the_storage(tmp_path):
    for dimension in parse_file(write(tmp_path, FOUR)).dimensions:
        value = stand_in(dimension)
        assert dimension.contains(value)
        again = dimension.decode(dimension.encode(value))
        assert again == value or math.isclose(again, value, rel_tol=1e-9)
    assert not dimension.contains("adam")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (FOUR.replace("  cpu_per_instance: 2", "  confirm_seed: 2"), "general.confirm_seed"),
        ("space: {lr: {choices: [1, 2]}}\nlimits: {retry: 3}\n", "limits.retry"),
        ("space: {lr: {choices: [1, 2]}}\ntrial: 3\n", "trial"),
    ],
)
def test_an_unknown_field_is_told_with_the_known_ones(tmp_path, text, where):
    with pytest.raises(ConfigError, match=r"did you mean \w+.*known fields are \w+, \w+") as error:
        parse_file(write(tmp_path, text))
    assert where in str(error.value)


def test_a_field_that_belongs_one_level_deeper_is_told_with_its_path(tmp_path):
    path = write(tmp_path, FOUR)
    with pytest.raises(ConfigError, match=r"did you mean search_algorithm\.num_samples\?"):
        build_plan([path], settings={"num_samples": 3})
