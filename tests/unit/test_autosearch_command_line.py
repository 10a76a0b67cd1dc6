"""The command line that a user's script gets: service, named, none, or a template."""

import math
from dataclasses import replace

import pytest
import yaml
from autosearch_workshop import BASE, log_of, one, write

from darts_core.autosearch.boot_file import check_boot_file
from darts_core.autosearch.command_line import boot_file_of, parse_command
from darts_core.autosearch.forecast import dry_run, forecast_text, trainings
from darts_core.autosearch.job_yaml import parse_file
from darts_core.autosearch.plan_files import build_plan
from darts_core.autosearch.process import TrialProcess
from darts_core.errors import ConfigError, JobError
from darts_core.store import procs
from darts_core.study.result_table import result_table
from darts_core.study.space import SearchDimension

STRICT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("-lr", "--lr", type=float, default=0.1)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--nesterov", action="store_true")
args = parser.parse_args()
print(f"lr {args.lr} seed {args.seed} nesterov {args.nesterov}")
print(f"acc={args.lr}")
"""
ACC = ({"name": "acc", "regex": r"acc=([0-9.]+)"},)
ZERO = replace(BASE, metrics=ACC)
FOUR = """
general:
  arguments: %s
  metrics: [{name: acc, regex: 'acc=([0-9.]+)'}]
search_space: [{params: [{type: discrete_param, name: lr, values: [0.1, 0.2], default: 0.1}]}]
search_algorithm: {type: grid_search, reward_attr: acc}
"""


def test_a_strict_parser_is_named_as_the_reason_and_runs_with_named_arguments(shop):
    workshop = shop(STRICT)
    row = one(workshop, ZERO, {"lr": 0.2})
    assert row["state"] == "failed"
    assert "general.arguments: named" in row["reason"]
    row = one(workshop, replace(ZERO, arguments="named"), {"lr": 0.2})
    assert (row["state"], row["values"]["acc"]) == ("done", 0.2), log_of(workshop, row)


def test_no_arguments_at_all(shop):
    workshop = shop("import sys; print(sys.argv[1:]); print('acc=1')", arguments=("--own=3",))
    row = one(workshop, replace(ZERO, arguments="none"), {"lr": 0.2})
    assert "['--own=3']" in log_of(workshop, row)


def test_a_command_template_fills_settings_seed_and_flags(shop):
    workshop = shop(STRICT)
    command = "python boot.py -lr {lr} --seed {seed} {nesterov:--nesterov}"
    spec = replace(ZERO, arguments="template", command=command)
    row = one(workshop, spec, {"lr": 0.2, "nesterov": True}, seed=7)
    assert "lr 0.2 seed 7 nesterov True" in log_of(workshop, row)
    row = one(workshop, spec, {"lr": 0.3, "nesterov": False}, seed=8)
    assert "lr 0.3 seed 8 nesterov False" in log_of(workshop, row)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python train.py optimizer.lr={optimizer.lr} seed={seed}", ["optimizer.lr=0.1", "seed=3"]),
        ("python m.py fit --model.lr {lr} --seed_everything {seed}",
         ["fit", "--model.lr", "0.1", "--seed_everything", "3"]),
        ("python ./m.py {amp:--amp|--no-amp} '{lr} x' {{a}}", ["--no-amp", "0.1 x", "{a}"]),
        ("python3 -u -m pkg.train --data {data_url}", ["--data", "/d"]),
        ("python m.py --tag ''", ["--tag", ""]),
    ],
)  # fmt: skip
def test_templates_for_hydra_lightning_and_modules(command, words):
    values = {"lr": 0.1, "optimizer.lr": 0.1, "seed": 3, "amp": False, "data_url": "/d"}
    parsed = parse_command(command)
    assert parsed.fill(values) == words
    assert (parsed.boot_file, parsed.module) in {
        ("train.py", ""), ("m.py", ""), ("pkg/train.py", "pkg.train"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [("False", []), ("0", []), ("off", []), ("true", ["--amp"]), ("fast", ["--amp"])],
)
def test_a_flag_is_off_for_an_argument_that_says_so(value, words):
    assert parse_command("python m.py {amp:--amp}").fill({"amp": value}) == words


def test_a_module_is_run_as_one(shop, tmp_path):
    workshop = shop("")
    (tmp_path / "code/pkg").mkdir()
    (tmp_path / "code/pkg/__init__.py").write_text("")
    (tmp_path / "code/pkg/train.py").write_text(
        "import sys; print(__package__, 'acc=' + sys.argv[1])"
    )
    spec = replace(ZERO, arguments="template", command="python -m pkg.train {x}")
    assert one(workshop, spec, {"x": 2})["values"]["acc"] == 2.0


@pytest.mark.parametrize("form", ["four", "native", "older"])
def test_every_form_of_the_job_file_has_them(tmp_path, form):
    text = {
        "four": FOUR % "template\n  command: python m.py {lr}",
        "native": "space: {lr: {choices: [1, 2]}}\ncommand: python m.py {lr}\n",
        "older": "trainingInput:\n  command: python m.py {lr}\n  hyperparameters:\n"
        "    searchAlgorithmMetric: acc\n"
        "    params: [{parameterName: lr, type: DOUBLE, minValue: 0.1, maxValue: 1}]\n",
    }[form]
    spec = parse_file(write(tmp_path, text))
    assert (spec.arguments, spec.command) == ("template", "python m.py {lr}")
    named = text.replace("arguments: template\n  ", "")
    named = named.replace("command: python m.py {lr}", "arguments: named")
    assert parse_file(write(tmp_path, named)).arguments == "named"


@pytest.mark.parametrize(
    ("general", "message"),
    [
        ("some", "use one of named, none, service, template"),
        ("template", "add command"),
        ("named\n  command: python m.py {lr}", "use template, or remove command"),
        ("template\n  command: bash run.sh {lr}", "python FILE.py"),
        ("template\n  command: 'python m.py {lr'", "lone brace"),
        ("template\n  command: 'python m.py {lr} {wd}'", "{wd} has no value"),
        ("template\n  command: 'python m.py --seed {seed}'", "'lr' never reaches the script"),
        ("template\n  command: 'python m.py {lr} {data_url}'", "give the data with --data"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, general, message):
    with pytest.raises(ConfigError, match=message.replace("{", r"\{").replace("}", r"\}")):
        build_plan([write(tmp_path, FOUR % general)])


def test_dotted_names_are_settings(tmp_path):
    text = FOUR.replace("name: lr", "name: optimizer.lr") % "named"
    assert parse_file(write(tmp_path, text)).dimensions[0].name == "optimizer.lr"
    with pytest.raises(ConfigError, match="not usable as a setting's name"):
        parse_file(write(tmp_path, FOUR.replace("name: lr", "name: optimizer..lr") % "named"))


def test_an_entry_that_needs_arguments_is_refused_and_another_can_be_named(tmp_path):
    (tmp_path / "m.py").write_text("def train(args, model): ...\ndef main(x=1): ...\n")
    with pytest.raises(JobError, match=r"train\(args, model\).*--entry"):
        check_boot_file(tmp_path, "m.py", needs="train")
    check_boot_file(tmp_path, "m.py", needs="main")
    with pytest.raises(JobError, match=r"no function other\(\)"):
        check_boot_file(tmp_path, "m.py", needs="other")


def test_a_boot_file_named_by_its_whole_path_is_the_one_of_the_copy(tmp_path):
    code, linked = tmp_path / "code", tmp_path / "linked"
    code.mkdir()
    linked.symlink_to(code)
    (code / "m.py").write_text("def main(): ...\n")
    for name in ("m.py", "./m.py", "../code/m.py", str(code / "m.py"), str(linked / "m.py")):
        for folder in (code, linked):
            assert check_boot_file(folder, name, needs="main") == "m.py"
    # a new version has the relative one beside its command
    assert boot_file_of(["python /a/b/m.py"], "b/m.py") == "/a/b/m.py"
    assert boot_file_of(["python ./m.py {x}"], "./m.py") == "m.py"
    with pytest.raises(ConfigError, match="name one of them"):
        boot_file_of(["python /a/b/m.py"], "n.py")


@pytest.mark.parametrize(
    ("commands", "given"),
    [
        (["python -m timeit {x}"], "train.py"),
        (["python train.py {x}", "python -m timeit {x}"], "train.py"),
        (["python train.py {x}", "python other.py {x}"], ""),
    ],
)
def test_no_command_of_a_job_file_runs_another_file_than_the_one_that_was_chosen(commands, given):
    with pytest.raises(ConfigError, match=r"--boot-file is train\.py; name one of them"):
        boot_file_of(commands, given)


def test_a_module_is_its_file_or_the_main_file_of_its_package():
    module = ["", "python -m pkg.train {x}"]
    assert boot_file_of(module, "") == "pkg/train.py"
    for given in ("pkg/train.py", "pkg/train/__main__.py", "/code/pkg/train.py"):
        assert boot_file_of(module, given) == given


def test_a_function_that_is_there_by_way_of_a_branch_or_a_decorator_is_found(tmp_path):
    (tmp_path / "m.py").write_text(
        "import hydra\nfrom typing import Any\n"
        "try:\n    from fast import train\n"
        "except ImportError:\n    def train():\n        later = 1\n"
        "@hydra.main(version_base=None)\ndef main(config):\n    pass\n"
        "made: Any = train\n"
    )
    for name in ("train", "main", "made"):
        check_boot_file(tmp_path, "m.py", needs=name)
    # a name inside a function is none of the module
    with pytest.raises(JobError, match=r"no function later\(\)"):
        check_boot_file(tmp_path, "m.py", needs="later")


def test_an_eval_that_needs_a_model_is_not_called(shop):
    workshop = shop(
        """
        from darts_core import autosearch
        def main(): autosearch.report(0.5)
        def eval(model): raise RuntimeError("not ours")
        """,
        entry="main",
    )
    assert one(workshop)["state"] == "done"


def test_a_dry_run_takes_a_relative_interpreter(tmp_path, monkeypatch):
    import os
    import sys

    (tmp_path / "code").mkdir()
    (tmp_path / "code/m.py").write_text("print('acc=0.5')")
    (tmp_path / "py").mkdir()
    os.symlink(sys.executable, tmp_path / "py/python")
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, FOUR % "template\n  command: python m.py {lr}")
    text = dry_run(build_plan([path]), {"code": "code", "python": "py/python"}, limit_seconds=30)
    assert "acc" in text


def test_a_dry_run_takes_relative_data(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code/m.py").write_text("import os, sys; os.stat(sys.argv[1]); print('acc=0.5')")
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, FOUR % "template\n  command: python m.py {data_url} {lr}")
    plan = build_plan([path], arguments={"data_url": "data"})
    assert "acc" in dry_run(plan, {"code": "code", "data": "data"}, limit_seconds=30)
    with pytest.raises(JobError, match="--data none does not exist"):
        dry_run(plan, {"code": "code", "data": "none"})


def test_a_dry_run_takes_no_jobs_for_code_and_names_links(tmp_path, monkeypatch):
    code = tmp_path / "code"
    (code / "runs" / ".exports").mkdir(parents=True)
    for number in range(3):
        (code / "runs" / ".exports" / f"{number}.pt").touch()
    (code / "m.py").write_text("print('acc=0.5')")
    (code / "linked_lib").symlink_to(tmp_path)
    monkeypatch.setattr("darts_core.store.code.MAX_FILES", 2)
    plan = build_plan([write(tmp_path, FOUR % "template\n  command: python m.py {lr}")])
    request = {"code": str(code), "root": str(code / "runs")}
    assert dry_run(plan, request, limit_seconds=30).endswith("--data: linked_lib.")
    # without it that one may not work
    (code / "m.py").write_text("import linked_lib.helper")
    words = r"saw no report.*No module named 'linked_lib'.* Note: links .*: linked_lib\."
    with pytest.raises(JobError, match=words):
        dry_run(plan, request, limit_seconds=30)


def test_a_dry_run_tells_of_a_training_that_no_trial_could_use(tmp_path):
    (tmp_path / "m.py").write_text("print('acc=0.5', flush=True); raise SystemExit('boom')")
    plan = build_plan([write(tmp_path, FOUR % "template\n  command: python m.py {lr}")])
    with pytest.raises(JobError, match=r"failed after its first report \(crash.*acc=0\.5 \| boom"):
        dry_run(plan, {"code": str(tmp_path)}, limit_seconds=30)
    (tmp_path / "m.py").write_text(
        "from darts_core import autosearch\ndef train(): autosearch.reporter(loss=1)\n"
    )
    text = "\n".join(line for line in FOUR.splitlines() if "metrics" not in line)
    plan = build_plan([write(tmp_path, text % "service")])
    with pytest.raises(JobError, match="reported no usable acc, which the job file optimises"):
        dry_run(plan, {"code": str(tmp_path), "boot_file": "m.py"}, limit_seconds=30)


def test_a_dry_run_that_is_broken_off_leaves_no_training_behind(tmp_path, monkeypatch):
    (tmp_path / "m.py").write_text("import time; time.sleep(60)")
    plan = build_plan([write(tmp_path, FOUR % "template\n  command: python m.py {lr}")])
    seen = []

    def interrupted(process):
        seen.append(procs.identity(process.pid))
        raise KeyboardInterrupt

    monkeypatch.setattr(TrialProcess, "poll", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dry_run(plan, {"code": str(tmp_path)})
    assert [procs.is_alive(who) for who in seen] == [False]


def test_the_forecast_counts_the_confirming_runs_and_tries(tmp_path):
    plan = build_plan([write(tmp_path, FOUR % "named")])
    assert trainings(plan) == (2.0, 6.0)
    assert "2 trials (yours first), 2 trainings, and 6 to confirm" in forecast_text(plan)
    assert "8 in all" in forecast_text(plan)
    # two trainings of the search and six to confirm, ten seconds each
    assert "about 1m20s in all." in forecast_text(plan, 10.0)
    limits = replace(plan.last.limits, seconds=15.0)
    capped = replace(plan, steps=(replace(plan.last, limits=limits),))
    assert "about 1m15s in all (the search ends after 15.0s)." in forecast_text(capped, 10.0)
    # yours runs alone, then eight four at a time; or three, as many at once as a budget brings to their ends
    values = SearchDimension("lr", choices=tuple(range(9)))
    many = replace(plan.last, max_concurrent=4, confirm_seeds=0, dimensions=(values,), baseline={})
    for budget, words in ((None, "30.0s in all with 4"), (4.0, "25.0s in all with 2")):
        many = replace(many, limits=replace(many.limits, trainings=budget))
        assert f"about {words} at a time" in forecast_text(replace(plan, steps=(many,)), 10.0)
    content = yaml.safe_load(FOUR % "named")
    content["general"]["max_retries"] = 2
    plan = build_plan([write(tmp_path, yaml.safe_dump(content))])
    assert "tried again up to 2 times" in forecast_text(plan)


def test_every_row_of_the_table_has_a_name_of_its_own():
    def row(trial, number, step, phase="search", **more):
        return {"trial_id": trial, "number": number, "step": step, "phase": phase, "config": {},
                "values": {"acc": 1.0}, "state": "done", **more}  # fmt: skip

    rows = [
        row("a", 0, "1-lr", is_baseline=True),
        row("b", 1, "1-lr"),
        row("c", 1, "2-wd"),
        row("d", 0, "confirm-baseline", "confirm", confirms="baseline", seed=2),
        row("e", 1, "confirm-best", "confirm", confirms="best", seed=2),
        row("f", 0, "confirm-baseline", "confirm", confirms="baseline", seed=3),
    ]
    _, table = result_table(rows, [{"metric": "acc", "mode": "max"}], None)
    assert [r["#"] for r in table] == ["1.0*", "1.1", "2.1", "c1*", "c2", "c3*"]
    _, table = result_table(rows[:2], [{"metric": "acc", "mode": "max"}], None)
    assert [r["#"] for r in table] == ["0*", "1"]


def test_the_table_is_sorted_by_a_switch_and_by_any_metric_s_better_side():
    rows = [
        {"trial_id": t, "number": n, "step": "1", "phase": "search", "config": {"flag": bool(n % 2)},
         "values": {"acc": 0.5}, "metrics": {"rmse": float(n)}, "state": "done"}
        for n, t in enumerate("abcd")
    ]  # fmt: skip
    goals = [{"metric": "acc", "mode": "max"}]
    _, table = result_table(rows, goals, "flag")
    assert [r["flag"] for r in table] == [True, True, False, False]
    _, table = result_table(rows, goals, "rmse")
    assert [r["rmse"] for r in table] == [0.0, 1.0, 2.0, 3.0]
    # a setting of words by the alphabet; what a running trial reports as NaN comes last
    for each, name, rmse in zip(rows, "bAca", (math.nan, 2.0, 3.0, 1.0), strict=True):
        each["config"]["kind"], each["metrics"]["rmse"] = name, rmse
    _, table = result_table(rows, goals, "kind")
    assert [r["kind"] for r in table] == ["A", "a", "b", "c"]
    _, table = result_table(rows, goals, "rmse")
    assert [r["trial_id"] for r in table] == ["d", "b", "c", "a"]


def test_a_setting_called_like_a_column_is_not_hidden_by_it():
    rows = [
        {"trial_id": t, "number": n, "step": "1-lr", "phase": "search", "state": "done",
         "config": {"step": 10 * n, "iterations": 7}, "values": {"acc": 0.5}, "training_iteration": 3}
        for n, t in enumerate("ab")
    ]  # fmt: skip
    columns, table = result_table(rows, [{"metric": "acc", "mode": "max"}], "config.step")
    assert len(columns) == len(set(columns))
    names = ("step", "config.step", "iterations", "config.iterations")
    assert [[row[name] for name in names] for row in table] == [
        ["1-lr", 10, 3, 7],
        ["1-lr", 0, 3, 7],
    ]
