"""The timer: what it returns, what it refuses, and that nothing of ours runs beside it."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
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
from darts_core.latency import turns as turns_module
from darts_core.latency.clock import ModelClock
from darts_core.latency.steady import levelled
from darts_core.latency.turns import added_in_turn, clock_in_turn, in_turn

FAST = {"warmup_seconds": 0.02, "max_seconds": 0.1}


def row(**changes) -> Timing:
    plain = {
        "median_ms": 2.0,
        "q05_ms": 1.0,
        "q95_ms": 3.0,
        "n": 5,
        "device": "card A",
        "threads": None,
    }
    return Timing(**(plain | changes))


class Clock:
    """Time that passes only when the measured call says so: no test depends on the machine's load."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "thread_time", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def sleep(self, seconds):
        self.now += seconds


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


def test_a_difference_survives_a_changing_pace_and_what_spins_on(clock):
    made = []

    def spinning(seconds):
        # the other call's threads keep the cores for 30 ms; the device slows down all the time
        def call():
            if not made or made[-1][0] is not call:
                made.append((call, clock.now))
            slow = 2.0 if clock.now - made[-1][1] < 0.03 else 1.0
            clock.sleep(slow * seconds * (1 + 0.01 * (clock.now - 100.0)))

        return call

    calls = [spinning(0.003), spinning(0.002), spinning(0.009)]
    found = added_in_turn(spinning(0.002), calls, seconds=0.02)
    assert found == pytest.approx([1.0, 0.0, 7.0], rel=0.05, abs=0.05)
    alone = added_in_turn(None, [spinning(0.004)], seconds=0.02, settle=0.06)
    assert alone == pytest.approx([4.0 * (1 + 0.01 * (clock.now - 100.0))], rel=0.05)
    pairs = in_turn(spinning(0.002), spinning(0.006), rounds=5)
    ratios = [b / a for a, b in pairs]
    assert ratios == pytest.approx([3.0] * 5, rel=0.05)


def test_calls_in_turn_run_under_the_devices_lock_on_pinned_threads(clock, monkeypatch):
    seen, bound = [], []

    @contextlib.contextmanager
    def lock(device):
        seen.append(f"lock {device}")
        yield
        seen.append("free")

    monkeypatch.setattr(turns_module, "device_lock", lock)
    monkeypatch.setattr(device_module, "_bind", bound.append)

    def call():
        seen.append(len(bound))
        clock.sleep(0.01)

    in_turn(call, rounds=1, least=1)
    assert (seen[0], seen[-1], set(seen[1:-1])) == ("lock cpu", "free", {1})
    assert [len(cores) for cores in bound] == [
        min(torch.get_num_threads(), len(os.sched_getaffinity(0))),
        len(os.sched_getaffinity(0)),
    ]


def test_calls_on_one_thread_are_compared_by_their_processor_time(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert clock_in_turn(torch.device("cpu")) is time.thread_time
    assert clock_in_turn(torch.device("cuda", 0)) is None
    # the time of more threads is not that of the caller's
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert clock_in_turn(torch.device("cpu")) is None


def test_what_is_sure_is_not_sampled_any_more_and_what_is_not_is_sampled_longer(clock):
    counts = {"steady": 0, "restless": 0}
    paces = itertools.cycle([0.002, 0.004, 0.006, 0.003])

    def steady():
        counts["steady"] += 1
        clock.sleep(0.002)

    def restless():
        if counts["restless"] % 5 == 0:  # another pace in every block of five samples
            restless.pace = next(paces)
        counts["restless"] += 1
        clock.sleep(restless.pace)

    restless.pace = 0.002
    found = added_in_turn(lambda: clock.sleep(0.001), [steady, restless], seconds=0.0, settle=0.0)
    assert found[0] == pytest.approx(1.0)
    assert 1.0 <= found[1] <= 5.0
    # two calls to warm up, then blocks of five
    assert counts == {"steady": 2 + 5 * 8, "restless": 2 + 5 * 8}
    counts |= {"steady": 0, "restless": 0}
    added_in_turn(lambda: clock.sleep(0.2), [steady, restless], seconds=0.0, settle=0.0)
    assert counts["steady"] == 2 + 5 * 3
    assert counts["restless"] == 2 + 5 * 8


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
    before = torch.get_num_threads()
    found = measure(lambda: None, repeats=5, threads=1, **FAST)
    assert found.threads == 1
    assert torch.get_num_threads() == before


def test_model_rows_for_both_batches_leave_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rows = measure_model(model, (3, 8, 8), repeats=5, **FAST)
    assert sorted(rows) == [1, 32]
    assert [rows[size].batch for size in (1, 32)] == [1, 32]
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(LatencyError, match="tensorrt"):
        measure_model(model, (3, 8, 8), runtime="tensorrt")
    with pytest.raises(LatencyError, match="channels, height, width"):
        measure_model(model, (1, 3, 8, 8))


class Drifting:
    """A device that slows down by a tenth every second; `foreign` cores are busy with other work."""

    def __init__(self, clock, monkeypatch):
        self.clock, self.foreign = clock, 0.0
        monkeypatch.setattr(
            device_module, "Load", lambda: SimpleNamespace(foreign=lambda: self.foreign)
        )

    def call(self, seconds):
        return lambda: self.clock.sleep(seconds * (1 + 0.1 * (self.clock.now - 100.0)))

    def timed(self, calls):
        """Their timings, three seconds apart."""
        rows = []
        for call in calls:
            rows.append(measure(call, repeats=5, **FAST))
            self.clock.sleep(3.0)
        return rows


@pytest.fixture
def device(clock, monkeypatch):
    return Drifting(clock, monkeypatch)


def test_times_of_one_table_have_the_ratios_of_the_calls_however_the_pace_drifts(device):
    calls = [device.call(seconds) for seconds in (0.004, 0.002, 0.001, 0.004)]
    rows = device.timed(calls)
    assert rows[3].median_ms > 1.5 * rows[0].median_ms
    found = levelled(rows, calls, device=torch.device("cpu"))
    ratios = [row.median_ms / found[0].median_ms for row in found]
    assert ratios == pytest.approx([1.0, 0.5, 0.25, 1.0], rel=0.02)
    for before, after in zip(rows, found, strict=True):
        factor = after.median_ms / before.median_ms
        assert after.q05_ms == pytest.approx(before.q05_ms * factor)
        assert after.q95_ms == pytest.approx(before.q95_ms * factor)
        assert not after.flagged
    # the level stays that of the timings, whatever the pace was while they were sampled in turn
    product = np.prod([b.median_ms / a.median_ms for a, b in zip(rows, found, strict=True)])
    assert product == pytest.approx(1.0)


def test_one_interrupted_sample_moves_no_time_of_the_table(device):
    interrupted = {"first": True}

    def call():
        if interrupted.pop("first", False):
            device.clock.sleep(3.0)
        device.clock.sleep(1.0)

    calls = [call, lambda: device.clock.sleep(0.5), lambda: device.clock.sleep(0.25)]
    rows = [row(median_ms=ms) for ms in (1000.0, 500.0, 250.0)]
    found = levelled(rows, calls, device=torch.device("cpu"))
    assert [one.median_ms for one in found] == pytest.approx([1000.0, 500.0, 250.0])


def test_rows_taken_beside_other_work_do_not_set_the_level_of_the_table(device):
    calls = [lambda: device.clock.sleep(0.004), lambda: device.clock.sleep(0.002)]
    rows = [row(median_ms=4.0), row(median_ms=7.0, flagged=True, flag_reason="busy")]
    quiet, disturbed = levelled(rows, calls, device=torch.device("cpu"))
    assert (quiet.median_ms, disturbed.median_ms) == pytest.approx((4.0, 2.0))
    assert (quiet.flagged, disturbed.flagged) == (False, True)
    assert disturbed.flag_reason == "busy"
    both = [row(median_ms=ms, flagged=True) for ms in (8.0, 4.0)]
    found = [one.median_ms for one in levelled(both, calls, device=torch.device("cpu"))]
    assert found == pytest.approx([8.0, 4.0])


def test_a_single_row_and_the_rows_of_a_gpu_stay_as_they_are():
    def never():
        raise AssertionError("sampled")

    rows = [row(median_ms=4.0), row(median_ms=7.0)]
    assert levelled(rows, [never, never], device=torch.device("cuda", 0)) == rows
    assert levelled(rows[:1], [never], device=torch.device("cpu")) == rows[:1]


@pytest.mark.parametrize(("threads", "settling"), [(1, 0), (2, 2)])
def test_slow_calls_are_sampled_three_times_and_without_settling(
    device, monkeypatch, threads, settling
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    counts = [0, 0]

    def counted(index, seconds):
        def call():
            counts[index] += 1
            device.clock.sleep(seconds)

        return call

    calls = [counted(0, 1.0), counted(1, 2.0)]
    rows = [row(median_ms=1500.0), row(median_ms=1500.0)]
    first, second = levelled(rows, calls, device=torch.device("cpu"))
    assert second.median_ms == pytest.approx(2.0 * first.median_ms)
    assert counts == [2 + 3, 2 + 3]  # two calls to warm up, and one a round
    # of 50 ms: in each of seven rounds two calls while the other's threads settle, if any, then two samples
    counts[:] = [0, 0]
    calls = [counted(0, 0.05), counted(1, 0.05)]
    levelled([row(median_ms=50.0)] * 2, calls, device=torch.device("cpu"))
    assert counts == [2 + 7 * (settling + 2)] * 2


class Taking(nn.Module):
    """A network of one number whose call takes some seconds on the made-up device."""

    def __init__(self, call):
        super().__init__()
        self.weight, self.call = nn.Parameter(torch.ones(1)), call

    def forward(self, x):
        self.call()
        return x * self.weight


def test_a_network_beside_a_reference_has_their_ratio_however_the_pace_drifts(device):
    clock = ModelClock((1, 2, 2), torch.device("cpu"), batch=1, runtime="eager", seconds=0.1)
    reference, network = (Taking(device.call(seconds)).train() for seconds in (0.004, 0.001))
    first = clock(reference)
    device.clock.sleep(30.0)
    assert (
        clock(network).median_ms > 0.8 * first.median_ms
    )  # one after the other: a quarter is meant
    found = clock.beside(reference, first)(network)
    assert found.median_ms == pytest.approx(0.25 * first.median_ms, rel=0.02)
    assert found.q05_ms <= found.median_ms <= found.q95_ms
    assert not found.flagged
    assert reference.training
    assert network.training


def test_a_time_beside_a_disturbed_reference_is_as_unsure_as_that(device):
    clock = ModelClock((1, 2, 2), torch.device("cpu"), batch=1, runtime="eager", seconds=0.1)
    reference, network = (Taking(device.call(seconds)) for seconds in (0.004, 0.001))
    disturbed = clock.beside(reference, row(median_ms=8.0, flagged=True, flag_reason="busy"))
    found = disturbed(network)
    assert found.median_ms == pytest.approx(2.0, rel=0.02)
    assert found.flagged
    assert "reference" in found.flag_reason
    device.foreign = 1.5
    own = clock.beside(reference, row(median_ms=8.0))(network)
    assert own.flagged
    assert "1.5 cores" in own.flag_reason


@pytest.mark.parametrize(("device", "runtime"), [("cuda", "graph"), ("cpu", "compile")])
def test_what_is_not_sampled_in_turn_is_scaled_by_the_references_time(device, runtime, monkeypatch):
    timings = {"network": row(median_ms=3.0), "reference": row(median_ms=8.0)}
    monkeypatch.setattr(ModelClock, "__call__", lambda self, network: timings[network])
    clock = ModelClock((1, 2, 2), torch.device(device), batch=1, runtime=runtime)
    found = clock.beside("reference", row(median_ms=4.0))("network")
    assert found.median_ms == pytest.approx(1.5)


def test_the_reference_is_made_ready_once(device, monkeypatch):
    clock = ModelClock((1, 2, 2), torch.device("cpu"), batch=1, runtime="eager", seconds=0.1)
    made, ready = [], clock.ready
    monkeypatch.setattr(clock, "ready", lambda network: made.append(network) or ready(network))
    networks = [Taking(device.call(0.001)) for _ in range(3)]
    steady = clock.beside(networks[0], row(median_ms=1.0))
    for network in networks[1:]:
        steady(network)
    assert made == networks
