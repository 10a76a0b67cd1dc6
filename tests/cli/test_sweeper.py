"""`-m hydra/sweeper=darts`: Hydra's grammar as a search space, whole sweeps of small apps."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from darts_core.errors import TuneError
from darts_core.study.space import parse_space
from darts_core.study.table import main as table
from hydra_plugins.darts_sweeper._overrides import spell, split, words
from hydra_plugins.darts_sweeper._sweep import _settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=a,b", {"choices": ["a", "b"]}),
        ("x=1,2.5,null,true", {"choices": [1, 2.5, None, True]}),
        ("x='a b','c,d'", {"choices": ["a b", "c,d"]}),
        ("x=[1,2],[3]", {"choices": [[1, 2], [3]]}),
        ("x=range(1,5)", {"low": 1, "high": 4, "step": 1, "integer": True}),
        ("x=range(2,9,step=3)", {"low": 2, "high": 8, "step": 3, "integer": True}),
        ("x=range(0,1,step=0.25)", {"low": 0.0, "high": 0.75, "step": 0.25}),
        ("x=range(3,4)", {"choices": [3]}),
        ("x=interval(0,1)", {"low": 0.0, "high": 1.0}),
        ("x=int(interval(1,8))", {"low": 1, "high": 8, "integer": True}),
        ("x=tag(log,interval(0.01,1))", {"low": 0.01, "high": 1.0, "log": True}),
        ("x=tag(log,int(interval(1,128)))", {"low": 1, "high": 128, "log": True}),
        ("x=tag(log,range(1,65))", {"low": 1, "high": 64, "log": True}),
    ],
)
def test_the_override_grammar_spans_the_space(text, expected):
    fixed, space = split([text, "y=3", "z=[1,2]"])
    assert fixed == ["y=3", "z=[1,2]"]
    assert parse_space(space) == parse_space({"x": expected})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x=interval(1,1)", "interval of x is empty"),
        ("x=interval(2,1)", "interval of x is empty"),
        ("x=range(5,5)", "range of x is empty"),
        ("x=tag(sqrt,interval(1,2))", "tag 'sqrt' of x is unknown"),
        ("x=tag(log,interval(0,1))", "low must be above 0"),
        ("x=tag(log,range(1,9,step=2))", "step must be 1"),
        ("x=glob(*)", "choices out"),
    ],
)
def test_sweeps_without_a_space_are_sentences(text, words):
    with pytest.raises(TuneError, match=words):
        parse_space(split([text])[1])


@pytest.mark.parametrize(
    "value",
    [
        1,
        -2.5e-7,
        True,
        None,
        "adamw",
        "1e3",
        "true",
        "it's",
        "a,b=[c]",
        "a b\\",
        [1, "x y"],
        "",
        "ünï",
    ],
)
def test_values_survive_the_way_through_an_override(value):
    override = OverridesParser.create().parse_override(f"x={spell(value)}")
    assert override.value() == value
    assert type(override.value()) is type(value)
    # and through a shell, into which the best settings are pasted
    (pasted,) = shlex.split(words({"x": value}))
    assert OverridesParser.create().parse_override(pasted).value() == value


def test_plain_settings_are_shown_without_quotes():
    shown = words({"train.learning_rate": 0.05, "+kind": "a", "sizes": [1, 2], "name": "a b"})
    assert shown == "train.learning_rate=0.05 +kind=a 'sizes=[1,2]' 'name='\"'\"'a b'\"'\"''"


@pytest.mark.parametrize(
    ("group", "node", "used"),
    [
        ({"name": "tpe", "multivariate": None}, "qmc", {"name": "qmc"}),
        (
            {"name": "tpe"},
            {"name": "gp", "n_startup_trials": 5},
            {"name": "gp", "n_startup_trials": 5},
        ),
        ({"name": "cmaes"}, "qmc", {"name": "cmaes"}),
        ({"name": "tpe"}, None, {"name": "tpe"}),
    ],
)
def test_the_sampler_of_the_apps_node_is_used_where_the_group_is_left_alone(group, node, used):
    app = OmegaConf.create({"tune": {"sampler": node, "pruner": "default", "trials": 3}})
    plain = _settings({"sampler": group, "trials": None}, app)
    assert plain["sampler"] == used
    assert plain["pruner"] == {"name": "default"}
    assert plain["trials"] == 3


APP = textwrap.dedent(
    """
    import multiprocessing
    import os
    import signal
    import hydra
    from hydra.core.config_store import ConfigStore
    from darts_core.study import current_trial

    ConfigStore.instance().store(name="app", node={"lr": 0.1, "kind": "a", "seed": 0, "kills": -1})

    @hydra.main(version_base="1.3", config_path=None, config_name="app")
    def main(config):
        trial = current_trial()
        value = -((config.lr - 0.3) ** 2) - (config.kind == "b")
        for epoch in range(3):
            if trial is not None:
                trial.report(epoch, val_accuracy=value)
            if trial is not None and trial.number == config.kills and not trial.resumed:
                os.kill(multiprocessing.parent_process().pid, signal.SIGKILL)  # the worker
        if config.kind == "c":
            raise ValueError("no kind c")
        return value, os.getpid() % 1000

    if __name__ == "__main__":
        main()
    """
)


def sweep(folder, *arguments, timeout=400):
    script = folder / "app.py"
    script.write_text(APP)
    command = [sys.executable, str(script), "-m", "hydra/sweeper=darts", *arguments]
    return subprocess.run(
        [*command, f"hydra.sweep.dir={folder}/out", "hydra.sweeper.tensorboard=false"],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


TWO = "hydra.sweeper.objectives={value: maximize, pid: minimize}"


def test_a_script_is_swept_by_two_workers_and_continued(tmp_path, capsys):
    arguments = ("lr=tag(log,interval(0.01,1))", "kind=a,b", TWO, "hydra.sweeper.workers=2")
    arguments += ("hydra/sweeper/sampler=nsga2", "hydra.sweeper.sampler.population_size=6")
    first = sweep(tmp_path, *arguments, "hydra.sweeper.trials=3")
    assert first.returncode == 0, first.stderr
    assert "workers are local processes" in first.stdout + first.stderr
    second = sweep(tmp_path, *arguments, "hydra.sweeper.trials=5")
    assert second.returncode == 0, second.stderr
    assert "goes on with 3 finished trials" in second.stdout + second.stderr
    study = tmp_path / "out" / "tune"
    result = json.loads((study / "result.json").read_text())
    assert [t["number"] for t in result["trials"]] == [0, 1, 2, 3, 4]
    # the configuration's own values come first
    assert result["trials"][0]["params"] == {"lr": 0.1, "kind": "a"}
    assert all(0.01 <= t["params"]["lr"] <= 1 for t in result["trials"])
    assert len({t["values"][1] for t in result["trials"]}) == 5
    description = json.loads((study / "study.json").read_text())
    assert description["sampler"] == {"name": "nsga2", "population_size": 6}
    assert (study / "front.png").read_bytes()[:4] == b"\x89PNG"
    assert (study / "trials.csv").read_text().startswith("number,state,value,pid,")
    assert table([str(study), "--csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert table([str(study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best_number"] == result["best_number"]


def test_failing_trials_do_not_stop_a_sweep_and_names_are_checked(tmp_path):
    (tmp_path / "space.yaml").write_text("lr: {low: 0.1, high: 0.4, when: {kind: a}}")
    settings = ("hydra/sweeper/sampler=random", "hydra.sweeper.space=space.yaml")
    # that any drawn trial fails is not sure
    settings += ("hydra.sweeper.trials=3", "hydra.sweeper.enqueue=[{kind: c}]")
    done = sweep(tmp_path, "kind=a,c", *settings, TWO)
    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "out/tune/study.json").read_text())
    assert study["sampler"] == {"name": "random"}
    assert study["pruner"]["name"] == "none"
    trials = json.loads((tmp_path / "out/tune/result.json").read_text())["trials"]
    assert all(("lr" in t["params"]) == (t["params"]["kind"] == "a") for t in trials)
    assert [t["params"]["kind"] for t in trials[:2]] == ["a", "c"]
    failed = {t["number"]: t["reason"] for t in trials if t["state"] == "fail"}
    wanted = [t["number"] for t in trials if t["params"]["kind"] == "c"]
    assert failed == dict.fromkeys(wanted, "ValueError: no kind c")
    assert len(trials) == 3
    bad = sweep(tmp_path, "lr=interval(1,1)")
    assert bad.returncode != 0
    assert "The interval of lr is empty" in bad.stderr
    unswept = sweep(tmp_path, "lr=0.5")
    assert "Nothing is swept" in unswept.stderr


@pytest.mark.full
def test_a_killed_sweep_of_the_tune_command_goes_on_where_it_was(tmp_path):
    command = [
        sys.executable, "-m", "darts_core.cli", "tune", "-m", "hydra/sweeper=darts",
        "architecture=DARTS_V2", "train.channels=4", "train.layers=2", "train.epochs=2",
        "train.batch_size=64", "train.learning_rate=tag(log,interval(0.01,0.3))",
        "tune.trials=4", "tune.workers=2", f"out={tmp_path}/runs",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("runs/*/V001/tune/trials/*/result.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    studies = list(tmp_path.glob("runs/*/V*/tune"))
    assert len(studies) == 1
    result = json.loads((studies[0] / "result.json").read_text())
    assert [t["number"] for t in result["trials"]] == [0, 1, 2, 3]
    assert {t["state"] for t in result["trials"]} <= {"complete", "pruned"}
    assert all("train.learning_rate" in t["params"] for t in result["trials"])
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert "nothing to do" in again.stdout


@pytest.mark.full
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_workers_run_through_other_launchers_and_a_killed_one_is_launched_again(tmp_path, launcher):
    plugin = f"hydra_{launcher.removesuffix('_local')}_launcher"
    pytest.importorskip(f"hydra_plugins.{plugin}", reason=f"{plugin} is not installed")
    done = sweep(
        tmp_path,
        "lr=tag(log,interval(0.01,1))",
        TWO,
        f"hydra/launcher={launcher}",
        "hydra.sweeper.workers=2",
        "hydra.sweeper.trials=5",
        "kills=1",
    )
    assert done.returncode == 0, done.stderr
    study = tmp_path / "out/tune"
    trials = json.loads((study / "result.json").read_text())["trials"]
    assert [t["state"] for t in trials] == ["complete"] * 5
    assert [t["number"] for t in trials] == list(range(5))
    killed = json.loads((study / "trials/0001/result.json").read_text())
    assert killed["attempts"] == 2
    assert killed["epochs"] == 3
