"""The live page of a version by HTTP: its buttons, and trials whose files are damaged."""

import errno
import json
import math
import time

import pytest
from web_site import site

from darts_core import cli
from darts_core.report.tables import clock
from darts_core.store.jobs import Store


def test_what_can_be_resumed_has_a_button_for_it(root):
    version = Store(root).version("one")
    for state, left, shown in (
        ("succeeded", False, 0),
        ("succeeded", True, 1),
        ("failed", None, 1),
    ):
        version.set_state(state, "autosearch", left=left)
        assert site(root).get("/jobs/one/V001").text.count(">Resume<") == shown


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/runs/one"), 500, "change its rights"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/said"), 500, "The disk is full"),
        (FileNotFoundError(errno.ENOENT, "gone", "/runs/one"), 404, "/runs/one is not there"),
    ],
)
def test_what_the_machine_refuses_is_a_sentence_and_no_defect(
    root, monkeypatch, error, status, told
):
    def refused(*_):
        raise error

    client = site(root)
    monkeypatch.setattr(Store, "job_record", refused)
    for address in ("/jobs/one", "/api/jobs/one"):
        answer = client.get(address)
        assert (answer.status_code, told in answer.text) == (status, True)


def test_a_version_that_is_described_anew_stands_so_in_its_job_at_once(root):
    client = site(root)
    assert "<small>two" not in client.get("/jobs/one").text
    Store(root).version("one").describe("two\nlines")
    assert "<small>two\nlines</small>" in client.get("/jobs/one").text


def test_a_search_of_a_log_finds_each_state_of_a_bar_that_is_drawn_over(root):
    bar = "\r".join(f"{percent}% {'#' * 300} loss {percent}" for percent in range(4))
    (root / "one" / "V001" / "job.log").write_bytes(f"begun\r\n{bar}\r\n".encode())
    text = site(root).get("/jobs/one/V001/log", params={"search": "loss 3"}).text
    shown = text[text.index("<pre") : text.index("</pre>")]
    assert shown.endswith(f">3% {'#' * 300} loss 3")


def test_a_trial_s_page_is_headed_as_the_table_calls_it(root):
    file = root / "one" / "V001" / "autosearch" / "trials" / "t3" / "result.json"
    told = {"phase": "confirm", "confirms": "best", "seed": 2}
    file.write_text(json.dumps(json.loads(file.read_text()) | told))
    client = site(root)
    assert '/trials/t3">c1</a>' in client.get("/jobs/one/V001").text
    assert "<h1>Trial c1: done</h1>" in client.get("/jobs/one/V001/trials/t3").text
    assert "<h1>Trial 0: done</h1>" in client.get("/jobs/one/V001/trials/t0").text


def test_the_small_curves_of_a_job_are_read_out_under_their_versions(root):
    client = site(root)
    assert "<title>course of one</title>" in client.get("/").text
    assert "<title>course of V001</title>" in client.get("/jobs/one").text


def test_a_page_beyond_the_last_one_is_the_last_one(root):
    client = site(root)
    text = client.get("/?page=7").text
    assert 'href="/jobs/one"' in text
    assert "No job matches" not in text
    assert "/jobs/one/V001/trials/t0" in client.get("/jobs/one/V001?page=7").text


def test_a_trial_s_end_is_a_date_and_no_number_of_seconds(root, capsys):
    text = site(root).get("/jobs/one/V001/trials/t3").text
    assert f"<td>{clock(1003.0)}</td>" in text
    assert cli.main(["jobs", f"--root={root}", "show", "one", "--trial", "t3"]) == 0
    assert f"{'ended':20} {clock(1003.0)}" in capsys.readouterr().out.splitlines()
    file = root / "one" / "V001" / "autosearch" / "trials" / "t3" / "result.json"
    for never in (1e300, math.inf, math.nan):
        file.write_text(json.dumps({**json.loads(file.read_text()), "ended": never}))
        assert "<td>-</td>" in site(root).get("/jobs/one/V001/trials/t3").text


def test_the_zone_of_the_times_is_told_once(root, capsys, monkeypatch):
    """Who reads the page may sit in another zone than the machine whose local times it shows."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "IST-5:30")
        time.tzset()
        page = site(root).get("/").text
        assert cli.main(["jobs", f"--root={root}", "show", "one"]) == 0
    time.tzset()
    assert page.count("now UTC+05:30") == 1
    assert capsys.readouterr().out.count("(times of this machine, now UTC+05:30)") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("values", []), ("metrics", ["acc"]), ("additional_data", 5), ("state", {}), ("step", ["a"]),
     ("time_total_s", "long"), ("seed", "x"), ("reward_range", [3, "a", "a"]), ("ended", [])],
)  # fmt: skip
def test_a_trial_whose_file_cannot_be_understood_hides_no_other(root, name, value):
    file = root / "one" / "V001" / "autosearch" / "trials" / "t3" / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    client = site(root)
    text = client.get("/jobs/one/V001").text
    assert all(f"/jobs/one/V001/trials/t{number}" in text for number in range(6))
    assert (
        f"its files hold what no trial writes: {name}"
        in client.get("/jobs/one/V001/trials/t3").text
    )
    assert client.get("/").status_code == client.get("/api/jobs/one/V001").status_code == 200
