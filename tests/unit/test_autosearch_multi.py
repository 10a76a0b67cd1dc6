"""Whole plans through `autosearch.run`: one search, serial, nested, joint, and the worked example."""

import difflib
import importlib
import importlib.util
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from autosearch_workshop import BASE

from darts_core import autosearch
from darts_core.autosearch.api import _evaluation
from darts_core.autosearch.driver import Search
from darts_core.autosearch.engine import load_plan, run_version
from darts_core.autosearch.multi import confirm, run_plan
from darts_core.autosearch.spec import Limits, Objective, SearchPlan
from darts_core.errors import ConfigError, JobError
from darts_core.store.jobs import Store
from darts_core.study.results import best_row, read_rows, search_rows, trials_folder
from darts_core.study.space import SearchDimension

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "resnet50_mnist"
SCRIPT = """
from darts_core import autosearch

def train():
    a, b = autosearch.config["a"], autosearch.config["b"]
    value = -(a - 2) ** 2 - (b - a) ** 2 + (0.001 * autosearch.seed)
    extra = {"test_score": value} if autosearch.phase == "confirm" else {}
    autosearch.report(value, additional_data={"size": a + b, **extra})

def broken():
    raise ValueError("boom")

def needs(argument):
    pass
"""


def config(name, values, own, **more):
    return {
        "general": {"confirm_seeds": more.pop("confirm_seeds", 0)},
        "search_space": [
            {"params": [{"type": "discrete_param", "name": name, "values": values, "default": own}]}
        ],
        "search_algorithm": {"type": "grid_search", "reward_attr": "acc", "mode": "max", **more},
        "name": name,
    }


@pytest.fixture
def module(tmp_path):
    import importlib.util

    folder = tmp_path / "user"
    folder.mkdir()
    path = folder / "user_script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    spec = importlib.util.spec_from_file_location("user_script", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def configs(result):
    rows = [r for r in result.trials if r["phase"] == "search"]
    return [(r["step"], r["config"]["a"], r["config"]["b"]) for r in rows]


def test_serial_starts_each_step_from_the_best_so_far(module, tmp_path):
    result = autosearch.run(
        module.train,
        [config("a", [0, 2, 3], 0), config("b", [0, 1, 2], 1, confirm_seeds=1)],
        root=tmp_path / "runs",
    )
    found = sorted(configs(result))
    # step 1 with the user's own b=1: a=0 -> -5, a=2 -> -1, a=3 -> -5; step 2 starts from the winner's a
    assert found[:3] == [("1-a", 0, 1), ("1-a", 2, 1), ("1-a", 3, 1)]
    assert found[3:] == [("2-b", 2, 0), ("2-b", 2, 2)]  # the starting point is not run again
    assert result.summary["cost"]["search"]["trainings"] > 3
    confirm = [r for r in result.trials if r["phase"] == "confirm"]
    assert {(r["confirms"], r["seed"]) for r in confirm} == {("best", 2), ("baseline", 2)}
    assert result.summary["test"]["test_score"]["baseline"]["n"] == 1
    assert all(
        "test_score" not in r["additional_data"] for r in result.trials if r["phase"] == "search"
    )


def test_nested_tunes_each_architecture_and_joint_searches_all_at_once(module, tmp_path):
    files = [config("a", [0, 2], 0), config("b", [0, 2], 0)]
    nested = autosearch.run(module.train, files, root=tmp_path / "runs", name="n", multi="nested")
    assert sorted(configs(nested)) == [
        ("b-000", 0, 0), ("b-000", 0, 2), ("b-001", 2, 0), ("b-001", 2, 2),
    ]  # fmt: skip
    assert nested.best_config == {"a": 2, "b": 2}
    assert nested.summary["baseline"]["config"] == {"a": 0, "b": 0}
    joint = autosearch.run(module.train, files, root=tmp_path / "runs", name="j", multi="joint")
    assert sorted(c[1:] for c in configs(joint)) == [(0, 0), (0, 2), (2, 0), (2, 2)]
    assert joint.best_config == {"a": 2, "b": 2}
    assert joint.verdict.startswith("Against your own configuration")


def test_settings_that_always_fail_end_no_job_in_which_others_succeeded(shop):
    """A network that is too large, say: it is tuned in vain, and the other networks are not."""
    workshop = shop("def train(): raise MemoryError")
    search = Search(BASE, workshop, step="b-001", first={"x": 1})
    folder = trials_folder(workshop.version) / "0123abcd"
    folder.mkdir(parents=True)
    row = {"number": 0, "step": "b-000", "phase": "search", "state": "done", "config": {"x": 1}}
    (folder / "result.json").write_text(json.dumps(row))
    assert search.run() is None
    assert [row["state"] for row in search.rows] == ["failed"] * 3


def test_two_objectives_give_a_front(module, tmp_path):
    both = config("a", [0, 1, 2], 0)
    both["search_space"][0]["params"].append(
        {"type": "discrete_param", "name": "b", "values": [0, 2]}
    )
    both["search_algorithm"] = {
        "type": "grid_search",
        "objectives": [{"metric": "acc", "mode": "max"}, {"metric": "size", "mode": "min"}],
    }
    result = autosearch.run(module.train, both, root=tmp_path / "runs")
    chosen = {r["trial_id"]: (r["config"]["a"], r["config"]["b"]) for r in result.trials}
    assert [chosen[t] for t in result.summary["front"]] == [(2, 2), (1, 0), (0, 0)]
    assert json.loads((result.folder / "autosearch/result.json").read_text())["front"]


def test_broken_code_fails_with_the_log_named_and_functions_must_be_importable(module, tmp_path):
    words = r"trials all failed.*log\.txt\. They stay counted: mend the cause, then make another version"
    with pytest.raises(JobError, match=words):
        autosearch.run(module.broken, config("a", [0, 1, 2, 3], 0), root=tmp_path / "runs")
    for bad in (lambda: None, module.needs, print):
        with pytest.raises(ConfigError, match="top level"):
            autosearch.run(bad, config("a", [0, 1], 0), root=tmp_path / "runs")


def test_a_file_that_starts_the_search_when_a_trial_imports_it_is_told_so(
    module, tmp_path, monkeypatch
):
    monkeypatch.setenv("DARTS_TRIAL", str(tmp_path))
    with pytest.raises(ConfigError, match=r"inside a trial.*call train\(\).*__name__ =="):
        autosearch.run(module.train, config("a", [0, 1], 0), root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_search_that_is_stopped_from_outside_says_how_to_go_on(module, tmp_path, monkeypatch):
    def stopped(store, version):
        version.set_state("stopped", message="stopped by command")
        return 1

    monkeypatch.setattr("darts_core.autosearch.engine.run_version", stopped)
    root = tmp_path / "my runs"
    own = {"a": 0.5, "where": tmp_path, "fast": True}
    with pytest.raises(JobError, match=r"n/V001 was stopped .*--root '.*/my runs' resume n/V001"):
        autosearch.run(
            module.train, config("a", [0, 1], 0), root=root, name="n", arguments=own, devices="cpu"
        )
    # values of Python's own are read as the texts of a command line are
    version = Store(root).version("n")
    request = version.command()["request"]
    assert load_plan(version.path, request).steps[0].baseline == {"a": 0.5}
    assert request["arguments"] == {"a": "0.5", "where": str(tmp_path), "fast": "True"}
    assert request["devices"] == ["cpu"]


def test_the_example_changes_at_most_ten_lines():
    before = (EXAMPLE / "code/original.py").read_text().splitlines()
    after = (EXAMPLE / "code/searched.py").read_text().splitlines()
    changes = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    added = [line for line in changes if line.startswith("+") and line[1:].strip()]
    removed = [line for line in changes if line.startswith("-")]
    assert len(added) <= 10, added
    assert len(removed) <= 10


def test_the_example_in_miniature_finds_a_smaller_network_in_one_supernet_run(tmp_path):
    import sys

    from darts_core.autosearch.job_yaml import parse_file
    from darts_core.autosearch.request import Request, create
    from darts_core.study.results import read_rows, summary

    for name in ("nas", "learning_rate", "differentiable"):
        assert parse_file(EXAMPLE / f"{name}.yaml").total_trials() in (3, 4, 11)
    store = Store(tmp_path / "runs")
    store.create_job("mini", kind="script")
    request = Request(
        code=str(EXAMPLE / "code"),
        boot_file="searched.py",
        config_paths=(str(EXAMPLE / "differentiable.yaml"),),
        arguments={
            "data_url": "digits",
            "images": "96",
            "epochs": "1",
            "width": "4",
            "batch": "16",
        },
        settings={
            "general.confirm_seeds": 0,
            "search_algorithm.base": "11-21",
            "search_algorithm.warmup": 1,
            "general.baseline.code": "11-21",
        },
        python=sys.executable,
    )
    version, answer = create(store, "mini", request)
    assert answer["trials"] == 3

    assert run_version(store, version) == 0
    rows = read_rows(version.path)
    assert [(r["phase"], r["state"]) for r in rows] == [
        ("search", "done"), ("search", "done"), ("supernet", "done"),
    ]  # fmt: skip
    found = next(r for r in rows if r["phase"] == "search" and "x" in r["config"]["code"])
    own = next(r for r in rows if r.get("is_baseline"))
    assert found["additional_data"]["params"] < own["additional_data"]["params"]
    assert summary(version.path)["cost"]["search"]["trainings"] > 1


TRADE = """
from darts_core import autosearch

def train():
    a, b = autosearch.config["a"], autosearch.config["b"]
    acc, latency = {(0, 0): (0.95, 10.0), (1, 0): (0.935, 5.0), (1, 1): (0.92, 3.0)}[a, b]
    autosearch.report(acc, latency=latency)
"""


def test_an_evaluation_that_no_trial_would_find_is_refused(module, tmp_path, monkeypatch):
    (tmp_path / "only_metrics.py").write_text("def measure():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    measure = importlib.import_module("only_metrics").measure
    sys.modules.pop("only_metrics")
    space = config("a", [0, 1], 0)
    with pytest.raises(ConfigError, match=r"evaluate=measure is not found in the file of train"):
        autosearch.run(module.train, space, evaluate=measure, root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    # imported there, or defined there, it is found
    assert _evaluation(module.broken, module.train) == "broken"
    module.measure = measure
    assert _evaluation(measure, module.train) == "measure"


def test_the_trial_that_is_confirmed_is_the_one_that_is_shown(shop):
    """Step 2 starts from an accuracy below the best of step 1, so that its own tolerance reaches lower."""
    goals = (Objective("acc", "max", tolerance=0.02), Objective("latency", "min"))
    steps = [
        replace(
            BASE, name=name, objectives=goals, baseline={name: 0},
            dimensions=(SearchDimension(name, choices=(0, 1)),),
        )
        for name in ("a", "b")
    ]  # fmt: skip
    plan, workshop = SearchPlan(tuple(steps), "serial"), shop(TRADE)
    best = run_plan(plan, workshop)
    rows = search_rows(read_rows(workshop.version))
    assert len(rows) == 3
    assert best["config"] == best_row(rows, plan.last.goals)["config"] == {"a": 1, "b": 0}


def test_a_confirming_run_goes_on_from_no_checkpoint_of_another_winner(shop):
    workshop = shop(
        """
        import os
        from darts_core import autosearch
        def train():
            kept = os.path.join(autosearch.checkpoint_dir, "x")
            if not os.path.exists(kept):
                with open(kept, "w") as stream:
                    stream.write(str(autosearch.config["x"]))
            autosearch.report(float(open(kept).read()))
        """
    )
    plan = SearchPlan((replace(BASE, confirm_seeds=1),))
    for x in (1, 2):  # the second one was found by a resumed search
        confirm(plan, workshop, {"trial_id": f"winner{x}", "config": {"x": x}}, None)
        (row,) = workshop.known_rows("confirm-best", "confirm")
        assert (row["config"], row["values"]) == ({"x": x}, {"acc": x})


def test_a_confirming_run_that_fails_is_tried_again_as_often_as_the_limits_allow(shop):
    workshop = shop(
        """
        import os
        from darts_core import autosearch
        def train():
            tried = os.path.join(autosearch.checkpoint_dir, "tried")
            if not os.path.exists(tried):
                open(tried, "w").close()
                os._exit(7)
            autosearch.report(0.5)
        """
    )
    for retries, state in ((0, "failed"), (1, "done")):
        limits = Limits(retries=retries)
        plan = SearchPlan((replace(BASE, seed=10 * retries, confirm_seeds=1, limits=limits),))
        confirm(plan, workshop, {"trial_id": "winner", "config": {"x": 1}}, None)
        rows = workshop.known_rows("confirm-best", "confirm")
        row = next(row for row in rows if row["seed"] == 10 * retries + 1)
        assert (row["state"], row["attempt"]) == (state, 1 + retries)


def test_a_confirming_run_that_failed_is_run_again_by_the_next_start(shop, tmp_path):
    workshop = shop(
        """
        import os
        from darts_core import autosearch
        def train():
            assert os.path.exists(os.path.join(os.path.dirname(__file__), "memory"))
            autosearch.report(0.5)
        """
    )
    plan = SearchPlan((replace(BASE, confirm_seeds=1),))
    found = []
    for _ in range(3):
        failed = confirm(plan, workshop, {"trial_id": "winner", "config": {"x": 1}}, None)
        (row,) = workshop.known_rows("confirm-best", "confirm")
        found.append((row["state"], row["attempt"], failed))
        (tmp_path / "code" / "memory").touch()
    assert found == [("failed", 1, 1), ("done", 2, 0), ("done", 2, 0)]


def test_a_search_that_succeeded_without_its_confirming_run_may_be_resumed(tmp_path):
    code = tmp_path / "user" / "forgetful.py"
    code.parent.mkdir()
    code.write_text(
        "import os\nfrom darts_core import autosearch\ndef train():\n"
        f"    assert autosearch.phase == 'search' or os.path.exists({str(tmp_path / 'memory')!r})\n"
        "    autosearch.report(float(autosearch.config['a']))\n"
    )
    spec = importlib.util.spec_from_file_location("forgetful", code)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    given = config("a", [2], 2, confirm_seeds=1)
    autosearch.run(module.train, given, root=tmp_path / "runs", progress=False)
    store = Store(tmp_path / "runs")
    version = store.version("python")
    assert (version.state(), version.unfinished()) == ("succeeded", "autosearch")
    assert "Confirming runs that failed are not counted: 1;" in version.command()["message"]
    (tmp_path / "memory").touch()
    assert run_version(store, version) == 0
    assert (version.state(), version.unfinished()) == ("succeeded", None)
    assert "failed" not in version.command()["message"]


def test_confirming_runs_have_seeds_that_no_step_has_searched_with(shop):
    workshop = shop(
        """
        from darts_core import autosearch
        def train():
            autosearch.report(0.5)
        """
    )
    steps = [
        replace(BASE, name=name, seed=seed, dimensions=(SearchDimension(name, choices=(0, 1)),))
        for name, seed in (("a", 2), ("b", 1))
    ]
    plan = SearchPlan((steps[0], replace(steps[1], confirm_seeds=2)), "serial")
    confirm(plan, workshop, {"trial_id": "winner", "config": {"a": 1, "b": 1}}, None)
    rows = workshop.known_rows("confirm-best", "confirm")
    assert sorted(row["seed"] for row in rows) == [3, 4]
