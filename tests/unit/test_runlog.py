"""Files of a run: they appear whole or not at all, and a full disk names the file."""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch

from darts_core import runlog
from darts_core.checkpoint import load_checkpoint, save_checkpoint, taking_over
from darts_core.commands.logs import configure_logging
from darts_core.errors import ConfigError, ResumeError
from darts_core.runlog import RunFolder, read_json, read_jsonl, write_json


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, checkpoint = tmp_path / "note.json", tmp_path / "checkpoint.pt"
    write_json(note, {"old": 1})
    save_checkpoint(checkpoint, {"old": torch.ones(2)})
    run = RunFolder(tmp_path, tensorboard=False)
    run.log_metrics(0, loss=1.0)
    monkeypatch.setattr(runlog.os, "fsync", full)
    for path, write in (
        (note, lambda: write_json(note, {"new": 2})),
        (checkpoint, lambda: save_checkpoint(checkpoint, {"new": torch.zeros(2)})),
        (run.metrics_path, lambda: run.log_metrics(1, loss=0.5)),
    ):
        with pytest.raises(OSError, match="No space left") as caught:
            write()
        assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert read_json(note) == {"old": 1}
    assert "old" in load_checkpoint(checkpoint)
    assert read_jsonl(run.metrics_path)[0]["loss"] == 1.0
    assert {p.name for p in tmp_path.iterdir()} == {"note.json", "checkpoint.pt", "metrics.jsonl"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_behind_torchs_own_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    temporary = tmp_path / f".checkpoint.pt.{os.getpid()}.tmp"
    temporary.symlink_to("/dev/full")
    with pytest.raises((OSError, RuntimeError)) as caught:
        save_checkpoint(path, {"big": torch.zeros(100_000)})
    seen: BaseException | None = caught.value
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    assert isinstance(seen, OSError)
    assert (seen.errno, seen.filename) == (errno.ENOSPC, str(path))
    assert list(tmp_path.iterdir()) == []


def test_what_a_finished_stage_ran_on_stays_when_it_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that goes on after an update asks each stage that has finished for its result."""
    kept = tmp_path / "environment.json"
    for commit in ("begun", "went on"):
        monkeypatch.setattr(runlog, "environment", lambda commit=commit: {"commit": commit})
        run = RunFolder.create(tmp_path, {"seed": 1}, tensorboard=False)
        assert read_json(kept) == {"commit": commit}
    run.finish(loss=0.5)
    monkeypatch.setattr(runlog, "environment", lambda: {"commit": "later"})
    assert RunFolder.create(tmp_path, {"seed": 1}, tensorboard=False).result()["loss"] == 0.5
    assert read_json(kept) == {"commit": "went on"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_log_that_cannot_be_written_adds_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    log = logging.getLogger("darts_core")
    before = list(log.handlers)
    try:
        configure_logging(tmp_path)
        log.info("a line")
        assert capsys.readouterr().err == "a line\n"
    finally:
        for handler in set(log.handlers) - set(before):
            log.removeHandler(handler)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_events_that_cannot_be_written_raise_in_the_caller_and_print_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runlog.threading, "excepthook", runlog.threading.__excepthook__)
    run = RunFolder(tmp_path)
    writer = run.tensorboard._get_file_writer().event_writer
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.unlink()
    events.symlink_to("/dev/full")

    def log_and_flush() -> None:
        for epoch in range(100):
            run.log_metrics(epoch, loss=1.0)
            writer.flush()

    with pytest.raises(OSError, match="No space left"):
        log_and_flush()
    assert "Traceback" not in capsys.readouterr().err


def test_a_checkpoint_holds_only_what_can_be_read_again(tmp_path: Path) -> None:
    """The state of a guard or a strategy of the user's own is often of numpy."""
    path = tmp_path / "checkpoint.pt"
    state = torch.nn.Linear(1, 1).state_dict()
    mine = {
        "seen": np.float64(1.5),
        np.int64(2): [np.int64(3), (True, None)],
        "size": state["bias"].shape,
    }
    save_checkpoint(path, {"guards": {"mine": mine}, "state": state})
    found = load_checkpoint(path)
    assert found["guards"] == {"mine": {"seen": 1.5, 2: [3, (True, None)], "size": (1,)}}
    assert type(found["guards"]["mine"]["seen"]) is float
    assert found["state"]._metadata == state._metadata
    for lost in (np.zeros(2), Path("a"), deque([1])):
        kept = path.read_bytes()
        with pytest.raises(ConfigError, match=rf"guards\.mine\.best is a .*{type(lost).__name__}"):
            save_checkpoint(path, {"guards": {"mine": {"best": lost}}})
        assert path.read_bytes() == kept


@pytest.mark.parametrize("torn", ['{"epoch": 1, "lo', "x" * 10_000])
def test_a_line_cut_off_does_not_spoil_the_next_one(tmp_path: Path, torn: str) -> None:
    run = RunFolder(tmp_path, tensorboard=False)
    run.log_metrics(0, loss=1.0)
    with run.metrics_path.open("a", encoding="utf-8") as stream:
        stream.write(torn)
    run.log_metrics(1, loss=0.5)
    assert [line.count("epoch") for line in run.metrics_path.read_text().splitlines()] == [1, 1]
    assert [row["loss"] for row in run.metrics()] == [1.0, 0.5]
    run.metrics_path.write_text(torn, encoding="utf-8")
    run.log_metrics(0, loss=2.0)
    assert [row["loss"] for row in run.metrics()] == [2.0]


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "out of memory"),
        (MemoryError(), MemoryError, "^$"),
        (PermissionError(errno.EACCES, "Permission denied"), ResumeError, "Permission denied"),
        (OSError(errno.EIO, "Input/output error"), ResumeError, "Input/output error"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_here_and_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, says: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"epoch": 1})

    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(kind, match=says) as caught:
        load_checkpoint(path)
    assert "damaged" not in str(caught.value)
    assert "move it away" not in str(caught.value)


def test_too_little_memory_for_what_a_file_holds_does_not_make_the_file_damaged() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"), taking_over("model.pt"):
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        )
