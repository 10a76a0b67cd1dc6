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


@pytest.fixture
def outside(tmp_path):
    """A copy of the example package, as a user would have it."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "outside"))


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def darts_core(*arguments, folder):
    return run([str(Path(sys.executable).with_name("darts-core")), *arguments], folder)


def test_the_shipped_contracts_hold_for_the_example(outside):
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=."]
    said = run([sys.executable, *arguments, "test_my_nas.py"], outside)
    assert "21 passed" in said


def test_an_operation_in_the_darts_space_is_one_short_file(outside):
    assert len((outside / "my_nas" / "ops.py").read_text().splitlines()) <= 30
    darts_core(
        "search",
        "plugins=[my_nas.ops]",
        "space.ops=[skip_connect,gated_conv_7x7]",
        "data=digits",
        "data.limit=120",
        "search.layers=3",
        *TINY,
        folder=outside,
    )
    (found,) = outside.glob("runs/*/V001/search/architecture.yaml")
    edges = yaml.safe_load(found.read_text())["cells"]["normal"]["edges"]
    assert {op for _, _, op in edges} <= {"skip_connect", "gated_conv_7x7"}


def test_space_relaxation_strategy_and_data_set_from_a_config_folder(outside):
    said = darts_core(
        "search",
        "--config-dir",
        "my_conf",
        "plugins=[my_nas.space,my_nas.relax,my_nas.strategy,my_nas.data]",
        "space=small",
        "relax=noisy",
        "strategy=seldom",
        "data=bars",
        "search.layers=1",
        *TINY,
        folder=outside,
    )
    assert "found small(" in said
    (config,) = outside.glob("runs/bars-small/V001/search/config.yaml")
    settings = yaml.safe_load(config.read_text())
    assert settings["relax"]["_target_"] == "my_nas.relax.NoisySoftmax"
    assert settings["strategy"]["every"] == 2


def test_a_guard_and_a_callback_from_a_config_folder(outside):
    tiny = [word for word in TINY if not word.startswith(("search.epochs", "search.guards"))]
    said = darts_core(
        "search", "--config-dir", "my_conf", "plugins=[my_nas.guard,my_nas.callback]",
        "guards=[cells,variety]", "callbacks=good_enough", "callbacks.good_enough.value=0.0",
        "search.epochs=3", "space=nasbench201", "data=digits", "data.limit=120", "search.layers=1", *tiny,
        folder=outside,
    )  # fmt: skip
    assert "the search ends after epoch 1: good_enough: val accuracy has reached 0.00 %" in said
    (folder,) = outside.glob("runs/*/V001/search")
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
