"""One latency table for several processes, and a table that is named: nothing is lost, nothing is mixed."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch

from darts_core.errors import LatencyError
from darts_core.latency import LatencyTable, device_name
from darts_core.latency import table as table_module
from darts_core.latency.rows import Group
from darts_core.latency.table import fill_table, open_table
from darts_core.settings.search import Latency
from darts_core.stages import cost

CPU = torch.device("cpu")


def opened(path: Path, runtime: str = "eager") -> LatencyTable:
    return open_table(path, CPU, runtime, torch.float32)


def fit(overhead_ms: float) -> dict[str, float]:
    return {"overhead_ms": overhead_ms, "slope": 1.0}


def test_two_that_fill_one_file_keep_each_other_s_rows_and_fits(tmp_path):
    path = tmp_path / "t.json"
    first, second = opened(path), opened(path)
    first.rows["a"] = 1.0
    first.save(path)
    second.rows |= {"b": 2.0, "c": 3.0}
    second.flagged = ["c"]
    second.fits["s"] = fit(0.5)
    second.save(path)
    first.rows["d"] = 4.0
    first.save(path)
    found = LatencyTable.load(path)
    assert found.rows == first.rows == {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    assert found.flagged == ["c"]
    assert found.fits == {"s": fit(0.5)}


def test_what_both_have_is_whose_it_was_measured_by_last_and_undisturbed(tmp_path):
    path = tmp_path / "t.json"
    begun = opened(path)
    begun.rows |= {"a": 1.0, "b": 1.0, "c": 1.0}
    begun.flagged = ["a", "b", "c"]
    begun.fits |= {"s": fit(1.0), "t": fit(1.0)}
    begun.save(path)
    ours, theirs = opened(path), opened(path)
    theirs.rows |= {"a": 2.0, "b": 2.0, "d": 2.0}
    theirs.flagged = ["c"]
    theirs.fits |= {"s": fit(2.0), "t": fit(2.0)}
    theirs.save(path)
    ours.rows |= {"b": 3.0, "c": 3.0, "d": 3.0}
    ours.flagged = ["a", "b"]  # b was taken beside other work again; a is as it was read
    ours.fits["t"] = fit(3.0)
    ours.save(path)
    found = LatencyTable.load(path)
    assert found.rows == ours.rows == {"a": 2.0, "b": 2.0, "c": 3.0, "d": 3.0}
    assert found.flagged == []
    assert found.fits == ours.fits == {"s": fit(2.0), "t": fit(3.0)}


def test_a_file_of_other_times_is_replaced_as_before(tmp_path):
    path = tmp_path / "t.json"
    other = opened(path, "onnx")
    other.rows["a"] = 1.0
    other.save(path)
    table = LatencyTable(device_name(CPU), "eager", torch.get_num_threads(), rows={"b": 2.0})
    table.save(path)
    assert LatencyTable.load(path).rows == {"b": 2.0}
    path.write_text("{")
    table.save(path)
    assert LatencyTable.load(path).rows == {"b": 2.0}


def test_what_another_process_timed_meanwhile_is_not_timed_again(tmp_path, monkeypatch):
    path, asked = tmp_path / "t.json", []

    def grouped(missing, *_):
        asked.extend(missing)
        yield Group()

    monkeypatch.setattr(table_module, "groups_of", grouped)
    monkeypatch.setattr(table_module, "time_group", lambda *_, **__: ({"b": 5.0}, False))
    ours, theirs = opened(path), opened(path)
    theirs.rows["a"] = 1.0
    theirs.save(path)
    fill_table(ours, {"a": None, "b": None}, path=path, device=CPU)
    assert asked == ["b"]
    assert ours.rows == LatencyTable.load(path).rows == {"a": 1.0, "b": 5.0}


def _adding(path: str, name: str) -> None:
    table = open_table(path, CPU, "eager", torch.float32)
    for number in range(10):
        table.rows[f"{name}{number}"] = 1.0
        table.save(path)


def test_no_row_is_lost_where_processes_save_at_the_same_time(tmp_path):
    path, context = str(tmp_path / "t.json"), multiprocessing.get_context("fork")
    workers = [context.Process(target=_adding, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(LatencyTable.load(path).rows) == 20


def test_a_table_that_is_named_must_be_of_what_networks_are_timed_in(tmp_path, monkeypatch):
    path = tmp_path / "mine.json"
    table = opened(path)
    table.rows["a"] = 1.0
    table.save(path)
    given = Latency(table=str(path), runtime="eager")
    assert cost._given_table(given, str(path), CPU)[1].rows == {"a": 1.0}
    with pytest.raises(LatencyError, match=r"times of eager .* not of onnx .*set the runtime"):
        cost._given_table(Latency(table=str(path)), str(path), CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 99)
    with pytest.raises(LatencyError, match="on 99"):
        cost._given_table(given, str(path), CPU)
    with pytest.raises(LatencyError, match="no file"):
        cost._given_table(given, str(tmp_path / "none.json"), CPU)
    assert not (tmp_path / "none.json").exists()


def test_times_of_other_versions_are_used_and_that_is_said_once(tmp_path, caplog):
    path = tmp_path / "t.json"
    begun = opened(path)
    begun.rows["a"] = 1.0
    begun.save(path)
    assert opened(path).rows == {"a": 1.0}
    assert "was measured with" not in caplog.text
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "versions": {"torch": "1.0.0", "gone": "2"}}))
    assert opened(path).rows == {"a": 1.0}
    (record,) = (one for one in caplog.records if one.levelname == "WARNING")
    said, here = record.getMessage(), content["versions"]["torch"]
    assert f"{path} was measured with torch 1.0.0, here is torch {here}: its times are used" in said
    assert "gone" not in said
