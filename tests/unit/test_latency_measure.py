"""The timer: what it returns, what it refuses, and that nothing of ours runs beside it."""

import itertools
import os
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import torch
from latency_cases import FAST, Clock, row
from torch import nn

from darts_core.errors import DeviceError, LatencyError
from darts_core.latency import (
    Timing,
    device_lock,
    device_name,
    measure,
    measure_model,
    quick_ms,
    require_comparable,
    speedup,
)
from darts_core.latency import device as device_module
from darts_core.latency.clock import ModelClock
from darts_core.latency.deployed import without_norms
from darts_core.modes import evaluating
from darts_core.supernet import count


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_measures_a_real_duration():
    found = measure(lambda: time.sleep(0.003), **FAST)
    assert 3.0 <= found.q05_ms <= found.median_ms <= found.q95_ms
    assert found.n >= 5
    assert found.device == device_name("cpu")
    assert found.threads == torch.get_num_threads()
    assert found.versions["torch"] == version("torch")


def test_median_and_quantiles_are_those_of_the_samples(clock):
    durations = itertools.cycle([0.001] * 2 + [0.003] * 16 + [0.009] * 2)
    found = measure(
        lambda: clock.sleep(next(durations)), repeats=200, warmup_seconds=0.0, max_seconds=10.0
    )
    assert found.n == 200
    assert (found.q05_ms, found.median_ms, found.q95_ms) == pytest.approx((1.0, 3.0, 9.0))


def test_short_calls_are_timed_in_bundles(clock):
    calls = 0

    def tiny() -> None:
        nonlocal calls
        calls += 1
        clock.sleep(1e-6)

    found = measure(tiny, repeats=5, **FAST)
    assert found.median_ms == pytest.approx(1e-3)
    assert calls >= 100 * found.n


def test_warm_up_leaves_slow_first_calls_out(clock):
    calls = 0

    def compiling() -> None:
        nonlocal calls
        calls += 1
        clock.sleep(0.05 if calls <= 2 else 0.001)

    found = measure(compiling, repeats=5, **FAST)
    assert (found.median_ms, found.q95_ms) == pytest.approx((1.0, 1.0))


def test_quick_ms_is_the_median_of_a_call(clock):
    durations = itertools.cycle([0.002, 0.002, 0.02])
    assert quick_ms(lambda: clock.sleep(next(durations)), seconds=0.1) == pytest.approx(2.0)


def test_row_survives_a_file_and_newer_ones_are_refused():
    found = measure(lambda: None, repeats=5, runtime="onnx", batch=7, **FAST)
    assert Timing.from_dict(found.to_dict()) == found
    with pytest.raises(LatencyError, match="schema_version 99"):
        Timing.from_dict(found.to_dict() | {"schema_version": 99})
    with pytest.raises(LatencyError, match="incomplete"):
        Timing.from_dict({"schema_version": 1})


def test_rows_of_two_devices_are_not_compared():
    assert speedup(row(), row(median_ms=1.0)) == 2.0
    with pytest.raises(LatencyError, match=r"card A.*card B"):
        speedup(row(), row(device="card B"))
    with pytest.raises(LatencyError, match="1 threads"):
        require_comparable([row(threads=2), row(threads=1)])


def test_foreign_load_flags_the_row(monkeypatch):
    monkeypatch.setattr(device_module.Load, "foreign", lambda self: 1.5)
    found = measure(lambda: None, repeats=5, **FAST)
    assert found.flagged
    assert "1.5 cores" in found.flag_reason
    monkeypatch.setattr(device_module.Load, "foreign", lambda self: 0.0)
    assert not measure(lambda: None, repeats=5, **FAST).flagged


def test_foreign_load_sees_another_process():
    load = device_module.Load()
    subprocess.run([sys.executable, "-c", "sum(range(10**7))"], check=True)
    assert load.foreign() > 0.1


def test_only_the_cores_of_a_pinned_timing_count():
    text = (
        "cpu  70 0 7 900 5 0 1 0\n"
        "cpu0 40 1 4 500 5 2 1 9\n"
        "cpu1 30 0 3 400 0 0 0 0\n"
        "cpu10 5000 0 0 0 0 0 0 0\n"
        "intr 12 0\n\n"
    )
    assert device_module.busy_ticks(text, {0}) == 40 + 1 + 4 + 2 + 1
    assert device_module.busy_ticks(text, {0, 1}) == 48 + 33
    assert device_module.busy_ticks(text, set()) == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"repeats": 2}, LatencyError, "repeats=2"),
        ({"graph": True}, LatencyError, "CUDA graph"),
        ({"device": "nonsense"}, DeviceError, "nonsense"),
        ({"device": "meta"}, DeviceError, "meta"),
        ({"threads": 0}, LatencyError, "1 thread"),
    ],
)
def test_refusals(options, error, text):
    with pytest.raises(error, match=text):
        measure(lambda: None, **FAST, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_absent_gpu_is_named():
    with pytest.raises(DeviceError, match=r"device=cuda:0 is not there.*device=cpu"):
        measure(lambda: None, device="cuda:0")


def test_lock_is_reentrant_and_exclusive():
    code = (
        "from darts_core.latency import device_lock\n"
        "from darts_core.errors import LatencyError\n"
        "try:\n"
        "    with device_lock('cpu', wait_seconds=0.1):\n"
        "        print('got it')\n"
        "except LatencyError as error:\n"
        "    print('refused', error)\n"
    )
    with device_lock("cpu"), device_lock("cpu"):
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert held.stdout.startswith("refused Another process")
    assert measure(lambda: None, repeats=5, **FAST).n >= 5


def test_threads_and_affinity_are_restored():
    before, cores = torch.get_num_threads(), os.sched_getaffinity(0)
    for threads in (1, before + 1):
        found = measure(lambda: None, repeats=5, threads=threads, **FAST)
        assert found.threads == threads
        assert (torch.get_num_threads(), os.sched_getaffinity(0)) == (before, cores)


def test_model_rows_for_both_batches_leave_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    model[1].eval()  # as whoever fine-tunes holds norms fast
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = measure_model(model, (3, 8, 8), repeats=5, **FAST)
    assert sorted(rows) == [1, 32]
    assert [rows[size].batch for size in (1, 32)] == [1, 32]
    count(model, (3, 8, 8))
    assert [module.training for module in model.modules()] == [True, True, False]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(LatencyError, match="tensorrt"):
        measure_model(model, (3, 8, 8), runtime="tensorrt")
    with pytest.raises(LatencyError, match="channels, height, width"):
        measure_model(model, (1, 3, 8, 8))


def test_a_network_that_is_not_timed_stays_where_and_as_it_was(monkeypatch):
    module = sys.modules[
        "darts_core.latency.measure"
    ]  # the package's name for it is the function's
    monkeypatch.setattr(module, "require_device", lambda _: torch.device("meta"))
    model = nn.Linear(3, 3).train()
    with pytest.raises(LatencyError, match="is timed on a CPU, not on meta"):
        measure_model(model, (3,), runtime="onnx")
    assert model.training
    assert model.weight.device.type == "cpu"


def test_constants_without_parameters_go_back_to_where_they_were():
    model = nn.Module()
    # no tensor can be moved from there to a CPU, which was taken for its home
    model.register_buffer("grid", torch.zeros(2, device="meta"))
    with evaluating(model, "meta"):
        assert not model.training
    assert (model.training, model.grid.device.type) == (True, "meta")


def test_a_network_whose_weight_is_derived_is_made_ready_as_it_was_made():
    torch.manual_seed(0)
    model = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 8, 3)), nn.BatchNorm2d(8)).eval()
    assert not model[0].weight.is_leaf
    run = ModelClock((3, 8, 8), torch.device("cpu"), batch=2, runtime="eager").ready(model)
    assert run().shape == (2, 8, 6, 6)
    assert isinstance(without_norms(model, torch.randn(2, 3, 8, 8))[1], nn.Identity)
