from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darts_core.errors import ConfigError, LatencyError, ResumeError
from darts_core.report.models_front import accuracy_latency_front, models_front
from darts_core.report.rows import Latency, ModelRow
from darts_core.study.pareto import front_beyond_error, pareto_front, pareto_mask


def row(name: str, accuracy: float, median: float, **more: object) -> ModelRow:
    latency = Latency(
        median, device=str(more.pop("device", "cpu")), flagged=bool(more.pop("flagged", 0))
    )
    return ModelRow(name, accuracies=(accuracy,), latency={1: latency}, **more)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20))
def test_mask_equals_the_definition(points: list[tuple[int, int]]) -> None:
    wanted = [not any(c <= a and d <= b and (c < a or d < b) for c, d in points) for a, b in points]
    assert pareto_mask(points).tolist() == wanted


def test_nan_is_never_on_the_front() -> None:
    assert pareto_mask([[1.0, np.nan], [2.0, 2.0]]).tolist() == [False, True]


def test_front_of_mappings_follows_directions_and_skips_what_is_no_number() -> None:
    rows = [
        {"name": "a", "accuracy": 0.9, "latency": 1.0},
        {"name": "b", "accuracy": 0.8, "latency": 2.0},
        {"name": "c", "accuracy": 0.95, "latency": 3.0},
        {"name": "d", "accuracy": "0.99", "latency": 0.1},
        {"name": "e"},
    ]
    front = pareto_front(rows, {"accuracy": "max", "latency": "min"})
    assert [r["name"] for r in front] == ["c", "a"]
    assert pareto_front([], {"accuracy": "max"}) == []
    with pytest.raises(ConfigError, match="upwards"):
        pareto_front(rows, {"accuracy": "upwards"})
    with pytest.raises(ConfigError, match="at least one"):
        pareto_front(rows, {})


def test_accuracy_latency_front() -> None:
    rows = [
        row("slow", 0.9, 5.0),
        row("fast", 0.8, 1.0),
        row("worse", 0.79, 2.0),
        row("best", 0.95, 6.0),
    ]
    assert [r.name for r in accuracy_latency_front(rows, 1)] == ["fast", "slow", "best"]
    assert accuracy_latency_front(rows, 256) == []


def test_a_slower_row_belongs_to_the_front_only_beyond_the_standard_error() -> None:
    def judged(name: str, share: float, median: float, examples: int) -> ModelRow:
        return row(name, share, median, extra={"test_examples": examples})

    rows = [judged("fast", 0.90, 1.0, 400), judged("near", 0.91, 2.0, 400),
            judged("far", 0.96, 3.0, 400), judged("farther", 0.961, 4.0, 400)]  # fmt: skip
    assert rows[0].standard_error == pytest.approx((0.9 * 0.1 / 400) ** 0.5)
    assert [r.name for r in accuracy_latency_front(rows, 1)] == ["fast", "far"]
    front = models_front(rows, 1)
    assert front is not None
    assert [point.label for point in front.edge] == ["fast", "far"]
    assert front.points[0].y_range == pytest.approx((88.5, 91.5))
    many = [judged(r.name, r.accuracies[0], r.latency[1].median_ms, 10**6) for r in rows]
    assert [r.name for r in accuracy_latency_front(many, 1)] == [r.name for r in rows]
    # several seeds on the same examples: their spread counts beside the examples, which are no more for it
    seeds = replace(rows[0], accuracies=(0.85, 0.95))
    assert seeds.standard_error == pytest.approx((0.05**2 + 0.9 * 0.1 / 400) ** 0.5)
    same = replace(rows[0], accuracies=(0.9,) * 9)
    assert same.standard_error == pytest.approx(rows[0].standard_error)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20))
def test_without_errors_it_is_the_plain_front(points: list[tuple[int, int]]) -> None:
    found = front_beyond_error(points, [0.0] * len(points))
    assert found.tolist() == pareto_mask(points).tolist()


def test_flagged_rows_stay_out() -> None:
    rows = [row("loaded", 0.99, 0.1, flagged=True), row("fine", 0.8, 1.0)]
    assert [r.name for r in accuracy_latency_front(rows, 1)] == ["fine"]


def test_rows_of_two_devices_or_data_sets_are_refused() -> None:
    with pytest.raises(LatencyError, match=r"more than one device .*'cpu', 'gpu'"):
        accuracy_latency_front([row("a", 0.9, 1.0), row("b", 0.9, 1.0, device="gpu")], 1)
    with pytest.raises(LatencyError, match="more than one data set"):
        accuracy_latency_front([row("a", 0.9, 1.0, data="x"), row("b", 0.9, 1.0, data="y")], 1)
    other = row("b", 0.9, 1.0)
    threads = replace(other, latency={1: replace(other.latency[1], threads=4)})
    with pytest.raises(LatencyError, match="4 threads"):
        accuracy_latency_front([row("a", 0.9, 1.0), threads], 1)


def test_row_survives_json_and_states_spread() -> None:
    first = ModelRow(
        "net", kind="baseline", params=10, macs=20, accuracies=(0.9, 0.8), baseline=True,
        latency={32: Latency(2.0, 1.9, 2.2, 50, 12.0, False, "cpu", "eager", 2)}, device="cpu", data="digits",
    )  # fmt: skip
    content = first.to_dict()
    assert content["n"] == 2
    assert content["accuracy_mean"] == pytest.approx(0.85)
    assert content["accuracy_std"] == pytest.approx(np.std([0.9, 0.8], ddof=1))
    assert ModelRow.from_dict(content) == first
    assert ModelRow.from_dict({"name": "x", "accuracy_mean": 0.5}).accuracies == (0.5,)


@pytest.mark.parametrize(
    "content",
    [{}, {"name": "x", "latency": {"a": 1}}, {"name": "x", "latency": [1]},
     {"name": "x", "latency": {"1": {"median_ms": float("nan")}}},
     {"name": "x", "latency": {"1": {"median_ms": -1}}}],
)  # fmt: skip
def test_damaged_rows_end_in_a_sentence(content: dict[str, object]) -> None:
    with pytest.raises(ResumeError, match=r"darts-core bench"):
        ModelRow.from_dict(content)
