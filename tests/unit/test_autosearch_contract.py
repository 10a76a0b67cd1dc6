import json

import pytest
from autosearch_workshop import BASE, log_of, one

from darts_core.autosearch import contract
from darts_core.autosearch.curves import trial_curves
from darts_core.autosearch.process import TrialProcess
from darts_core.autosearch.reports import ReportReader, Reports, objective_value, reports_of
from darts_core.autosearch.spec import Limits, Objective
from darts_core.errors import ConfigError

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
    assert objective_value("mean_accuracy", reader.reports, 1.0) is None  # a final one is no number
    assert objective_value("loss", reader.reports, 1.0) == 2
    assert objective_value("time_total_s", reader.reports, 1.5) == 1.5
    assert objective_value("latency", reader.reports, 1.5) is None


def test_a_fast_script_s_reports_are_read_to_the_last_when_it_ends(tmp_path):
    pad = "x" * 50_000
    rows = [
        {"kind": "iteration", "iteration": n, "metrics": {"acc": 0.5}, "pad": pad}
        for n in range(1, 300)
    ]
    lines = [json.dumps(row) for row in [*rows, {"kind": "final", "acc": 0.9}]]
    (tmp_path / "reports.jsonl").write_text("\n".join(lines) + "\n")
    trial = TrialProcess({"trial_id": "a"}, tmp_path, limits=Limits(), mark="m")
    trial.poll()  # as far as one look reaches
    trial._finish("done", "")
    assert (len(trial.reader.reports.iterations), trial.reader.reports.ignored) == (299, 0)
    assert objective_value("acc", trial.reader.reports, 1.0) == 0.9


@pytest.mark.parametrize("name", ["acc", "accuracy", "mean_accuracy"])
def test_the_final_report_counts_before_the_last_iteration_under_each_of_its_names(name):
    reports = Reports()
    reports.add({"kind": "iteration", "iteration": 1, "metrics": {name: 0.6, "latency_ms": 9.0}})
    assert objective_value("accuracy", reports, 1.0) == 0.6
    # the best epoch, say, whose weights were kept
    reports.add({"kind": "final", "acc": 0.8, "latency": 3.0})
    assert [objective_value(n, reports, 1.0) for n in ("accuracy", name)] == [0.8, 0.8]
    assert objective_value("latency_ms", reports, 1.0) == 3.0
    # a model file named later is no result; a training that broke down at its end has none
    reports.add({"kind": "model", "model_path": "m.pt"})
    assert objective_value("accuracy", reports, 1.0) == 0.8
    reports.add({"kind": "final", "acc": None})
    assert objective_value("accuracy", reports, 1.0) is None
    assert objective_value("latency_ms", reports, 1.0) == 9.0


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


def test_what_a_resumed_trial_reported_before_stays_in_its_curve(tmp_path):
    def attempt(name, *numbers, offset=0.0):
        rows = [
            {"kind": "iteration", "iteration": n, "metrics": {"acc": n / 10 + offset}}
            for n in numbers
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def curve():
        row = {"trial_id": "a", "folder": str(tmp_path), "phase": "search"}
        return trial_curves([row], "acc")["a"]

    attempt("reports.1.jsonl", 1, 2, 3)
    attempt(
        "reports.2.jsonl", 3, offset=0.05
    )  # went on from the checkpoint of 2, and was killed again
    attempt("reports.jsonl", 4, 5, offset=0.05)
    assert curve() == [(1, 0.1), (2, 0.2), (3, 0.35), (4, 0.45), (5, 0.55)]
    # one that began again replaces what came before
    attempt("reports.jsonl", 1, offset=0.05)
    assert curve() == [(1, 0.1 + 0.05)]


def test_an_attempt_that_had_nothing_left_to_do_leaves_the_result_as_it_was(tmp_path):
    def attempt(name, *rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def iteration(number, **metrics):
        return {"kind": "iteration", "iteration": number, "metrics": metrics}

    final = {"kind": "final", "acc": 0.9, "model_path": "m.pt"}
    attempt("reports.1.jsonl", iteration(1, acc=0.5), iteration(2, acc=0.7, f1=0.6), final)
    attempt("reports.jsonl")
    found = reports_of(tmp_path)
    assert (found.final["acc"], found.last) == (0.9, {"acc": 0.7, "f1": 0.6})
    # another model, and no other result
    attempt("reports.jsonl", {"kind": "model", "model_path": "n.pt"})
    found = reports_of(tmp_path)
    assert (found.final["acc"], found.final["model_path"]) == (0.9, "n.pt")
    # one that trained on has yet to say its own
    attempt("reports.jsonl", iteration(2, acc=0.8))
    found = reports_of(tmp_path)
    assert (found.final, found.last) == ({}, {"acc": 0.8})


def test_another_configuration_in_a_folder_has_no_reports_of_the_one_before(shop):
    workshop = shop("def train(): pass\n")
    folder = workshop.version / "autosearch/trials" / workshop.trial_id("s", "search", 0, BASE.seed)
    folder.mkdir(parents=True)
    (folder / "trial.json").write_text('{"config": {"x": 2}, "attempt": 1}')
    for name in ("reports.1.jsonl", "reports.jsonl"):
        (folder / name).write_text('{"kind": "final", "acc": 0.9}\n')
    row = one(workshop, config={"x": 1})
    assert (row["state"], row["values"]) == ("failed", {"acc": None})
