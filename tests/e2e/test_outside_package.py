"""The examples for extension authors, run from a copy outside our tree."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "outside_package"
DOCS = ROOT / "docs" / "extending"
TINY = [
    "search.epochs=1",
    "search.finalists=1",
    "search.batch_size=16",
    "search.channels=2",
    "search.guards.eigenvalue=null",
]


MARK = "--- that was one command ---"


@pytest.fixture
def outside(tmp_path):
    """A copy of the example package, as a user would have it."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "outside"))


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


# what `darts-core` calls, for several commands in turn; what each prints ends with a mark
PROGRAM = f"""
import json, sys
from importlib.metadata import entry_points

(command,) = entry_points(group="console_scripts", name="darts-core")
for words in json.loads(sys.argv[1]):
    if status := command.load()(words):
        sys.exit(status)
    print({MARK!r}, flush=True)
"""
OPERATION = [
    "search", "plugins=[my_nas.ops]", "space.ops=[skip_connect,gated_conv_7x7]", "data=digits",
    "data.limit=120", "search.layers=3", *TINY, "job=operation",
]  # fmt: skip
OTHERS = [
    "search", "--config-dir", "my_conf",
    "plugins=[my_nas.space,my_nas.relax,my_nas.strategy,my_nas.data]",
    "space=small", "relax=noisy", "strategy=seldom", "data=bars", "search.layers=1", *TINY,
]  # fmt: skip
WATCHED = [
    "search", "--config-dir", "my_conf", "plugins=[my_nas.guard,my_nas.callback]",
    "guards=[cells,variety]", "callbacks=good_enough", "callbacks.good_enough.value=0.0",
    "search.epochs=3", "space=nasbench201", "data=digits", "data.limit=120", "search.layers=1",
    *(word for word in TINY if not word.startswith(("search.epochs", "search.guards"))), "job=watched",
]  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A copy in which three searches ran, and what each of them said."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("searched") / "outside"))
    # -P: as for the installed command, the folder itself is not searched for modules
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps([OPERATION, OTHERS, WATCHED])]
    return folder, run(command, folder).split(MARK)


def test_the_shipped_contracts_hold_for_the_example(outside):
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=."]
    said = run([sys.executable, *arguments, "test_my_nas.py"], outside)
    assert "21 passed" in said


def test_an_operation_in_the_darts_space_is_one_short_file(searched):
    outside, _ = searched
    assert len((outside / "my_nas" / "ops.py").read_text().splitlines()) <= 30
    (found,) = outside.glob("runs/operation/V001/search/architecture.yaml")
    edges = yaml.safe_load(found.read_text())["cells"]["normal"]["edges"]
    assert {op for _, _, op in edges} <= {"skip_connect", "gated_conv_7x7"}


def test_space_relaxation_strategy_and_data_set_from_a_config_folder(searched):
    outside, (_, said, *_) = searched
    assert "found small(" in said
    (config,) = outside.glob("runs/bars-small/V001/search/config.yaml")
    settings = yaml.safe_load(config.read_text())
    assert settings["relax"]["_target_"] == "my_nas.relax.NoisySoftmax"
    assert settings["strategy"]["every"] == 2


def test_a_guard_and_a_callback_from_a_config_folder(searched):
    outside, (_, _, said, _) = searched
    assert "the search ends after epoch 1: good_enough: val accuracy has reached 0.00 %" in said
    (folder,) = outside.glob("runs/watched/V001/search")
    (row,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert row["guard/variety"] >= 1
    assert json.loads((folder / "result.json").read_text())["stopped"].startswith("good_enough: ")


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("operation", ["my_nas/ops.py"]),
        ("space", ["my_nas/space.py", "my_conf/space/small.yaml"]),
        ("relaxation", ["my_nas/relax.py", "my_conf/relax/noisy.yaml"]),
        ("strategy", ["my_nas/strategy.py", "my_conf/strategy/seldom.yaml"]),
        ("dataset", ["my_nas/data.py", "my_conf/data/bars.yaml"]),
        ("guard", ["my_nas/guard.py", "my_conf/guards/variety.yaml"]),
        ("callback", ["my_nas/callback.py", "my_conf/callbacks/good_enough.yaml"]),
    ],
)
def test_the_pages_show_the_files_that_are_tested(page, files):
    text = (DOCS / f"{page}.md").read_text()
    for name in files:
        assert (EXAMPLE / name).read_text().rstrip() in text, f"{page}.md shows another {name}"


def test_choices_in_a_users_resnet():
    spec = importlib.util.spec_from_file_location(
        "example", ROOT / "examples/choices_in_a_resnet.py"
    )
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    plain = example.main(epochs=1, limit=100)
    assert isinstance(plain, nn.Module)
    assert not any(type(m).__name__.endswith("Choice") for m in plain.modules())
