"""`jobs logs`: what it prints of a log."""

import argparse
import tracemalloc

import pytest

from darts_core.commands.jobs import views
from darts_core.commands.jobs.cli import configure
from darts_core.commands.jobs.views import run_logs, run_show
from darts_core.errors import DartsError, JobError
from darts_core.report.job_details import tail
from darts_core.store.jobs import Store
from darts_core.store.record import PIPELINE, SCRIPT, new_record


def printed(folder, capsys, text, *options):
    """What the command prints of a script's log that holds `text`."""
    store = Store(folder)
    store.create_job("a", kind=SCRIPT)
    with store.new_version("a", new_record(SCRIPT)) as path:
        (path / "job.log").write_text(text)
    parser = argparse.ArgumentParser()
    configure(parser)
    assert run_logs(store, parser.parse_args(["logs", "a", *options])) == 0
    return capsys.readouterr().out.splitlines()


def test_as_many_last_lines_of_a_long_log_are_printed_as_were_asked_for(tmp_path, capsys):
    lines = [f"epoch {number} {'.' * 90}" for number in range(3000)]
    text = "\n".join(lines) + "\n"
    assert printed(tmp_path, capsys, text, "--tail", "2500") == lines[-2500:]


def test_the_states_of_a_progress_bar_are_lines_of_a_log(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("\r".join(f"{number}/9999 {'#' * 90}" for number in range(9999)))
    assert tail(log, 3, most=2**16) == [f"{n}/9999 {'#' * 90}" for n in (9996, 9997, 9998)]
    assert len(tail(log, 9000, most=None)) == 9000


def test_the_end_of_a_log_of_few_lines_is_read_within_a_limit(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("x" * 300_000 + "\nlast\n")
    assert tail(log, 10)[-1] == "last"
    assert len(tail(log, 10, most=1000)) == 2


@pytest.mark.parametrize("options", [("--tail", "3"), ()])
def test_a_log_without_line_ends_takes_memory_by_the_lines_that_are_printed(
    tmp_path, capsys, options
):
    store = Store(tmp_path)
    store.create_job("a", kind=SCRIPT)
    with store.new_version("a", new_record(SCRIPT)) as path, (path / "job.log").open("wb") as log:
        log.seek(2**26)  # zeros, as a full disk may leave them
        log.write(b"\nlast\n")
    parser = argparse.ArgumentParser()
    configure(parser)
    tracemalloc.start()
    try:
        assert run_logs(store, parser.parse_args(["logs", "a", *options])) == 0
        assert tracemalloc.get_traced_memory()[1] < 1e8  # reading a record takes most of it
    finally:
        tracemalloc.stop()
    found = capsys.readouterr().out.splitlines()
    assert found[-1] == "last"
    # the zeros are one line, which is cut
    assert options or [len(line) for line in found] == [4 * 2000 + 1, 4]


@pytest.mark.parametrize("part", [5, 16, 2**20])
def test_lines_are_the_same_whatever_is_read_at_a_time(tmp_path, capsys, monkeypatch, part):
    monkeypatch.setattr(views, "_PART", part)
    text = "ä\r\nöö\n\n1/3\r2/3 é\r3/3\r\n€€€\nend"
    assert printed(tmp_path, capsys, text) == text.splitlines()
    log = tmp_path / "log.txt"
    log.write_bytes(text.encode())
    with log.open("rb") as stream:
        taken = views._print_lines(stream, rest=False)
    assert capsys.readouterr().out.splitlines() == text.splitlines()[:-1]
    assert taken == len(text.encode()) - len("end")


def test_a_trial_of_a_pipeline_has_no_log_of_its_own(tmp_path):
    store = Store(tmp_path)
    store.create_job("a", kind=PIPELINE)
    with store.new_version("a", new_record(PIPELINE)) as path:
        (path / "tune/trials/0003").mkdir(parents=True)
    parser = argparse.ArgumentParser()
    configure(parser)
    with pytest.raises(
        JobError, match=r"0003 of a/V001 has no log of its own; .* jobs logs a/V001"
    ):
        run_logs(store, parser.parse_args(["logs", "a", "--trial", "0003"]))


def test_a_damaged_result_of_a_trial_is_shown_as_such(tmp_path):
    store = Store(tmp_path)
    store.create_job("a", kind=SCRIPT)
    with store.new_version("a", new_record(SCRIPT)) as path:
        (path / "autosearch/trials/t0").mkdir(parents=True)
        (path / "autosearch/trials/t0/result.json").write_text("[1, 2]")
    parser = argparse.ArgumentParser()
    configure(parser)
    with pytest.raises(DartsError, match=r"result\.json"):
        run_show(store, parser.parse_args(["show", "a", "--trial", "t0"]))
