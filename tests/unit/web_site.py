"""A store with made-up versions, and the live page over it without a socket."""

import json

import pytest

pytest.importorskip("starlette", reason="the extra [web] is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")
from starlette.testclient import TestClient

from darts_core.store.jobs import Store
from darts_core.store.record import new_record
from darts_core.web.app import make_app
from darts_core.web.options import WebOptions

TOKEN = "the-token"
BASE = "http://127.0.0.1:8420"


def options(root, **given):
    return WebOptions(**{"root": root, "token": TOKEN, **given})


def site(root, *, cookie=True, **given):
    """A client of the page; with the cookie of a browser that opened the printed address."""
    client = TestClient(make_app(options(root, **given)), base_url=BASE, follow_redirects=False)
    if cookie:
        client.cookies.set("darts_core_8420", TOKEN)
    return client


def own(**headers):
    """Headers of a form of ours."""
    return {"origin": BASE, **headers}


def searched(root, job="one", *, trials=6, state="succeeded", hostile=None, parent=None):
    """A version with a finished search of a script; `hostile` stands wherever a user may write."""
    store = Store(root)
    text = hostile or "x"
    if job not in store.jobs():
        store.create_job(job, hostile or "what it is for", kind="script")
    command = {
        "state": state,
        "started": 1000.0,
        "ended": 1100.0,
        "message": hostile,
        "request": {"code": text, "boot_file": text, "devices": [hostile or "cpu"], "arguments": {text: text},
                    "settings": {}},
    }  # fmt: skip
    record = new_record("script", commands={"autosearch": command}, parent=parent)
    metric = hostile or "acc"
    with store.new_version(job, record) as made:
        folder = made / "autosearch" / "trials"
        folder.mkdir(parents=True)
        (made / "config").mkdir()
        (made / "config" / "1_job.yaml").write_text(f"# {text}\nsearch_algorithm: {{type: tpe}}\n")
        (made / "job.log").write_text(f"begun\n{text}\nended\n")
        (made / "autosearch" / "objectives.json").write_text(
            json.dumps(
                [
                    {"metric": metric, "mode": "max", "tolerance": 0.0},
                    {"metric": "ms", "mode": "min"},
                ]
            )
        )
        for number in range(trials):
            own_folder = folder / f"t{number}"
            own_folder.mkdir()
            values = {metric: 0.5 + number / 100, "ms": float(number + 1)}
            row = {
                "trial_id": f"t{number}", "number": number, "state": "done", "is_baseline": number == 0,
                "config": {text: f"{text}{number}", "lr": 0.1 * (number + 1)}, "values": values,
                "metrics": {text: 1.0}, "additional_data": {text: text}, "reason": hostile or "",
                "ended": 1000.0 + number, "time_total_s": 0.5, "device": text, "worker_index": 0,
                "model_path": text,
            }  # fmt: skip
            (own_folder / "result.json").write_text(json.dumps(row))
            (own_folder / "log.txt").write_text(text)
            line = {"kind": "iteration", "iteration": 1, "metrics": {metric: 0.5, text: 1.0}}
            (own_folder / "reports.jsonl").write_text(json.dumps(line) + "\n")
    return store.version(job)


__all__ = ["BASE", "TOKEN", "options", "own", "searched", "site"]
