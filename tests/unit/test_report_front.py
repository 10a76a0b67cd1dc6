"""Fronts as data and as SVG: their edge in every direction, what is hollow, the legend, hostile names."""

import itertools
import re

import pytest

from darts_core.report.front import Axis, Front, Key, Point
from darts_core.report.legend import series_shape
from darts_core.report.palette import series_colors
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.trials import read_trials
from darts_core.report.trials_front import trials_front

HOSTILE = '"><script>alert(1)</script>\x1b[31m'


def made(x: str, y: str, *pairs: tuple[float, float], **more: object) -> Front:
    points = tuple(Point(a, b, label=f"{a}") for a, b in pairs)
    return Front("a title", Axis("cost, ms", x), Axis("gain, %", y), points, **more)  # type: ignore[arg-type]


PAIRS = ((1.0, 1.0), (2.0, 3.0), (3.0, 2.0), (2.5, 2.5), (3.0, 4.0))


@pytest.mark.parametrize(
    ("x", "y", "edge"),
    [
        ("min", "max", [(1.0, 1.0), (2.0, 3.0), (3.0, 4.0)]),
        ("max", "max", [(3.0, 4.0)]),
        ("min", "min", [(1.0, 1.0)]),
        ("max", "min", [(3.0, 2.0), (1.0, 1.0)]),
    ],
)
def test_the_edge_follows_both_directions(x: str, y: str, edge: list[tuple[float, float]]) -> None:
    front = made(x, y, *PAIRS)
    assert [(p.x, p.y) for p in front.edge] == edge
    corners = front.stairs()
    assert corners[0] == edge[0]
    assert corners[-1] == edge[-1]
    # stairs: from one corner to the next in one coordinate at a time
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in itertools.pairwise(corners))
    # nothing lies beyond the stairs: each other point is beaten by one of the edge
    drawn = front_svg(front)
    assert drawn.count('class="front"') == 1
    assert drawn.count('class="mark') == len(PAIRS)


def test_the_drawn_edge_leaves_the_plot_on_the_worse_sides() -> None:
    def ends(x: str, y: str) -> tuple[list[float], list[float]]:
        found = re.search(r'd="([^"]+)"[^>]*class="front"', front_svg(made(x, y, *PAIRS)))
        assert found
        numbers = [float(n) for n in re.findall(r"-?[\d.]+", found[1])]
        return numbers[:2], numbers[-2:]

    left, right, top, bottom = 62.0, 582.0, 30.0, 350.0
    assert ends("min", "max")[0][1] == bottom
    assert ends("min", "max")[1][0] == right
    assert ends("max", "min")[0][1] == top
    assert ends("max", "min")[1][0] == left


def test_spreads_are_bars_and_the_baseline_a_cross_with_its_corner() -> None:
    point = Point(2.0, 3.0, x_range=(1.5, 2.5), y_range=(2.0, 4.0))
    front = Front(
        "t",
        Axis("a", "min"),
        Axis("b", "max"),
        (point, Point(9.0, 1.0)),
        (9.0, 1.0),
        "better in both",
    )
    drawn = front_svg(front)
    assert drawn.count('class="error') == 2
    assert drawn.count('class="base-line"') == 2
    assert "better in both" in drawn
    assert front.wide


def test_many_series_differ_in_colour_or_shape() -> None:
    looks = zip(series_colors(49), map(series_shape, range(49)), strict=True)
    assert len(set(looks)) == 49


def test_names_and_keys_are_escaped_everywhere() -> None:
    front = Front(
        HOSTILE, Axis(HOSTILE, "min"), Axis(HOSTILE, "max"),
        (Point(1.0, 1.0, label=HOSTILE, tip=HOSTILE),), (1.0, 1.0), HOSTILE, (Key("star", "soft", HOSTILE),),
    )  # fmt: skip
    for text in (front_svg(front), key_html([front, None, front])):
        assert "<script" not in text
        assert "\x1b" not in text
    assert key_html([front, front]).count('class="key"') == 1
    assert key_html([None]) == ""
    assert front_svg(None) == ""


def test_a_study_front_keeps_what_breaks_a_constraint_out_and_marks_the_baseline() -> None:
    trials = read_trials(
        [
            {"number": 0, "state": "complete", "values": [0.8, 4.0], "is_baseline": True},
            {"number": 1, "state": "complete", "values": [0.9, 2.0]},
            {"number": 2, "state": "complete", "values": [0.99, 1.0], "feasible": False},
            {"number": 3, "state": "pruned", "values": [0.999, 0.1]},
            {"number": 4, "state": "complete", "values": [0.7]},
        ]
    )
    front = trials_front(trials, [("accuracy", True), ("latency_ms", False)])
    assert front is not None
    assert [(p.x, p.y, p.hollow) for p in front.points] == [
        (4.0, 0.8, False), (2.0, 0.9, False), (1.0, 0.99, True),
    ]  # fmt: skip
    assert [(p.x, p.y) for p in front.edge] == [(2.0, 0.9)]
    assert front.baseline == (4.0, 0.8)
    assert front.x.label == "latency (ms, lower is better)"
    assert trials_front(trials, [("accuracy", True)]) is None
    assert trials_front([], [("accuracy", True), ("latency_ms", False)]) is None
