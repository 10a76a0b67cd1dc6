"""What a job file or the command line says counts, or is refused: nothing is passed over in silence."""

import math

import pytest
from autosearch_workshop import write

from darts_core.autosearch.__main__ import _plan
from darts_core.autosearch.forecast import plan_notes
from darts_core.autosearch.job_yaml import parse_file
from darts_core.autosearch.plan_files import build_plan
from darts_core.errors import ConfigError
from darts_core.settings import SlurmQueue
from darts_core.study.ray_cluster import RayCluster


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("search_algorithm: {type: random_search, mode: min, objectives: [{metric: loss}]}",
         r"search_algorithm\.mode = 'min': objectives are given too"),
        ("search_algorithm: {type: random_search, reward_attr: a, objectives: [{metric: b}]}",
         r"reward_attr = 'a': objectives are given too"),
        ("algorithm: {type: random_search, mode: min}", r"algorithm\.mode = 'min'.*as objectives"),
        ("algorithm: {type: random_search, num_samples: 40}", "num_samples = 40.*as trials"),
        ("search_algorithm: {type: random_search, reward_attr: a}\nmax_iterations: 9\n"
         "general: {max_iterations: 5}", r"general\.max_iterations = 5: max_iterations: 9 at the top"),
        ("algorithm: {type: random_search}\nmodel_file: m.pt", r"model_file = 'm\.pt': a script that"),
        ("algorithm: {type: random_search}\nname: ../x", r"name = '\.\./x': no name for a folder"),
        ("search_algorithm: {type: random_search, reward_attr: a}\nname: ..", r"name = '\.\.': no name"),
    ],
)  # fmt: skip
def test_a_field_that_would_not_count_is_refused(tmp_path, text, words):
    four = "search_space: [{type: discrete_param, name: lr, values: [1, 2]}]\n"
    native = "space: {lr: {choices: [1, 2]}}\n"
    path = write(tmp_path, (four if text.startswith("search") else native) + text)
    with pytest.raises(ConfigError, match=words):
        parse_file(path)


@pytest.mark.parametrize(
    ("algorithm", "scheduler", "words"),
    [
        ("type: elastic, points: 51", "type: FIFOScheduler", "points = 51.*between 1 and 50"),
        ("type: evolution, population: 1001", "type: FIFOScheduler", "between 2 and 1000"),
        ("type: random_search", "type: median, grace_period: 2000000", r"between 1 and 1e\+06"),
    ],
)
def test_whole_options_have_upper_limits_too(tmp_path, algorithm, scheduler, words):
    text = (
        "search_space: [{type: discrete_param, name: lr, values: [1, 2]}]\n"
        f"search_algorithm: {{{algorithm}, reward_attr: acc}}\nscheduler: {{{scheduler}}}\n"
    )
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=words):
        parse_file(path)
    # what an older program began goes on
    parse_file(path, older=True)


def test_a_loss_that_is_to_grow_is_noted(tmp_path):
    text = (
        "search_space: [{type: discrete_param, name: lr, values: [1, 2], default: 1}]\n"
        "search_algorithm: {type: random_search, reward_attr: val_loss}\n"
    )
    (note,) = plan_notes(build_plan([write(tmp_path, text)]), ["cpu"])
    assert "larger values of 'val_loss' count as the better ones" in note
    assert "set mode: min" in note
    less = text.replace("reward_attr: val_loss", "reward_attr: val_loss, mode: min")
    gloss = text.replace("val_loss", "glossiness")
    likeness, turned = (text.replace("val_loss", n) for n in ("ms_ssim", "neg_mean_squared_error"))
    for other in (less, gloss, likeness, turned):
        assert plan_notes(build_plan([write(tmp_path, other)]), ["cpu"]) == []


def test_a_number_that_is_a_text_to_yaml_is_noted(tmp_path):
    text = (
        "search_space: [{type: discrete_param, name: lr, values: [%s], default: 0.1}]\n"
        "search_algorithm: {type: random_search, reward_attr: acc}\n"
    )
    (note,) = plan_notes(build_plan([write(tmp_path, text % "0.1, 1e-2, 1e-3")]), ["cpu"])
    assert note.startswith("to YAML the value 1e-2 of 'lr' is a text")
    assert "write 1.0e-2 where" in note
    for values in ("0.1, 1.0e-2", "0.1, sgd"):
        assert plan_notes(build_plan([write(tmp_path, text % values)]), ["cpu"]) == []
    script = "general: {metrics: [{name: acc, regex: 'acc=(.*)'}]}\n" + text % "0.1, 1e-2"
    assert plan_notes(build_plan([write(tmp_path, script)]), ["cpu"]) == []


def test_what_does_not_count_for_a_supernet_is_noted(tmp_path):
    text = (
        "search_space: [{type: discrete_param, name: lr, values: [1, 2], default: 1}]\n"
        "search_algorithm: {type: differentiable_search, reward_attr: acc, save_model_count: 1}\n"
        "scheduler: {type: async_hyperband}\n"
    )
    notes = plan_notes(build_plan([write(tmp_path, text)]), ["cpu"])
    assert "network alone, with your own values of lr; give a second job file" in notes[0]
    assert notes[1].endswith("whatever the job file says of scheduler, save_model_count")
    code = "search_space: [{type: resnet_code, name: code, default: resnet50/3}]\n"
    goal = "search_algorithm: {type: differentiable_search, reward_attr: acc}\n"
    assert plan_notes(build_plan([write(tmp_path, code + goal)]), ["cpu"]) == []


def test_gpus_that_a_trial_does_not_get_are_noted(tmp_path):
    text = (
        "general: {gpu_per_instance: 2}\n"
        "search_space: [{type: discrete_param, name: lr, values: [1, 2], default: 1}]\n"
        "search_algorithm: {type: random_search, reward_attr: acc}\n"
    )
    plan = build_plan([write(tmp_path, text)])
    for device, place, words in (
        ("cpu", None, "the job runs on cpu; name GPUs with --devices"),
        ("cuda:0", None, "a trial sees one GPU"),
        ("cpu", RayCluster(num_gpus=1), "--ray gives it 1; write num_gpus: 2"),
        ("cpu", SlurmQueue(), "--slurm gives it 0; write gpus: 2"),
    ):
        (note,) = plan_notes(plan, [device], place)
        assert words in note
    for place in (RayCluster(num_gpus=2), SlurmQueue(gpus=2)):
        assert plan_notes(plan, ["cpu", "cpu:1"], place) == []


def test_devices_and_trials_that_a_search_leaves_out_are_noted(tmp_path):
    text = (
        "search_space: [{type: discrete_param, name: lr, values: [1, 2, 3], default: 1}]\n"
        "search_algorithm: {type: %s, reward_attr: acc%s}\n"
    )

    def notes(kind, more="", devices=("cuda:0", "cuda:1")):
        return plan_notes(build_plan([write(tmp_path, text % (kind, more))]), devices)

    (note,) = notes("tpe_search")
    assert note.startswith("of the 2 devices only cuda:0 will be used, as 1 trial(s) run at a time")
    assert note.endswith("; set max_concurrent: 2, or name fewer")
    assert notes("tpe_search", ", max_concurrent: 2") == []
    assert notes("differentiable_search", ", setting: lr")[-1].endswith("; name one alone")
    (note,) = notes("grid_search", ", num_samples: 2", ["cpu"])
    assert note.startswith("grid_search runs all 3 combinations, not the 2 trials")
    for more in ("", ", num_samples: 3", ", num_samples: 20"):
        assert notes("grid_search", more, ["cpu"]) == []
    assert (
        "says of num_samples"
        in notes("differentiable_search", ", setting: lr, num_samples: 9", ["cpu"])[0]
    )


def test_what_ends_no_trial_is_noted(tmp_path):
    text = (
        "search_space: [{type: discrete_param, name: lr, values: [1, 2], default: 1}]\n"
        "search_algorithm: {type: tpe_search, reward_attr: acc}\n"
    )

    def notes(more):
        return plan_notes(build_plan([write(tmp_path, text + more)]), ["cpu"])

    for scheduler, last in (
        ("{type: async_hyperband, grace_period: 10}\nmax_iterations: 10", 9),
        ("{type: median_stopping, grace_period: 10}\nmax_iterations: 10", 9),
        ("{type: async_hyperband, grace_period: 10, max_t: 9}", 9),
        ("{type: async_hyperband}\nmax_iterations: 1", 0),
    ):
        (note,) = notes(f"scheduler: {scheduler}")
        assert "stops no trial" in note
        assert f"the last look would be at {last};" in note
    for fields in ("grace_period: 9", "max_t: 1", "max_t: 30"):
        assert notes(f"scheduler: {{type: asha, {fields}}}\nmax_iterations: 10") == []
    assert notes("scheduler: {type: asha}") == notes("max_iterations: 1") == []
    printed = "general: {metrics: [{name: %s}]}\n"
    for more in ("max_iterations: 9", "scheduler: {type: asha}\nmax_iterations: 9"):
        (note,) = notes(printed % "accuracy, file: m.json" + more)
        assert note.startswith("accuracy is read from m.json when the script has ended")
        assert note.endswith(("by max_iterations", "by async_hyperband or max_iterations"))
        assert notes(printed % "acc, regex: 'acc=(.*)'" + more) == []
        both = "acc, file: m.json}, {name: acc, regex: 'acc=(.*)'"
        assert notes(printed % both + more) == []
    assert notes(printed % "accuracy, file: m.json") == []
    # each of several files is told once; of nested ones the last says how trials run
    more = printed % "accuracy, file: m.json" + "max_iterations: 9"
    paths = [write(tmp_path, text + more), tmp_path / "other.yaml"]
    paths[1].write_text((text + more).replace("name: lr", "name: wd"))
    for mode in ("serial", "nested"):
        assert len(plan_notes(build_plan(paths, mode=mode), ["cpu"])) == 1
    paths[1].write_text(text.replace("name: lr", "name: wd"))
    assert plan_notes(build_plan(paths, mode="nested"), ["cpu"]) == []


def _setting(tmp_path, fields):
    text = f"search_space: [{{type: continuous_param, name: a, {fields}}}]\n"
    tail = "search_algorithm: {type: random_search, reward_attr: acc}\n"
    return parse_file(write(tmp_path, text + tail)).dimensions[0]


def test_log_and_integer_hold_for_points_and_exponents_too(tmp_path):
    choices = _setting(tmp_path, "start: 0.001, stop: 1, num: 4, log: true").choices
    assert choices == pytest.approx((0.001, 0.01, 0.1, 1.0))
    channels = _setting(tmp_path, "start: 3, stop: 5, num: 3, base: 2, integer: true").choices
    assert channels == (8, 16, 32)
    assert {type(value) for value in channels} == {int}
    range_ = _setting(tmp_path, "start: 3, stop: 5, base: 2, integer: true")
    assert (range_.low, range_.high, range_.log, range_.integer) == (8, 32, True, True)
    for fields, words in (
        ("start: 0, stop: 1, num: 4, log: true", "must lie above 0"),
        ("start: 1, stop: 2, num: 3, integer: true", "points are fractions"),
        ("start: -1, stop: 2, base: 2, integer: true", "bounds are fractions"),
        ("start: 1, stop: 1, num: 3", "are equal"),
    ):
        with pytest.raises(ConfigError, match=words):
            _setting(tmp_path, fields)
    native = "space: {a: {low: 1, high: 9, step: 2, log: true}}\n"
    with pytest.raises(ConfigError, match="steps are even"):
        parse_file(write(tmp_path, native))


@pytest.mark.parametrize("mode", ["serial", "nested", "joint"])
def test_what_a_script_prints_holds_for_files_that_do_not_say_it(tmp_path, mode):
    """One script: the trials of a file without metrics would look for a train() in it."""
    one = "search_space: [{type: discrete_param, name: %s, values: [1, 2], default: 1}]\n"
    goal = "search_algorithm: {type: random_search, reward_attr: acc}\n"
    said = "general: {metrics: [{name: acc, regex: 'acc=(.*)'}], model_file: m.pt}\n"
    for texts in ((said, ""), ("", said)):
        files = []
        for name, text in zip(("lr", "wd"), texts, strict=True):
            files.append(tmp_path / f"{name}.yaml")
            files[-1].write_text(text + one % name + goal)
        for step in build_plan(files, mode=mode).steps:
            assert step.metrics == ({"name": "acc", "regex": "acc=(.*)"},)
            assert step.model_file == "m.pt"


def test_a_metric_to_optimise_that_no_script_prints_is_refused(tmp_path):
    """Each trial would train to its end, and then fail."""
    text = (
        "general: {metrics: [{name: val_acc, regex: 'acc=(.*)'}, {name: size, regex: 'n=(.*)'}]}\n"
        "search_space: [{type: discrete_param, name: lr, values: [1, 2], default: 1}]\n"
        "search_algorithm: {type: random_search, %s}\n"
    )
    wrong = write(tmp_path, text % "reward_attr: accuracy")
    with pytest.raises(
        ConfigError, match=r"job\.yaml: .*'accuracy', is none of .*\(val_acc, size\)"
    ):
        _plan({"config_paths": [wrong]})
    assert build_plan([wrong]).last.reward == "accuracy"  # what was begun says so itself
    # a trial's time is an objective too, and printed by nobody
    path, time = tmp_path / "time.yaml", "{metric: time_total_s, mode: min}"
    for goals in (time, f"{time}, {{metric: val_acc}}", "{metric: val_acc}, {metric: own}"):
        path.write_text(text % f"objectives: [{goals}]")
        assert _plan({"config_paths": [path]}).last.reward == "val_acc"
    # of several files that run as one search the last one says what counts
    path.write_text((text % "reward_attr: val_acc").replace("name: lr", "name: wd"))
    for mode in ("nested", "joint"):
        plan = _plan({"config_paths": [wrong, path], "multi": mode})
        assert plan.last.reward == "val_acc"
    with pytest.raises(ConfigError, match="'accuracy', is none of"):
        _plan({"config_paths": [wrong, path], "multi": "serial"})


def test_an_own_value_on_the_command_line_counts_before_the_file(tmp_path):
    text = (
        "search_space: [{type: continuous_param, name: wd, start: 0.001, stop: 0.1, default: 0.01}]\n"
        "search_algorithm: {type: random_search, reward_attr: acc}\n"
    )
    path = write(tmp_path, text)
    assert build_plan([path]).steps[0].baseline == {"wd": 0.01}
    plan = build_plan([path], arguments={"wd": "0.05"})
    assert plan.steps[0].baseline_configuration()["wd"] == 0.05
    # a field that was set is the more explicit one
    told = build_plan([path], arguments={"wd": "0.05"}, settings={"general.baseline.wd": 0.02})
    assert told.steps[0].baseline["wd"] == 0.02


def test_a_baseline_set_as_a_field_counts_first_for_that_setting_alone(tmp_path):
    text = (
        "search_space: [{params: [{type: discrete_param, name: lr, values: [1, 2, 3], default: 1},\n"
        "                         {type: discrete_param, name: wd, values: [1, 2, 3], default: 1}]}]\n"
        "search_algorithm: {type: random_search, reward_attr: acc}\n"
    )
    path, own = write(tmp_path, text), {"lr": "2", "wd": "2"}

    def values(settings):
        return build_plan([path], arguments=own, settings=settings).steps[0].baseline

    assert values({"general.baseline.lr": 3}) == {"lr": 3, "wd": 2}
    assert values({"general.baseline": {"wd": 3}}) == {"lr": 2, "wd": 3}
    # a setting that is merely called so
    native = "space: {baseline: {low: 1, high: 9}}\nbaseline: {baseline: 4}\n"
    path, own = write(tmp_path, native), {"baseline": "2"}
    assert values({"space.baseline.low": 2}) == {"baseline": 2}
    assert values({"baseline.baseline": 5}) == {"baseline": 5}


DOTTED = """
general: {baseline: {optimizer: sgd}}
search_space:
  - params:
      - {type: discrete_param, name: optimizer, values: [sgd, adam]}
      - {type: discrete_param, name: optimizer.lr, values: [0.05, 0.1, 0.2], default: 0.1}
      - {type: discrete_param, name: kernel, values: [{size: 3}, {size: 5}]}
search_algorithm: {type: random_search, reward_attr: acc}
"""


def test_a_baseline_of_a_dotted_name_is_set_as_a_field(tmp_path):
    path, own = write(tmp_path, DOTTED), {"optimizer": "adam", "optimizer.lr": "0.2"}
    settings = {"general.baseline.optimizer.lr": 0.05, "general.baseline.kernel.size": 5}
    plan = build_plan([path], arguments=own, settings=settings)
    assert plan.steps[0].baseline == {
        "optimizer": "adam", "optimizer.lr": 0.05, "kernel": {"size": 5},
    }  # fmt: skip
    # a second file, which does not know the setting
    other = tmp_path / "other.yaml"
    other.write_text(DOTTED.replace("optimizer", "data").replace("kernel", "size"))
    plan = build_plan([path, other], settings={"general.baseline.optimizer.lr": 0.05})
    assert plan.steps[0].baseline["optimizer.lr"] == 0.05
    with pytest.raises(ConfigError, match="no such field"):
        build_plan([path], settings={"general.baseline.optimizer.lrr": 0.05})
    path = write(tmp_path, "space: {optimizer.lr: {low: 0.1, high: 0.9}, wd: {low: 0.1, high: 1}}")
    settings = {"baseline.optimizer.lr": 0.3, "space.optimizer.lr.low": 0.2, "space.wd.high": 2}
    (step,) = build_plan([path], settings=settings).steps
    assert step.baseline == {"optimizer.lr": 0.3}
    assert [(d.name, d.low, d.high) for d in step.dimensions] == [
        ("optimizer.lr", 0.2, 0.9), ("wd", 0.1, 2.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "text", "meant"),
    [
        ("['1', '2']", "1", "1"),
        ("['1', '2']", "3", "3"),
        ("[1, '1']", "1", 1),
        ("[inf, l2]", "inf", "inf"),
        ("[true, false]", "1", True),
        ("[true, false]", "False", False),
        ("[0, 1]", "true", 1),
        ("[1, 2]", "2.0", 2),
        ("[1, 2]", "7", 7),
        ("[1.0, 0.5]", "1", 1.0),
        ("[sgd, null]", "null", None),
        ("[sgd, null]", "None", None),
        ("[[1, 2], [3]]", "[1, 2]", [1, 2]),
    ],
)
def test_an_own_value_on_the_command_line_is_the_choice_that_it_writes(
    tmp_path, values, text, meant
):
    job = (
        f"search_space: [{{type: discrete_param, name: k, values: {values}}}]\n"
        "search_algorithm: {type: grid_search, reward_attr: acc}\n"
    )
    (step,) = build_plan([write(tmp_path, job)], arguments={"k": text}).steps
    assert (step.baseline["k"], type(step.baseline["k"])) == (meant, type(meant))
    assert step.contains(step.baseline) is (text not in ("3", "7"))


def test_an_own_value_is_taken_as_its_setting_has_it(tmp_path):
    goal = "search_algorithm: {type: random_search, reward_attr: acc}\n"
    # the point in the middle is 0.6000000000000001
    text = "search_space: [{type: continuous_param, name: k, %s}]\n" + goal
    path = write(tmp_path, text % "start: 0.3, stop: 0.9, num: 3, default: 0.6")
    assert parse_file(path).dimensions[0].contains(parse_file(path).baseline["k"])
    for own in ({"arguments": {"k": "0.6"}}, {"settings": {"general.baseline.k": 0.6}}):
        (step,) = build_plan([path], **own).steps
        assert step.contains(step.baseline)
    # to YAML `2e-5` is a text, as a default and as a baseline
    path = write(tmp_path, text % "start: 1e-6, stop: 1e-3, log: true, default: 2e-5")
    assert parse_file(path).baseline == {"k": 2e-5}
    (step,) = build_plan([path], settings={"general.baseline.k": "1e-4"}).steps
    assert step.baseline == {"k": 1e-4}
    path = write(tmp_path, text % "start: 1, stop: 9, integer: true")
    (step,) = build_plan([path], arguments={"k": "3.0"}).steps
    assert (step.baseline["k"], type(step.baseline["k"])) == (3, int)
    for value in ("inf", "1" * 400):
        with pytest.raises(ConfigError, match="is no number"):
            build_plan([path], arguments={"k": value})
    path = write(tmp_path, text % "start: 1, stop: 9, integer: true, default: .inf")
    with pytest.raises(ConfigError, match="default = inf: not among"):
        parse_file(path)
    text = "search_space: [{type: discrete_param, name: k, values: %s, default: %s}]\n" + goal
    # the files of a trial hold no infinity: its code would be given None
    words = r"'k' has the value inf, for which a trial .* None; write the text 'inf'"
    for values in ("[.inf, 2]", "[[1, .inf], 2]", "[{a: .inf}, 2]"):
        path = write(tmp_path, text % (values, "2"))
        with pytest.raises(ConfigError, match=words):
            _plan({"config_paths": [path]})
    path = write(tmp_path, text % ("[1, 2]", "2"))
    with pytest.raises(ConfigError, match=words):
        _plan({"config_paths": [path], "arguments": {"k": "inf"}})
    path = write(tmp_path, text % ("['inf', 2]", "2"))
    plan = _plan({"config_paths": [path], "arguments": {"k": "inf"}})
    assert plan.steps[0].baseline == {"k": "inf"}
    # a search that was begun with one goes on
    path = write(tmp_path, text % ("[.inf, 2]", ".inf"))
    assert build_plan([path]).steps[0].baseline == {"k": math.inf}
