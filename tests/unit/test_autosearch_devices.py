"""The devices that a job waits for before its trials begin."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from darts_core.autosearch import engine
from darts_core.autosearch.engine import _Resources, _Runner
from darts_core.autosearch.request import COMMAND
from darts_core.autosearch.trials import GIVEN_GPU, gpu_name
from darts_core.store.jobs import Store
from darts_core.store.locks import FileLock, device_lock_path
from darts_core.store.record import new_record


def waiting(root, devices):
    """A job that is to stop as soon as it would have to wait."""
    stop = SimpleNamespace(exists=lambda: True)
    return SimpleNamespace(
        store=SimpleNamespace(root=root),
        version=SimpleNamespace(stop_file=stop),
        request={"devices": devices},
    )


@pytest.mark.parametrize("devices", [["cpu", "cpu:0"], ["cpu:0", "cpu", "cpu:1"], None])
def test_two_names_of_one_device_are_not_waited_for_twice(tmp_path, devices):
    locks = _Runner.wait_for_devices(waiting(tmp_path, devices))
    assert locks is not None
    names = {device_lock_path(tmp_path, device) for device in devices or ["cpu"]}
    assert [lock.path for lock in locks] == sorted(names)
    for lock in locks:
        lock.release()


def test_a_device_that_another_job_holds_is_waited_for(tmp_path):
    other = FileLock(device_lock_path(tmp_path, "cpu:1"))
    assert other.try_acquire()
    assert _Runner.wait_for_devices(waiting(tmp_path, ["cpu", "cpu:1"])) is None
    # what was taken already is free again
    assert FileLock(device_lock_path(tmp_path, "cpu")).try_acquire()
    other.release()


def test_a_search_that_is_interrupted_while_it_waits_keeps_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    other = FileLock(device_lock_path(tmp_path, "cpu:1"))
    assert other.try_acquire()
    runner = waiting(tmp_path, ["cpu", "cpu:1"])
    runner.version.stop_file.exists = interrupted
    with pytest.raises(KeyboardInterrupt):
        _Runner.wait_for_devices(runner)
    assert FileLock(device_lock_path(tmp_path, "cpu")).try_acquire()
    other.release()

    # nor does its version go on as queued by a process that lives on: jobs stop would end that
    store = Store(tmp_path)
    store.create_job("mine", kind="script")
    command = {"state": "queued", "mark": "m", "request": {}}
    with store.new_version("mine", new_record("script", commands={COMMAND: command})):
        pass
    version = store.version("mine")
    keeper = SimpleNamespace(kill=lambda: None, wait=lambda: None)
    monkeypatch.setattr(engine, "start_keeper", lambda mark: keeper)
    monkeypatch.setattr(engine.procs, "end_tree", lambda *_, **__: True)
    monkeypatch.setattr(_Runner, "wait_for_devices", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.run_version(store, version)
    assert (version.state(), version.process()) == ("interrupted", None)
    assert version.lock.try_acquire()


def test_a_trial_is_shown_the_gpu_that_its_device_names_here(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5a")
    names = [gpu_name(device) for device in ("cuda:0", "cuda", "cuda:1", "cpu:1", GIVEN_GPU)]
    assert names == ["2", "2", "GPU-5a", "", None]


def test_the_gpus_of_a_container_are_counted_from_0(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    files = [Path("/dev/nvidia5"), Path("/dev/nvidia7")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(files))
    assert [gpu_name(device) for device in ("cuda", "cuda:1")] == ["0", "1"]


def test_the_use_of_a_gpu_is_noted_also_where_it_is_not_named_first(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    for devices, tool in ((("cpu", "cuda:0"), "nvidia-smi"), (("cpu",), None)):
        assert _Resources(tmp_path / "r.jsonl", SimpleNamespace(devices=devices))._tool == tool


def test_a_gpu_that_does_not_tell_its_memory_ends_no_job(tmp_path, monkeypatch):
    resources = _Resources(tmp_path / "r.jsonl", SimpleNamespace(devices=("cpu",)))
    resources._tool = "nvidia-smi"
    # a GPU with the host's memory; one cut into parts; a common one
    printed = SimpleNamespace(stdout="35, [N/A]\n[N/A], 512\n40, 512\n")
    monkeypatch.setattr("subprocess.run", lambda *a, **k: printed)
    assert resources._gpu() == [{"percent": 40.0, "memory_mib": 512.0}]
