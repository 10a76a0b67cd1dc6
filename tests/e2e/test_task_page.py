"""The page about a task of one's own: its files, its contract test and its commands, run outside our tree."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from darts_core.export import read_manifest
from darts_core.runlog import read_json
from darts_core.tasks import make_task
from darts_core.testing import TaskContract

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending" / "task.md").read_text()
PYTHON = [text for kind, text in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.S) if kind == "python"]
COMMANDS = [shlex.split(line)[1:] for line in PAGE.splitlines() if line.startswith("darts-core ")]
SMALL = {
    "train": ["train.epochs=4", "train.batch_size=16", "train.learning_rate=0.05"],
    "export": ["export.options.max_seconds=0.05"],
}

# the first file of the page registers its task for this process, too
_SPEC = importlib.util.spec_from_loader("intervals", loader=None)
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules["intervals"] = _MODULE
exec(PYTHON[0], _MODULE.__dict__)
_NAMES = {"TaskContract": TaskContract, "make_task": make_task, "np": np, "pytest": pytest}
exec(PYTHON[2], {**_NAMES, "torch": torch}, _FOUND := {})
TestInterval = _FOUND["TestInterval"]


def data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 1, 8)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=300 + 40 * x.mean((1, 2)) + 2 * rng.normal(size=160))
    np.save(folder / "one.npy", x[0])


def run(words: list[str], folder: Path) -> str:
    program = str(Path(sys.executable).with_name("darts-core"))
    done = subprocess.run(
        [program, *words], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full
def test_the_page_s_commands_train_export_and_predict(tmp_path: Path) -> None:
    data(tmp_path)
    for name, text in zip(("intervals.py", "smallnet.py"), PYTHON, strict=False):
        assert text.startswith(f"# {name}")
        (tmp_path / name).write_text(text)
    for words in COMMANDS:
        run([*words, *SMALL[words[0]], "device=cpu"], tmp_path)
    version = tmp_path / "runs" / "between" / "V001"
    result = read_json(version / "train" / "result.json")
    assert result["metric"] == {"name": "pinball", "direction": "minimize", "share": False}
    assert result["val_pinball"] < 20
    manifest = read_manifest(version / "export")
    assert manifest["test_pinball"] == result["test_pinball"]
    assert manifest["task"]["name"] == "interval"
    asked = ["predict", "one.npy", "--model", str(version / "export"), "--json"]
    said = run([*asked, "--plugins", "intervals"], tmp_path)
    assert 150 < float(re.search(r'"low": ([0-9.]+)', said)[1]) < 450
