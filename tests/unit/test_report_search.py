"""The page of a search of a user's script, and the drawings in it."""

import argparse
import json
import re
import shlex

import pytest
from job_rows import row
from report_fixture import make_search, make_train

from darts_core import cli
from darts_core.commands.jobs.cli import configure
from darts_core.commands.jobs.options import changes_of
from darts_core.report.charts import Line, line_chart
from darts_core.report.metric_units import metric_label
from darts_core.report.network_drawing import backbone_stages, choices_drawing, network_card
from darts_core.report.page import page
from darts_core.report.read import read_version
from darts_core.report.resource_curves import resource_curves
from darts_core.report.script_pictures import as_trials
from darts_core.report.script_sections import again_command, again_section
from darts_core.report.stages import search_section, train_section
from darts_core.report.svg import drawing
from darts_core.report.trials import Trial, best_so_far, parallel, trial_curves
from darts_core.report.version_tree import version_lines, version_tree
from darts_core.report.versions import content_of
from darts_core.store.jobs import Store
from darts_core.store.record import new_record

GOALS = [{"metric": "acc", "mode": "max"}, {"metric": "latency_ms", "mode": "min"}]


@pytest.fixture
def searched(tmp_path):
    """A finished search: trial 0 is the user's own, the others are better and faster."""
    store = Store(tmp_path / "runs")
    store.create_job("a", kind="script")
    record = new_record(
        "script",
        commands={"autosearch": {"state": "succeeded", "message": "Better.", "request": {}}},
    )
    rows = []
    for number in range(6):
        item = row(number, 0.5 + 0.06 * number, is_baseline=number == 0, time_total_s=1.0)
        item["values"]["latency_ms"] = 9.0 - number / 6
        item["config"] = {"lr": 0.1 / (1 + number), "code": "111-2111" if number == 0 else "1-21"}
        rows.append(item)
    for seed in (5, 6):
        for side, acc in (("baseline", 0.5), ("best", 0.8)):
            item = row(seed + (10 if side == "best" else 0), acc + seed / 1000, phase="confirm")
            item |= {"confirms": side, "seed": seed, "metrics": {"test_accuracy": acc - 0.01}}
            item["trial_id"], item["values"]["latency_ms"] = f"{side}{seed}", 8.0
            item["config"] = rows[5 if side == "best" else 0]["config"]
            rows.append(item)
    rows[5]["latency_flag"] = "other processes kept 1.0 cores busy"
    with store.new_version("a", record) as made:
        (made / "autosearch").mkdir()
        (made / "autosearch" / "objectives.json").write_text(json.dumps(GOALS))
        samples = [
            {"time": 5.0 + i, "cpu_cores": 0.5, "memory_mib": 64.0, "trials": 1, "gpu": None}
            for i in range(4)
        ]
        lines = "\n".join(json.dumps(sample) for sample in samples)
        (made / "autosearch" / "resources.jsonl").write_text(lines + "\n")
        for item in rows:
            trial = made / "autosearch" / "trials" / item["trial_id"]
            trial.mkdir(parents=True)
            (trial / "result.json").write_text(json.dumps(item))
    version = store.version("a")
    version.describe("wide ranges")
    return version


def test_the_page_tells_the_test_accuracy_the_network_the_machine_and_the_versions(searched):
    content = content_of(searched.path)
    assert [part.key for part in content.sections] == [
        "results", "architecture", "trials", "cost", "resources", "versions", "settings", "again",
    ]  # fmt: skip
    # the held-out figures stand in the title, with their spread and the user's own
    assert (
        content.title == "Test accuracy 0.79 ± 0 (n=2), 0.49 ± 0 (n=2) with your own configuration"
    )
    assert content.crumb.endswith("succeeded · wide ranges")
    html = page(content)
    assert " style=" not in html
    assert "latency (ms, lower is better)" in html
    assert "latency_ms (ms)" in html
    assert "your configuration" in html


def test_a_trial_that_was_stopped_early_is_drawn_with_its_last_value():
    rows = [row(0, 0.5), row(1, 0.4, state="stopped")]
    del rows[1]["values"]["ms"]
    trials = as_trials(rows, [{"metric": "acc", "mode": "max"}, {"metric": "ms", "mode": "min"}])
    assert [(t.value, t.complete) for t in trials] == [(0.5, True), (0.4, False)]
    drawn = best_so_far(trials, maximize=True, label="acc", percent=False)
    assert "stopped early, its last value" in drawn


def test_a_csv_of_some_of_the_results_says_so_beside_it(searched, capsys):
    words = ["jobs", f"--root={searched.path.parent.parent}", "show", "a", "--csv"]
    for more, lines, said in (
        (["--limit", "4"], 5, "darts-core: 4 of 10 results; --limit 10 prints all\n"),
        (
            ["--offset", "9"],
            2,
            "darts-core: 1 of 10 results; --limit 10 without --offset prints all\n",
        ),
        ([], 11, ""),
    ):
        assert cli.main([*words, *more]) == 0
        found = capsys.readouterr()
        assert (len(found.out.splitlines()), found.err) == (lines, said)


def test_disturbed_timings_are_said_above_the_results(searched):
    results = content_of(searched.path).sections[0].body
    assert "disturbed the latency of 1 of 10 trials (5)" in results
    assert results.index("disturbed") < results.index("<svg")


@pytest.mark.parametrize("count", [3, 1200])
def test_the_curve_of_every_trial_is_drawn(count):
    curves = {n: [(x, n + x) for x in range(30)] for n in range(count)}
    drawn = trial_curves(curves, 0, label="acc", percent=False, own=1)
    assert drawn.count("<path") == count
    assert "your configuration" in drawn
    assert len(drawn) < 2_000_000


def test_a_trial_of_one_iteration_is_a_dot_and_a_level_crosses_the_plot():
    drawn = line_chart(
        [Line("", [(1, 0.5)], "sep")], x_label="x", y_label="y", title="t", level=("mine", 0.7)
    )
    assert "<circle" in drawn
    assert "mine" in drawn
    # what lies beyond the range stands at its edge (290 - 46 pixels down), the end of a named line too
    for label, points in (("", [(1, 0.0)]), ("yours", [(0, 0.9), (1, 0.0)])):
        drawn = line_chart(
            [Line(label, points, "sep"), Line("", [(0, 0.9), (1, 1.0)], "none")],
            x_label="x", y_label="y", title="t", y_range=(0.8, 1.0),
        )  # fmt: skip
        assert re.findall(r'<circle cx="[0-9.]+" cy="([0-9.]+)"', drawn) == ["244"]
    low = line_chart(
        [Line("", [(0, 5.0), (1, 6.0)], "sep")], x_label="x", y_label="y", title="t", from_zero=True
    )
    assert ">0<" in low
    # the name of a job may have 120 characters: it takes two fifths of the picture, the lines the rest
    long = f"{'a' * 115}/V001"
    drawn = line_chart(
        [Line(long, [(0, 1.0), (9, 2.0)], "sep")], x_label="x", y_label="y", title="t"
    )
    assert re.findall(r'd="M([0-9.]+) [0-9.]+ L([0-9.]+) ', drawn) == [("56.00", "318.00")]
    shown = re.findall(r"</title>(…a+/V001)</text>", drawn)
    assert [len(name) < 40 for name in shown] == [True]
    assert f"<title>{long}: 2 at 9</title>" in drawn


def test_units_stand_where_the_name_knows_them():
    assert metric_label("latency", "min") == "latency (ms, lower is better)"
    assert metric_label("warm_up_ms") == "warm up (ms)"
    assert metric_label("val_acc", "max") == "val acc (higher is better)"


def test_the_tree_follows_parents_and_loses_no_version():
    rows = [
        {"version": "V001", "parent": None, "state": "succeeded", "metric": "acc", "value": 0.5},
        {"version": "V002", "parent": "V001", "state": "failed"},
        {"version": "V003", "parent": "V001", "state": "stopped", "version_description": "narrow"},
        {"version": "V004", "parent": "V002", "state": "running"},
        {"version": "V006", "parent": "V005", "state": "succeeded"},  # V005 was deleted
        {"version": "V007", "parent": "V008", "state": "succeeded"},
        {"version": "V008", "parent": "V007", "state": "succeeded"},  # no tree, and no endless loop
    ]
    found = [(depth, item["version"]) for depth, item in version_lines(rows)]
    assert found[:5] == [(0, "V001"), (1, "V002"), (2, "V004"), (1, "V003"), (0, "V006")]
    assert sorted(name for _, name in found) == [item["version"] for item in rows]
    drawn = version_tree(rows, here="V002")
    assert "V002 (this page)" in drawn
    assert "succeeded · acc 0.5" in drawn
    assert "stopped · narrow" in drawn
    assert version_tree(rows[:1]) == ""


@pytest.mark.parametrize(
    ("code", "stages"),
    [
        ("111-21", [[1, 1, 1], [2, 2]]),
        ("12-12", [[1, 2], [2, 4]]),
        ("2x64-1x96", [[64, 64], [96]]),
        ("0x8", None), ("3x0", None), ("1-", None), ("131", None), ("1" * 300, None), (7, None),
        ("150x8-150x8", None),
    ],
)  # fmt: skip
def test_codes_and_shapes_become_blocks(code, stages):
    assert backbone_stages(code) == stages


def test_the_network_of_the_pick_stands_beside_yours(tmp_path):
    own, best = (
        {"config": {"code": c}, "folder": str(tmp_path / n)}
        for n, c in (("own", "111-2111"), ("best", "1-21"))
    )
    drawn = network_card(best, own)
    assert drawn.count("<rect") == 3 + 7
    # kept networks: sizes, and the chosen option of every choice
    for name, size in (("own", 4000), ("best", 1500)):
        (tmp_path / name).mkdir()
        choices = {"width": {"options": [4, 8, 16], "chosen": 8}}
        content = {"parameters": size, "choices": choices, "text": "Net(\n)"}
        (tmp_path / name / "network.json").write_text(json.dumps(content))
    drawn = network_card({**best, "config": {}}, own)
    assert drawn.count('class="fill-searched"') == 1
    assert drawn.count("hollow") == 2
    assert "1.5 k" in drawn
    assert "4 k" in drawn
    assert choices_drawing({"a": 1, "b": {"options": []}}) == ""
    # the chosen one of many long names is drawn, too
    names = [f"InvertedResidual(kernel={n}, expansion=6)" for n in range(20)]
    drawn = choices_drawing({"block": {"options": names, "chosen": names[-1]}})
    assert drawn.count("<rect") == 20
    assert drawn.count("fill-searched") == 1
    assert network_card(None, own) == network_card({"config": {"x": 1}}, None) == ""


def test_the_use_of_the_machine_is_drawn_without_its_pauses():
    samples = [
        {"time": 100.0 + i, "cpu_cores": 0.5, "memory_mib": 64.0, "trials": 1} for i in range(5)
    ]
    later = [{**s, "time": s["time"] + 90_000, "gpu": [{"percent": 50.0}]} for s in samples]
    drawn = resource_curves([*samples, *later])
    assert "running time (s)" in drawn
    assert "memory (MiB)" in drawn
    assert "use of the GPU" in drawn
    # eight seconds of running, no day
    assert {"2", "4", "6", "8"} <= set(re.findall(r">(\d+)<", drawn))
    assert resource_curves(samples[:1]) == ""


def test_a_drawing_is_as_wide_as_it_is_made_without_a_style():
    assert 'width="560"' in drawing(560, 100, "", label="x")
    assert "style" not in drawing(560, 100, "", label="x")


@pytest.mark.parametrize("known", [True, False])
def test_a_labelled_choice_is_drawn_with_its_options_and_not_as_a_cell(tmp_path, known):
    folder = tmp_path / "search"
    make_search(folder, epochs=3)
    rows = [{"epoch": e, "alphas": {"stage1.width": [[0.6, 0.3, 0.1]]}} for e in range(3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = json.loads((folder / "result.json").read_text())
    result["architecture"] = {
        "schema_version": 1,
        "space": "resnet",
        "choices": {"stage1.width": 0.5},
    }
    result |= {"options": {"stage1.width": [0.5, 0.75, 1.0]}} if known else {}
    (folder / "result.json").write_text(json.dumps(result))
    shown = str(search_section(read_version(tmp_path)).body)
    assert "Options of stage1.width" in shown
    assert "stage1.width: weight of each option" in shown
    assert ("0.75" if known else "option 1") in shown
    assert "cell" not in shown
    assert "edge" not in shown


def test_a_training_that_was_ended_early_says_why(tmp_path):
    for epochs, words in ((4, "4 epochs"), (1, "1 epoch")):
        make_train(tmp_path / "train", epochs=epochs)
        path = tmp_path / "train" / "result.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**result, "stopped": "mine: enough"}), encoding="utf-8")
        note = train_section(read_version(tmp_path)).note
        assert note.endswith(f"It ended after {words}: mine: enough.")
        # the params of the last epoch are kept, whatever the best one had
        assert note.startswith(
            f"On the val split it ends with {100 * result['val_accuracy']:.2f} %. "
        )


def test_the_command_that_does_it_again_names_the_function_and_the_cluster(searched):
    record = searched.record()
    given = record["commands"]["autosearch"]["request"]
    given |= {"code": "mine", "entry": "train", "slurm": None}
    path = searched.path / "version.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    usual = content_of(searched.path).sections[-1].body
    assert "--code" in usual
    assert "--entry" not in usual
    assert "--slurm" not in usual
    given |= {"entry": "fit", "slurm": {"gpus": 1}}
    path.write_text(json.dumps(record), encoding="utf-8")
    again = content_of(searched.path).sections[-1].body
    assert "--entry fit" in again
    assert "--slurm &#39;{&#34;gpus&#34;: 1}&#39;" in again


def test_the_command_that_does_it_again_gives_each_setting_back_as_it_was(searched):
    settings = {"a": None, "b": "1", "c": 1e-05, "d": [1, "x y"], "e": "null", "f": True}
    given = {"settings": settings, "budget": {"seconds": 12 * 86400.0, "trainings": 2.5}}
    words = shlex.split(again_command(searched, given, ()))
    parser = argparse.ArgumentParser()
    configure(parser)
    read = changes_of(parser.parse_args(words[2:]))
    assert read["settings"] == settings
    assert read["budget"] == given["budget"]


def test_the_command_that_does_it_again_has_the_job_files_in_their_order(searched):
    (searched.path / "config").mkdir()
    for number in (1, 2, 10):
        (searched.path / "config" / f"{number}-job.yaml").write_text("{}")
    body = again_section(searched, {"parameters": {}}).body
    found = list(dict.fromkeys(re.findall(r"config/(\d+)-job", body)))
    assert found == ["1", "2", "10"]


def test_what_breaks_a_constraint_is_never_the_best():
    trials = [
        Trial(0, "complete", {"x": 0}, 0.5),
        Trial(1, "complete", {"x": 1}, 0.9, feasible=False),
        Trial(2, "complete", {"x": 2}, 0.6),
    ]
    drawn = best_so_far(trials, maximize=True, label="acc", percent=False)
    assert "best: 0.6 at 2" in drawn
    # trials are numbered as they are drawn, whichever ends first
    assert "trial, in the order in which they began" in drawn
    assert "outside the constraints" in drawn
    told = re.findall(r"<title>(trial \d)[^<]*</title><path[^>]*coord best", parallel(
        trials, maximize=True, label="acc", percent=False))  # fmt: skip
    assert told == ["trial 2"]


def test_the_pictures_of_many_trials_look_at_each_a_few_times():
    class Counted(dict):
        asked = 0

        def get(self, key, default=None):
            Counted.asked += 1
            return super().get(key, default)

    rows = [Counted(row(number, 0.5)) for number in range(200)]
    as_trials(rows, [{"metric": "acc", "mode": "max"}])
    assert Counted.asked < 30 * len(rows)
