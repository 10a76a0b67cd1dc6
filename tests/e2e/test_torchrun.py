"""Searches and trainings in two processes by command: one writes; killed, they go on as if never stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darts_core import cli
from darts_core.checkpoint import load_checkpoint
from darts_core.commands.ranks import Ranks, current_ranks, lost_process_told
from darts_core.distributed import Group
from darts_core.errors import ConfigError, DeviceError
from darts_core.runlog import read_json, read_jsonl
from darts_core.stages.interrupt import check_stop
from darts_core.stages.schema import (
    Pipeline,
    PruneStage,
    SearchStage,
    ShrinkStage,
    TrainStage,
    TuneStage,
)

ROOT = Path(__file__).resolve().parents[2]
SEARCH = ["search", "data=digits", "+data.limit=200", "space=nasbench201", "search.epochs=2",
    "search.finalists=1",
          "search.channels=2", "search.layers=1", "search.batch_size=32", "device=cpu",
          "search.checkpoint_every=1"]  # fmt: skip


DATA = ["data=digits", "+data.limit=200", "device=cpu", "train.batch_size=32"]
TRAIN = ["train", *DATA, "architecture=resnet8", "train.channels=4", "train.epochs=3",
         "train.sync_batchnorm=true"]  # fmt: skip
SHRINK = ["shrink", *DATA, "shrink.epochs=3", "shrink.batch=8", "shrink.points=2",
          "shrink.export=false", "shrink.options.looks=8", "shrink.options.val_examples=16",
          "shrink.options.seconds=0.05", "shrink.options.runtime=eager",
          "shrink.options.norm_examples=64"]  # fmt: skip


def torchrun(folder: Path, *argv: str, expected: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "darts_core.cli", *argv],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == expected, done.stdout
    return done.stdout


def rows(folder: Path) -> list[dict[str, object]]:
    found = read_jsonl(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in found]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("two")
    text = torchrun(folder, *SEARCH)
    return folder / "runs" / "digits-nasbench201" / "V001" / "search", text


def test_two_processes_make_one_search_that_one_of_them_reports(
    searched: tuple[Path, str],
) -> None:
    folder, text = searched
    result = read_json(folder / "result.json")
    assert result["processes"] == 2
    assert [row["epoch"] for row in rows(folder)] == [0, 1]
    assert text.count("search epoch 2/2") == 1
    assert text.count("found |") == 1
    assert not (folder.parents[1] / "V002").exists()
    assert "processes" not in (folder / "config.yaml").read_text()


# the first process dies by SIGKILL right after its third checkpoint
FIRST_DIES = (
    "import os, signal, darts_core.search.state as s\n"
    "save, count = s.SearchState.save, [0]\n"
    "def dying(self, path):\n"
    "    save(self, path)\n"
    "    count[0] += 1\n"
    "    if count[0] == 3 and not os.path.exists('died'):\n"
    "        open('died', 'w').close()\n"
    "        os.kill(os.getpid(), signal.SIGKILL)\n"
    "s.SearchState.save = dying\n"
)
# the other one in the middle of the second epoch, while the first waits for its gradients
OTHER_DIES = (
    "import os, signal, darts_core.distributed.group as d\n"
    "average, count = d.Group.average, [0]\n"
    "def dying(self, gradients):\n"
    "    average(self, gradients)\n"
    "    count[0] += 1\n"
    "    if os.environ['RANK'] == '1' and count[0] == 7 and not os.path.exists('died'):\n"
    "        open('died', 'w').close()\n"
    "        os.kill(os.getpid(), signal.SIGKILL)\n"
    "d.Group.average = dying\n"
)
# the same two of a training, whose first process writes once an epoch
FIRST_OF_TRAINING_DIES = FIRST_DIES.replace("search.state", "train.trainer").replace(
    "SearchState", "Trainer"
).replace("(self, path)", "(self, path, epoch)").replace("== 3", "== 2")  # fmt: skip
OTHER_OF_TRAINING_DIES = OTHER_DIES.replace("average", "sum_gradients")


@pytest.mark.full
@pytest.mark.parametrize("plugin", [FIRST_DIES, OTHER_DIES], ids=["first", "other"])
def test_it_goes_on_after_a_kill_and_is_finished_once(
    searched: tuple[Path, str], tmp_path: Path, plugin: str
) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "stop.py").write_text(plugin)
    argv = [*SEARCH, "plugins=[stop]"]
    text = torchrun(folder, *argv, expected=1)
    found = folder / "runs" / "digits-nasbench201" / "V001" / "search"
    assert (folder / "died").exists()
    assert not (found / "result.json").exists()
    text = torchrun(folder, *argv)
    assert text.count("resumed from") == 1
    assert rows(found) == rows(searched[0])
    first, second = (load_checkpoint(p / "checkpoint.pt")["supernet"] for p in (found, searched[0]))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "is finished" in torchrun(folder, *argv)


@pytest.mark.full
def test_synchronised_norms_give_the_search_and_the_finalists_of_one_process(
    tmp_path: Path,
) -> None:
    several = ["search.finalists=3", "search.finalist_epochs=2"]
    argv = [a for a in SEARCH if a != "search.finalists=1"] + several
    argv += ["search.sync_batchnorm=true", "search.evaluate=false"]
    torchrun(tmp_path, *argv)
    alone = [a for a in argv if a != "search.sync_batchnorm=true"]
    command = [sys.executable, "-m", "darts_core.cli", *alone, "search.path=plain"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=900)
    both = [
        rows(tmp_path / "runs" / "digits-nasbench201" / name / "search")
        for name in ("V001", "V002")
    ]
    for two, one in zip(*both, strict=True):
        for a, b in zip(two["alphas"]["cell"], one["alphas"]["cell"], strict=True):  # type: ignore[index]
            assert a == pytest.approx(b, abs=2e-4)
        assert two["architecture"] == one["architecture"]
    # finalists are trained by the first process, after the others have left
    told = [read_json(tmp_path / "runs" / "digits-nasbench201" / name / "search" / "result.json")
            for name in ("V001", "V002")]  # fmt: skip
    bracket = [
        [(r["architecture"], r["source"], r["val_loss"]) for r in result["finalists"]["bracket"]]
        for result in told
    ]
    assert len(bracket[0]) == 3
    assert bracket[0] == bracket[1]
    assert told[0]["text"] == told[1]["text"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("trained")
    text = torchrun(folder, *TRAIN)
    return folder / "runs" / "digits-resnet8" / "V001" / "train", text


@pytest.fixture(scope="module")
def shrunk(trained: tuple[Path, str]) -> Path:
    folder = trained[0].parents[3]
    torchrun(folder, *SHRINK, f"model={trained[0] / 'model.pt'}", "job=small")
    return folder / "runs" / "small" / "V001" / "shrink"


@pytest.mark.full
def test_a_training_in_two_processes_is_that_of_one(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    folder, text = trained
    result = read_json(folder / "result.json")
    assert result["processes"] == 2
    assert text.count("epoch 3/3") == 1
    assert text.count("trained: val") == 1
    command = [sys.executable, "-m", "darts_core.cli", *TRAIN]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=900)
    alone = tmp_path / "runs" / "digits-resnet8" / "V001" / "train"
    for two, one in zip(rows(folder), rows(alone), strict=True):
        assert two == pytest.approx(one, rel=1e-3)
    params = [load_checkpoint(at / "checkpoint.pt")["model"] for at in (folder, alone)]
    for name, value in params[0].items():
        torch.testing.assert_close(value, params[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.full
@pytest.mark.parametrize(
    "plugin", [FIRST_OF_TRAINING_DIES, OTHER_OF_TRAINING_DIES], ids=["first", "other"]
)
@pytest.mark.parametrize("stage", ["train", "shrink"])
def test_a_training_goes_on_after_a_kill(
    trained: tuple[Path, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    stage: str,
    plugin: str,
) -> None:
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "stop.py").write_text(plugin)
    if stage == "train":
        whole, argv, name = trained[0], TRAIN, "digits-resnet8"
    else:
        whole, name = request.getfixturevalue("shrunk"), "small"
        argv = [*SHRINK, f"model={trained[0] / 'model.pt'}", "job=small"]
    argv = [*argv, "plugins=[stop]"]
    torchrun(folder, *argv, expected=1)
    found = folder / "runs" / name / "V001" / stage
    assert (folder / "died").exists()
    assert not (found / "result.json").exists()
    text = torchrun(folder, *argv)
    assert text.count("resuming from") == 1
    assert rows(found) == rows(whole)
    first, second = (load_checkpoint(p / "checkpoint.pt")["model"] for p in (found, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert "is finished" in torchrun(folder, *argv)


def test_the_end_of_another_process_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="closed by peer"), lost_process_told():
        raise lost
    monkeypatch.setattr("darts_core.commands.ranks._joined", True)
    with pytest.raises(DeviceError, match="the same command goes on"), lost_process_told():
        raise lost
    with pytest.raises(DeviceError, match="has ended"), lost_process_told():
        raise torch.distributed.DistBackendError("NCCL communicator was aborted")
    with pytest.raises(RuntimeError, match="shapes"), lost_process_told():
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("told", ["first", "other"])
def test_all_processes_stop_after_the_epoch_in_which_one_is_told(
    monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """Stand-ins for two processes of which one has got a signal."""
    group = Group(0, 2, torch.device("cpu"))
    monkeypatch.setattr(Group, "agree", lambda self, value: value or told == "other")
    monkeypatch.setattr("darts_core.stages.interrupt.stop_wanted", lambda: told == "first")
    with pytest.raises(KeyboardInterrupt, match="a checkpoint is saved"):
        check_stop(group)


def test_what_several_processes_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert current_ranks() is None
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("TORCHELASTIC_RUN_ID", "none")):
        monkeypatch.setenv(name, value)
    ranks = current_ranks()
    assert ranks == Ranks(1, 2)
    assert ranks is not None
    assert not ranks.first
    for shared in (SearchStage(), TrainStage(), ShrinkStage()):
        ranks.check(shared, multirun=False)
    for config, multirun in (
        (TuneStage(), False),
        (PruneStage(), False),
        (Pipeline(), False),
        (SearchStage(), True),
        (TrainStage(), True),
        (SearchStage(seeds=3), False),
        (SearchStage(device="cuda:1"), False),
    ):
        with pytest.raises(ConfigError):
            ranks.check(config, multirun=multirun)
    # all processes refuse the same settings; the first one says so
    for rank, count in (("1", 0), ("0", 1)):
        monkeypatch.setenv("RANK", rank)
        assert cli.main(["prune", "device=cpu"]) == 2
        assert (
            capsys.readouterr().err.count("torchrun is for `darts-core search, train, shrink`")
            == count
        )
    assert ranks.command_line("darts-core search seed=1").endswith("cli search seed=1")
    monkeypatch.setenv("RANK", "one")
    with pytest.raises(ConfigError, match="RANK"):
        current_ranks()
