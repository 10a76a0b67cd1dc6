"""Scripts in the style of the published service, through the real command line, as real jobs."""

import json
import subprocess
import sys

import pytest
from jobs_command import create, jobs, running_trial, wait_for, with_state

from darts_core.store import procs
from darts_core.store.jobs import Store

G2 = """
import argparse, os, time
import autosearch
from autosearch.client.nas.backbone.resnet import ResNet50

parser = argparse.ArgumentParser()
parser.add_argument("--data_url")
parser.add_argument("--train_url")
parser.add_argument("--lr", type=float)
args, unparsed = parser.parse_known_args()

def train():
    code, lr = autosearch.config["resnet50"], autosearch.config["lr"]
    assert args.lr == lr and os.path.isfile(os.path.join(args.data_url, "images.bin"))
    net = ResNet50(in_channels=1, width=2)  # takes the trial's code
    assert net.code == code
    for epoch in range(2):
        autosearch.reporter(mean_accuracy=1 - lr - len(code) / 1000 + epoch / 100)
    path = os.path.join(args.train_url, autosearch.trial_id + ".pt")
    open(path, "w").write(code)
    autosearch.report(1 - lr - len(code) / 1000, model_path=path)

def eval():
    print("evaluated", autosearch.trial_id)
"""
FOUR_PARTS = """
general: {gpu_per_instance: 1, instance_per_trial: 1, cpu_per_instance: 1, confirm_seeds: 0}
search_space:
  - type: discrete
    params:
      - name: resnet50
        values: ["1-1-1-2112112", "111-2111-211111-211"]
  - params:
      - {type: continuous_param, name: lr, start: -2, stop: -1, num: 2, base: 10}
search_algorithm: {type: grid_search, reward_attr: mean_accuracy, mode: max, save_model_count: 1}
scheduler: {type: FIFOScheduler}
"""


def test_a_four_part_job_with_both_notations_of_the_space(place):
    (place / "code/boot.py").write_text(G2)
    (place / "job.yaml").write_text(FOUR_PARTS)
    (place / "data").mkdir()
    (place / "data/images.bin").write_text("x")
    text = create(place, "g2", "--data", "data", "--wait")
    # the standard network among the codes is the user's where none was named
    assert "'111-2111-211111-211' stands in for trial 0" in text
    assert "the job file states 1 GPU(s) a trial, but the job runs on cpu" in text
    shown = json.loads(jobs(place, "show", "g2", "--json"))
    rows = {(r["resnet50"], r["lr"]): r["mean_accuracy"] for r in shown["rows"]}
    assert len(rows) == 4
    assert shown["summary"]["best"]["config"] == {"resnet50": "1-1-1-2112112", "lr": 0.01}
    assert shown["summary"]["baseline"]["config"]["resnet50"] == "111-2111-211111-211"
    best = shown["summary"]["best"]["trial_id"]
    assert f"evaluated {best}" in jobs(place, "logs", "g2", "--trial", best)
    # one model is kept, and it is the best trial's
    models = list((place / "runs/g2/V001/autosearch/trials").glob("*/output/*.pt"))
    assert [m.read_text() for m in models] == ["1-1-1-2112112"]


G1 = """
import argparse
import autonet
from autonet.client import hp_search

parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float)
parser.add_argument("--max_steps", type=int, default=10)
parser.add_argument("--nas_code")
args, unparsed = parser.parse_known_args()

def train():
    for step in range(args.max_steps):
        loss = abs(args.learning_rate - 0.001) * 1000 + 1 / (step + 1)
        hp_search.METRICS(loss=loss)
    assert args.nas_code == autonet.client.nas_code
    autonet.client.report(acc=1 - loss / 10, latency=12.5, model_path="",
                          additional_data={"steps": args.max_steps})
"""
OLDER = """
trainingInput:
  verbose: 2
  hyperparameters:
    enableTrialEarlyStopping: false
    searchAlgorithm: hyperopt
    searchAlgorithmMetric: loss
    searchAlgorithmMode: min
    scheduler: async_hyperband
    schedulerMetric: loss
    schedulerMode: min
    maxTrials: 2
    maxParallelTrials: 2
    cpuPerTrial: 1
    gpuPerTrial: 0
    maxIterations: 4
    params:
      - {parameterName: learning_rate, type: float, scaleType: DEFAULT, minValue: 0.0001,
         maxValue: 0.0015, priorBestValue: 0.0001}
"""


def test_an_older_job_with_its_final_accuracy(place):
    (place / "code/boot.py").write_text(G1)
    (place / "job.yaml").write_text(OLDER)
    create(place, "g1", "--arg", "max_steps=3", "--wait")
    shown = json.loads(jobs(place, "show", "g1", "--json", "--limit", "20", "--sort", "accuracy"))
    search = [r for r in shown["rows"] if r["phase"] == "search"]
    assert len(search) == 3
    assert [r["acc"] for r in search] == sorted((r["acc"] for r in search), reverse=True)
    assert {(r["iterations"], r["latency"]) for r in search} == {(3, 12.5)}
    assert shown["summary"]["baseline"]["config"] == {"learning_rate": 0.0001}
    # verbose 2: the log holds every iteration
    assert "iteration 3: {'loss'" in jobs(place, "logs", "g1")
    by_steps = json.loads(jobs(place, "show", "g1", "--json", "--sort", "steps"))
    assert by_steps["rows"][0]["steps"] == 3

    jobs(place, "new-version", "g1", "--set", "trainingInput.verbose=0", "--wait")
    assert " done" not in jobs(place, "logs", "g1/V002")
    table = json.loads(jobs(place, "compare", "g1", "V001", "V002", "--json", "--metric", "acc",
                            "--metric", "latency", "--picture", "c.png"))  # fmt: skip
    cells = {row["row"]: row["V001"] for row in table}
    assert cells["best latency"] == 12.5
    assert cells["best acc"] == pytest.approx(search[0]["acc"])
    assert (place / "c.png").read_bytes()[:4] == b"\x89PNG"


SCRIPT = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
args = parser.parse_known_args()[0]
for epoch in range(3):
    print(f"Epoch {epoch}: val_acc={0.5 + 0.1 * epoch - args.lr:.3f} loss 0.{epoch}")
"""
ZERO = """
general: {confirm_seeds: 0, metrics: [{name: accuracy, regex: 'val_acc=([0-9.]+)'}]}
search_space:
  - params: [{type: continuous_param, name: lr, start: 0.01, stop: 0.2, default: 0.1}]
search_algorithm: {type: random_search, reward_attr: accuracy, mode: max, num_samples: 2}
"""


def test_a_script_without_any_change(place):
    (place / "code/boot.py").write_text(SCRIPT)
    (place / "job.yaml").write_text(ZERO)
    assert "First report: {'accuracy': 0.4}" in create(place, "dry", "--dry-run")
    create(place, "zero", "--wait")
    shown = json.loads(jobs(place, "show", "zero", "--json"))
    for row in shown["rows"]:
        assert row["iterations"] == 3
        assert row["accuracy"] == pytest.approx(0.7 - row["lr"], abs=1e-3)
    assert len(shown["rows"]) == 3


# it replaces its own output folder by a link, and names what lies behind it as its model
HOSTILE = r"""
import os, shutil
from darts_core import autosearch

def train():
    shutil.rmtree(autosearch.output_dir)
    os.symlink(os.environ["VICTIM"], autosearch.output_dir)
    bad = "\x1b[31mred\x07<script>alert(1)</script>"
    print(bad)
    autosearch.reporter(accuracy=autosearch.config["x"])
    autosearch.report(autosearch.config["x"], model_path="precious.txt", additional_data={bad: bad})
"""


def test_a_hostile_trial_reaches_nothing_outside_its_folder(place, monkeypatch):
    victim = place / "victim"
    victim.mkdir()
    (victim / "precious.txt").write_text("mine")
    monkeypatch.setenv("VICTIM", str(victim))
    (place / "code/boot.py").write_text(HOSTILE)
    create(place, "h", "--set", "search_algorithm.save_model_count=1", "--output", "out",
           "--set", "general.confirm_seeds=0", "--wait")  # fmt: skip
    text = jobs(place, "best", "h", "--export", "taken")
    assert "none inside the trial folder" in text
    assert (victim / "precious.txt").read_text() == "mine"
    assert not list((place / "taken").glob("precious*"))
    assert not list((place / "out").rglob("precious*"))
    trial = json.loads(jobs(place, "best", "h", "--json"))["best"]["trial_id"]
    for words in (("show", "h"), ("show", "h", "--trial", trial), ("logs", "h", "--trial", trial),
                  ("show", "h", "--csv"), ("show", "h", "--html", "p.html")):  # fmt: skip
        shown = jobs(place, *words)
        assert not any(ord(c) < 32 and c != "\n" for c in shown), words
    assert "<script" not in (place / "p.html").read_text()
    jobs(place, "delete", "--yes", "h")
    assert (victim / "precious.txt").read_text() == "mine"


def test_a_reboot_leaves_an_interrupted_job_that_resumes_and_foreign_processes_alone(place):
    create(place, "r", "--wait")
    version = Store(place / "runs").version("r")
    trials = version.path / "autosearch/trials"
    kept = sorted(p.name for p in trials.iterdir())
    # as a reboot leaves it: a trial cut off, the state of a process that is gone
    cut = next(p for p in trials.iterdir() if json.loads((p / "trial.json").read_text())["number"])
    (cut / "result.json").unlink()
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        who = procs.identity(innocent.pid).to_dict()
        for wrong in ({**who, "start": "1"}, {**who, "boot": "another"}):
            if version.state() == "interrupted":
                assert "r/V001 is stopped." in jobs(place, "stop", "r")
            with_state(version, "running", wrong)
            (version.path / "launch.json").write_text(json.dumps({"process": wrong}))
            assert json.loads(jobs(place, "list", "--json"))[0]["state"] == "interrupted"
            assert innocent.poll() is None
        assert "r/V001: succeeded" in jobs(place, "resume", "r", "--wait")
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
    assert sorted(p.name for p in trials.iterdir()) == kept
    assert json.loads((cut / "result.json").read_text())["attempt"] == 2


def test_logs_follow_a_running_job_to_its_end(place):
    text = (place / "code/boot.py").read_text()
    (place / "code/boot.py").write_text(text.replace('"steps", 2', '"steps", 4000'))
    create(place, "f")
    trial = running_trial(place, "f")
    command = [sys.executable, "-c", "from darts_core.cli import main; raise SystemExit(main())"]
    follower = subprocess.Popen(
        [*command, "jobs", "logs", "-f", "f"], cwd=place, stdout=subprocess.PIPE, text=True
    )
    assert follower.poll() is None
    jobs(place, "stop", "f", "--trial", trial.name)
    out, _ = _ended(place, follower)
    assert f"trial {trial.name} (job #0) stopped: stopped by command" in out


def _ended(place, follower):
    wait_for(lambda: (place / "runs/f/V001/job.log").read_text().count(" stopped") >= 1)
    jobs(place, "stop", "f")
    return follower.communicate(timeout=20)
