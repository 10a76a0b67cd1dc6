"""The page about a model of one's own: its files and commands, run outside our tree."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending" / "model.md").read_text()
SMALL = {
    "search": ["search.epochs=2", "search.finalists=1", "search.batch_size=32", "data.limit=300"],
    "train": ["train.epochs=2", "data.limit=300"],
    "prune": ["prune.epochs=1", "prune.options.seconds=0.2", "data.limit=300"],
    "export": ["data.limit=300"],
    "bench": ["bench.seconds=0.05", "data.limit=300"],
}


def blocks(language: str) -> list[str]:
    return [
        text for kind, text in re.findall(r"```(\w*)\n(.*?)```", PAGE, re.S) if kind == language
    ]


def commands(job: str) -> list[list[str]]:
    lines = [line for block in blocks("") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if f"job={job}" in line]


def run(words: list[str], folder: Path) -> str:
    program = str(Path(sys.executable).with_name("darts-core"))
    done = subprocess.run(
        [program, *words, "device=cpu", *SMALL[words[0]]],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def written(folder: Path) -> Path:
    for block in blocks("python"):
        (name,) = re.findall(r"^# (\w+\.py)", block)
        (folder / name).write_text(block)
    return folder


def test_the_page_s_files_are_two_and_its_commands_are_known() -> None:
    assert len(blocks("python")) == 2
    assert [words[0] for words in commands("wide")] == [
        "search",
        "train",
        "prune",
        "export",
        "bench",
    ]
    assert [words[0] for words in commands("own")] == ["train", "prune", "export"]


@pytest.mark.full
def test_searched_widths_are_trained_pruned_to_half_the_time_exported_and_measured(
    tmp_path: Path,
) -> None:
    written(tmp_path)
    for words in commands("wide"):
        run(words, tmp_path)
    version = tmp_path / "runs" / "wide" / "V001"
    assert [path.name for path in version.parent.glob("V*")] == ["V001"]
    found = dict(yaml.safe_load((version / "search" / "architecture.yaml").read_text())["choices"])
    assert set(found) == {"first", "second"}
    trained, pruned = (
        torch.load(version / stage / "model.pt", weights_only=True)["state"]
        for stage in ("train", "prune")
    )
    assert trained["body.0.weight"].shape[0] == found["first"]
    assert trained["body.4.weight"].shape[:2] == (found["second"], found["first"])
    assert sum(v.numel() for v in pruned.values()) < sum(v.numel() for v in trained.values())
    rows = yaml.safe_load((version / "bench" / "results.json").read_text())["rows"]
    assert {row["kind"] for row in rows} == {"trained", "pruned", "exported"}


@pytest.mark.full
def test_a_function_s_network_is_trained_pruned_and_exported(tmp_path: Path) -> None:
    written(tmp_path)
    for words in commands("own"):
        run(words, tmp_path)
    version = tmp_path / "runs" / "own" / "V001"
    assert (version / "export" / "model.onnx").is_file()
