"""A search's judgement: differences beyond their standard error, and figures that mean nothing."""

import json
import os
import time

import pytest

from darts_core.study.judge import doubts, gain, verdict
from darts_core.study.result_table import result_table
from darts_core.study.results import best_row, read_rows

GOALS = [
    {"metric": "acc", "mode": "max", "tolerance": 0.0},
    {"metric": "latency", "mode": "min", "tolerance": 0.0},
]


def row(trial, acc, latency=5.0, **more):
    return {"trial_id": trial, "number": 0, "state": "done", "done": True, "config": {},
            "values": {"acc": acc, "latency": latency}, **more}  # fmt: skip


def pairs(ours, theirs, latency=(5.0, 5.0), **more):
    rows = []
    for seed, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        rows.append(
            row(f"w{seed}", a, latency[0] + 0.01 * seed, confirms="best", seed=seed, **more)
        )
        rows.append(row(f"o{seed}", b, latency[1] + 0.01 * seed, confirms="baseline", seed=seed))
    return rows


BEST, OWN = row("w", 0.9), row("o", 0.8)


@pytest.mark.parametrize(
    ("ours", "theirs", "word"),
    [
        # seeds differ more than the sides do, and yet every pair says the same
        ([0.81, 0.71, 0.91], [0.80, 0.70, 0.89], "better"),
        ([0.80, 0.70, 0.89], [0.81, 0.71, 0.91], "worse"),
        ([0.82, 0.80, 0.79], [0.80, 0.81, 0.795], "no difference shown"),
        ([0.9], [0.8], "no difference shown"),
        ([0.8, 0.8], [0.8, 0.8], "no difference shown"),
    ],
)
def test_a_difference_counts_beyond_its_standard_error_over_pairs(ours, theirs, word):
    found = gain(BEST, OWN, pairs(ours, theirs), GOALS)[0]
    assert (found["verdict"], found["better"]) == (word, word == "better")


def test_the_verdict_speaks_of_accuracy_and_of_time_apart():
    confirm = pairs([0.82, 0.80, 0.79], [0.80, 0.81, 0.795], latency=(2.0, 5.0))
    gains = gain(BEST, OWN, confirm, GOALS)
    text = verdict(BEST, OWN, [BEST, OWN], gains)
    assert "over 3 fresh seeds:" in text
    assert "no difference shown (3 seeds); latency" in text
    assert text.endswith("(-3 ± 0): better.")
    worse = verdict(BEST, OWN, [BEST, OWN], gain(BEST, OWN, pairs([0.5, 0.51], [0.8, 0.8]), GOALS))
    assert worse.endswith("No gain is shown.")


def test_a_disturbed_timing_is_marked_in_the_verdict():
    confirm = pairs([0.9, 0.9], [0.8, 0.8], latency=(2.0, 5.0), latency_flag="other work")
    text = verdict(BEST, OWN, [BEST, OWN], gain(BEST, OWN, confirm, GOALS))
    acc, latency = text.split("; latency")
    assert "disturbed" not in acc
    assert "better [timing disturbed: other work]" in latency


def test_seeds_that_change_nothing_are_named():
    goals = GOALS[:1]
    text = verdict(BEST, OWN, [BEST, OWN], gain(BEST, OWN, pairs([0.9, 0.9], [0.8, 0.8]), goals))
    assert "the seed does not reach the training" in text


def test_after_trial_0_alone_nothing_is_said_to_have_lost():
    assert verdict(OWN, OWN, [OWN], []) == "Only your own configuration has been measured so far."
    running = {"trial_id": "r", "state": "running", "done": False}
    assert "Only your own" in verdict(OWN, OWN, [OWN, running], [])
    assert verdict(OWN, OWN, [OWN, row("x", 0.1)], []) == "Nothing beat your own configuration."
    cut = row("x", 0.9) | {"state": "stopped", "reason": "the budget of 2 trainings is spent"}
    assert verdict(OWN, OWN, [OWN, cut], []).startswith("No other trial ran to its end")


def test_a_metric_that_never_changed_is_no_success():
    frozen = [row(t, 0.0875, reward_range=[5, 0.0875, 0.0875]) for t in "ab"]
    assert "0.0875 at every iteration of every trial" in doubts(frozen, frozen[0], GOALS)
    text = verdict(frozen[0], frozen[1], frozen, [], doubts(frozen, frozen[0], GOALS))
    assert text.startswith("No success: acc was 0.0875")
    # one trial that moved, or too few iterations, is no proof
    for other in ([5, 0.08, 0.09], [2, 0.0875, 0.0875], None):
        assert doubts([frozen[0], row("c", 0.0875, reward_range=other)], frozen[0], GOALS) == ""


@pytest.mark.parametrize(
    ("chance", "value", "doubted"),
    [(0.1, 0.0875, True), (0.1, 0.15, True), (0.1, 0.3, False), (0.5, 0.54, True), (0.5, 0.6, False),
     (10, 12.0, True), (10, 40.0, False), (None, 0.0875, False)],
)  # fmt: skip
def test_an_accuracy_at_the_level_of_chance_is_no_success(chance, value, doubted):
    goals = [{**GOALS[0], "chance": chance}]
    best = row("a", value)
    assert ("level of chance" in doubts([best], best, goals)) == doubted


@pytest.mark.parametrize(
    ("value", "doubted"), [(2.4, True), (2.2, True), (1.5, False), (0.0, False)]
)
def test_a_loss_at_the_level_of_chance_is_no_success(value, doubted):
    goals = [{**GOALS[0], "mode": "min", "chance": 2.3}]
    best = row("a", value)
    assert ("level of chance" in doubts([best], best, goals)) == doubted


def test_a_running_trial_shows_its_values_iterations_and_time_left(tmp_path):
    folder = tmp_path / "autosearch" / "trials" / "abcd1234"
    folder.mkdir(parents=True)
    record = {"number": 1, "config": {"x": 1}, "step": "s", "phase": "search", "max_iterations": 4}
    (folder / "trial.json").write_text(json.dumps(record))
    long_ago = time.time() // 1 - 3600
    os.utime(folder / "trial.json", (long_ago, long_ago))
    lines = [{"kind": "iteration", "iteration": i, "metrics": {"acc": 0.1 * i}} for i in (1, 2)]
    (folder / "reports.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"kind": "iter')
    # a trial that was cut off long ago has run until its last report, not until now
    os.utime(folder / "reports.jsonl", (long_ago + 20, long_ago + 20))
    row = read_rows(tmp_path)[0]
    assert (row["state"], row["training_iteration"], row["values"]) == ("running", 2, {"acc": 0.2})
    assert (row["time_total_s"], row["time_left_s"]) == (20.0, 20.0)
    columns, table = result_table([row], GOALS, None)
    assert {"acc", "iterations", "time_total_s", "time_left_s"} <= set(columns)
    assert (table[0]["acc"], table[0]["iterations"]) == (0.2, 2)
    # it is no result yet
    assert best_row([row], GOALS[:1]) is None
