"""The report of a search of a user's script: the same sections for the file and for the live page."""

import errno
import json
import re
import sys
from pathlib import Path

import pytest
from job_rows import row

from darts_core.autosearch.curves import trial_curves
from darts_core.report.blocks import plain_table, records
from darts_core.report.read import StageRun, VersionRun
from darts_core.report.resource_curves import pauses
from darts_core.report.results import benchmark_section
from darts_core.report.script_content import _headline
from darts_core.report.script_pictures import as_trials
from darts_core.report.slices import slices
from darts_core.report.timeline import timeline
from darts_core.report.trials_front import search_front
from darts_core.report.versions import content_of, write_version_report
from darts_core.report.watching import watching
from darts_core.store.jobs import Store
from darts_core.store.record import new_record
from darts_core.study.result_table import row_names

GOALS = [{"metric": "acc", "mode": "max", "tolerance": 0.0}, {"metric": "ms", "mode": "min"}]


@pytest.fixture
def searched(tmp_path):
    """A version with 600 trials of six iterations each, the last of which failed."""
    store = Store(tmp_path / "runs")
    store.create_job("many", kind="script")
    command = {"state": "succeeded", "request": {"code": "/code", "boot_file": "boot.py",
               "devices": ["cpu"], "arguments": {"a b": "c;d"}, "budget": {"trainings": 4.0}}}  # fmt: skip
    with store.new_version("many", new_record("script", commands={"autosearch": command})) as made:
        (made / "autosearch" / "trials").mkdir(parents=True)
        (made / "autosearch" / "objectives.json").write_text(json.dumps(GOALS))
        (made / "config").mkdir()
        (made / "config" / "1_job.yaml").write_text("search_algorithm: {type: tpe}\nseed: 1\n")
        for number in range(600):
            folder = made / "autosearch" / "trials" / f"t{number}"
            folder.mkdir()
            item = row(number, 0.5 + number / 2000, ms=1 + number % 7, is_baseline=number == 0,
                       config={"lr": 0.1 + number, "kind": "ab"[number % 2]},
                       ended=100.0 + number, time_total_s=0.5, device="cpu", worker_index=number % 2,
                       )  # fmt: skip
            if number == 599:
                item |= {"state": "failed", "values": {}}
            (folder / "result.json").write_text(json.dumps(item))
            lines = [json.dumps({"kind": "iteration", "iteration": i, "metrics": {"acc": i / 10}})
                     for i in range(1, 7)]  # fmt: skip
            (folder / "reports.jsonl").write_text("\n".join(lines) + "\n")
    return store.version("many")


def test_every_trial_is_drawn_also_beyond_five_hundred(searched):
    content = content_of(searched.path, curves=trial_curves)
    results = next(part for part in content.sections if part.key == "results").body
    curves = results[results.index("Every trial&#39;s curve") if "Every trial&#39;s" in results
                     else results.index("Every trial's curve"):]  # fmt: skip
    curves = curves[: curves.index("</svg>")]
    assert len(re.findall('class="series', curves)) == 600
    page = write_version_report(searched.path, curves=trial_curves)
    assert page.stat().st_size < 2**20


def test_all_its_sections_are_there_and_none_has_a_style_of_its_own(searched):
    content = content_of(searched.path, curves=trial_curves)
    keys = [part.key for part in content.sections]
    assert keys == ["results", "trials", "cost", "settings", "again"]
    for part in content.sections:
        assert "style=" not in part.body
    again = content.sections[-1].body
    assert "darts-core jobs create --name many-again" in again
    # the shell gets the user's words as they were
    assert "&#39;a b=c;d&#39;" in again
    assert "--budget 4x" in again
    # line by line, to be copied
    assert "<pre>search_algorithm: {type: tpe}\nseed: 1\n</pre>" in again


def test_idle_time_of_a_worker_is_stated():
    rows = [row(0, 0.5, ended=10.0, time_total_s=10.0, worker_index=0),
            row(1, 0.5, ended=10.0, time_total_s=2.5, worker_index=1)]  # fmt: skip
    drawn = timeline(rows)
    assert re.findall(r"(\d+)% idle", drawn) == ["0", "75"]
    assert timeline([row(0, 0.5)]) == ""
    # by their numbers, not by the alphabet; what is left out is counted
    rows = [row(n, 0.5, ended=1.0, time_total_s=1.0, worker_index=n) for n in range(40)]
    drawn = timeline(rows)
    assert re.findall(r">cpu #(\d+)<", drawn) == [str(n) for n in range(32)]
    assert "the first 32 of 40 workers" in drawn


def test_the_pause_before_a_search_was_resumed_is_no_idle_time_of_a_worker():
    rows = [
        row(0, 0.5, ended=10.0, time_total_s=10.0),
        row(1, 0.5, ended=1020.0, time_total_s=10.0),
    ]
    samples = [{"time": float(t)} for t in (*range(1, 10), *range(1011, 1020))]
    assert pauses(samples) == [(9.0, 1011.0)]
    assert re.findall(r"(\d+)% idle", timeline(rows)) == ["98"]
    drawn = timeline(rows, pauses(samples))
    assert re.findall(r"(\d+)% idle", drawn) == ["0"]
    assert "seconds since the start, pauses left out" in drawn
    # both bars have their length, one beside the other
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([0-9.]+)"', drawn)]
    assert widths[0] == pytest.approx(widths[1], abs=1)
    # what lies before the first trial, behind the last one or beside a running one is none
    for around in ((-500.0, 0.0), (1020.0, 3000.0), (2.0, 1011.0)):
        whole = (
            [row(2, 0.5, ended=1020.0, time_total_s=1020.0, worker_index=1)]
            if around[0] == 2
            else []
        )
        assert "pauses" not in timeline([*rows, *whole], [around])


def test_trials_of_several_steps_are_called_in_pictures_as_in_the_table():
    rows = [row(number, 0.5 + number / 10, step=step, phase="search", ended=2.0, time_total_s=1.0,
                trial_id=f"{step}{number}", config={"x": number, "y": step})
            for step in "ab" for number in (1, 2)]  # fmt: skip
    names = ["1.1", "1.2", "2.1", "2.2"]
    assert row_names(rows) == names
    assert re.findall(r"<title>trial ([0-9.]+): done", timeline(rows)) == names
    front = search_front(rows, GOALS)
    assert [point.tip.partition(":")[0] for point in front.points] == [f"trial {n}" for n in names]
    for _, drawn in slices(as_trials(rows, GOALS), label="acc"):
        assert re.findall(r"<title>trial ([0-9.]+):", drawn) == names


def test_slices_show_numbers_and_names_of_what_differs():
    rows = [row(i, i / 10, config={"lr": 0.1 * (i + 1), "kind": "<b>" if i else "a", "same": 1})
            for i in range(4)]  # fmt: skip
    drawn = dict(slices(as_trials(rows, GOALS[:1]), label="acc"))
    assert list(drawn) == ["Slice: lr", "Slice: kind"]
    assert "&lt;b&gt;" in drawn["Slice: kind"]
    assert all(picture.count("<circle") == 4 for picture in drawn.values())
    assert "the first" not in drawn["Slice: kind"]
    rows = [row(i, i / 10, config={"code": f"1-{i}-1-2112"}) for i in range(30)]
    ((_, picture),) = slices(as_trials(rows, GOALS[:1]), label="acc")
    assert ">code (the first 12 of 30 values)<" in picture
    # names that would cover each other are cut; the hover text has the whole
    assert "<title>1-0-1-2112</title>1-0-…</text>" in picture


def test_a_cell_that_holds_a_part_of_a_mapping_says_so():
    table = plain_table({"widths": {f"layer{n}": n for n in range(13)}, "few": {"a": 1}})
    assert "layer11=11 …</td>" in table
    assert "<td>a=1</td>" in table


def test_a_benchmark_shows_what_it_measured_beside_any_number_of_settings():
    names = ("space", "channels", "layers", "batch_size", "size", "relaxation", "seconds", "copy_gbs",
             "captured", "error", "plain_error")  # fmt: skip
    settings = dict.fromkeys(names, 8)
    rows = [{"name": f"launch {n}", **settings, "median_ms": 1000.0 + n} for n in range(60)]
    bench = StageRun("bench", Path(), config={"what": "step"}, result={"rows": rows})
    body = benchmark_section(VersionRun(Path(), "job", "V001", {"bench": bench})).body
    table, same = body.split("<details>")
    assert re.findall("<th scope=col>([^<]*)", table) == ["name", "median ms"]
    assert re.findall("<td>(1[0-9]+)<", table) == [str(1000 + n) for n in range(60)]
    assert re.findall("<th scope=row>([^<]*)", same) == list(names)
    assert ">1000 of 1200 rows, 60 of 61 columns.<" in records([dict.fromkeys(range(61), 0)] * 1200)
    # two strategies that find the same stand with what they found
    rows = [{"strategy": name, "accuracy_mean": 0.9437} for name in ("darts", "gdas")]
    bench = StageRun("bench", Path(), config={"what": "tabular"}, result={"rows": rows})
    body = benchmark_section(VersionRun(Path(), "job", "V001", {"bench": bench})).body
    assert body.count(">0.9437<") == 2


def test_a_version_without_a_prepared_search_says_so(tmp_path):
    store = Store(tmp_path / "runs")
    store.create_job("bare", kind="script")
    record = new_record(
        "script", commands={"autosearch": {"state": "failed", "message": "No GPU."}}
    )
    with store.new_version("bare", record):
        pass
    content = content_of(store.version("bare").path, curves=trial_curves)
    assert content.title == "The search failed"
    assert _headline({"state": "stopped"}, {"trials": {"done": 1}}) == "Stopped after 1 trial"
    assert content.lead == "No GPU."
    assert [part.key for part in content.sections][:2] == ["state", "trials"]


def test_a_test_metric_of_the_pick_alone_is_told_where_trial_0_was_not_confirmed():
    found = {"test": {"test_acc": {"best": {"mean": 0.91, "std": 0.01, "n": 3}}}}
    assert _headline({"state": "succeeded"}, found) == "Test acc 0.91 ± 0.01 (n=3)"


class Closing:
    """A terminal that is closed behind the first line on it, as of a search that was left to run."""

    closed = False

    def isatty(self):
        return not self.closed

    def write(self, text):
        if self.closed:
            raise OSError(errno.EIO, "Input/output error")

    def flush(self):
        self.closed = True


def test_a_terminal_that_was_closed_ends_no_search_that_went_well(monkeypatch):
    monkeypatch.setattr("darts_core.report.watching.status_line", lambda version: "one/V001: done")
    monkeypatch.setattr(sys, "stderr", Closing())
    with watching(None):
        went_well = True
    assert went_well
    assert sys.stderr.closed
