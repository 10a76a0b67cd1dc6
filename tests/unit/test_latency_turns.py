"""Calls that are compared: sampled in turn, so that a drifting pace changes no ratio."""

import contextlib
import itertools
import os
import time

import numpy as np
import pytest
import torch
from latency_cases import Clock, Drifting, row
from torch import nn

from darts_core.latency import device as device_module
from darts_core.latency import turns as turns_module
from darts_core.latency.clock import ModelClock
from darts_core.latency.steady import levelled
from darts_core.latency.turns import added_in_turn, clock_in_turn, in_turn


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def device(clock, monkeypatch):
    return Drifting(clock, monkeypatch)


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
