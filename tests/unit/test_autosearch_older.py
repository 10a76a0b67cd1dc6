"""A half-finished search that an older program made goes on as it began; a new one is read strictly."""

from dataclasses import replace

import pytest
from autosearch_workshop import BASE, log_of, one, write

from darts_core.autosearch.command_line import parse_command
from darts_core.autosearch.engine import load_plan
from darts_core.autosearch.job_yaml import parse_file
from darts_core.autosearch.request import RULES, Request, create
from darts_core.errors import ConfigError
from darts_core.store.jobs import Store

FOUR = "search_space: [{type: continuous_param, name: a, %s}]\nsearch_algorithm: {%s}\n"
ONE = "type: random_search, reward_attr: acc"
NATIVE = "space: {a: {low: 1, high: 9, step: 4%s}}\nalgorithm: {type: random_search%s}\n"


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        (FOUR % ("start: 1, stop: 3, num: 5, integer: true", ONE), (1.0, 1.5, 2.0, 2.5, 3.0)),
        (FOUR % ("start: 0, stop: 4, num: 3, log: true", ONE), (0, 2, 4)),
        (FOUR % ("start: 1, stop: 3, num: 3", "type: random_search, mode: min, objectives: [{metric: b}]"),
         (1, 2, 3)),
        (NATIVE % (", log: true", ""), (1, 5, 9)),
        (NATIVE % ("", ", seed: 77, mode: min, num_samples: 40"), (1, 5, 9)),
    ],
)  # fmt: skip
def test_what_is_refused_now_is_a_note_where_it_was_passed_over(tmp_path, caplog, text, choices):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError):
        parse_file(path)
    spec = parse_file(path, older=True)
    assert spec.dimensions[0].choices == choices
    assert {type(c) for c in spec.dimensions[0].choices} == {type(choices[0])}
    assert "goes on as the older program" in caplog.text
    assert spec.objectives[0].mode == "max"
    assert (spec.seed, spec.num_samples) == (1, 20)


def test_points_and_ranges_keep_their_older_values(tmp_path):
    def setting(fields, older):
        return parse_file(write(tmp_path, FOUR % (fields, ONE)), older=older).dimensions[0]

    spread = "start: 1, stop: 9, num: 3, log: true"
    assert setting(spread, True).choices == (1, 5, 9)
    assert setting(spread, False).choices == (1, 3, 9)
    powers = "start: 1, stop: 3, num: 3, base: 2, integer: true"
    assert [type(c) for c in setting(powers, True).choices] == [float] * 3
    assert [type(c) for c in setting(powers, False).choices] == [int] * 3
    range_ = setting("start: 1, stop: 3, base: 2, integer: true", True)
    assert (range_.low, range_.high, range_.log, range_.integer) == (2.0, 8.0, True, False)
    # what held then holds still
    whole = "start: 1, stop: 8, integer: true, log: true"
    assert setting(whole, True) == setting(whole, False)
    with pytest.raises(ConfigError, match="bounds are fractions"):
        setting("start: 1, stop: 2.5, integer: true", True)


def test_the_request_says_by_which_rules_its_version_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "darts_core.autosearch.request._check", lambda *_, **__: {"boot_file": "boot.py"}
    )
    (tmp_path / "code").mkdir()
    (tmp_path / "code/boot.py").write_text("def train(): ...")
    fields = "start: 1, stop: 9, num: 3, log: true, default: 9"
    path = write(tmp_path, FOUR % (fields, ONE))
    store = Store(tmp_path / "runs")
    store.create_job("a", kind="script")
    wanted = Request(code=str(tmp_path / "code"), config_paths=(str(path),), arguments={"a": "3"})
    version, _ = create(store, "a", wanted)
    request = version.command("autosearch")["request"]
    assert request["rules"] == RULES
    (step,) = load_plan(version.path, request).steps
    assert (step.dimensions[0].choices, step.baseline) == ((1, 3, 9), {"a": 3})
    older = {key: value for key, value in request.items() if key != "rules"}
    (step,) = load_plan(version.path, older).steps
    assert (step.dimensions[0].choices, step.baseline) == ((1, 5, 9), {"a": 9})
    # the version's own copy
    copy = version.path / "config" / request["config_files"][0]
    copy.write_text(
        path.read_text().replace("reward_attr", "objectives: [{metric: b}], reward_attr")
    )
    with pytest.raises(ConfigError, match="objectives are given too"):
        load_plan(version.path, request)
    assert load_plan(version.path, older).last.objectives[0].metric == "b"


@pytest.mark.parametrize("older", [True, False])
def test_a_text_of_false_sets_a_flag_in_an_older_version(shop, older):
    parsed = parse_command("python m.py {amp:--amp|--no-amp}")
    assert parsed.fill({"amp": "false"}, older=older) == ["--amp" if older else "--no-amp"]
    assert parsed.fill({"amp": False}, older=older) == ["--no-amp"]
    workshop = shop(
        "import sys; print(sys.argv[1:]); print('acc=1')", arguments=("--amp=false",), older=older
    )
    spec = replace(
        BASE,
        metrics=({"name": "acc", "regex": "acc=([0-9.]+)"},),
        arguments="template",
        command="python boot.py {x} {amp:--amp}",
    )
    row = one(workshop, spec)
    assert ("'--amp'" in log_of(workshop, row)) == older
