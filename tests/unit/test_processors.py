"""How many processors a process may use: those it is bound to, and what the quota of a container gives."""

import os

import pytest

from darts_core import cli, control_groups, processors
from darts_core.processors import keep_threads_within_quota, usable_processors
from darts_core.study.resources import device_share, pin_worker

VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "DARTS_QUOTA_THREADS",
)  # fmt: skip

# groups, files of their folders, processors of eight
CONTAINERS = {
    "version 2": ("0::/", {"cpu.max": "200000 100000"}, 2),
    "half a processor": ("0::/", {"cpu.max": "50000 100000"}, 1),
    "one and a half": ("0::/", {"cpu.max": "150000 100000"}, 2),
    "no limit": ("0::/", {"cpu.max": "max 100000"}, 8),
    "more than there are": ("0::/", {"cpu.max": "6400000 100000"}, 8),
    "a parent's limit": (
        "0::/pod/one",
        {"pod/one/cpu.max": "max 100000", "pod/cpu.max": "300000 100000"},
        3,
    ),
    "version 1, the host's path": (
        "4:cpu,cpuacct:/docker/x",
        {"cpu/cpu.cfs_quota_us": 400000, "cpu/cpu.cfs_period_us": 100000},
        4,
    ),
    "version 1, no limit": (
        "4:cpu,cpuacct:/",
        {"cpu/cpu.cfs_quota_us": -1, "cpu/cpu.cfs_period_us": 100000},
        8,
    ),
    "no files": ("0::/", {}, 8),
}


@pytest.fixture(params=CONTAINERS)
def container(request, tmp_path, monkeypatch):
    groups, files, expected = CONTAINERS[request.param]
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(f"{groups}\n")
    for file, value in files.items():
        place = tmp_path / "sys" / "fs" / "cgroup" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"{value}\n")
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    monkeypatch.setattr(processors, "_allowed", lambda: 8)
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # remembers what to go back to
        monkeypatch.delenv(name)
    return expected


def test_the_quota_of_a_container_counts(container):
    assert usable_processors() == container


def test_there_are_as_many_threads_as_the_quota_gives_unless_a_number_is_set(
    container, monkeypatch
):
    keep_threads_within_quota()
    expected = None if container == 8 else str(container)
    assert os.environ.get("OMP_NUM_THREADS") == expected
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    keep_threads_within_quota()
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_trials_side_by_side_have_one_thread_each_below_a_quota_too(container, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    keep_threads_within_quota()
    assert device_share(container) == 1.0
    pin_worker(0)
    assert [os.environ[name] for name in VARIABLES[:3]] == ["1"] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # a number that was asked for
    pin_worker(0)
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert device_share(container * 5) == max(1, container // 5) / (container * 5)


def test_a_command_keeps_to_the_quota_and_doctor_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "sys" / "fs" / "cgroup").mkdir(parents=True)
    (tmp_path / "sys" / "fs" / "cgroup" / "cpu.max").write_text("300000 100000\n")
    monkeypatch.setattr(control_groups, "_ROOT", tmp_path)
    monkeypatch.setattr(processors, "_allowed", lambda: 64)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # remembers what to go back to
        monkeypatch.delenv(name)
    assert cli.main(["doctor"]) == 0
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "CPU: 64 cores (3 for this process), " in capsys.readouterr().out
