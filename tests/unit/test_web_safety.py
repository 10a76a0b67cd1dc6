"""The live page's safety: token, hosts, origins, policy, sizes, paths, code, read-only, inert names."""

import os
import re

import pytest
from web_site import BASE, TOKEN, options, own, searched, site

from darts_core.errors import ConfigError, JobError
from darts_core.report.html import render
from darts_core.store.jobs import Store
from darts_core.store.params import SavedParams
from darts_core.store.record import new_record
from darts_core.web.actions import Action
from darts_core.web.app import make_app
from darts_core.web.guard import POLICY
from darts_core.web.options import LIMIT_BYTES
from darts_core.web.verbs import VERBS, order

ADDRESSES = (
    "/", "/jobs/one", "/jobs/one/V001", "/jobs/one/V001/log", "/jobs/one/V001/file?name=config/1_job.yaml",
    "/jobs/one/V001/trials/t1", "/compare", "/new", "/params", "/actions", "/actions/none", "/events?of=jobs",
    "/static/style.css", "/static/live.js", "/static/icon.svg", "/api/jobs", "/api/jobs/one",
    "/api/jobs/one/V001", "/api/jobs/one/V001/trials", "/api/jobs/one/V001/log", "/api/compare",
    "/api/params", "/api/templates", "/api/actions", "/api/actions/none", "/api/openapi.json", "/nowhere",
)  # fmt: skip


def test_the_addresses_tried_are_all_there_are(root):
    routes = {route.path for route in make_app(options(root)).app.routes}
    tried = {re.sub(r"\?.*", "", address) for address in ADDRESSES}
    names = {"{job}": "one", "{version}": "V001", "{trial}": "t1", "{name}": "none"}
    for route in routes:
        for name, value in names.items():
            route = route.replace(name, value)
        assert route in tried


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_answered_without_the_token(root, address):
    client = site(root, cookie=False)
    assert client.get(address).status_code == 403
    client.cookies.set("darts_core_8420", "a guess")
    assert client.get(address).status_code == 403
    assert client.get(address, headers={"authorization": "Bearer a guess"}).status_code == 403
    # nothing of ours is told to whoever has no token
    assert "one" not in client.get(address).text.replace("darts-core", "").split()


def test_the_token_becomes_a_strict_cookie_and_leaves_the_address(root):
    client = site(root, cookie=False)
    answer = client.get(f"/jobs/one?a=1&token={TOKEN}&b=2")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/jobs/one?a=1&b=2"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"darts_core_8420={TOKEN};")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert client.get("/jobs/one").status_code == 200
    assert client.get("/?token=wrong").status_code == 403


@pytest.mark.parametrize(
    "other", ['prefs={"dark": true}', "a=b c", "weird[]=1", "alone", "darts_core_8420=old"]
)
def test_cookies_of_other_programs_of_this_host_shut_nobody_out(root, other):
    """Cookies are shared by all ports of a host, so whatever listens there leaves its own beside ours."""
    client = site(root, cookie=False)
    for header in (f"{other}; darts_core_8420={TOKEN}", f"darts_core_8420={TOKEN}; {other}"):
        assert client.get("/", headers={"cookie": header}).status_code == 200
    assert client.get("/", headers={"cookie": other}).status_code == 403


@pytest.mark.parametrize("path", ["//evil.example", "/%2F/evil.example", "/\\evil.example"])
def test_the_redirect_leads_to_no_other_host(root, path):
    answer = site(root, cookie=False).get(f"{BASE}{path}?token={TOKEN}")
    assert answer.status_code == 303
    assert not re.match(r"/[/\\]|\w+:", answer.headers["location"])


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8420", "127.0.0.1.evil.example", "", "[::1"]
)
def test_a_foreign_host_name_is_refused(root, host):
    """DNS rebinding: a page of another name that resolves to this machine."""
    assert site(root).get("/", headers={"host": host}).status_code == 400


def test_a_host_name_behind_a_proxy_is_allowed_when_it_was_named(root):
    client = site(root, allowed_hosts=("nas.example.org",))
    assert client.get("/", headers={"host": "nas.example.org"}).status_code == 200
    headers = {"host": "nas.example.org", "origin": "https://nas.example.org"}
    assert client.post("/actions", data={"verb": "none"}, headers=headers).status_code == 400
    with pytest.raises(ConfigError, match="is no host name"):
        options(root, allowed_hosts=("http://x",))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8420.evil.example"},
        {"origin": "http://["},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize("address", ["/actions", "/api/actions"])
def test_a_form_of_another_page_changes_nothing(root, headers, address):
    """Cross-site request forgery, also by a page at another port of this machine."""
    data = {"verb": "delete", "job": "one", "typed": "one"}
    answer = site(root).post(address, data=data, headers=headers)
    assert answer.status_code == 403
    assert "another page" in answer.text
    assert Store(root).jobs() == ["one"]


def test_a_program_with_the_token_needs_no_origin(root):
    client = site(root, cookie=False)
    headers = {"authorization": f"Bearer {TOKEN}"}
    assert client.post("/api/actions", json={"verb": "nothing"}, headers=headers).status_code == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "POST"])
def test_other_methods_do_nothing(root, method):
    answer = site(root).request(method, "/jobs/one", headers=own())
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    assert site(root).request(method, "/jobs/one").status_code == 403


@pytest.mark.parametrize("address", ADDRESSES)
def test_every_answer_carries_the_policy_and_is_of_a_type_that_is_not_guessed(root, address):
    if address.startswith("/events"):
        address = "/events?of=nothing"
    for client in (site(root), site(root, cookie=False)):
        headers = client.get(address).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
    assert "unsafe" not in POLICY
    assert "http" not in POLICY


@pytest.mark.parametrize(
    "address", [a for a in ADDRESSES if not a.startswith(("/static", "/events", "/api"))]
)
def test_no_page_has_an_inline_script_or_style_or_loads_from_elsewhere(root, address):
    text = site(root).get(address).text
    assert "style=" not in text
    assert "<style" not in text
    assert not re.search(r"<[^>]*\son\w+=", text)
    assert re.findall(r"<script[^>]*>", text) in (['<script src="/static/live.js" defer>'], [])
    assert not re.search(r"(src|href)=\"(?!/|#|\?)", text)


def test_read_only_refuses_every_action_and_offers_none(root):
    client = site(root, read_only=True)
    for verb in [*VERBS, "start"]:
        for address in ("/actions", "/api/actions"):
            answer = client.post(
                address, data={"verb": verb, "job": "one", "typed": "one"}, headers=own()
            )
            assert answer.status_code == 403
            assert "read-only" in answer.text
    for address in ("/", "/jobs/one", "/jobs/one/V001", "/params", "/jobs/one/V001/trials/t1"):
        assert 'method="post"' not in client.get(address).text
    assert Store(root).jobs() == ["one"]


def test_bodies_are_limited(root):
    client = site(root)
    body = b"verb=edit&job=one&description=" + b"x" * LIMIT_BYTES
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/actions", content=body, headers=own(**kind)).status_code == 413

    def pieces():
        for _ in range(40):
            yield b"x" * (LIMIT_BYTES // 20)

    # no length is stated: it is counted
    assert client.post("/actions", content=pieces(), headers=own(**kind)).status_code == 413
    many = "&".join(f"f{i}=1" for i in range(100)).encode()
    assert client.post("/actions", content=many, headers=own(**kind)).status_code == 400
    upload = {"upload": ("job.yaml", b"\xff\xfe\x00", "application/x-yaml")}
    answer = client.post("/actions", data={"verb": "dry-run"}, files=upload, headers=own())
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "name",
    ["../../../etc/passwd", "/etc/passwd", "config/../version.json", "..%2f..%2fversion.json", "version.json",
     "code/secret.py", "link", "config/link", ".lock", "", "config", "config/1_job.yaml\x00"],
)  # fmt: skip
def test_only_listed_files_are_downloaded(root, name):
    folder = root / "one" / "V001"
    (folder / "code").mkdir()
    (folder / "code" / "secret.py").write_text("SECRET")
    os.symlink("/etc/passwd", folder / "link")
    os.symlink("/etc/passwd", folder / "config" / "link")
    client = site(root)
    assert client.get("/jobs/one/V001/file", params={"name": name}).status_code == 404
    good = client.get("/jobs/one/V001/file", params={"name": "config/1_job.yaml"})
    assert good.status_code == 200
    # a file of a job is saved, never shown in the page's origin
    assert good.headers["content-type"] == "application/octet-stream"
    assert good.headers["content-disposition"].startswith("attachment")


def test_a_file_whose_name_is_no_utf8_is_listed_and_downloaded(root):
    place = os.fsencode(root / "one" / "V001")
    with open(place + b"/caf\xe9.txt", "wb") as stream:
        stream.write(b"inside")
    client = site(root)
    assert r"caf\xe9.txt" in client.get("/jobs/one/V001").text
    answer = client.get("/jobs/one/V001/file", params={"name": r"caf\xe9.txt"})
    assert answer.content == b"inside"
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "part", ["%2e%2e", "..%2f..", ".locks", ".params", "a%00b", "-x", "%2Fetc", "a" * 200]
)
@pytest.mark.parametrize("place", ["/jobs/{}", "/jobs/{}/V001", "/jobs/one/{}", "/jobs/one/V001/trials/{}",
                                   "/actions/{}", "/api/jobs/{}", "/api/jobs/one/{}/log"])  # fmt: skip
def test_names_in_an_address_are_looked_up_never_joined(root, part, place):
    (root.parent / "V001").mkdir(exist_ok=True)
    (root.parent / "V001" / "version.json").write_text('{"commands": {}}')
    answer = site(root).get(place.format(part))
    assert answer.status_code in (400, 404)
    assert "root:" not in answer.text


def test_code_comes_from_below_the_folder_named_at_the_start_alone(root, tmp_path):
    inside, outside = tmp_path / "mine" / "project", tmp_path / "other"
    inside.mkdir(parents=True)
    outside.mkdir()
    os.symlink(outside, tmp_path / "mine" / "way_out")
    given = options(root, code=(tmp_path / "mine",))
    form = {"name": "new", "boot_file": "boot.py", "file": "a: 1"}
    for text in (str(inside), "project"):
        assert f"--code={inside}" in order(given, "dry-run", {**form, "code": text}).words
    for text in (str(outside), "../other", "way_out", "/", "~", str(tmp_path / "mine2")):
        with pytest.raises(ConfigError, match="no folder below"):
            order(given, "dry-run", {**form, "code": text})
    with pytest.raises(ConfigError, match="does not lie in"):
        order(given, "dry-run", {**form, "code": "project", "boot_file": "../../other/boot.py"})
    with pytest.raises(ConfigError, match="without --code DIR"):
        order(options(root), "dry-run", {**form, "code": str(inside)})
    # a new version takes the copy of the code that ran, wherever that came from
    words = order(given, "new-version", {"job": "one", "version": "V001"}).words
    assert f"--code={root / 'one' / 'V001' / 'code'}" in words


def _stopped_pipeline(root):
    store = Store(root)
    store.create_job("pipe", kind="pipeline")
    with store.new_version(
        "pipe", new_record("pipeline", commands={"search": {"state": "stopped"}})
    ):
        pass


def test_settings_of_a_pipeline_that_name_code_are_refused(root):
    _stopped_pipeline(root)
    for setting in ("plugins=[evil]", "+plugins=[evil]", "model=evil:main", "search.x._target_=os.system",
                    "hydra.run.dir=/tmp", "hydra/launcher=x", "weights=evil:main\nmodel=${weights}",
                    "strategy={_target_: os.system}",
                    "tune.options.slurm={partition: cpu, setup: ['touch /tmp/x']}",
                    "shrink.options.slurm.setup=['touch /tmp/x']", "++search.slurm=${model_args.x}",
                    "tune={trials: 3, options: { slurm :{setup: ['touch /tmp/x']}}}",
                    "tune.sampler={slots: 1}\ntune.options=${tune.sampler}",
                    "search.ray={address: auto, runtime_env: {pip: [evil]}}",
                    "+search.ray.runtime_env.pip=[evil]", "search={ray: {address: evil:6379}}"):  # fmt: skip
        with pytest.raises(ConfigError, match="names code"):
            order(options(root), "new-version", {"job": "pipe", "settings": setting})
    fine = ("seed=1", "search={epochs: 3, tabular: array:slurm}", "tune.options.slots=2",
            "train.epochs=${search.epochs}")  # fmt: skip
    words = order(options(root), "new-version", {"job": "pipe", "settings": "\n".join(fine)}).words
    assert {f"--set={setting}" for setting in fine} <= set(words)


def test_a_setting_of_a_pipeline_can_be_no_option_of_its_command(root):
    """`--config-dir` would bring settings that name code from any folder."""
    _stopped_pipeline(root)
    for text in ("--config-dir=/tmp", "seed=1\n  -cd=/tmp", "--multirun=1"):
        with pytest.raises(ConfigError, match="is an option, no setting"):
            order(options(root), "new-version", {"job": "pipe", "settings": text})


def test_half_a_character_in_a_field_is_a_sentence(root):
    body = b'{"verb": "edit", "job": "one", "description": "\\ud800"}'
    headers = own(**{"content-type": "application/json"})
    answer = site(root).post("/api/actions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["detail"]) == (
        400, "The field description holds half of a character (a lone surrogate).",
    )  # fmt: skip


def test_no_value_of_a_form_can_pass_for_an_option(root):
    SavedParams(Store(root)).save("kept", {}, [])
    for verb, fields, words in (
        ("edit", {"description": "--root=/tmp"}, ("edit", "one", "--description=--root=/tmp")),
        # as browsers send the lines of a text area
        ("edit", {"description": "a\r\nb"}, ("edit", "one", "--description=a\nb")),
        ("save-params", {"saved": "a", "description": "--job=other"},
         ("params", "save", "a", "--job=one/V001", "--description=--job=other")),
        ("new-version", {"settings": "--notify=evil", "arguments": "--python=x", "budget": "--wait",
                         "devices": "--notify=evil"},
         ("new-version", "one/V001", f"--code={root / 'one' / 'V001' / 'code'}", "--devices=--notify=evil",
          "--budget=--wait", "--set=--notify=evil", "--arg=--python=x")),
    ):  # fmt: skip
        found = order(options(root), verb, {"job": "one", **fields}).words
        assert found == ("jobs", f"--root={root}", *words)
    for verb in ("stop", "resume", "edit", "export", "save-params"):
        with pytest.raises(JobError, match="not allowed"):
            order(options(root), verb, {"job": "--root=/tmp", "saved": "a"})
    for name in ("--yes", "../x", "a/b", ""):
        with pytest.raises(JobError, match="not allowed"):
            order(options(root), "save-params", {"job": "one", "saved": name})
    with pytest.raises(ConfigError, match="control character"):
        order(options(root), "edit", {"job": "one", "description": "\x1b[2J"})


def test_a_command_is_shown_without_the_password_of_a_database(tmp_path):
    words = ("jobs", "new-version", "one/V001", "--set=tune.options.storage=mysql://me:pass@h/db")
    action = Action("a", "new-version", words, tmp_path, "", None, 0.0)
    assert action.command_line == (
        "darts-core jobs new-version one/V001 '--set=tune.options.storage=mysql://me:***@h/db'"
    )


def test_deleting_wants_the_name_typed(root):
    for typed in ("", "one", "one/V002"):
        with pytest.raises(ConfigError, match="nothing was deleted"):
            order(options(root), "delete", {"job": "one", "version": "V001", "typed": typed})
    assert order(
        options(root), "delete", {"job": "one", "version": "V001", "typed": "one/V001"}
    ).words[-1] == ("one/V001")


def test_start_follows_a_dry_run_alone(root):
    answer = site(root).post("/actions", data={"verb": "start", "action": "none"}, headers=own())
    assert answer.status_code == 400
    assert "dry run" in answer.text


TAG = "%22%3E%3Cscript%3E"
HOSTILE = "\"><script>alert(1)</script>\u202e<img src=x onerror=alert(2)>{{7*7}}'\x1b[31m"


def test_hostile_names_metrics_and_logs_are_inert_wherever_they_stand(tmp_path):
    """Description, message, code, file, device, argument, setting, metric, data, reason, log, job file."""
    root = tmp_path / "runs"
    searched(root, "one", hostile=HOSTILE)
    searched(root, "one", hostile=HOSTILE, parent=HOSTILE)
    searched(root, "one", hostile=HOSTILE, parent="V001", state="failed")
    SavedParams(Store(root)).save("kept", {HOSTILE: HOSTILE}, [], description=HOSTILE)
    client = site(root)
    pages = ["/", "/jobs/one", "/jobs/one/V001", "/jobs/one/V003", "/jobs/one/V001/log", "/params",
             "/jobs/one/V001/trials/t1", "/compare?version=one/V001&version=one/V003",
             "/new?version=one/V001",
             f"/?search={TAG}", f"/jobs/one/V001/log?search={TAG}",
             f"/jobs/one/V001?search={TAG}&sort=lr", f"/compare?metric={TAG}",
             f"/jobs/{TAG}", f"/{TAG}alert(1)"]  # fmt: skip
    seen = braces = 0
    for page in pages:
        text = client.get(page).text
        assert "<script>" not in text, page
        assert "<img" not in text, page
        assert "\u202e" not in text
        assert "\x1b" not in text
        assert "&gt;49" not in text, page
        seen += text.count("&lt;script&gt;")
        braces += text.count("&gt;{{7*7}}")
    assert seen > 40
    assert braces > 20


def test_json_is_never_taken_for_a_page(root):
    for address in [a for a in ADDRESSES if a.startswith("/api")]:
        assert site(root).get(address).headers["content-type"] == "application/json"


def test_a_token_is_long_and_different_each_time_and_not_printed_with_the_options(tmp_path):
    from darts_core.web.options import WebOptions

    first, second = WebOptions(tmp_path), WebOptions(tmp_path)
    assert first.token != second.token
    assert len(first.token) >= 32
    assert first.token not in repr(first)


def test_templates_of_the_page_escape_what_they_print():
    assert "<script>" not in render("names", rows=[("<script>", "<script>")])
