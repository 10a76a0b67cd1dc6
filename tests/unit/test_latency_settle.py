"""How long a call's threads keep the cores after it, and who waits for them."""

from __future__ import annotations

import time

import onnxruntime
import pytest
import torch
from torch import nn

from darts_core.latency import table as table_module
from darts_core.latency import turns as turns_module
from darts_core.latency.clock import ModelClock
from darts_core.latency.deployed import in_runtime, settle_seconds
from darts_core.latency.rows import Group
from darts_core.latency.samples import SETTLE_SECONDS
from darts_core.latency.table import fill_table, open_table
from darts_core.latency.turns import in_turn

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("version", "seconds"),
    [("1.32.0", 0.005), ("1.40.1", 0.005), ("2.0", 0.005), ("1.31.2", SETTLE_SECONDS)],
)
def test_only_a_runtime_that_heeds_the_setting_needs_no_long_pause(
    version: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    assert settle_seconds("onnx") == seconds
    assert settle_seconds("eager") == SETTLE_SECONDS


@pytest.mark.skipif(settle_seconds("onnx") == SETTLE_SECONDS, reason="an older ONNX Runtime")
def test_the_threads_of_a_session_that_is_timed_sleep_soon() -> None:
    net, x = (
        nn.Sequential(nn.Conv2d(16, 64, 3), nn.ReLU(), nn.Conv2d(64, 16, 1)),
        torch.rand(32, 16, 8, 8),
    )
    call = in_runtime(net.eval(), x, "onnx", threads=2)
    least = 1.0
    for _ in range(3):
        call()
        time.sleep(settle_seconds("onnx"))
        before = time.process_time() - time.thread_time()
        time.sleep(0.02)
        least = min(least, time.process_time() - time.thread_time() - before)
    # by itself a session's other thread would take all of it
    assert least < 0.01


@pytest.mark.parametrize(
    ("runtime", "threads", "settle"), [("onnx", 2, 0.005), ("onnx", 1, 0.0), ("eager", 2, 0.0)]
)
def test_rows_of_a_table_wait_for_the_threads_of_others(
    runtime: str, threads: int, settle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def time_group(*_: object, settle: float, **__: object) -> tuple[dict[str, float], bool]:
        waited.append(settle)
        return {"a": 1.0}, False

    monkeypatch.setattr(onnxruntime, "__version__", "1.32.0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(table_module, "groups_of", lambda *_: [Group()])
    monkeypatch.setattr(table_module, "time_group", time_group)
    table = open_table(None, CPU, runtime, torch.float32)
    fill_table(table, {"a": None}, path=None, device=CPU)  # type: ignore[dict-item]
    assert (table.rows, waited) == ({"a": 1.0}, [settle])


@pytest.mark.parametrize(("threads", "settle"), [(2, 0.005), (1, 0.0)])
def test_networks_in_turn_wait_for_each_other(
    threads: int, settle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = set()

    class Sampler:
        def __init__(self, call: object, *_: object) -> None:
            self.ms = float(call)  # type: ignore[arg-type]

        def block(self, _seconds: float, settle: float, _least: int) -> float:
            waited.add(settle)
            return self.ms

    monkeypatch.setattr(onnxruntime, "__version__", "1.32.0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(turns_module, "Sampler", Sampler)
    clock = ModelClock((1, 8, 8), CPU, runtime="onnx")
    monkeypatch.setattr(clock, "ready", lambda network: network)
    assert clock.ratios([1.0, 2.0], 4.0, 3) == [[0.25] * 3, [0.5] * 3]  # type: ignore[list-item,arg-type]
    assert waited == {settle}
    # of calls of another kind nothing is known
    in_turn(1.0, rounds=1)  # type: ignore[arg-type]
    assert waited == {settle, SETTLE_SECONDS if threads > 1 else 0.0}
