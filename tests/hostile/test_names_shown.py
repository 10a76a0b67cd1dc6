"""Names from files and the command line reach the terminal as text: they steer nothing."""

import argparse
import importlib
import json
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from darts_core import cli
from darts_core.commands.jobs import verbs
from darts_core.commands.logs import configure_logging
from darts_core.latency.table import LatencyTable

# the package exports its function under the module's name
predicting = importlib.import_module("darts_core.export.predict")
watching = importlib.import_module("darts_core.report.watching")
# a colour, a moved cursor, a title, a forged line, a hidden and a reversed text, rich's markup
NAMES = [
    "\x1b[31mred", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "a\ndarts-core: all is well", "a\rb",
    "\x9b31m", "\u202egpj.exe", "\u200b", "[bold]x[/bold]", "\x00", "\udcff",
]  # fmt: skip


def check(text: str) -> None:
    for character in text.replace("\n", ""):
        assert character.isprintable(), ascii(text)


# no system passes a null character to a program
@pytest.mark.parametrize("name", [n for n in NAMES if n != "\x00"], ids=ascii)
@pytest.mark.parametrize(
    "argv",
    [
        ["predict", "--model", "{}", "a.png"],
        ["search", "space={}"],
        ["search", "{}"],
        ["train", "architecture={}"],
        ["export", "model={}"],
        ["search", "--config-dir", "{}"],
        ["list", "{}"],
        ["{}"],
        ["jobs", "show", "{}"],
        ["jobs", "suggest", "{}"],
        ["latency", "show", "table={}"],
        ["serve-bench", "{}"],
    ],
    ids=lambda argv: " ".join(argv),
)
def test_messages_hold_no_control_characters(name, argv, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([part.replace("{}", name) for part in argv]) == 2
    out, err = capsys.readouterr()
    check(out)
    check(err)
    assert "unexpected" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_predictions_name_files_and_classes_without_control(name, capsys, monkeypatch):
    found = predicting.Prediction(f"{name}.png", name, 0.5, {name: 0.5, "b": 0.5})
    monkeypatch.setattr("darts_core.export.predict", lambda *a, **k: [found])
    assert cli.main(["predict", "--model", "m", "--top", "2", "a.png"]) == 0
    text = capsys.readouterr().out
    check(text)
    assert text.count("\n") == 1
    assert cli.main(["predict", "--model", "m", "--json", "a.png"]) == 0
    text = capsys.readouterr().out
    check(text)
    assert json.loads(text)["image"] == f"{name}.png"


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_log_lines_hold_no_control_characters(name, capsys, tmp_path, monkeypatch):
    # pytest's own handler would hold the text as it is, which no process can hand to another
    monkeypatch.setattr(logging.getLogger("darts_core"), "propagate", False)
    configure_logging(tmp_path)
    logging.getLogger("darts_core").warning("reading %s", name)
    configure_logging(tmp_path / "other")
    text = capsys.readouterr().err
    check(text)
    assert text.count("\n") == 1
    check((tmp_path / "log.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "\udcff"], ids=ascii)
def test_a_latency_table_is_shown_without_control(name, capsys, tmp_path):
    LatencyTable(
        name, "eager", 1, name, {name: 1.0}, {name: {"overhead_ms": 1.0, "slope": 1.0}}
    ).save(tmp_path / "t.json")
    assert cli.main(["latency", "show", f"table={tmp_path / 't.json'}"]) == 0
    check(capsys.readouterr().out)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_version_in_one_line_and_its_best_are_shown_without_control(name, capsys, monkeypatch):
    """A job that somebody sent: the metric and the verdict are texts of its files."""
    version = SimpleNamespace(label="a/V001", job="a", name="V001", path=Path("none"), kind="script",
                              record=dict, state=lambda: "succeeded")  # fmt: skip
    monkeypatch.setattr(watching, "progress", lambda *given: None)
    found = {"metric": name, "best": 0.5}
    monkeypatch.setattr(watching, "seen_summary", lambda *given: found)
    check(watching.status_line(version))
    best = {"folder": "none", "trial_id": "t1", "number": 1, "config": {}, "values": {}}
    monkeypatch.setattr(verbs, "summary", lambda path: {"best": best, "verdict": name})
    store = SimpleNamespace(version=lambda label: version)
    assert verbs.run_best(store, argparse.Namespace(job="a", export=None, form="text")) == 0
    text = capsys.readouterr().out
    check(text)
    assert text.count("\n") == 5


@pytest.mark.parametrize("argv", [["predict", "--model", "m", "{}"], ["jobs", "suggest", "{}"]])
def test_a_pipe_is_refused_without_waiting(argv, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("darts_core.export.predict", lambda m, images, **k: [
        predicting.read_image(image, (3, 8, 8)) for image in images
    ])  # fmt: skip
    os.mkfifo(tmp_path / "pipe")
    assert cli.main([part.replace("{}", str(tmp_path / "pipe")) for part in argv]) == 2
    assert "named pipe" in capsys.readouterr().err
