"""The live page by HTTP alone: what it shows, what it sends again, the commands of its actions."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import report_fixture as fixture
from web_site import options, own, searched, site

from darts_core.report.versions import content_of
from darts_core.store.jobs import Store
from darts_core.store.record import new_record
from darts_core.web.actions import Action
from darts_core.web.cache import PageCache
from darts_core.web.form_pages import _python_files
from darts_core.web.marks import store_mark, version_mark
from darts_core.web.openapi import document
from darts_core.web.shell import Site
from darts_core.web.verbs import VERBS


def test_the_list_is_searched_filtered_and_sorted_by_its_address(root):
    searched(root, "two", state="failed")
    searched(root, "three", trials=2)
    client = site(root)

    def names(query):
        return re.findall(r'<a href="/jobs/(\w+)">', client.get(f"/{query}").text)

    assert names("?sort=name") == ["one", "three", "two"]
    assert names("?sort=name&order=down") == ["two", "three", "one"]
    assert names("?search=tw") == ["two"]
    assert names("?state=succeeded&sort=value") == ["three", "one"]
    assert names("?kind=pipeline") == []
    assert "No job matches" in client.get("/?search=nothing").text
    assert client.get("/?sort=nothing").status_code == 404
    text = client.get("/?search=one").text
    assert "0.55" in text  # the best
    assert "acc" in text
    assert 'class="spark"' in text


def test_an_empty_store_and_a_missing_job_say_so(tmp_path):
    client = site(tmp_path / "runs")
    assert "There is no job yet" in client.get("/").text
    answer = client.get("/jobs/nothing")
    assert answer.status_code == 404
    assert "There is no job" in answer.text


def test_a_version_shows_the_sections_of_its_report_under_their_names(root):
    text = site(root).get("/jobs/one/V001").text
    for part in content_of(root / "one" / "V001").sections:
        assert f'<section id="{part.key}" data-live>' in text
    assert "<h1>" in text
    assert text.count("<svg") >= 5
    assert "darts-core jobs create --name one-again" in text
    assert "/jobs/one/V001/file?name=config%2F1_job.yaml" in text


@pytest.mark.parametrize("kind", ["pipeline", "seeds", "multirun", "empty"])
def test_versions_of_every_kind_have_a_page(tmp_path, kind):
    store = Store(tmp_path / "runs")
    store.create_job("pipe", kind="pipeline")
    command = {
        "state": "succeeded",
        "overrides": ["seed=1", "device=cpu"],
        "started": 1.0,
        "ended": 2.0,
    }
    with store.new_version("pipe", new_record("pipeline", commands={"search": command})) as made:
        if kind == "pipeline":
            fixture.make_search(made / "search")
            fixture.make_train(made / "train")
        elif kind != "empty":
            for name in ("seed0", "seed1") if kind == "seeds" else ("0", "1"):
                fixture.make_search(made / name / "search", seed=int(name[-1]))
                fixture.make_train(made / name / "train", seed=int(name[-1]))
        (made / "log.txt").write_text("a line\n")
    client = site(tmp_path / "runs")
    answer = client.get("/jobs/pipe/V001")
    assert answer.status_code == 200
    assert "style=" not in answer.text
    assert "a line" in answer.text
    assert {
        "pipeline": "Architecture",
        "seeds": "agree",
        "multirun": "2 elements",
        "empty": "pipe/V001",
    }[kind] in (answer.text)
    # no link leads to a file that the page does not have
    for address in set(re.findall(r'href="(/[^"#]*)', answer.text)):
        assert client.get(address.replace("&amp;", "&")).status_code == 200, address
    assert ">cpu<" in client.get("/").text


def test_trials_are_sorted_filtered_and_paged_by_the_address(tmp_path):
    searched(tmp_path / "runs", trials=120)
    client = site(tmp_path / "runs")

    def numbers(query):
        text = client.get(f"/jobs/one/V001{query}").text
        return [int(n) for n in re.findall(r'/trials/t(\d+)">', text)]

    assert numbers("")[:2] == [119, 118]
    assert len(numbers("")) == 50
    assert numbers("?page=3")[-1] == 0
    assert numbers("?sort=ms")[0] == 0  # an objective keeps its own direction
    assert "<th scope=col>time_total_s (s)</th>" in client.get("/jobs/one/V001").text
    assert numbers("?search=x7")[0] == 79
    assert numbers("?state=failed") == []
    assert numbers("?page=99999999999999999999") == numbers("")
    assert "Trial 7: done" in client.get("/jobs/one/V001/trials/t7").text


def test_the_log_is_searched(root):
    text = site(root).get("/jobs/one/V001/log?search=BEG").text
    assert "begun" in text
    assert "ended" not in text[text.index("<pre") :]


def test_versions_stand_below_those_they_were_made_from(root):
    searched(root, parent="V001")
    searched(root, parent="V002")
    text = site(root).get("/jobs/one").text
    tree = text[text.index('<ul class="tree">') :]
    assert re.findall(r"<ul|V00\d(?=</a>)|</ul", tree[: tree.index("</section>")]) == [
        "<ul", "V001", "<ul", "V002", "<ul", "V003", "</ul", "</ul", "</ul",
    ]  # fmt: skip


def test_a_page_that_has_not_changed_is_not_sent_again(root):
    client = site(root)
    first = client.get("/jobs/one/V001")
    again = client.get("/jobs/one/V001", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    log = root / "one" / "V001" / "job.log"
    log.write_text("more\n")
    changed = client.get("/jobs/one/V001", headers={"if-none-match": first.headers["etag"]})
    assert changed.status_code == 200
    assert "more" in changed.text


def test_a_mark_follows_what_a_page_shows(root):
    version, store = Store(root).version("one"), Store(root)
    marks = [version_mark(version), store_mark(store)]
    # looking at it is no change: a list may write summaries
    (version.path / "summary.json").write_text("{}")
    (version.path / ".lock").touch()
    assert version_mark(version) == marks[0]
    trial = version.path / "autosearch" / "trials" / "t99"
    trial.mkdir()
    (trial / "trial.json").write_text("{}")
    (trial / "reports.jsonl").write_text("")
    begun = version_mark(version)
    (trial / "reports.jsonl").write_text('{"kind": "iteration"}\n')
    assert len({marks[0], begun, version_mark(version)}) == 3
    searched(root, "two")
    assert store_mark(store) != marks[1]
    version.set_state("running", started=1.0)
    alive = version_mark(version)
    record = version.record()
    record["commands"]["autosearch"]["process"]["pid"] = 2**22 - 3
    (version.path / "version.json").write_text(json.dumps(record))
    assert version_mark(version) != alive


def test_a_torn_file_breaks_no_page(root):
    """Every file of a version cut in half, one after another, and then made of noise."""
    client, folder = site(root), root / "one" / "V001"
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".json", ".jsonl", ".yaml")
    ]
    assert len(files) > 10
    for path in files:
        whole = path.read_bytes()
        for torn in (whole[: len(whole) // 2], b"", os.urandom(64)):
            path.write_bytes(torn)
            for address in (
                "/",
                "/jobs/one",
                "/jobs/one/V001",
                "/compare?version=one/V001&version=one/V001",
            ):
                # a marker that cannot be read is no version
                allowed = (200, 404) if path.name == "version.json" else (200,)
                assert client.get(address).status_code in allowed, (path.name, address)
        path.write_bytes(whole)


def test_the_cache_makes_a_page_once_and_forgets_the_oldest():
    made = []
    cache = PageCache(most_bytes=25)

    def page(name):
        return lambda: made.append(name) or name * 10

    for key, mark in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("b", "1")):
        cache.get(key, mark, page(key))
    assert made == ["a", "b", "a", "c", "b"]


def test_every_get_of_the_interface_is_described_and_answers(root):
    paths = document()["paths"]
    client = site(root)
    fills = {"{job}": "one", "{version}": "V001", "{name}": "none"}
    for path, item in paths.items():
        if "get" not in item:
            continue
        address = path
        for name, value in fills.items():
            address = address.replace(name, value)
        answer = client.get(address)
        assert str(answer.status_code) in item["get"]["responses"], path
        if answer.status_code == 200:
            schema = item["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            assert set(schema.get("required", ())) <= set(answer.json())
        else:
            assert answer.json()["detail"]
    routes = {r.path for r in client.app.app.routes if r.path.startswith("/api")}
    assert routes == set(paths)
    rows = client.get("/api/jobs/one/V001/trials?offset=2&limit=2").json()
    assert (rows["total"], [row["number"] for row in rows["rows"]]) == (6, [2, 3])
    for bad in ("limit=0", "limit=x", "offset=-1", "limit=1001", "limit=01"):
        assert client.get(f"/api/jobs/one/V001/trials?{bad}").status_code in (400, 404)


def ended(client, answer):
    """The action that a form has started, once it has ended."""
    assert answer.status_code == 303, answer.text
    name = answer.headers["location"].rpartition("/")[2]
    action = client.app.app.state.site.actions.get(name)
    action.process.wait(120)
    return client.get(answer.headers["location"]).text


def test_a_form_starts_its_command_and_shows_it(root):
    client = site(root)
    data = {"verb": "edit", "job": "one", "description": 'what it\'s "for"; rm -rf /'}
    text = ended(client, client.post("/actions", data=data, headers=own()))
    assert "succeeded" in text
    assert "darts-core jobs --root=" in text
    assert Store(root).job_record("one")["description"] == data["description"]
    shutil.rmtree(
        client.app.app.state.site.actions.folder
    )  # as systemd-tmpfiles does after ten days
    upload = {"verb": "delete", "job": "one", "version": "V001", "typed": "one/V001"}
    text = ended(
        client,
        client.post("/actions", files={k: (None, v) for k, v in upload.items()}, headers=own()),
    )
    assert Store(root).versions("one") == []
    assert "one/V001 is deleted." in text
    assert "one/V001" in client.get("/actions").text


def test_a_new_version_s_form_shows_what_counts_before_the_job_file(root):
    record = Store(root).version("one").record()
    record["commands"]["autosearch"]["request"].update(
        settings={"search_algorithm.num_samples": 3, "name": "a b"},
        arguments={"lr": "0.1", "odd": "a\u202eb"},
    )
    (root / "one" / "V001" / "version.json").write_text(json.dumps(record))
    text = site(root).get("/new?version=one/V001").text
    assert "search_algorithm.num_samples=3\nname=&#34;a b&#34;</textarea>" in text
    assert "\nlr=0.1</textarea>" in text
    assert "Those of V001 stand here; they count before the job file." in text


def test_a_command_that_fails_says_why(root):
    client = site(root)
    text = ended(
        client, client.post("/actions", data={"verb": "stop", "job": "one"}, headers=own())
    )
    assert "exit status 2" in text
    assert "there is nothing to stop" in text


def test_every_verb_is_a_command_that_exists(root, tmp_path):
    """Each form's words are taken by the parser of `darts-core jobs`."""
    import argparse

    from darts_core.commands.jobs.cli import configure
    from darts_core.store.params import SavedParams
    from darts_core.web.verbs import order

    (tmp_path / "code").mkdir()
    SavedParams(Store(root)).save("kept", {}, [])
    parser = argparse.ArgumentParser()
    configure(parser)
    fields = {
        "job": "one", "version": "V001", "saved": "kept", "name": "new", "code": str(tmp_path / "code"),
        "boot_file": "boot.py", "file": "a: 1", "settings": "a=1\nb=2", "arguments": "c=3",
        "budget": "4x 30m", "devices": "cpu", "description": "-d", "trial": "t1", "typed": "one/V001",
    }  # fmt: skip
    for verb in VERBS:
        words = order(options(root, code=(tmp_path / "code",)), verb, fields).words
        assert words[0] == "jobs"
        args = parser.parse_args(list(words[1:]))
        assert args.root == str(root)


def test_events_tell_of_a_change_and_the_watcher_ends_with_the_last_page(root):
    import asyncio

    async def follow():
        held = Site(options(root))
        stream = held.watchers.events("version:one/V001", "")
        assert (await anext(stream)).startswith(b"retry")
        first = await asyncio.wait_for(anext(stream), 60)
        (root / "one" / "V001" / "job.log").write_text("changed\n")
        second = await asyncio.wait_for(anext(stream), 60)
        assert first.startswith(b"id: ")
        assert second.startswith(b"id: ")
        assert first != second
        await stream.aclose()
        held.actions.close()
        return held.watchers._topics

    assert asyncio.run(follow()) == {}


def test_the_page_is_served_and_loads_no_torch(tmp_path):
    """The one test with a socket: the command starts, prints its address, answers, ends with Ctrl-C."""
    import httpx2

    searched(tmp_path / "runs")
    code = (
        "import sys\nfrom darts_core.cli import main\n"
        "status = main(['web', '--port', '0', '--root', sys.argv[1]])\n"
        "print('loaded', [m for m in ('torch', 'optuna', 'matplotlib', 'scipy') if m in sys.modules])\n"
        "raise SystemExit(status)"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "runs")], stdout=subprocess.PIPE,
                              text=True)  # fmt: skip
    try:
        assert server.stdout.readline().startswith("Jobs in ")
        address = server.stdout.readline().split()[1]
        with httpx2.Client(follow_redirects=True, timeout=60) as client:
            assert "<h1>Jobs</h1>" in client.get(address).text
            base = address.partition("/?")[0]
            assert client.get(f"{base}/jobs/one/V001").status_code == 200
            assert (
                client.get(f"{base}/compare?version=one/V001&version=one/V001").status_code == 200
            )
            with client.stream("GET", f"{base}/events?of=version:one/V001") as events:
                assert next(events.iter_text()).startswith("retry")
    finally:
        server.send_signal(2)
    said = server.communicate(timeout=60)[0]
    assert server.returncode == 0
    assert said.strip() == "loaded []"


def test_a_port_in_use_and_a_missing_folder_are_sentences(tmp_path):
    import socket

    from darts_core.errors import ConfigError
    from darts_core.web.server import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="use another --port"):
            serve(options(tmp_path, port=taken.getsockname()[1]))
    with pytest.raises(ConfigError, match="is no folder"):
        options(tmp_path, code=(tmp_path / "nothing",))
    with pytest.raises(ConfigError, match="is no port"):
        options(tmp_path, port=70000)


def test_the_importance_is_asked_of_another_process(root):
    from darts_core.web.shares import RemoteShares

    shares = RemoteShares()
    settings = [{"lr": i / 10, "other": i % 3} for i in range(10)]
    values = [i / 10 for i in range(10)]
    assert shares(settings, values, maximize=True) == {}
    end = time.monotonic() + 120
    while not shares.answers and time.monotonic() < end:
        time.sleep(0.05)
    found = shares(settings, values, maximize=True)
    assert set(found) == {"lr", "other"}
    assert sum(found.values()) == pytest.approx(1.0)


def test_versions_that_began_alike_have_importances_of_their_own(root):
    searched(root, trials=12)  # a child with more trials, whose first ones are the same
    searched(root, "two")
    client, asked = site(root), []
    client.app.app.state.site.shares._ask = lambda key, _, count: asked.append((key, count))
    for label in ("one/V001", "one/V002", "two/V001"):
        assert client.get(f"/jobs/{label}").status_code == 200
    assert [count for _, count in asked] == [6, 12, 6]
    assert len({key for key, _ in asked}) == 3


def test_how_far_a_search_is_counts_what_is_planned(root):
    from darts_core.report.progress import progress

    version = Store(root).version("one")
    config = version.path / "autosearch" / "config.yaml"
    for text, total in (
        ("{algorithm: grid_search, dimensions: {a: [1, 2], b: [1, 2, 3]}, confirm_seeds: 1}", 8),
        (
            "{algorithm: tpe_search, dimensions: {a: {low: 1}}, num_samples: 20, confirm_seeds: 2}",
            25,
        ),
        ("{algorithm: tpe_search}", None),
    ):
        config.write_text(text)
        far = progress(version, version.record())
        assert (far.done, far.total) == (6, total)


def test_a_search_of_a_log_shows_the_newest_lines(root):
    lines = [f"line {n:04d} {'x' * 300}" for n in range(3000)]
    (root / "one" / "V001" / "job.log").write_text("\n".join(lines) + "\n")
    text = site(root).get("/jobs/one/V001/log", params={"search": "line"}).text
    shown = re.findall(r"line (\d{4}) ", text)
    assert shown[-1] == "2999"
    assert f"The last {len(shown)} lines that hold" in text
    assert len(shown) == 400_000 // len(lines[0] + "\n")


def test_a_command_that_prints_much_is_followed_to_its_end(tmp_path):
    action = Action("a", "edit", (), tmp_path, "", subprocess.Popen(["true"]), 0.0)
    action.process.wait()
    (tmp_path / "said").write_bytes(b"x" * 100_000)
    before = action.mark
    with (tmp_path / "said").open("ab") as stream:
        stream.write(b"more")
    assert action.mark != before


def test_python_files_are_offered_below_a_hidden_folder_and_not_of_one(tmp_path):
    folder = tmp_path / ".projects" / "mine"
    for name in ("train.py", "lib/net.py", ".venv/lib/other.py", "lib/.old.py", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert _python_files(str(folder)) == ["train.py", "lib/net.py"]
