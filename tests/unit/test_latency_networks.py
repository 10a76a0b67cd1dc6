"""Whole networks timed: patience on a busy device, the fit of what calls cost, predictions checked."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from latency_cases import supernet

from darts_core.errors import LatencyError
from darts_core.latency import (
    Timing,
    size_model,
)
from darts_core.latency import networks as networks_module
from darts_core.latency.check import (
    _written,
    check_predictions,
    draw_scatter,
    fit_networks,
    random_architectures,
    write_networks,
)
from darts_core.runlog import config_hash
from darts_core.spaces import get_space
from darts_core.supernet import build

SHAPE = (3, 8, 8)


def timing(ms: float, *, flagged: bool = False) -> Timing:
    return Timing(ms, ms, ms, 5, "cpu", flagged=flagged, flag_reason="busy" if flagged else "")


def test_two_commands_that_write_the_same_networks_keep_out_of_each_others_way(
    tmp_path, monkeypatch
):
    drawn = random_architectures(get_space("nasbench201"), 8, seed=0)[0]
    path = tmp_path / f"{config_hash(drawn.to_dict())}.onnx"
    other = path.with_suffix(".tmp")
    monkeypatch.setattr("darts_core.latency.check.onnx_bytes", lambda *_, **__: b"network")
    monkeypatch.setattr("darts_core.latency.check.without_norms", lambda model, x: model)

    def make(_):
        other.write_bytes(b"half of")  # what another one is writing

    assert _written(make, drawn, None, tmp_path) == b"network"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        path.name: b"network",
        other.name: b"half of",
    }


def test_networks_fit_the_overhead():
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    model = size_model(space, net, SHAPE, "macs")
    drawn = random_architectures(space, 12, seed=1)
    loads = iter([*[False] * 9, *[True] * 3, *[True] * 12])

    def timer(architecture):
        busy = next(loads)
        return timing(2 + (3 + 4 * busy) * model.sum_of(architecture), flagged=busy)

    found = fit_networks(model, timer, count=12)  # what other work disturbed does not count
    assert (found["overhead_ms"], found["slope"]) == (pytest.approx(2.0), pytest.approx(3.0))
    assert (found["n"], found["disturbed"]) == (9, 0)
    # where there is nothing else, it counts, and is said: a sum of operations says less
    found = fit_networks(model, timer, count=12)
    assert (found["overhead_ms"], found["slope"]) == (pytest.approx(2.0), pytest.approx(7.0))
    assert (found["n"], found["disturbed"]) == (12, 12)
    assert len(drawn) == 12


def network_timer(monkeypatch, takes, wait_seconds, **options):
    """A timer whose timings are scripted, and the pauses it made."""
    pauses = []
    monkeypatch.setattr(networks_module, "measure", lambda call, **options: takes(call))
    monkeypatch.setattr(networks_module.time, "sleep", pauses.append)
    return pauses, networks_module.NetworkTimer(
        lambda a: build(a, channels=4, layers=1, num_classes=3), SHAPE,
        batch=1, runtime="eager", wait_seconds=wait_seconds, **options,
    )  # fmt: skip


def test_a_network_is_timed_when_other_work_has_left(monkeypatch, caplog):
    caplog.set_level("INFO")
    left = iter([timing(9.0, flagged=True), timing(8.0, flagged=True), timing(2.0)])
    pauses, timer = network_timer(monkeypatch, lambda call: (call(), next(left))[1], 100.0)
    assert timer(get_space("nasbench201").random(np.random.default_rng(0))).median_ms == 2.0
    assert (len(pauses), timer.disturbed) == (2, 0)
    assert "waiting up to 100 s for a quiet device: busy" in caplog.text


def test_where_it_stays_busy_the_fastest_of_three_counts_and_is_said(monkeypatch):
    times = iter([9.0, 7.0, 8.0, 6.0, 5.0, 6.5])
    pauses, timer = network_timer(monkeypatch, lambda _: timing(next(times), flagged=True), 0.0)
    architecture = get_space("nasbench201").random(np.random.default_rng(0))
    assert [timer(architecture).median_ms for _ in range(2)] == [7.0, 5.0]
    assert (pauses, timer.disturbed) == ([], 2)


class Paced:
    """Timings and samples of a network (3 classes) of 1 ms and of a reference (5 classes) of 2 ms."""

    def __init__(self, monkeypatch, busy, known_ms, pace=1.0):
        self.busy, self.pace, self.in_turn = iter(busy), pace, 0
        wide = build(get_space("nasbench201").random(np.random.default_rng(1)), channels=4, layers=1,
                     num_classes=5)  # fmt: skip
        reference = networks_module.Reference(lambda: wide, known_ms)
        _, self.timer = network_timer(monkeypatch, self.takes, 0.0, reference=reference)
        monkeypatch.setattr(networks_module, "in_turn_with", self.sampled)

    def takes(self, call):
        ms = {3: 1.0, 5: 2.0}[call().shape[1]] * self.pace
        return timing(9.0 * ms, flagged=True) if next(self.busy) else timing(ms)

    def sampled(self, other, other_ms, row, call, **_):
        assert (call().shape[1], other().shape[1]) == (3, 5)
        self.in_turn += 1
        return replace(row, median_ms=other_ms * 0.5)

    def times(self, count):
        architecture = get_space("nasbench201").random(np.random.default_rng(0))
        return [self.timer(architecture).median_ms for _ in range(count)]


@pytest.mark.parametrize("busy", [True, False])
def test_the_ratio_to_a_network_of_known_time_counts_as_no_load_is_seen_where_a_pace_changes(
    busy, monkeypatch
):
    # the reference was known to take twice what it takes now
    paced = Paced(monkeypatch, [busy, busy], known_ms=4.0, pace=1.05)
    assert paced.times(2) == [2.0, 2.0]
    assert (paced.in_turn, paced.timer.disturbed) == (2, 2 * busy)


def test_patience_is_shared_by_all_timings(monkeypatch):
    clock = iter(range(0, 10**6, 20))
    monkeypatch.setattr(networks_module.time, "monotonic", lambda: next(clock))
    _, timer = network_timer(monkeypatch, lambda _: timing(1.0, flagged=True), 50.0)
    architecture = get_space("nasbench201").random(np.random.default_rng(0))
    timer(architecture)
    assert timer.disturbed == 1
    pauses = []
    monkeypatch.setattr(networks_module.time, "sleep", pauses.append)
    timer(architecture)
    assert (timer.disturbed, pauses) == (2, [])


def test_check_reports_correlations_and_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["darts_core.latency.measure"], "FOREIGN_CORES", 1e9)
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    model = size_model(space, net, SHAPE, "macs")
    seen = []
    record = check_predictions(
        model,
        lambda a: build(a, channels=4, layers=1, num_classes=3),
        SHAPE,
        batch=2,
        count=8,
        runtime="eager",
        seconds=0.01,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (16, 16)
    assert len(record["points"]) == 8
    assert record["n"] == 4
    assert -1 <= record["correlation"] <= 1
    assert all(p["measured_ms"] > 0 and p["again_ms"] > 0 for p in record["points"])
    assert record["flagged"] == 0
    draw_scatter(record, tmp_path / "scatter.png")
    assert (tmp_path / "scatter.png").stat().st_size > 1000
    with pytest.raises(LatencyError, match="count=2"):
        check_predictions(model, lambda a: net, SHAPE, batch=1, count=2)


def test_check_goes_on_and_leaves_disturbed_networks_out(tmp_path, monkeypatch):
    space, net = get_space("nasbench201"), supernet("nasbench201", 1)
    timed: list[str] = []

    def fake(call, **options):
        call()
        timed.append("x")
        ms = 1.0 + len(timed) % 7
        return Timing(ms, ms, ms, 5, "cpu", flagged=len(timed) in (3, 13))

    monkeypatch.setattr("darts_core.latency.check.measure", fake)
    built = []

    def make(architecture):
        built.append(architecture)
        return build(architecture, channels=4, layers=1, num_classes=3)

    write_networks(space, make, SHAPE, tmp_path, count=12)
    assert len(built) == len(list(tmp_path.glob("*.onnx")))
    first_built = len(built)

    def check():
        return check_predictions(
            size_model(space, net, SHAPE, "macs"), make, SHAPE, batch=2, count=12, folder=tmp_path
        )

    record = check()
    assert len(built) == first_built  # the files are run, not built anew
    assert record["flagged"] >= 1
    assert record["n"] == (12 - record["flagged"]) - (12 - record["flagged"]) // 2
    assert all(np.isfinite(point["predicted_ms"]) for point in record["points"])
    before = len(timed)
    assert check()["flagged"] == 0
    assert len(timed) == before + 2  # only the two disturbed times were taken anew
    different = len({a.text() for a in random_architectures(space, 12)})
    monkeypatch.setattr("darts_core.latency.device.versions", lambda runtime: {"torch": "9.9"})
    check()
    assert len(timed) == before + 2 + 2 * different
    check()
    assert len(timed) == before + 2 + 2 * different
