"""Rows of a job: the best, the front, the gain, what mattered, and their pictures."""

import json

import pytest
from job_rows import row

from darts_core.report.limits import far_away
from darts_core.report.tables import cost_text
from darts_core.report.trials import Trial, best_so_far
from darts_core.study.importance import row_importance
from darts_core.study.results import (
    best_row,
    front,
    gain,
    read_rows,
    row_values,
    summary,
)

ONE = [{"metric": "acc", "mode": "max", "tolerance": 0.0}]
TWO = [
    {"metric": "acc", "mode": "max", "tolerance": 0.011},
    {"metric": "ms", "mode": "min", "tolerance": 0.0},
]


def test_front_best_and_tolerance():
    rows = [
        row(0, 0.90, 5),
        row(1, 0.89, 2),
        row(2, 0.85, 1),
        row(3, 0.84, 4),
        row(4, 0.99, 9, "failed"),
    ]
    assert [r["number"] for r in front(rows, TWO)] == [0, 1, 2]
    assert best_row(rows, TWO)["number"] == 1
    assert best_row(rows, ONE)["number"] == 0
    # what ties with the user's own configuration does not beat it
    tied = [row(0, 0.9), row(0, 0.9, is_baseline=True), row(1, 0.9)]
    assert best_row(tied, ONE) is tied[1]
    assert best_row([row(5, float("nan")), row(6, None)], ONE) is None
    assert best_row([row(1, 0.9, state="stopped"), row(2, 0.5)], ONE)["number"] == 2
    # a third of the time, because it was stopped after a third of the epochs
    early = row(5, 0.80, 0.3, state="stopped")
    assert [r["number"] for r in front([*rows, early], TWO)] == [0, 1, 2]
    assert [r["number"] for r in front([early], TWO)] == [5]
    assert row_values({"state": "done", "values": {"acc": True}}, ONE) is None


def test_gain_is_over_the_same_fresh_seeds_and_says_when_nothing_was_won(tmp_path):
    best, baseline = row(1, 0.95), row(0, 0.90)
    seeds = [
        *(
            {"confirms": "best", "state": "done", "seed": s, "values": {"acc": 0.8 + s / 100}}
            for s in (1, 2, 3)
        ),
        *(
            {"confirms": "baseline", "state": "done", "seed": s, "values": {"acc": 0.7}}
            for s in (2, 3, 4)
        ),
    ]
    item = gain(best, baseline, seeds, ONE)[0]
    assert (item["best"]["n"], item["fresh_seeds"], item["better"]) == (2, True, True)
    assert item["difference"] == pytest.approx(0.125)
    assert item["best"]["std"] == pytest.approx(0.00707, abs=1e-4)
    alone = gain(best, baseline, [], ONE)[0]
    assert (alone["best"]["n"], alone["fresh_seeds"]) == (1, False)
    folder = tmp_path / "autosearch" / "trials"
    (tmp_path / "autosearch").mkdir()
    (tmp_path / "autosearch" / "objectives.json").write_text(json.dumps(ONE))
    for item in (
        row(0, 0.9, is_baseline=True, time_total_s=2.0, cpu_seconds=2.0),
        row(1, 0.8, time_total_s=3.0, cpu_seconds=1.5),
    ):
        (folder / item["trial_id"]).mkdir(parents=True)
        (folder / item["trial_id"] / "result.json").write_text(json.dumps(item))
    (folder / "torn").mkdir()
    (folder / "torn" / "result.json").write_text('{"number": ')
    found = summary(tmp_path)
    assert found["verdict"] == "Nothing beat your own configuration."
    assert found["cost"]["search"]["trainings"] == pytest.approx(2.5)
    assert found["cost"]["besides_yours"]["trainings"] == pytest.approx(1.5)
    assert found["cost"]["search"]["processor_trainings"] == pytest.approx(1.75)
    assert cost_text(found["cost"]) == "5.0s = 2.50 trainings (the search 1.50, yours 1)"
    assert len(read_rows(tmp_path)) == 2


def test_runs_that_confirmed_the_winner_before_tell_nothing_of_this_one(tmp_path):
    """A search that was resumed and stopped again: trial 1 wins now, and one run is still of trial 7."""
    rows = [row(0, 0.5, is_baseline=True), row(1, 0.9)]
    for seed, winner, acc in ((2, 1, 0.875), (3, 7, 0.25)):
        for side, of, value in (("baseline", 0, 0.5), ("best", winner, acc)):
            run = row(of, value, phase="confirm", confirms=side, seed=seed)
            run |= {"trial_id": f"{side}{seed}", "additional_data": {"test_acc": value}}
            rows.append(run)
    (tmp_path / "autosearch").mkdir()
    (tmp_path / "autosearch" / "objectives.json").write_text(json.dumps(ONE))
    for item in rows:
        folder = tmp_path / "autosearch" / "trials" / item["trial_id"]
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(item))
    found = summary(tmp_path)
    assert found["gain"][0]["best"] == {"mean": 0.875, "std": None, "n": 1}
    assert found["test"]["test_acc"]["best"] == {"mean": 0.875, "std": None, "n": 1}
    assert found["test"]["test_acc"]["baseline"]["n"] == 2


def test_importance_finds_the_setting_that_matters():
    rows = [
        {"trial_id": str(i), "number": i, "state": "done", "values": {"acc": -((a - 2) ** 2)},
         "config": {"a": a, "b": b, "same": 1}}
        for i, (a, b) in enumerate((a, b) for a in range(5) for b in ("x", "y"))
    ]  # fmt: skip
    shares = row_importance(rows, ONE)
    assert set(shares) == {"a", "b"}
    assert shares["a"] > 0.8
    assert row_importance(rows[:3], ONE) == {}


def test_pictures_show_the_fresh_seeds_with_their_spread(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    from darts_core.report.job_pictures import draw_best_so_far

    drawn = []
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, x, y, **k: drawn.append((x, y, k.get("xerr"), k["yerr"]))
    )
    best, baseline = row(1, 0.95, 2.0, ended=5.0), row(0, 0.90, 4.0, is_baseline=True, ended=3.0)
    seeds = [
        {"confirms": side, "state": "done", "seed": s, "values": {"acc": acc + s / 10, "ms": ms}}
        for side, acc, ms in (("best", 0.5, 2.0), ("baseline", 0.4, 4.0))
        for s in (1, 2, 3)
    ]
    gains = gain(best, baseline, seeds, TWO)
    assert draw_best_so_far([best, baseline], TWO, tmp_path / "b.png", gains=gains).exists()
    assert [(pytest.approx(y), pytest.approx(e)) for _, y, _, e in drawn] == [
        (0.6, 0.1),
        (0.7, 0.1),
    ]


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_a_diverged_trial_flattens_no_picture_of_the_best_so_far(tmp_path, monkeypatch, mode, sign):
    from darts_core.report import job_pictures

    figures, goals = [], [{"metric": "acc", "mode": mode}]
    monkeypatch.setattr(job_pictures, "_save", lambda figure, path: figures.append(figure))
    losses = [0.5, 1e6, 0.4, 0.3, 0.45]
    for far in (1e6, 3.0):  # the second is within reach of the rest
        rows = [row(i, sign * loss, ended=float(i)) for i, loss in enumerate(losses)]
        rows[1]["values"]["acc"] = sign * far
        job_pictures.draw_best_so_far(rows, goals, tmp_path / "b.png")
    (first,), (second,) = (figure.axes for figure in figures)
    low, high = sorted(sign * end for end in first.get_ylim())
    assert (low, high) == (pytest.approx(0.288), pytest.approx(0.536))
    assert [text.get_text() for text in first.texts] == ["1 outside, far from the rest"]
    assert not second.texts
    # the user's own configuration and the spread over fresh seeds are always shown
    assert far_away(losses, maximize=False) == [1e6]
    assert far_away(losses, maximize=False, kept=[1e6]) == []
    assert far_away([sign * 0.5, sign * 1e6], maximize=mode == "max") == []
    # where the rest is all zero there is nothing to measure by
    assert far_away([0.0, 0.0, 0.0, sign * 0.01], maximize=mode == "max") == []
    drawn = best_so_far(
        [Trial(i, "complete", {}, sign * loss) for i, loss in enumerate(losses)],
        maximize=mode == "max", label="loss", percent=False,
    )  # fmt: skip
    assert "1 outside, far from the rest, at the edge" in drawn
    assert "00000" not in drawn


def test_the_front_of_a_job_shows_trials_baseline_and_fresh_seeds(tmp_path):
    from darts_core.report.job_pictures import draw_front
    from darts_core.report.trials_front import search_front

    best, baseline = row(1, 0.95, 2.0), row(0, 0.90, 4.0, is_baseline=True)
    worse = row(2, 0.85, 0.5, state="stopped")  # soon over: it was stopped
    seeds = [
        {"confirms": side, "state": "done", "seed": s, "values": {"acc": acc + s / 10, "ms": ms}}
        for side, acc, ms in (("best", 0.5, 2.0), ("baseline", 0.4, 4.0))
        for s in (1, 2, 3)
    ]
    rows = [best, baseline, worse]
    front = search_front(rows, TWO, gains=gain(best, baseline, seeds, TWO))
    assert [(p.x, p.y) for p in front.edge] == [(2.0, 0.95)]
    assert front.baseline == (4.0, 0.90)
    assert [p.hollow for p in front.points] == [False, False, True, False, False]
    shown = [
        (p.x, pytest.approx(p.y), p.x_range, pytest.approx(p.y_range)) for p in front.points[3:]
    ]
    assert shown == [(4.0, 0.6, (4.0, 4.0), (0.5, 0.7)), (2.0, 0.7, (2.0, 2.0), (0.6, 0.8))]
    assert [key.text for key in front.keys] == [
        "trial", "stopped early", "your configuration", "your configuration, fresh seeds",
        "the pick, fresh seeds",
    ]  # fmt: skip
    # one seed of the search has no spread to show
    alone = search_front(rows, TWO, gains=gain(best, baseline, [], TWO))
    assert all(p.y_range is None for p in alone.points)
    assert draw_front(
        rows, TWO, tmp_path / "f.png", gains=gain(best, baseline, seeds, TWO)
    ).exists()
    assert draw_front(rows, TWO[:1], tmp_path / "g.png") is None


def test_curves_of_trials_are_read_as_the_search_reads_them(tmp_path):
    from darts_core.autosearch.curves import trial_curves

    (tmp_path / "t0").mkdir()
    lines = [
        {"iteration": 1, "metrics": {"accuracy": 0.5}},  # another name of the objective
        {"iteration": 2, "metrics": {"acc": 0.75, "loss": 1}},
        {"iteration": 3, "metrics": {"acc": None}},
        "not a row",
        {"iteration": "4", "metrics": {"acc": 1.0}},
        {"iteration": 5, "metrics": {"acc": True}},
    ]
    lines = [{"kind": "iteration", **line} if isinstance(line, dict) else line for line in lines]
    text = "\n".join(json.dumps(line) for line in lines) + '\nnot json\n{"iteration": 6, "metr'
    (tmp_path / "t0" / "reports.jsonl").write_text(text)
    rows = [{**row(i, 0.5), "trial_id": f"t{i}", "folder": str(tmp_path / f"t{i}")} for i in (0, 1)]
    assert trial_curves(rows, "acc") == {"t0": [(1, 0.5), (2, 0.75), (5, 1.0)]}
