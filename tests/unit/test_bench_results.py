"""Tables of models and results files."""

import shlex
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from darts_core.bench import results
from darts_core.bench.results import command_line, read_results, slug, write_results
from darts_core.bench.table import markdown_table, models_table
from darts_core.errors import ConfigError, ResumeError
from darts_core.latency import device_name
from darts_core.report.rows import Latency, ModelRow
from darts_core.runlog import processor_name, write_json


def example_rows() -> list[ModelRow]:
    def times(one: float, many: float, **more: Any) -> dict[int, Latency]:
        return {
            1: Latency(one, one * 0.9, one * 1.1, 50, None, device="cpu", **more),
            32: Latency(many, many * 0.9, many * 1.1, 50, None, device="cpu", **more),
        }

    return [
        ModelRow("base", "baseline", accuracies=(0.9, 0.92), latency=times(2, 8), baseline=True),
        ModelRow("base", "baseline", "onnx", accuracies=(0.9, 0.92), latency=times(1, 4), baseline=True),
        ModelRow("ours [red]|\x1b[31m", "pruned", "onnx", params=12_345, accuracies=(0.95,),
                 latency=times(0.5, 1)),
        ModelRow("loaded", "tuned", accuracies=(0.99,), latency=times(0.1, 0.1, flagged=True)),
    ]  # fmt: skip


def test_terminal_table_compares_like_with_like_and_is_inert() -> None:
    import io

    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=220).print(models_table(example_rows(), title="x [bold]y"))
    shown = stream.getvalue()
    assert "\x1b" not in shown
    assert "ours [red]|\\x1b[31m" in shown
    assert "x [bold]y" in shown
    line = next(line for line in shown.splitlines() if "ours" in line)
    assert line.split()[-1] == "4"  # against the baseline in ONNX, not in eager
    assert "0.5 *" in line
    assert "12.3 k" in line
    assert "0.1 !" in next(line for line in shown.splitlines() if "99.00" in line)
    narrow = io.StringIO()
    Console(file=narrow, width=100).print(models_table(example_rows(), wide=False))
    assert "…" not in narrow.getvalue()


def test_markdown_table_has_one_line_a_row() -> None:
    text = markdown_table(example_rows())
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 4
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "91.00 ± 1.41" in text


def test_a_command_is_what_one_types_without_the_places_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["all", "--runs", "/here/runs", "--seeds", "0", "1", "--out", "/here", "data=[a, b]"]
    monkeypatch.setattr(sys, "argv", ["/here/benchmarks/elastic.py", *words])
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", ModuleSpec("benchmarks.elastic", None))
    everything = command_line()
    assert everything.startswith("python -m benchmarks.elastic all --runs /here/runs --seeds 0 1")
    # the one value that follows an option belongs to it, and nothing else
    monkeypatch.setattr(
        sys, "argv", [*sys.argv[:1], "--runs", "/here/runs", *words[:1], *words[3:]]
    )
    assert command_line(without=("--runs",)) == (
        "python -m benchmarks.elastic all --seeds 0 1 --out /here 'data=[a, b]'"
    )
    monkeypatch.setattr(sys, "argv", [*sys.argv[:1], words[0], "--runs=/here/runs", *words[3:]])
    found = command_line(without=("--runs",))
    assert found == "python -m benchmarks.elastic all --seeds 0 1 --out /here 'data=[a, b]'"
    monkeypatch.setattr(main, "__spec__", None)
    assert command_line().startswith("python elastic.py all")
    monkeypatch.setattr(sys, "argv", ["benchmarks/elastic.py", "all"])
    assert command_line() == "python benchmarks/elastic.py all"
    hard = ["it's", "", 'name="a b"', "~/x", "#1", "a\\b", "seed=0,1", "--n", "a`b`!"]
    monkeypatch.setattr(sys, "argv", ["darts-core", *hard])
    assert shlex.split(command_line()) == ["darts-core", *hard]


def test_results_without_a_device_are_this_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # zsh leaves the ~ of results=~/kept as it is
    path = write_results("m", [{"x": 1}], folder="~/kept")
    assert path.parent == tmp_path / "kept"
    found = read_results(path)
    assert found.device == device_name("cpu")


def test_results_file_states_what_a_reader_needs(tmp_path: Path) -> None:
    first = write_results(
        "models", example_rows(), device="NVIDIA H100 80GB", folder=tmp_path, notes={"a": 1}
    )
    second = write_results(
        "models", [{"x": 1.0}], device="NVIDIA H100 80GB", folder=tmp_path, command="c"
    )
    named = [
        write_results("m", [{"x": 1}], device="d", folder=tmp_path, name="Job/V1") for _ in range(2)
    ]
    assert named[0] == named[1]
    assert named[0].name.endswith("_job-v1.json")
    assert first.name.startswith("models_nvidia-h100-80gb_2")
    assert second.name == first.stem + "_2.json"
    found = read_results(first)
    assert found.device == "NVIDIA H100 80GB"
    assert found.command == command_line()
    assert found.environment["packages"]["torch"]
    assert found.environment["processor"] == processor_name()
    assert found.models()[0].accuracy_std == pytest.approx(example_rows()[0].accuracy_std)
    assert found.rows[0]["n"] == 2
    with pytest.raises(ConfigError, match="no row"):
        write_results("models", [], device="cpu", folder=tmp_path)
    (tmp_path / "bad.json").write_text('{"rows": 3}')
    with pytest.raises(ResumeError, match="no list of rows"):
        read_results(tmp_path / "bad.json")
    (tmp_path / "new.json").write_text('{"rows": [], "schema_version": 99}')
    with pytest.raises(ResumeError, match="schema_version 99"):
        read_results(tmp_path / "new.json")


def test_runs_that_end_at_the_same_moment_keep_a_file_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run ends after this one has looked which name is free, and before its file is there."""
    others: list[Path] = []

    def written(path: Path, content: Any) -> None:
        if not others:
            others.append(path)
            others[0] = write_results("m", [{"x": 2}], device="d", folder=tmp_path)
        write_json(path, content)

    monkeypatch.setattr(results, "write_json", written)
    mine = write_results("m", [{"x": 1}], device="d", folder=tmp_path)
    assert [read_results(path).rows[0]["x"] for path in (mine, others[0])] == [1, 2]

    def full(path: Path, content: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(results, "write_json", full)
    with pytest.raises(OSError, match="no space"):
        write_results("m", [{"x": 3}], device="d", folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_slug_is_a_safe_file_name() -> None:
    assert slug("../Intel(R) Xeon®  @ 2.2 GHz") == "intel-r-xeon-2-2-ghz"
    assert slug("///") == "unknown"


def test_the_elements_of_a_long_job_keep_a_results_file_each(tmp_path: Path) -> None:
    job = "how-fast-and-how-good-small-networks-for-speech-commands-are"
    names = [f"{job}-V001-{element}" for element in range(3)]

    def written(name: str) -> Path:
        return write_results("m", [{"x": 1}], device="d", folder=tmp_path, name=name)

    paths = [written(name) for name in names]
    assert len({*paths}) == 3
    assert [written(name) for name in names] == paths
    assert all(len(path.stem.rpartition("_")[2]) <= 48 for path in paths)
    assert all("_how-fast-and-how-good-" in path.name for path in paths)
