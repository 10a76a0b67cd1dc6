import errno
import importlib
import json
import os

import pytest
from autosearch_workshop import BASE

from darts_core.autosearch import contract
from darts_core.autosearch.driver import Search
from darts_core.autosearch.reports import ReportReader, reports_of
from darts_core.autosearch.spec import Limits, Objective
from darts_core.autosearch.trials import Workshop
from darts_core.study.ledger import Ledger
from darts_core.study.space import SearchDimension


def test_a_disturbed_latency_is_marked_in_the_result_table(tmp_path, monkeypatch):
    import torch

    from darts_core.autosearch import count_params, latency_ms
    from darts_core.commands.jobs.views import result_table
    from darts_core.latency.timing import Timing

    timer = importlib.import_module("darts_core.latency.measure")
    (tmp_path / "trial.json").write_text(json.dumps({"config": {}}))
    trial = contract.Trial(tmp_path)
    monkeypatch.setattr(contract, "_current", trial)
    net, flags = torch.nn.Linear(4, 2).train(), []
    for reason in ("other processes kept 1.0 cores busy", ""):
        row = Timing(2.0, 1.0, 3.0, 9, "cpu", flagged=bool(reason), flag_reason=reason)
        monkeypatch.setattr(timer, "measure", lambda *a, row=row, **k: row)
        trial.report(0.5, latency=latency_ms(net, (4,)))
        reader = ReportReader(tmp_path / "reports.jsonl")
        reader.new_iterations()
        flags.append(reader.reports.latency_flag)
    assert flags == ["other processes kept 1.0 cores busy", ""]
    # so is one that the iterations report, until another latency takes its place
    (tmp_path / "reports.jsonl").unlink()
    reader = ReportReader(tmp_path / "reports.jsonl")
    for reason in ("busy", ""):
        trial.latency_flag = reason
        trial.reporter(acc=0.5, latency_ms=2.0)
        trial.latency_flag = "of a latency that nobody reports"
        trial.reporter(acc=0.6)
        trial.report(0.5)
        reader.new_iterations()
        assert reader.reports.latency_flag == reason
    trial.report(0.5, additional_data={"latency_ms": 2.0})
    reader.new_iterations()
    assert reader.reports.latency_flag == trial.latency_flag
    assert net.training
    assert count_params(net) == 10
    goals = [{"metric": "acc", "mode": "max"}]
    rows = [{"number": 1, "config": {}, "latency": 2.0, "latency_flag": flags[0]}]
    assert "latency_flag" in result_table(rows, goals, None)[0]
    assert "latency_flag" not in result_table([{**rows[0], "latency_flag": ""}], goals, None)[0]


def test_a_latency_that_an_attempt_before_reported_stays_marked(tmp_path):
    row = {"kind": "iteration", "metrics": {"latency_ms": 2.0}, "latency_flag": "busy"}
    (tmp_path / "reports.1.jsonl").write_text(json.dumps({**row, "iteration": 1}) + "\n")
    row = {"kind": "iteration", "metrics": {"acc": 0.5}}
    for iteration, flag in ((2, "busy"), (1, "")):  # from 1 on it began anew
        (tmp_path / "reports.jsonl").write_text(json.dumps({**row, "iteration": iteration}) + "\n")
        reports = reports_of(tmp_path)
        assert (reports.last.get("latency_ms"), reports.latency_flag) == (
            2.0 if flag else None,
            flag,
        )


def test_a_latency_is_measured_on_inputs_that_the_network_takes(monkeypatch):
    import torch

    from darts_core.autosearch import latency_ms
    from darts_core.latency.timing import Timing

    def once(call, **_):
        call()
        return Timing(2.0, 1.0, 3.0, 9, "cpu")

    timer = importlib.import_module("darts_core.latency.measure")
    monkeypatch.setattr(timer, "measure", once)
    monkeypatch.setattr(contract, "_current", contract.Trial())
    tokens = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 2))
    tokens[0].eval()  # a frozen part of a network in training
    assert latency_ms(tokens, (6,)) == 2.0
    assert [tokens.training, tokens[0].training, tokens[1].training] == [True, False, True]
    for shape in ((4,), (3, 4)):
        assert latency_ms(torch.nn.Linear(4, 2).bfloat16(), shape) == 2.0


SEARCH = """
    import os, time
    from darts_core import autosearch
    def train():
        x = autosearch.config["x"]
        for step in range(4):
            autosearch.reporter(acc=x / 10 + step / 100)
            time.sleep(0.03)
        open(os.path.join(autosearch.output_dir, "m.bin"), "w").write("m")
        autosearch.report(x / 10 + 0.03, model_path="m.bin")
"""


def test_a_search_runs_the_baseline_first_then_the_rest_and_keeps_the_best_models(shop):
    from dataclasses import replace

    workshop = shop(SEARCH)
    spec = replace(BASE, save_model_count=1, max_concurrent=2, baseline={"x": 2})
    search = Search(spec, workshop, first={"x": 2}, is_baseline=True)
    best = search.run()
    assert [r["config"]["x"] for r in sorted(search.rows, key=lambda r: r["number"])] == [2, 1, 3]
    assert best["config"] == {"x": 3}
    models = sorted(p.parent.parent.name for p in workshop.version.rglob("m.bin"))
    assert models == [best["trial_id"]]
    assert workshop.account.trainings() >= 2.0


def test_early_stopping_and_budget(shop):
    from dataclasses import replace

    workshop = shop(SEARCH.replace("range(4)", "range(60)").replace("0.03)", "0.02)"))
    spec = replace(
        BASE,
        dimensions=(SearchDimension("x", choices=(9, 8, 1)),),
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        baseline={"x": 9},
    )
    search = Search(spec, workshop, first={"x": 9}, is_baseline=True)
    assert search.run()["config"] == {"x": 9}
    states = {r["config"]["x"]: r for r in search.rows}
    assert states[9]["state"] == "done"
    assert states[8]["state"] == states[1]["state"] == "stopped"
    assert states[1]["training_iteration"] < 30

    # trainings of a second, so that half a training is long against what stopping one takes
    workshop = shop(SEARCH.replace("0.03)", "0.25)"))
    workshop.version = workshop.version.with_name("V002")
    capped = replace(BASE, limits=Limits(trainings=1.5), baseline={"x": 1})
    search = Search(capped, workshop, first={"x": 1}, is_baseline=True)
    search.run()
    assert "budget of 1.5 trainings" in search.note
    assert workshop.account.trainings() < 2.0
    assert len(search.rows) == 2


@pytest.mark.parametrize(("pause", "state"), [("0.1", "done"), ("60 * (x == 2)", "stopped")])
def test_a_budget_that_is_spent_after_the_last_iteration_leaves_a_trial_its_result(
    shop, monkeypatch, pause, state
):
    from dataclasses import replace

    def over(_ledger, claim):
        spent = claim.lease.epochs and not claim.is_baseline
        return "the budget is spent" if spent else None

    monkeypatch.setattr(Ledger, "over", over)
    monkeypatch.setattr("darts_core.autosearch.script_runner._BUDGET_SECONDS", 0.0)
    if state == "stopped":  # one that hangs there is not waited for
        monkeypatch.setattr("darts_core.autosearch.script_runner._RESULT_SECONDS", 0.0)
    source = SEARCH.replace("range(4)", "range(1)").replace("0.03)", f"{pause})", 1)
    two = (SearchDimension("x", choices=(1, 2)),)
    spec = replace(BASE, dimensions=two, max_iterations=1, limits=Limits(trainings=9))
    search = Search(spec, shop(source), first={"x": 1}, is_baseline=True)
    assert search.run()["config"] == {"x": 2 if state == "done" else 1}
    assert [row["state"] for row in search.rows] == ["done", state]


@pytest.mark.parametrize(
    ("trainings", "scheduler", "at_once"),
    # all four would be cut off at 3.0 / 4 of a training each
    [(4.0, "FIFOScheduler", 2), (1.5, "FIFOScheduler", 1), (6.0, "FIFOScheduler", 4),
     (None, "FIFOScheduler", 4), (4.0, "async_hyperband", 4)],
)  # fmt: skip
def test_no_more_trials_run_at_once_than_the_budget_trains_to_their_ends(
    shop, trainings, scheduler, at_once
):
    from dataclasses import replace

    limits = Limits(trainings=trainings)
    spec = replace(BASE, max_concurrent=4, scheduler=scheduler, limits=limits)
    search = Search(spec, shop(SEARCH), first={"x": 2}, is_baseline=True)
    search.workshop.account.unit_seconds = search.workshop.account.spent_seconds = 2.0
    assert search._at_once() == at_once


def test_a_budget_in_trainings_without_a_training_is_told(shop, caplog, monkeypatch):
    from dataclasses import replace

    spec = replace(BASE, limits=Limits(trainings=1.5))
    search = Search(spec, shop(SEARCH), first={"x": 2}, is_baseline=True)
    row = {"number": 0, "is_baseline": True, "state": "failed", "time_total_s": 2.0}
    for state, told in (("failed", True), ("done", False)):
        caplog.clear()
        monkeypatch.setattr(Search, "rows", [{**row, "state": state}])
        search._measure_unit()
        assert ("the budget of 1.5 trainings does not count" in caplog.text) is told


def test_retry_keeps_the_checkpoint_folder(shop):
    from dataclasses import replace

    workshop = shop(
        """
        import os
        from darts_core import autosearch
        def train():
            path = os.path.join(autosearch.checkpoint_dir, "seen")
            if not os.path.exists(path):
                open(path, "w").close()
                os._exit(7)
            autosearch.report(0.5)
        """
    )
    spec = replace(BASE, dimensions=(SearchDimension("x", choices=(1,)),), limits=Limits(retries=1))
    search = Search(spec, workshop, first={"x": 1})
    assert search.run()["state"] == "done"
    assert [(r["state"], r["attempt"]) for r in search.rows] == [("done", 2)]


RUNGS = """
    import time
    from darts_core import autosearch

    def train():
        for epoch in range(9):
            open(f"epoch-{epoch}", "w").close()
            autosearch.reporter(acc=autosearch.config["x"])
"""


def test_a_trial_begins_no_iteration_while_its_rung_is_judged(shop):
    """Trials that do nothing between reports: whoever does not wait runs on to the end."""
    from dataclasses import replace

    spec = replace(
        BASE,
        dimensions=(SearchDimension("x", choices=(5, 1, 2)),),
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        max_iterations=9,
    )
    search = Search(spec, shop(RUNGS), first={"x": 5}, is_baseline=True)
    search.run()
    assert [(r["config"]["x"], r["training_iteration"], r["state"]) for r in search.rows] == [
        (5, 9, "done"), (1, 1, "stopped"), (2, 1, "stopped"),
    ]  # fmt: skip
    for row in search.rows[1:]:
        output = search.workshop.version / "autosearch/trials" / row["trial_id"] / "output"
        assert [p.name for p in output.iterdir()] == ["epoch-0"]


TRADE = """
    from darts_core import autosearch

    def train():
        acc, latency = {5: (0.9, 5.0), 1: (0.5, 6.0), 2: (0.4, 1.0)}[autosearch.config["x"]]
        for epoch in range(2):
            autosearch.reporter(acc=acc, latency_ms=latency)
"""


def test_several_objectives_are_judged_together_at_a_rung(shop):
    """The least accurate trial is the fastest by far and runs on; the one that is behind in both ends."""
    from dataclasses import replace

    spec = replace(
        BASE,
        objectives=(Objective("acc", "max"), Objective("latency", "min")),
        dimensions=(SearchDimension("x", choices=(5, 1, 2)),),
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 1.5, "max_t": None},
        max_iterations=2,
    )
    search = Search(spec, shop(TRADE), first={"x": 5}, is_baseline=True)
    search.run()
    rows = sorted(search.rows, key=lambda r: r["config"]["x"])
    assert [(r["config"]["x"], r["training_iteration"], r["state"]) for r in rows] == [
        (1, 1, "stopped"), (2, 2, "done"), (5, 2, "done"),
    ]  # fmt: skip


def test_the_scheduler_knows_the_trials_of_an_earlier_start_or_step(shop):
    from dataclasses import replace

    spec = replace(
        BASE,
        scheduler="async_hyperband",
        scheduler_options={"grace_period": 1, "reduction_factor": 3, "max_t": None},
        max_iterations=9,
    )
    workshop = shop(RUNGS)
    first = Search(
        replace(spec, dimensions=(SearchDimension("x", choices=(5,)),)),
        workshop, step="1-s", first={"x": 5}, is_baseline=True,
    )  # fmt: skip
    best = first.run()
    later = Search(spec, workshop, step="2-s", known=[best])
    later.run()
    assert {(r["training_iteration"], r["state"]) for r in later.rows} == {(1, "stopped")}


def test_attempts_that_were_lost_are_paid_for(shop, tmp_path):
    from dataclasses import replace

    from darts_core.study.results import _cost

    workshop = shop(
        """
        import os, time
        from darts_core import autosearch
        def train():
            mark = os.path.join(autosearch.checkpoint_dir, "tried")
            time.sleep(0.3)
            if not os.path.exists(mark):
                open(mark, "w").close()
                os._exit(7)
            autosearch.report(0.5)
        """
    )
    spec = replace(BASE, dimensions=(SearchDimension("x", choices=(1,)),), limits=Limits(retries=1))
    search = Search(spec, workshop, first={"x": 1})
    row = search.run()
    assert row["earlier_seconds"] >= 0.3
    assert _cost([row], None)["seconds"] == row["time_total_s"] + row["earlier_seconds"]
    # another start of the version spends what both attempts took
    again = Workshop(workshop.version, workshop.code, mark=workshop.mark)
    Search(spec, again, first={"x": 1}).run()
    assert again.account.spent_seconds == pytest.approx(
        row["time_total_s"] + row["earlier_seconds"]
    )


def test_a_version_of_before_journals_goes_on_with_its_rows(shop):
    """Folders of an earlier program hold rows and no journal: what is finished stays, the rest is run."""
    import shutil
    from dataclasses import replace

    spec = replace(
        BASE, dimensions=(SearchDimension("x", choices=(1, 2, 3, 4)),), baseline={"x": 2}
    )
    workshop = shop(SEARCH.replace("0.03)", "0.0)"))
    Search(spec, workshop, first={"x": 2}, is_baseline=True).run()
    folder = workshop.version / "autosearch"
    shutil.rmtree(folder / "studies")
    before = {}
    for path in sorted((folder / "trials").iterdir()):
        row = json.loads((path / "result.json").read_text())
        row.pop("ledger")
        for name in ("config.yaml", "lease.json"):
            (path / name).unlink(missing_ok=True)
        if row["number"] == 2:
            (path / "result.json").unlink()  # it was running when the machine went down
        elif row["number"] == 3:
            shutil.rmtree(path)  # not begun
        else:
            (path / "result.json").write_text(json.dumps(row))
            before[row["number"]] = row["ended"]
    again = Workshop(workshop.version, workshop.code, mark=workshop.mark)
    search = Search(spec, again, first={"x": 2}, is_baseline=True)
    assert search.run()["config"] == {"x": 4}
    rows = {row["number"]: row for row in search.rows}
    assert sorted(rows) == [0, 1, 2, 3]
    assert sorted(row["config"]["x"] for row in rows.values()) == [1, 2, 3, 4]
    assert {number: rows[number]["ended"] for number in before} == before
    assert rows[0]["is_baseline"]
    assert (rows[2]["attempt"], rows[3]["attempt"]) == (2, 1)


def test_a_disk_that_takes_no_write_ends_a_job_with_a_sentence_and_its_state(
    tmp_path, monkeypatch, capsys
):
    from darts_core.autosearch import __main__ as program
    from darts_core.autosearch import engine
    from darts_core.autosearch.request import Request, create
    from darts_core.store.jobs import Store

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "boot.py").write_text("def train():\n    pass\n")
    (tmp_path / "job.yaml").write_text(
        "search_space:\n  - params:\n"
        "      - {type: discrete_param, name: x, values: [0.1, 0.3], default: 0.1}\n"
        "search_algorithm: {type: grid_search, reward_attr: accuracy, mode: max}\n"
    )
    store = Store(tmp_path / "runs")
    store.create_job("j", kind="script")
    paths = (str(tmp_path / "job.yaml"),)
    request = Request(code=str(tmp_path / "code"), boot_file="boot.py", config_paths=paths)
    version, _ = create(store, "j", request)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "environment.json")

    monkeypatch.setattr(engine, "prepare", full)
    # these belong to a process of the job's own
    for name in ("adopt_orphans", "end_children"):
        monkeypatch.setattr(engine.procs, name, lambda **_: None)
    assert program.main(["run", str(store.root), "j", "V001"]) == 1
    assert "darts-core: The disk is full while writing environment.json" in capsys.readouterr().err
    assert version.state() == "failed"
    assert version.command()["message"].startswith("The disk is full")
    # where not even the state can be written, what is told is the sentence too
    monkeypatch.setattr(type(version), "set_state", full)
    assert program.main(["run", str(store.root), "j", "V001"]) == 2
    assert "darts-core: The disk is full" in capsys.readouterr().err
