import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from darts_core.autosearch import contract
from darts_core.autosearch.driver import Search
from darts_core.autosearch.reports import ReportReader, objective_value
from darts_core.autosearch.spec import Dimension, Limits, Objective, SearchSpec
from darts_core.autosearch.trials import UserCode, Workshop
from darts_core.errors import ConfigError
from darts_core.jobs import procs

BASE = SearchSpec(
    "s",
    (Dimension("x", "choice", (1, 2, 3)),),
    (Objective("acc"),),
    algorithm="grid_search",
    confirm_seeds=0,
)


@pytest.fixture
def shop(tmp_path):
    made = []

    def build(source, *, arguments=(), **options):
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "boot.py").write_text(textwrap.dedent(source))
        user = UserCode(code, code / "boot.py", tuple(arguments), **options)
        made.append(Workshop(tmp_path / "V001", user, mark=f"test-{os.getpid()}-{tmp_path.name}"))
        return made[-1]

    yield build
    for workshop in made:
        procs.end_tree(None, workshop.mark, grace_seconds=0.1, limit_seconds=3)


def one(workshop, spec=BASE, config=None, **options):
    return workshop.run_one(spec, 0, config or {"x": 1}, step="s", **options)


def log_of(workshop, row):
    return (workshop.version / "autosearch/trials" / row["trial_id"] / "log.txt").read_text()


CONTRACT = """
    import argparse, os, random, sys
    from darts_core import autosearch
    import helper_module

    def train():
        parser = argparse.ArgumentParser()
        parser.add_argument("--x", type=float)
        parser.add_argument("--max_steps", type=int)
        args, rest = parser.parse_known_args()
        open("relative.txt", "w").write("kept apart")
        autosearch.reporter(acc=0.5, draw=random.random())
        autosearch.reporter(acc=0.6)
        model = os.path.join(autosearch.output_dir, f"model-{autosearch.trial_id}.bin")
        open(model, "w").write("m")
        autosearch.report(0.7, latency=3.5, model_path=model, additional_data={
            "params": 12, "x": autosearch.config["x"], "arg": args.x, "steps": args.max_steps,
            "seed": autosearch.seed, "device": autosearch.device, "argv": sys.argv[1:],
            "checkpoint": autosearch.checkpoint_dir, "object": object()})

    def eval():
        autosearch.reporter(acc=0.65, evaluated=1)
"""


def test_contract_of_a_trial(shop, tmp_path):
    workshop = shop(CONTRACT, arguments=("--max_steps=4000",))
    (tmp_path / "code" / "helper_module.py").write_text("")
    row = one(workshop, config={"x": -1e-3}, seed=5)
    assert row["state"] == "done", log_of(workshop, row)
    assert row["values"] == {"acc": 0.7}
    assert (row["training_iteration"], row["best_reward"], row["metrics"]["evaluated"]) == (
        3,
        0.65,
        1,
    )
    data = row["additional_data"]
    assert (data["x"], data["arg"], data["steps"], data["seed"]) == (-1e-3, -1e-3, 4000, 5)
    assert "--x=-0.001" in data["argv"]
    assert f"--trial_id={row['trial_id']}" in data["argv"]
    assert len(row["trial_id"]) == 8
    assert int(row["trial_id"], 16) >= 0
    folder = workshop.version / "autosearch/trials" / row["trial_id"]
    assert (folder / "output" / "relative.txt").exists()
    assert data["checkpoint"] == str(folder / "checkpoint")
    assert row["model_path"] == str(folder / "output" / f"model-{row['trial_id']}.bin")
    again = one(workshop, config={"x": -1e-3}, seed=5)
    assert again["metrics"]["draw"] == row["metrics"]["draw"]
    assert {"time_total_s", "config", "pid", "reward_attr", "worker_index", "training_iteration", "done",
            "trial_id", "best_reward", "latency"} <= set(row)  # fmt: skip


G2 = """
    import autosearch
    from autosearch.client.nas.backbone.resnet import ResNet50
    from autosearch.client.augment.offline_search.preprocessor_builder import (
        ImageClassificationTensorflowBuilder)

    def train():
        assert autosearch.config["code"] == "1-2"
        for epoch in range(5):
            autosearch.reporter(mean_accuracy=0.1 * epoch)
        print("id", autosearch.trial_id)
"""
G1 = """
    import autonet
    from autonet.client import hp_search
    import hp_search as top

    def train():
        for step in range(3):
            hp_search.METRICS(loss=1.0 / (step + 1))
        top.METRICS(loss=0.25)
        try:
            autonet.client.resnet50(None, include_top=True, mode="train")
        except Exception as error:
            print("SAYS", error)
        code = autonet.client.nas_code
        autonet.client.report(acc=0.9, latency=0.5, model_path="", additional_data={"k": code})
"""


def test_scripts_of_the_published_service_run_unchanged(shop):
    from dataclasses import replace

    workshop = shop(G2)
    spec = replace(BASE, objectives=(Objective("mean_accuracy"),), max_iterations=3)
    row = one(workshop, spec, {"code": "1-2"})
    assert (row["state"], row["training_iteration"]) == ("done", 3), log_of(workshop, row)
    assert row["values"]["mean_accuracy"] == pytest.approx(0.2)

    workshop = shop(G1)
    spec = replace(BASE, objectives=(Objective("loss", "min"),))
    row = one(workshop, spec, {"x": 2})
    assert row["state"] == "done", log_of(workshop, row)
    assert row["values"] == {"loss": 0.25}
    assert (row["latency"], row["additional_data"]) == (0.5, {"k": row["trial_id"]})
    assert "darts_core.autosearch.ResNet50(code=...)" in log_of(workshop, row)


def test_old_names_exist_in_trials_only():
    for name in ("autosearch", "autonet", "hp_search"):
        with pytest.raises(ModuleNotFoundError):
            __import__(name)


def test_old_backbone_is_our_module_with_the_trials_code(tmp_path, monkeypatch):
    from darts_core.autosearch import compat

    (tmp_path / "trial.json").write_text(json.dumps({"config": {"lr": 0.1, "anything": "1-2"}}))
    monkeypatch.setattr(contract, "_current", contract.Trial(tmp_path))
    net = compat._resnet50(in_channels=1, width=4, include_top=True)
    assert (net.code, net.outputs) == ("1-2", "stages")
    with pytest.raises(ConfigError, match="PyTorch"):
        compat._resnet50(inputs=3)


@pytest.mark.parametrize(
    ("old", "ours"),
    [
        *((f"resnet{size}", f"ResNet{size}(code=") for size in (18, 34, 50, 101)),
        ("ResNet50", "ResNet50(code="),
        ("dense_fc", "DenseFC(code="),
        ("dense_conv", "DenseConv(code="),
    ],
)  # fmt: skip
def test_old_tensorflow_backbones_name_our_module(old, ours):
    from darts_core.autosearch import compat

    arguments = {"include_top": False, "mode": "train", "data_format": "NHWC", "load_weight": True}
    with pytest.raises(ConfigError, match="PyTorch module") as info:
        compat._autonet_client()[old]("images", **arguments)
    assert f"darts_core.autosearch.{ours}" in str(info.value)
    assert f"autonet.client.{old}" in str(info.value)


def test_the_old_augmentation_builder_names_ours():
    from darts_core.autosearch import compat

    with pytest.raises(ConfigError, match=r"darts_core\.augment\.Augment"):
        compat._builder()["ImageClassificationTensorflowBuilder"]("AutoAugment")


def test_a_users_own_module_of_an_old_name_wins(shop, tmp_path):
    workshop = shop("import hp_search\ndef train():\n    hp_search.METRICS(1)\n    print('OWN')\n")
    (tmp_path / "code" / "hp_search.py").write_text("def METRICS(x): pass\n")
    assert "OWN" in log_of(workshop, one(workshop))


@pytest.mark.parametrize(
    ("source", "limits", "reason"),
    [
        ("def train():\n    raise ValueError('boom')", {}, "crash: exit status 1"),
        ("import os\ndef train():\n    os.kill(os.getpid(), 11)", {}, "SIGSEGV"),
        (
            "import time\ndef train():\n    time.sleep(60)",
            {"trial_seconds": 0.5},
            "time: still running",
        ),
        (
            "import time\ndef train():\n    x = b'1' * 2**27\n    time.sleep(60)",
            {"trial_memory_mib": 100},
            "memory: ",
        ),
        ("def train():\n    pass", {}, "reported no usable acc"),
        ("x = 1", {}, "exit status 3"),
        (
            "from darts_core import autosearch\ndef train():\n    autosearch.config['nope']",
            {},
            "exit status 3",
        ),
    ],
)
def test_failures_of_user_code_are_one_failed_trial(shop, source, limits, reason):
    from dataclasses import replace

    workshop = shop(source)
    row = one(workshop, replace(BASE, limits=Limits(**limits)))
    assert row["state"] == "failed"
    assert reason in row["reason"], (row["reason"], log_of(workshop, row))


def test_what_a_trial_leaves_behind_ends_with_it(shop):
    workshop = shop(
        """
        import os, signal, subprocess, sys
        from darts_core import autosearch
        def train():
            child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
            process = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
            autosearch.report(0.5, additional_data={"child": process.pid})
        """
    )
    row = one(workshop)
    assert row["state"] == "done"
    assert not procs.tree(None, workshop.mark)


def test_what_left_session_parent_and_mark_behind_ends_with_its_trial(shop):
    workshop = shop(
        """
        import subprocess, sys, time
        from darts_core import autosearch
        CHILD = (
            "import os, signal, sys, time\\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
            "if os.fork():\\n"
            "    time.sleep(1.0)\\n"  # long enough to be seen
            "    os._exit(0)\\n"
            "os.setsid()\\n"
            "time.sleep(60)\\n"
        )
        def train():
            process = subprocess.Popen([sys.executable, "-c", CHILD], env={}, start_new_session=True)
            process.wait()
            time.sleep(60)
        """
    )
    from dataclasses import replace

    row = one(workshop, replace(BASE, limits=Limits(trial_seconds=2.0)))
    assert row["reason"].startswith("time:")
    mine = [
        pid for pid, found in procs._table().items()
        if not found.state.startswith("Z") and _command(pid).endswith("time.sleep(60)\n")
    ]  # fmt: skip
    assert mine == []


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as stream:
            return stream.read().rstrip("\0")
    except OSError:
        return ""


def test_zero_code_mode_reads_printed_lines_and_survives_a_hanging_pattern(shop):
    from dataclasses import replace

    source = """
    import sys, argparse
    parser = argparse.ArgumentParser(); parser.add_argument("--x", type=int)
    x = parser.parse_known_args()[0].x
    print("y" * 100_000)
    for epoch in range(4):
        print(f"epoch {epoch}: loss 0.5 acc={0.1 * epoch * x:.2f}")
    """
    workshop = shop(source)
    metrics = (
        {"name": "acc", "regex": r"acc=([0-9.]+)"},
        {"name": "loss", "regex": r"loss ([0-9.]+)"},
    )
    row = one(workshop, replace(BASE, metrics=metrics), {"x": 2})
    assert (row["state"], row["training_iteration"]) == ("done", 4), row
    assert row["values"]["acc"] == pytest.approx(0.6)
    assert row["metrics"]["loss"] == 0.5
    row = one(workshop, replace(BASE, metrics=metrics, max_iterations=2), {"x": 2})
    assert (row["state"], row["training_iteration"]) == ("done", 2), row
    slow = ({"name": "acc", "regex": r"(y+)+z"},)
    row = one(workshop, replace(BASE, metrics=slow, limits=Limits(trial_seconds=0.6)), {"x": 2})
    assert (row["state"], row["reason"][:5]) == ("failed", "time:")


def test_zero_code_mode_reads_a_metric_file_of_the_output_folder(shop):
    from dataclasses import replace

    source = """
    import json, sys
    folder = next(a.split("=")[1] for a in sys.argv if a.startswith("--train_url="))
    print("loss 0.5")
    print("loss 0.25")
    json.dump({"acc": 0.75, "top_5": 0.9, "name": "text"}, open(folder + "/metric.json", "w"))
    """
    accuracy = {"name": "acc", "file": "metric.json", "key": "acc"}
    top = {"name": "top5", "file": "metric.json", "key": "top_5"}
    row = one(shop(source), replace(BASE, metrics=(accuracy, top)))
    assert (row["state"], row["training_iteration"], row["values"]) == ("done", 1, {"acc": 0.75})
    assert row["metrics"]["top5"] == 0.9
    # beside a pattern, the file belongs to the last iteration
    loss = {"name": "loss", "regex": "loss ([0-9.]+)"}
    spec = replace(BASE, metrics=(loss, accuracy), objectives=(Objective("loss", "min"),))
    row = one(shop(source), replace(spec, max_iterations=2))
    assert (row["state"], row["training_iteration"]) == ("done", 2)
    assert (row["metrics"]["loss"], row["metrics"]["acc"]) == (0.25, 0.75)
    for key, file in (("name", "metric.json"), ("none", "metric.json"), ("acc", "other.json")):
        lost = ({"name": "acc", "file": file, "key": key},)
        row = one(shop(source), replace(BASE, metrics=lost))
        assert (row["state"], row["values"]["acc"]) == ("failed", None)


def test_reports_are_limited_and_not_trusted(tmp_path):
    path = tmp_path / "reports.jsonl"
    lines = [
        b'{"kind": "final", "additional_data": {"d": ' + b"[" * 900 + b"]" * 900 + b"}}",
        b'{"kind": "iteration", "iteration": 1, "metrics": {"big": 1' + b"0" * 400 + b"}}",
        b'{"kind": "iteration", "iteration": 1, "metrics": {"acc": 0.5, "bad name": 1, "t": "x"}}',
        b'{"kind": "iteration", "iteration": 2, "metrics": {"acc": NaN}}',
        b"not json",
        b'"text"',
        b'{"kind": "iteration", "iteration": -3, "metrics": {"acc": 9}}',
        b'{"kind": "final", "acc": "high", "model_path": 7, "additional_data": [1]}',
        b"x" * 70_000,
        b"[" * 60_000,
        b'{"kind": "iteration", "iteration": 3, "metrics": {"loss": 2}}',
    ]
    path.write_bytes(b"\n".join(lines) + b'\n{"kind": "iter')
    reader = ReportReader(path)
    assert [n for n, _ in reader.new_iterations()] == [1, 1, 2, 3]
    assert reader.reports.last == {"acc": 0.5, "loss": 2}
    assert reader.reports.ignored == 5
    assert reader.reports.final == {
        "acc": None, "latency": None, "latency_flag": "", "model_path": None, "additional_data": {},
    }  # fmt: skip
    assert objective_value("mean_accuracy", reader.reports, 1.0) == 0.5
    assert objective_value("time_total_s", reader.reports, 1.5) == 1.5
    assert objective_value("latency", reader.reports, 1.5) is None


def test_a_disturbed_latency_is_marked_in_the_result_table(tmp_path, monkeypatch):
    import torch

    from darts_core.autosearch import count_params, latency_ms
    from darts_core.jobs.views import result_table
    from darts_core.latency.timing import Timing

    timer = importlib.import_module("darts_core.latency.measure")
    (tmp_path / "trial.json").write_text(json.dumps({"config": {}}))
    trial = contract.Trial(tmp_path)
    monkeypatch.setattr(contract, "_current", trial)
    net, flags = torch.nn.Linear(4, 2).train(), []
    for reason in ("other processes kept 1.0 cores busy", ""):
        row = Timing(2.0, 1.0, 3.0, 9, "cpu", flagged=bool(reason), flag_reason=reason)
        monkeypatch.setattr(timer, "measure", lambda *a, row=row, **k: row)
        trial.report(0.5, latency=latency_ms(net, (4,)))
        reader = ReportReader(tmp_path / "reports.jsonl")
        reader.new_iterations()
        flags.append(reader.reports.final["latency_flag"])
    assert flags == ["other processes kept 1.0 cores busy", ""]
    assert net.training
    assert count_params(net) == 10
    goals = [{"metric": "acc", "mode": "max"}]
    rows = [{"number": 1, "config": {}, "latency": 2.0, "latency_flag": flags[0]}]
    assert "latency_flag" in result_table(rows, goals, None)[0]
    assert "latency_flag" not in result_table([{**rows[0], "latency_flag": ""}], goals, None)[0]


def test_a_metric_that_becomes_nan_makes_no_result(shop):
    workshop = shop(
        """
        from darts_core import autosearch
        def train():
            autosearch.reporter(acc=0.9)
            autosearch.reporter(acc=float("nan"))
        """
    )
    row = one(workshop)
    assert (row["state"], row["values"]) == ("failed", {"acc": None})


def test_reporter_and_report_refuse_nonsense(tmp_path):
    (tmp_path / "trial.json").write_text('{"config": {"lr": 1}}')
    trial = contract.Trial(tmp_path)
    with pytest.raises(ConfigError, match="not a number"):
        trial.reporter(acc="high")
    with pytest.raises(ConfigError, match="no metric"):
        trial.reporter()
    with pytest.raises(ConfigError, match="too long"):
        trial.report(0.5, additional_data={"x": "y" * 70_000})
    with pytest.raises(KeyError, match="Known: lr"):
        trial.config["momentum"]
    trial.reporter(acc=float("nan"))
    (tmp_path / "stop").touch()
    with pytest.raises(contract.StopTrial):
        trial.reporter(acc=0.5)
    rows = [json.loads(line) for line in (tmp_path / "reports.jsonl").read_text().splitlines()]
    assert [row["metrics"]["acc"] for row in rows] == [None, 0.5]
    outside = contract.Trial()
    outside.reporter(acc=0.5)
    outside.report(0.5)


SEARCH = """
    import os, time
    from darts_core import autosearch
    def train():
        x = autosearch.config["x"]
        for step in range(4):
            autosearch.reporter(acc=x / 10 + step / 100)
            time.sleep(0.03)
        open(os.path.join(autosearch.output_dir, "m.bin"), "w").write("m")
        autosearch.report(x / 10 + 0.03, model_path="m.bin")
"""


def test_a_search_runs_the_baseline_first_then_the_rest_and_keeps_the_best_models(shop):
    from dataclasses import replace

    workshop = shop(SEARCH)
    spec = replace(BASE, save_model_count=1, max_concurrent=2, baseline={"x": 2})
    search = Search(spec, workshop, first={"x": 2}, is_hers=True)
    best = search.run()
    assert [r["config"]["x"] for r in sorted(search.rows, key=lambda r: r["number"])] == [2, 1, 3]
    assert best["config"] == {"x": 3}
    models = sorted(p.parent.parent.name for p in workshop.version.rglob("m.bin"))
    assert models == [best["trial_id"]]
    assert workshop.ledger.trainings() >= 2.0


def test_early_stopping_and_budget(shop):
    from dataclasses import replace

    workshop = shop(SEARCH.replace("range(4)", "range(60)").replace("0.03)", "0.02)"))
    spec = replace(
        BASE,
        dimensions=(Dimension("x", "choice", (9, 8, 1)),),
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        baseline={"x": 9},
    )
    search = Search(spec, workshop, first={"x": 9}, is_hers=True)
    assert search.run()["config"] == {"x": 9}
    states = {r["config"]["x"]: r for r in search.rows}
    assert states[9]["state"] == "done"
    assert states[8]["state"] == states[1]["state"] == "stopped"
    assert states[1]["training_iteration"] < 30

    # trainings of a second, so that half a training is long against what stopping one takes
    workshop = shop(SEARCH.replace("0.03)", "0.25)"))
    workshop.version = workshop.version.with_name("V002")
    capped = replace(BASE, limits=Limits(trainings=1.5), baseline={"x": 1})
    search = Search(capped, workshop, first={"x": 1}, is_hers=True)
    search.run()
    assert "budget of 1.5 trainings" in search.note
    assert workshop.ledger.trainings() < 2.0
    assert len(search.rows) == 2


def test_retry_keeps_the_checkpoint_folder(shop):
    from dataclasses import replace

    workshop = shop(
        """
        import os
        from darts_core import autosearch
        def train():
            path = os.path.join(autosearch.checkpoint_dir, "seen")
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(7)
            autosearch.report(0.5)
        """
    )
    spec = replace(BASE, dimensions=(Dimension("x", "choice", (1,)),), limits=Limits(retries=1))
    search = Search(spec, workshop, first={"x": 1})
    assert search.run()["state"] == "done"
    assert [(r["state"], r["attempt"]) for r in search.rows] == [("done", 2)]


def test_end_tree_finds_a_setsid_grandchild_and_spares_a_recycled_id(tmp_path):
    ready = tmp_path / "ready"
    child = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n"
        f"        open({str(ready)!r}, 'w').close()\n"
        "        time.sleep(60)\n"
        "    time.sleep(60)\n"
    )
    mark = f"tree-{tmp_path.name}-{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", child], env={**os.environ, procs.MARK: mark})
    process.wait()
    while not ready.exists():
        time.sleep(0.01)
    # parent gone, own session: found by the mark alone
    assert len(procs.tree(None, mark)) == 2
    begun = time.monotonic()
    assert procs.end_tree(None, mark, grace_seconds=0.2, limit_seconds=5)
    assert time.monotonic() - begun < 5
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        true = procs.identity(innocent.pid)
        for wrong in (
            procs.Identity(true.pid, "1", true.boot),
            procs.Identity(true.pid, true.start, "another boot"),
        ):
            assert not procs.is_alive(wrong)
            assert procs.end_tree(wrong, "", grace_seconds=0, limit_seconds=1)
            procs._send(wrong, signal.SIGKILL)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_trial_needs_the_standard_library_only():
    heavy = ("numpy", "yaml", "torch", "optuna", "sklearn")
    code = (
        "import sys, darts_core.autosearch.trial_main\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RUNGS = """
    import time
    from darts_core import autosearch

    def train():
        for epoch in range(9):
            open(f"epoch-{epoch}", "w").close()
            autosearch.reporter(acc=autosearch.config["x"])
"""


def test_a_trial_begins_no_iteration_while_its_rung_is_judged(shop):
    """Trials that do nothing between reports: whoever does not wait runs on to the end."""
    from dataclasses import replace

    spec = replace(
        BASE,
        dimensions=(Dimension("x", "choice", (5, 1, 2)),),
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        max_iterations=9,
    )
    search = Search(spec, shop(RUNGS), first={"x": 5}, is_hers=True)
    search.run()
    assert [(r["config"]["x"], r["training_iteration"], r["state"]) for r in search.rows] == [
        (5, 9, "done"), (1, 1, "stopped"), (2, 1, "stopped"),
    ]  # fmt: skip
    for row in search.rows[1:]:
        output = search.workshop.version / "autosearch/trials" / row["trial_id"] / "output"
        assert [p.name for p in output.iterdir()] == ["epoch-0"]


def test_the_scheduler_knows_the_trials_of_an_earlier_start_or_step(shop):
    from dataclasses import replace

    spec = replace(
        BASE,
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        max_iterations=9,
    )
    workshop = shop(RUNGS)
    first = Search(
        replace(spec, dimensions=(Dimension("x", "choice", (5,)),)),
        workshop, step="1-s", first={"x": 5}, is_hers=True,
    )  # fmt: skip
    best = first.run()
    later = Search(spec, workshop, step="2-s", known=[best])
    later.run()
    assert {(r["training_iteration"], r["state"]) for r in later.rows} == {(1, "stopped")}


def test_attempts_that_were_lost_are_paid_for(shop, tmp_path):
    from dataclasses import replace

    from darts_core.jobs.results import _cost

    workshop = shop(
        """
        import os, time
        from darts_core import autosearch
        def train():
            mark = os.path.join(autosearch.checkpoint_dir, "tried")
            time.sleep(0.3)
            if not os.path.exists(mark):
                open(mark, "w").close()
                os._exit(7)
            autosearch.report(0.5)
        """
    )
    spec = replace(BASE, dimensions=(Dimension("x", "choice", (1,)),), limits=Limits(retries=1))
    search = Search(spec, workshop, first={"x": 1})
    row = search.run()
    assert row["earlier_seconds"] >= 0.3
    assert _cost([row], None)["seconds"] == row["time_total_s"] + row["earlier_seconds"]
    # another start of the version spends what both attempts took
    again = Workshop(workshop.version, workshop.code, mark=workshop.mark)
    Search(spec, again, first={"x": 1}).run()
    assert again.ledger.spent_seconds == pytest.approx(row["time_total_s"] + row["earlier_seconds"])
