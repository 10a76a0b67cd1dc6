"""Commands that print: help, list, doctor; and searches run through the real command."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from darts_core import cli
from darts_core.commands import doctor, latency, listing
from darts_core.commands.arguments import parse_arguments
from darts_core.commands.help import ARGPARSE, HYDRA
from darts_core.runlog import read_json, read_jsonl, read_yaml

ROOT = Path(__file__).resolve().parents[2]
TINY = ["data=digits", "data.limit=320", "search.epochs=1", "search.finalists=1", "search.channels=2",
        "search.layers=1", "search.batch_size=128"]  # fmt: skip


def command(folder: Path, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One `darts-core` process in `folder`."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "darts_core.cli", *argv],
        cwd=folder, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("name", [*HYDRA, *ARGPARSE])
def test_every_command_has_a_help_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = cli.main([name, "--help"])
    except SystemExit as done:
        status = int(done.code or 0)
    text = capsys.readouterr().out
    assert status == 0
    assert "example" in text.lower()
    assert f"darts-core {name}" in text


def test_the_help_of_search_names_its_groups_and_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["search", "--help"]) == 0
    text = capsys.readouterr().out
    for words in ("space=", "nasbench201", "search.epochs=50", "fashion_mnist", "--config-dir"):
        assert words in text


@pytest.mark.parametrize("name", HYDRA)
def test_a_help_names_no_setting_that_is_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "data.options=" not in text
    assert "task.options=" not in text


@pytest.mark.parametrize(("name", "space"), [("run", "auto"), ("search", "darts")])
def test_a_help_tells_the_defaults_of_the_chosen_files(
    name: str, space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  space.name={space} " in text
    assert "  data.name=digits " in text


def test_the_main_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in (*HYDRA, *ARGPARSE))


def test_a_help_line_names_what_its_command_does() -> None:
    parser = argparse.ArgumentParser()
    latency.configure(parser)
    (what,) = (action for action in parser._actions if action.dest == "what")
    assert set(what.choices or ()) <= set(re.findall(r"\w+", ARGPARSE["latency"].summary))
    for kind in ("pipelines", "script"):  # one store, two kinds of job
        assert kind in ARGPARSE["jobs"].summary
    listed = " ".join(re.findall("darts-core list ([a-z ]+)", ARGPARSE["list"].examples)).split()
    assert {"ops", "tasks", "guards", "models", "skeletons"} <= set(listed) <= set(listing.SECTIONS)


def test_each_example_of_tune_names_its_network() -> None:
    """Outside of a job that searched there is none to take."""
    commands = HYDRA["tune"].examples.replace("\\\n", " ").splitlines()
    assert len(commands) == 2
    assert all(" architecture=" in command for command in commands)


def test_list_prints_names_with_descriptions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space").mkdir()
    (tmp_path / "space" / "mine.yaml").write_text("name: darts\ndescription: my own space\n")
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("_target_: a.b\ndescription: my own way\n")
    # no shell reads a ~ behind an equals sign
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "loud_plugin.py").write_text("print('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert parse_arguments("search", ["--config-dir=~/own"]).config_dir == f"{tmp_path}/own"
    assert cli.main(["list", "--json", "--config-dir=~", "--plugins=loud_plugin"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "sep_conv_3x3" in found["ops"]
    assert {"darts", "nasbench201"} <= set(found["spaces"])
    assert found["strategies"]["mine"] == "my own way"
    assert "digits" in found["data"]
    assert "demo" in found["experiments"]
    assert all(text for section in found.values() for text in section.values())


def test_doctor_states_versions_device_and_kernel_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    import torch

    assert found["versions"]["torch"] == torch.__version__
    assert found["missing"] == []
    assert found["kernel_path"].startswith("GPU" if torch.cuda.is_available() else "CPU")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = {*declared["project"]["optional-dependencies"]} - {"dev", "fuzz"}
    told = " ".join(use for _, use in doctor._OPTIONAL.values())
    assert {*re.findall(r"extra \[(\w+)\]", told)} == extras


def test_the_version_is_told_in_a_checkout_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", unknown)
    assert cli.main(["--version"]) == 0
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert capsys.readouterr().out == f"darts-core {declared['project']['version']}\n"


def test_doctor_tells_of_a_torch_that_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(found: object) -> None:
        raise ImportError("libcudnn.so.9: cannot open shared object file")

    monkeypatch.setattr(doctor, "_examine_torch", broken)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "torch cannot be imported (libcudnn.so.9: cannot open shared object file)" in text
    assert "MISSING: torch; install with: pip install --force-reinstall torch" in text


def test_doctor_tells_of_two_packages_that_overwrite_one_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there, known = {"onnxruntime": "1.22"}, metadata.version

    def version(name: str) -> str:
        if name.startswith("onnxruntime") and name not in there:
            raise metadata.PackageNotFoundError(name)
        return there.get(name) or known(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "_examine_torch", lambda found: None)
    assert doctor.examine()["warnings"] == []
    there["onnxruntime-gpu"] = "1.22"
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert (
        text.count("onnxruntime and onnxruntime-gpu are both installed and lie in one folder") == 1
    )


def test_a_multirun_searches_every_combination_and_is_finished_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["search", "-m", "space=darts,nasbench201", "seed=1,2", *TINY]
    assert cli.main(argv) == 0
    done = capsys.readouterr()
    version = tmp_path / "runs" / "digits-darts+nasbench201" / "V001"
    results = [read_json(version / str(i) / "search" / "result.json") for i in range(4)]
    assert [r["seed"] for r in results] == [1, 2, 1, 2]
    assert [r["architecture"]["space"] for r in results] == ["darts"] * 2 + ["nasbench201"] * 2
    for index in range(4):
        assert len(read_jsonl(version / str(index) / "search" / "metrics.jsonl")) == 1
        assert (
            read_yaml(version / str(index) / "search" / "architecture.yaml")["schema_version"] == 1
        )
    lines = (version / "methods.csv").read_text().splitlines()
    assert lines[0].startswith("method,seed 1,seed 2,n,mean,std,difference,standard error,p")
    assert [line.split(",")[0] for line in lines[1:]] == ["space=darts", "space=nasbench201"]
    assert "Methods and seeds" in (version / "report.html").read_text()
    assert "element 2: space=nasbench201 seed=1" in done.out + done.err
    assert cli.main(argv) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    assert [p.name for p in version.parent.iterdir() if p.is_dir()] == ["V001"]


def test_a_plugin_operation_is_searched_from_outside_the_tree(tmp_path: Path) -> None:
    (tmp_path / "my_nas.py").write_text(
        "from torch import nn\n"
        "from darts_core.ops import register_op\n"
        "@register_op('my_conv', description='a 1x1 convolution')\n"
        "class MyConv(nn.Module):\n"
        "    def __init__(self, channels, stride, *, affine=True):\n"
        "        super().__init__()\n"
        "        self.conv = nn.Conv2d(channels, channels, 1, stride)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x)\n"
    )
    (tmp_path / "my_conf" / "space").mkdir(parents=True)
    (tmp_path / "my_conf" / "space" / "mine.yaml").write_text(
        "name: nasbench201\nops: [none, skip_connect, my_conv]\ndescription: mine\n"
    )
    done = command(tmp_path, "search", "--config-dir", "my_conf", "plugins=[my_nas]",
                   "space=mine", "job=mine", *TINY)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = read_json(tmp_path / "runs" / "mine" / "V001" / "search" / "result.json")
    assert result["ops"] == ["none", "skip_connect", "my_conv"]


def test_a_search_is_followed_by_a_training_in_the_same_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", "space=nasbench201", *TINY]) == 0
    said = capsys.readouterr().err
    assert "about" in said
    assert "MiB" in said
    argv = [
        "train",
        "job=digits-nasbench201",
        "train.channels=4",
        "train.layers=1",
        "train.epochs=1",
    ]
    assert cli.main(argv) == 0
    said = capsys.readouterr().err
    version = tmp_path / "runs" / "digits-nasbench201" / "V001"
    result = read_json(version / "train" / "result.json")
    assert 0.0 <= result["val_accuracy"] <= 1.0
    assert result["params"] > 0
    assert (version / "train" / "model.pt").is_file()
    assert "the test split of digits is read (1)" in said
    assert "(2)" not in said


def test_several_seeds_give_one_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["search", "space=nasbench201", "seeds=2", *TINY]) == 0
    version = tmp_path / "runs" / "digits-nasbench201" / "V001"
    assert read_json(version / "seed1" / "search" / "result.json")["seed"] == 1
    assert "val_accuracy" in read_json(version / "seeds.json")
    assert "</html>" in (version / "report.html").read_text()


def test_a_reader_that_stops_reading_gets_no_complaint() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from darts_core.cli import main; sys.exit(main())",
                "--help",
            ],
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("names", [("stdout",), ("stdout", "stderr")])
def test_who_stops_a_command_and_its_reader_at_once_gets_no_complaint(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends `| tee` and `2>&1 | tee` too; Python's flush at exit would make of 130 a 120."""

    def stopped(argv: list[str]) -> int:
        print("a table")
        raise KeyboardInterrupt

    read_end, write_end = os.pipe()
    os.close(read_end)
    # stderr writes each line at once
    streams = {
        name: os.fdopen(os.dup(write_end), "w", 1 if name == "stderr" else -1, encoding="utf-8")
        for name in names
    }
    os.close(write_end)
    with monkeypatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        patch.setattr(cli, "_dispatch", stopped)
        assert cli.main(["jobs"]) == 130
    for stream in streams.values():
        stream.close()  # as at exit


def test_a_package_that_is_missing_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after `pip install --no-deps`, which keeps a torch of one's own."""

    def needs(argv: list[str]) -> int:
        import kornia  # noqa: F401

        return 0

    monkeypatch.setattr(cli, "_dispatch", needs)
    monkeypatch.setitem(sys.modules, "kornia", None)
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == (
        "darts-core: darts-core needs kornia, which is not installed here: pip install kornia; "
        "`darts-core doctor` tells all that is missing.\n"
    )


def test_a_folder_that_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    assert cli.main(["list", "baselines"]) == 2
    assert "The current folder has been deleted" in capsys.readouterr().err


def test_a_pipe_that_breaks_elsewhere_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one to a decoder that a plugin's data set started: status 141 alone would be silence."""

    def broken(argv: list[str]) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(cli, "_dispatch", broken)
    monkeypatch.setattr("darts_core.crash.write_crash_report", lambda error, argv: None)
    with open(os.devnull, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert cli.main(["train"]) == 1
    assert "unexpected BrokenPipeError: [Errno 32] Broken pipe" in capsys.readouterr().err


def test_a_command_without_standard_streams_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("stdin", "stdout", "stderr")
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(sys, name, None)
        statuses = [cli.main(["--version"]), cli.main(["lst"])]
        for name in names:
            getattr(sys, name).close()
    assert statuses == [0, 2]
