"""Every verb of `darts-core jobs` through its command line, against real running jobs."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from jobs_command import CODE, create, jobs, jobs_process, running_trial, wait_for, with_state

from darts_core.store import procs
from darts_core.store.jobs import Store

# a trial with a grandchild in its own session that ignores SIGTERM, and with one that also lost its parent
# and every variable of its environment
STUBBORN = """
import os, signal, subprocess, sys, time
from darts_core import autosearch

def train():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
    stray = "import os; os.fork() and os._exit(0); open(%r, 'w').write(str(os.getpid())); " + child
    path = os.path.join(autosearch.checkpoint_dir, "stray")
    subprocess.run([sys.executable, "-c", stray % path], start_new_session=True, env={})
    while not os.path.exists(os.path.join(autosearch.checkpoint_dir, "go")):
        try:
            autosearch.reporter(accuracy=0.5)
        except BaseException:
            pass
        time.sleep(0.05)
    autosearch.report(0.5 + 0.1 * autosearch.config["x"])
"""


def test_life_of_a_job(place):
    notify = place / "told.txt"
    script = place / "tell.py"
    script.write_text(
        f"import sys; open({str(notify)!r}, 'a').write('|'.join(sys.argv[1:4]) + '\\n')"
    )
    told = f"{sys.executable} {script} $HOME;x"
    text = create(place, "alpha", "--description", "first", "--save-params", "mine", "--notify", told,
                  "--output", "delivered", "--wait")  # fmt: skip
    assert "Forecast: up to 3 trials" in text
    assert "alpha/V001: succeeded. Against your own configuration, over 1 fresh seed:" in text
    assert notify.read_text().splitlines() == [
        f"$HOME;x|{s}|alpha" for s in ("queued", "running", "succeeded")
    ]
    assert (place / "delivered/alpha-V001/m.bin").read_text() == "0.3"

    rows = json.loads(jobs(place, "list", "--json"))
    assert [(r["name"], r["state"], r["versions"], r["value"]) for r in rows] == [
        ("alpha", "succeeded", 1, 1.0)
    ]
    assert json.loads(jobs(place, "list", "--json", "--state", "failed")) == []
    assert json.loads(jobs(place, "list", "--json", "--search", "FIRST")) != []

    shown = json.loads(
        jobs(place, "show", "alpha", "--json", "--pictures", "pics", "--html", "page.html")
    )
    assert shown["summary"]["best"]["config"] == {"x": 0.3}
    assert shown["summary"]["gain"][0]["difference"] == pytest.approx(0.36)
    assert shown["summary"]["gain"][0]["fresh_seeds"]
    assert shown["summary"]["cost"]["search"]["trainings"] > 1.5
    assert shown["rows"][0]["accuracy"] == 1.0
    assert (place / "pics" / "best_so_far.png").read_bytes()[:4] == b"\x89PNG"
    page = (place / "page.html").read_text()
    assert "Parallel coordinates" in page
    assert 'id="versions"' not in page
    table = list(
        csv.DictReader(io.StringIO(jobs(place, "show", "alpha", "--csv", "--sort", "latency")))
    )
    assert len(table) == 5
    text = jobs(place, "show", "alpha", "--limit", "2", "--offset", "1")
    assert "results 2-3 of 5" in text
    trial = shown["summary"]["best"]["trial_id"]
    one = json.loads(jobs(place, "show", "alpha", "--trial", trial, "--json"))
    assert [r["metrics"]["accuracy"] for r in one["iterations"]] == [1.0, 1.0]
    assert "trained with 0.3" in jobs(place, "logs", "alpha", "--trial", trial)
    assert f"trial {trial}" in jobs(place, "logs", "alpha", "-f")

    text = jobs(place, "best", "alpha", "--export", "taken")
    assert "copied to" in text
    assert (place / "taken/m.bin").read_text() == "0.3"
    assert json.loads((place / "taken/config.json").read_text()) == {"x": 0.3}

    child = jobs(
        place,
        "new-version",
        "alpha",
        "--set",
        "search_space.0.params.0.values=[0.2, 0.9]",
        "--wait",
    )
    assert "alpha/V002 is a child of V001." in child
    compared = json.loads(jobs(place, "compare", "alpha", "V001", "V002", "--json", "--metric", "accuracy",
                               "--picture", "c.png"))  # fmt: skip
    by_row = {row["row"]: row for row in compared}
    assert by_row["best accuracy"] == {
        "row": "best accuracy",
        "V001": 1.0,
        "V002": pytest.approx(0.99),
    }
    assert by_row["config.dimensions.x"]["V002"] == [0.2, 0.9]
    # only differences: the algorithm, the seed and the code are the same in both
    same = ("algorithm", "seed", "hash", "config.name")
    assert not any(word in name for name in by_row for word in same)
    assert (place / "c.png").exists()

    assert [r["name"] for r in json.loads(jobs(place, "params", "list", "--json"))] == ["mine"]
    jobs(place, "params", "save", "child", "--job", "alpha/V002")
    jobs(place, "params", "edit", "child", "--set", "search_algorithm.seed=9", "--description", "d")
    jobs(place, "delete", "--yes", "alpha/V001")
    jobs(place, "edit", "alpha", "--description", "second")
    jobs(place, "edit", "alpha/V002", "--description", "narrow")
    assert "narrow" in jobs(place, "list", "--versions")
    assert "about      narrow" in jobs(place, "show", "alpha", "--html", "v.html")
    assert "narrow" in (place / "v.html").read_text()
    listed = json.loads(jobs(place, "list", "--versions", "--json"))
    assert [(r["version"], r["parent"], r["description"]) for r in listed] == [
        ("V002", "V001", "second")
    ]
    jobs(place, "delete", "--yes", "alpha")
    assert not (place / "runs/alpha").exists()
    assert json.loads(jobs(place, "list", "--json")) == []

    saved = json.loads(jobs(place, "params", "show", "child"))
    assert saved["settings"]["search_algorithm.seed"] == 9
    jobs(place, "params", "use", "child", "--name", "again", "--wait")
    assert json.loads(jobs(place, "show", "again", "--json"))["configuration"]["seed"] == 9
    jobs(place, "params", "delete", "child")
    assert "no saved parameters" in jobs(place, "params", "show", "child", status=2)
    assert json.loads(jobs(place, "list", "--json"))[0]["name"] == "again"


def test_stop_ends_the_whole_tree_within_ten_seconds_and_resume_completes(place):
    (place / "code" / "boot.py").write_text(STUBBORN)
    create(place, "stubborn")
    trial = running_trial(place, "stubborn")
    mark = Store(place / "runs").version("stubborn").command()["mark"]
    wait_for(lambda: (trial / "checkpoint/stray").exists())
    wait_for(lambda: len(procs.tree(None, mark)) >= 4)  # runner, trial, two grandchildren
    stray = procs.identity(int((trial / "checkpoint/stray").read_text()))
    assert "stop them first with" in jobs(place, "delete", "-y", "stubborn", status=2)
    assert "running already" in jobs(place, "resume", "stubborn", status=2)

    # the command itself gives up after ten seconds, and says so
    assert "stubborn/V001 is stopped." in jobs(place, "stop", "stubborn")
    assert procs.tree(None, mark) == []
    assert not procs.is_alive(stray)
    assert "nothing to stop" in jobs(place, "stop", "stubborn", status=2)

    (trial / "checkpoint" / "go").touch()
    process = subprocess.Popen([sys.executable, "-c", GO.format(root=str(trial.parent))])
    try:
        assert "stubborn/V001: succeeded" in jobs(place, "resume", "stubborn", "--wait")
    finally:
        process.kill()
        process.wait()
    shown = json.loads(jobs(place, "show", "stubborn", "--json", "--limit", "20"))
    rows = [r for r in shown["rows"] if r["phase"] == "search"]
    assert sorted(r["x"] for r in rows) == [0.1, 0.3, 0.9]
    assert "nothing to resume" in jobs(place, "resume", "stubborn", status=2)


# lets every trial of the resumed job end
GO = """
import pathlib, time
while True:
    for p in pathlib.Path({root!r}).glob("*/checkpoint"):
        (p / "go").touch()
    time.sleep(0.05)
"""


def test_a_killed_job_is_interrupted_and_one_trial_can_be_stopped(place):
    (place / "code" / "boot.py").write_text(
        CODE.replace("sleep(0.02)", "sleep(0.1)").replace('"steps", 2', '"steps", 60000')
    )
    create(place, "long")
    trial = running_trial(place, "long")
    jobs(place, "stop", "long", "--trial", trial.name)
    row = json.loads((trial / "result.json").read_text())
    assert (row["state"], row["reason"]) == ("stopped", "stopped by command")
    assert "no running trial" in jobs(place, "stop", "long", "--trial", "../../x", status=2)

    version = Store(place / "runs").version("long")
    runner = version.process()
    os.kill(runner.pid, signal.SIGKILL)
    wait_for(lambda: version.state() == "interrupted")
    assert json.loads(jobs(place, "list", "--json"))[0]["state"] == "interrupted"
    # its trials live on without it; stop ends them too
    jobs(place, "stop", "long")
    assert procs.tree(None, version.command()["mark"]) == []
    # a record of another boot is never a living process
    before = version.record()
    mine = procs.identity().to_dict()
    (version.path / "launch.json").unlink()
    for process, state in (({**mine, "boot": "x"}, "interrupted"), (mine, "running")):
        with_state(version, "running", process)
        assert version.state() == state
    (version.path / "version.json").write_text(json.dumps(before))
    jobs(place, "delete", "--yes", "long")


@pytest.mark.parametrize("count", [15, pytest.param(50, marks=pytest.mark.full)])
def test_parallel_commands_against_a_running_job(place, count):
    (place / "code" / "boot.py").write_text(CODE.replace('"steps", 2', '"steps", 40000'))
    create(place, "busy")
    running_trial(place, "busy")
    kinds = (
        ("list", "--json"), ("show", "busy", "--json"), ("edit", "busy", "--description", "d"),
        ("logs", "busy"), ("compare", "busy", "V001", "V001"),
    )  # fmt: skip
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda i: jobs_process(place, *kinds[i % 5]), range(count)))
    assert [(status, err) for status, _, err in done if status] == []
    outputs = [out for _, out, _ in done]
    assert len(outputs) == count
    for i in range(0, count, 5):
        assert [r["name"] for r in json.loads(outputs[i])] == ["busy"]
        assert json.loads(outputs[i + 1])["state"] in ("queued", "running")
    jobs(place, "stop", "busy")


def test_dry_run_forecasts_and_keeps_nothing(place):
    text = create(place, "dry", "--dry-run", "--set", "max_iterations=5")
    assert "First report: {'accuracy':" in text
    assert "One training takes about" in text
    assert not (place / "runs").exists()
    (place / "code" / "boot.py").write_text("def train():\n    raise ValueError('boom')\n")
    assert "boom" in create(place, "dry", "--dry-run", status=2)


def test_a_second_job_waits_for_its_device(place):
    (place / "code" / "boot.py").write_text(CODE.replace('"steps", 2', '"steps", 40000'))
    create(place, "one")
    running_trial(place, "one")
    create(place, "two")
    store = Store(place / "runs")
    wait_for(lambda: (store.version("two").path / "job.log").exists())
    assert (store.version("one").state(), store.version("two").state()) == ("running", "queued")
    assert "two/V001 is stopped." in jobs(place, "stop", "two")
    jobs(place, "stop", "one")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("create", "--name", "../x"), "job name '../x' is not allowed"),
        (("create", "--name", "a", "--code", "none"), "no code folder"),
        (("create", "--name", "a", "--code", "code", "--boot-file", "../job.yaml"), "no boot file"),
        (("create", "--name", "a", "--config", "none.yaml"), "no file none.yaml"),
        (("create", "--name", "a", "--budget", "4q"), "use 4x"),
        (("create", "--name", "a", "--arg", "x"), "NAME=VALUE"),
        (("create", "--name", "a", "--devices", "tpu"), "Unknown device"),
        (("create", "--name", "a", "--notify", "'open"), "close its quotes"),
        (("show", "nothing"), "no job 'nothing'"),
        (("delete", "../../etc"), "not allowed"),
        (("list", "--state", "done"), "use one of queued"),
        (("template", "show", "none"), "there are"),
    ],
)
def test_mistakes_end_with_status_2_and_one_sentence(place, words, sentence):
    if words[0] == "create":
        given = {words[i]: words[i + 1] for i in range(1, len(words), 2)}
        defaults = {"--code": "code", "--boot-file": "boot.py", "--config": "job.yaml"}
        words = ("create", *(part for item in {**defaults, **given}.items() for part in item))
    text = jobs(place, *words, status=2)
    assert re.fullmatch(r"darts-core: [^\n]+\n", text), text
    assert sentence in text
    runs = place / "runs"
    assert not runs.exists() or not [p for p in runs.iterdir() if p.name == "a"]


def test_templates(place):
    listed = jobs(place, "template", "list")
    assert "nas_resnet50" in listed
    assert "trainingInput:" in jobs(place, "template", "show", "training_input")
    text = jobs(place, "template", "algorithms")
    assert "kappa = 2.5" in text
    assert "async_hyperband" in text
    (place / "log.txt").write_text("epoch 1 val_acc=0.5\nepoch 2 val_acc=0.75\n")
    (found,) = json.loads(jobs(place, "suggest", "log.txt", "--json"))
    assert (found["name"], found["lines"], found["last"]) == ("val_acc", 2, 0.75)
