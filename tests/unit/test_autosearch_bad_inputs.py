"""What a person gets wrong about a job is told before anything runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from darts_core.autosearch.__main__ import _check_devices
from darts_core.autosearch.boot_file import mentions
from darts_core.autosearch.command_line import settings_to_mention
from darts_core.autosearch.interpreter import check_interpreter, package_imports, package_path
from darts_core.autosearch.job_yaml import parse_file
from darts_core.autosearch.plan_files import build_plan
from darts_core.autosearch.process import TrialProcess
from darts_core.autosearch.request import Request, _check
from darts_core.autosearch.spec import Limits
from darts_core.errors import ConfigError, JobError
from darts_core.store.jobs import Store

RANGE = """
general: {metrics: [{name: acc, regex: 'acc=([0-9.]+)'}]%s}
search_space: [{params: [{type: continuous_param, name: lr, start: 0.01, stop: 0.1%s}]}]
search_algorithm: {type: random_search, reward_attr: acc%s}
"""


def write(tmp_path, *parts):
    path = tmp_path / "job.yaml"
    path.write_text(RANGE % (*parts, *[""] * (3 - len(parts))))
    return path


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ((", baseline: {lrr: 0.1}",), "'lrr', which is no setting.*did you mean lr"),
        ((", baseline: {lr: fast}",), "lr='fast' is no number"),
        (("", ", default: 0.5"), "default = 0.5: not among .*general.baseline"),
        (("", ", default: high"), "default = 'high': not among"),
        (("", "", ", num_samples: 100000000000"), "num_samples = 100000000000: out of range"),
        (("", "", ", max_concurrent: 100000000000"), "out of range"),
        (("", "", ", seed: 5000000000"), "seed = 5000000000: out of range"),
    ],
)
def test_wrong_values_in_a_job_file(tmp_path, parts, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_plan([write(tmp_path, *parts)])


def test_a_value_of_ones_own_may_lie_outside_the_range(tmp_path):
    plan = build_plan([write(tmp_path, ", baseline: {lr: 0.5}")])
    assert plan.steps[0].baseline_configuration() == {"lr": 0.5}
    assert build_plan([write(tmp_path, "", ", default: 0.05")]).steps[0].baseline == {"lr": 0.05}


def test_a_range_that_runs_downwards_is_refused_unless_it_holds_exponents(tmp_path):
    path = write(tmp_path)
    text = path.read_text().replace("start: 0.01, stop: 0.1", "start: 0.1, stop: 0.01")
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"stop = 0\.01: below start 0\.1; exchange them"):
        parse_file(path)
    path.write_text(text.replace("start: 0.1, stop: 0.01", "start: -1, stop: -3, base: 10"))
    assert parse_file(path).dimensions[0].low == pytest.approx(1e-3)


def test_an_argument_that_is_no_number_is_refused_for_a_range(tmp_path):
    with pytest.raises(ConfigError, match="lr='abc' is no number"):
        build_plan([write(tmp_path)], arguments={"lr": "abc"})


def test_a_pattern_without_a_group_is_refused(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text().replace("([0-9.]+)", "[0-9.]+"))
    with pytest.raises(ConfigError, match="no group holds the number"):
        parse_file(path)


def test_a_gpu_that_is_not_there_is_refused():
    torch = pytest.importorskip("torch")
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ConfigError, match=f"{missing}: there is no such GPU here; use one of cpu"):
        _check_devices(["cpu", missing])
    _check_devices(["cpu"])


def test_an_argument_that_no_file_mentions_is_noted(tmp_path):
    (tmp_path / "m.py").write_text("p.add_argument('--batch-size')")
    assert mentions(tmp_path, "batch_size")
    assert not mentions(tmp_path, "bogus")
    assert not mentions(tmp_path, "batch")
    # what others wrote says nothing of it
    other = tmp_path / "env" / "lib"
    other.mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("home = /usr/bin")
    (other / "a.py").write_text("from darts_core.augment import Augment  # bogus")
    assert not mentions(tmp_path, "bogus")
    assert package_imports(tmp_path) == []
    request = Request(
        str(tmp_path), "m.py", (str(write(tmp_path)),), arguments={"bogus": "1", "lr": "0.05"}
    )
    answer = _check(Store(tmp_path / "runs"), request, needs_train=True)
    assert answer["own_arguments"] == ["bogus"]
    # nor is each trial to be the same in silence
    argument, setting = answer["notes"]
    assert argument == "--arg bogus: no Python file of the code mentions that name"
    assert setting.startswith(
        "no Python file of the code mentions the setting 'lr', so it may not reach"
    )
    goal = "search_algorithm: {type: differentiable_search, reward_attr: acc}"
    for text, names in (
        ("search_space: [{type: discrete_param, name: lr, values: [1]}]", ["lr"]),
        ("search_space: [{type: discrete_param, name: opt.lr, values: [1]}]", []),
        ("search_space: [{type: resnet_code, name: code}]", []),
        ("general: {command: 'python m.py {lr}'}\n"
         "search_space: [{type: discrete_param, name: lr, values: [1]}]", []),
    ):  # fmt: skip
        for algorithm in (goal.replace("differentiable", "random"), goal):
            (tmp_path / "job.yaml").write_text(f"{text}\n{algorithm}")
            wanted = names if "random" in algorithm else []
            assert settings_to_mention(build_plan([tmp_path / "job.yaml"])) == wanted


def test_an_interpreter_is_tried_before_a_job_is_made(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "m.py").write_text("from darts_core import autosearch\nautosearch.reporter\n")
    check_interpreter(sys.executable, code)
    text = tmp_path / "text"
    text.write_text("x")
    with pytest.raises(JobError, match="no program that can be started"):
        check_interpreter(str(text), code)
    text.chmod(0o755)
    with pytest.raises(JobError, match="cannot run"):
        check_interpreter(str(text), code)


def test_an_interpreter_that_lacks_what_the_code_imports_is_told_so(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "m.py").write_text(
        "from darts_core.augment import Augment\nfrom darts_core import autosearch\nautosearch.searchable\n"
    )
    assert package_imports(code) == [
        "from darts_core.augment import Augment",
        "from darts_core import autosearch",
        "from darts_core.autosearch import searchable",
        "import darts_core.supernet.module_supernet",
    ]
    # an environment with the standard library alone
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    (code / "n.py").write_text("")
    with pytest.raises(
        JobError, match=r"'from darts_core.augment import Augment', which your code"
    ):
        check_interpreter(str(bare), code)
    (code / "m.py").write_text("from darts_core import autosearch\n")
    check_interpreter(str(bare), code)


def test_a_trial_runs_where_there_is_the_standard_library_alone(tmp_path):
    root = os.path.dirname(os.path.dirname(os.path.abspath(sys.modules["darts_core"].__file__)))
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import darts_core.autosearch.trial_main"],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_another_interpreter_gets_this_package_and_no_other_of_this_environment(
    tmp_path, monkeypatch
):
    def path_for(python):
        made = TrialProcess({"trial_id": "t"}, tmp_path, limits=Limits(), mark="m", python=python)
        return Path(made._environment()["PYTHONPATH"])

    monkeypatch.delenv("PYTHONPATH", raising=False)
    other = path_for(str(tmp_path / "bin/python"))
    assert "darts_core" in {p.name for p in other.iterdir()} <= {"darts_core", "darts_kernels"}
    assert (other / "darts_core/autosearch/trial_main.py").is_file()
    # where the package is installed, this folder holds all packages of the environment
    assert path_for(sys.executable) == path_for(None) != other


def test_what_an_elastic_training_needs_is_tried_and_another_backward_is_not_ours(tmp_path):
    (tmp_path / "m.py").write_text("from darts_core import autosearch\nloss.backward()\n")
    assert package_imports(tmp_path) == ["from darts_core import autosearch"]
    needed = "import darts_core.autosearch.elastic_family, torch_pruning"
    for text in (
        "from darts_core import autosearch\nautosearch.backward\n",
        "import darts_core.autosearch as nas\nnas.elastic\n",
        "from darts_core.autosearch import elastic\n",
    ):
        (tmp_path / "m.py").write_text(text)
        assert needed in package_imports(tmp_path)


def test_a_folder_of_links_that_was_tidied_away_is_made_anew(tmp_path):
    python = str(tmp_path / "bin/python")
    first = Path(package_path(python))
    assert package_path(python) == str(first)
    shutil.rmtree(first)
    assert Path(package_path(python), "darts_core/autosearch/trial_main.py").is_file()
