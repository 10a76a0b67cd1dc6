"""Lists and pages of metrics that are better low or no share; which stage stands for a version; time left."""

import json
import os
import time
from dataclasses import replace

import pytest
import report_fixture as fixture

from darts_core.metric import ACCURACY, Metric
from darts_core.report.elements import best_element
from darts_core.report.job_summary import summarize
from darts_core.report.multirun import multirun_content
from darts_core.report.progress import Progress, progress
from darts_core.report.read import VersionRun, read_stage
from darts_core.report.results import headline, tiles
from darts_core.report.rows import Latency, ModelRow
from darts_core.report.seeds import seeds_content, seeds_summary
from darts_core.report.verdict import standing
from darts_core.runlog import read_json, write_json, write_yaml
from darts_core.store.jobs import Store
from darts_core.store.record import new_record
from darts_core.store.version import Version
from darts_core.study.records import StudyResult, TrialRecord
from darts_core.study.table import write_tables
from darts_core.tasks import TASKS

PERPLEXITY = Metric("perplexity", "minimize")


@pytest.fixture
def version(tmp_path):
    """A pipeline's version in which nothing has run yet."""
    store = Store(tmp_path / "runs")
    store.create_job("pipe", kind="pipeline")
    with store.new_version("pipe", new_record("pipeline", commands={})):
        pass
    return store.version("pipe")


def logged(folder, name, values):
    """A stage that has logged these values of a metric and has not finished."""
    rows = [
        {"epoch": n, "loss": 1.0, f"train_{name}": value, f"val_{name}": value}
        for n, value in enumerate(values)
    ]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def measured(name, kind, values, ms):
    return ModelRow(
        name, kind, accuracies=values, latency={1: Latency(ms)}, baseline=kind == "baseline",
        metric=PERPLEXITY,
    )  # fmt: skip


def test_the_training_after_a_study_stands_for_the_version(version):
    fixture.make_search(version.path / "search", epochs=2)
    fixture.make_tune(version.path / "tune", trials=8)
    fixture.make_train(version.path / "train", epochs=2, test=0.95)
    # as the stage writes it: what the best trial had, after few epochs
    path = version.path / "tune" / "result.json"
    write_json(path, {**read_json(path), "val_accuracy": 0.5})
    found = summarize(version)
    assert (found["metric"], found["best"]) == ("test_accuracy", 0.95)
    assert seeds_summary([version.path])["val_accuracy"]["mean"] == pytest.approx(0.979)


def test_what_was_exported_and_measured_keeps_the_course_and_the_baseline_of_the_page(version):
    fixture.make_train(version.path / "train", epochs=3, test=0.95)
    write_json(version.path / "export" / "result.json", {"test_accuracy": 0.95})
    rows = [
        ModelRow(name, kind, precision=precision, accuracies=(value,), baseline=kind == "baseline")
        for name, kind, precision, value in (
            ("resnet8", "baseline", "fp32", 0.9),
            ("resnet8", "baseline", "bf16", 0.2),
            ("exported", "exported", "fp32", 0.95),
        )
    ]
    write_json(version.path / "bench" / "results.json", {"rows": [row.to_dict() for row in rows]})
    found = summarize(version)
    assert (found["best"], found["baseline"], len(found["sparkline"])) == (0.95, 0.9, 3)


def test_an_element_is_chosen_by_its_network_and_not_by_its_study(tmp_path):
    for place, tuned, trained in (("0", 0.9, 0.7), ("1", 0.6, 0.8)):
        for stage, value in (("tune", tuned), ("train", trained)):
            write_json(tmp_path / place / stage / "result.json", {"val_accuracy": value})
    assert best_element(tmp_path) == tmp_path / "1"


@pytest.mark.parametrize("task", ["classification", "multi_label", "next_token", "regression"])
def test_a_stage_that_has_not_finished_knows_the_metric_of_its_task(tmp_path, task):
    metric = TASKS[task].metric
    logged(tmp_path / "train", metric.name, (0.5,))
    assert read_stage(tmp_path / "train").metric == metric


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("word_error_rate", "minimize"),
        ("rmse", "minimize"),
        ("latency_ms", "minimize"),
        ("f1", "maximize"),
        ("neg_mean_squared_error", "maximize"),
    ],
)
def test_of_somebody_elses_task_the_name_tells_the_better_side(tmp_path, name, direction):
    logged(tmp_path / "train", name, (0.5,))
    assert read_stage(tmp_path / "train").metric == Metric(name, direction)


def test_a_sweep_stands_in_lists_and_reports_with_its_best_trial(version):
    goals, params = {"params": "minimize", "val_perplexity": "minimize"}, {"x": 1}
    metrics = {"params": 9.0, "val_perplexity": 12.5, "train_seconds": 3.0}
    trial = TrialRecord(
        0, "complete", params, 9.0, (9.0, 12.5), metrics, {}, 1, 3.0, "finished", version.path
    )
    untried = replace(trial, number=1, state="waiting", value=None, values=(), metrics={})
    found = StudyResult(
        (trial, untried), goals, 0, 9.0, params, (0,), {}, {}, "the budget is spent"
    )
    write_tables(found, version.path / "tune")
    stage = read_stage(version.path / "tune")
    assert stage.metric == PERPLEXITY
    assert (stage.number("params"), stage.number("schema_version")) == (9.0, 1.0)
    told = summarize(version)
    assert (told["metric"], told["best"]) == ("val_perplexity", 12.5)
    title, under = headline(VersionRun(version.path, "pipe", "V001", {"tune": stage}), [])
    assert under.startswith("1 trial in ")
    assert title == f"{PERPLEXITY.text(12.5, 1)} val perplexity with the best settings"


def test_the_best_so_far_of_a_running_training_is_the_lowest_perplexity(version):
    logged(version.path / "train", "perplexity", (50.0, 12.0, 20.0))
    found = summarize(version)
    assert (found["metric"], found["best"]) == ("val_perplexity", 12.0)


def test_the_values_of_seeds_are_drawn_in_their_own_unit(tmp_path):
    folders = []
    for seed, value in enumerate((0.8, 0.84)):
        folders.append(tmp_path / "job" / "V001" / f"seed{seed}")
        logged(folders[-1] / "train", "r2", (value,))
        result = {"val_r2": value, "test_r2": value, "metric": Metric("r2").to_dict()}
        write_json(folders[-1] / "train" / "result.json", result)
    told = seeds_content(folders)
    drawn = str(told.sections[0].body)
    assert drawn.count("mean 0.82") == 2
    assert "%" not in drawn
    assert told.lead == "Worst 0.8, best 0.84."


def test_seeds_of_a_search_alone_say_whose_their_values_are(tmp_path):
    folders = [tmp_path / "job" / "V001" / f"seed{seed}" for seed in range(2)]
    for folder in folders:
        write_json(folder / "search" / "result.json", {"val_accuracy": 0.7})
    told = seeds_content(folders)
    assert told.title == "70.00 ± 0.00 % val accuracy over 2 seeds"
    assert told.lead.startswith(
        "Worst 70.00 %, best 70.00 %. Values of a search are those of its supernet,"
    )
    for folder in folders:
        write_json(folder / "searched" / "result.json", {"device_seconds": 70.0})
        write_json(folder / "train" / "result.json", {"val_accuracy": 0.9, "device_seconds": 30.0})
    told = seeds_content(folders)
    assert told.lead == "Worst 90.00 %, best 90.00 %."
    # what `run` trains untuned is part of what was spent, as on the page of each
    assert str(told.sections[0].body).count("1 min 40 s") == 2
    assert str(multirun_content(folders[0].parent).sections[-1].body).count("1 min 40 s") == 2


def test_a_lower_perplexity_is_called_better_and_has_no_plus_sign(tmp_path):
    rows = [measured("gpt", "baseline", (13.0,), 2.0), measured("found", "trained", (12.5,), 1.0)]
    shown = str(tiles(VersionRun(tmp_path, "job", "V001", {}), rows, None))
    assert "0.5 perplexity better vs baseline" in shown
    assert "+" not in shown
    noisy = measured("gpt", "baseline", (13.0, 12.6), 2.0)
    close = measured("found", "trained", (12.5, 12.9), 1.0)
    assert (
        standing(close, noisy) == "equal in perplexity (0.1 perplexity better, within the spread)"
    )
    assert standing(noisy, close) == "equal in perplexity (0.1 perplexity worse, within the spread)"


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [(0.9996, 1, "99.96 %"), (0.99996, 2, "99.996 %"), (0.9994, 1, "99.9 %"), (1.0, 1, "100.0 %"),
     (1 - 1e-12, 2, "100.00 %"), (float("nan"), 1, "nan %")],
)  # fmt: skip
def test_what_is_not_perfect_is_not_called_100_per_cent(value, digits, words):
    assert ACCURACY.text(value, digits) == words


def test_the_time_left_is_told_by_the_last_epochs(version):
    now, folder = time.time(), version.path / "train"
    write_yaml(folder / "config.yaml", {"train": {"epochs": 40}})
    # stopped for hours after the fourth epoch; the command searched before it trained
    times = [*(now - 30_000 + n for n in range(4)), *(now - 5 + n for n in range(6))]
    rows = [{"epoch": n, "time": at, "seconds": 0.8} for n, at in enumerate(times)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"kind": "pipeline", "commands": {"run": {"started": now - 90_000}}}
    far = progress(version, record)
    assert far.text == "10 of 40 epochs of train"
    assert 28 < far.seconds_left < 31
    # after the first epoch it is that one's time
    (folder / "metrics.jsonl").write_text(json.dumps(rows[-1]) + "\n")
    assert 30 < progress(version, record).seconds_left <= 39 * 0.8


def test_how_far_a_study_is_counts_its_trials(version):
    record, folder = {"kind": "pipeline", "commands": {}}, version.path
    logged(folder / "search", "accuracy", (0.5, 0.6))
    write_yaml(folder / "search" / "config.yaml", {"search": {"epochs": 2}})
    os.utime(folder / "search" / "metrics.jsonl", (1.0, 1.0))
    assert progress(version, record).text == "2 of 2 epochs of search"
    write_yaml(folder / "tune" / "config.yaml", {"tune": {"trials": 20}})
    for number in range(3):
        (folder / "tune" / "trials" / f"{number:04d}").mkdir(parents=True)
    # a sweep has its budget elsewhere
    assert progress(version, record).text == "3 trials of tune"
    (folder / "tune" / "config.hash").touch()
    assert progress(version, record) == Progress(3, 20, "trials of tune")


def test_the_time_left_of_a_resumed_search_is_that_of_the_trials_since(tmp_path):
    store, now = Store(tmp_path), time.time()
    store.create_job("search", kind="script")
    # stopped for a day after four trials, resumed 20 seconds ago, two trials since
    command = {"state": "running", "started": now - 90_000, "changed": now - 20}
    record = new_record("script", commands={"autosearch": command})
    with store.new_version("search", record) as made:
        for number in range(6):
            folder = made / "autosearch" / "trials" / f"t{number}"
            folder.mkdir(parents=True)
            (folder / "result.json").write_text("{}")
            ended = now - (86_000 if number < 4 else 1)
            os.utime(folder / "result.json", (ended, ended))
        plan = "{algorithm: tpe_search, num_samples: 9}"
        (made / "autosearch" / "config.yaml").write_text(plan)
    far = progress(store.version("search"), record)
    assert (far.done, far.total) == (6, 10)
    assert 40 <= far.seconds_left < 44
    # before the first trial has ended nothing is known of its pace
    command["changed"] = now + 60
    assert progress(store.version("search"), record).seconds_left is None


@pytest.mark.parametrize(
    ("plan", "total"),
    [
        # no more than there are points, yours among them or beside them
        ("{algorithm: tpe_search, dimensions: {a: [1, 2], b: {low: 1, high: 3, int: true}}", 6),
        ("{algorithm: grid_search, dimensions: {a: [1, 2, 3]}, baseline: {a: 7}", 4),
        # the few trials of a supernet are no number of samples
        ("{algorithm: differentiable_search, confirm_seeds: 3", 9),
        ("{algorithm: elastic_search, algorithm_options: {points: 4}", 6),
    ],
)
def test_a_search_is_told_no_more_trials_than_it_has(tmp_path, plan, total):
    (tmp_path / "autosearch").mkdir()
    (tmp_path / "autosearch" / "config.yaml").write_text(f"{plan}, num_samples: 20}}")
    assert progress(Version(tmp_path), {"kind": "script", "commands": {}}).total == total
