"""The notebooks of examples/ run from their first to their last cell; an interrupt keeps the checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from darts_core.store.jobs import Store

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def cells(name, place):
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("notebook_cells.py")),
            str(ROOT / "examples" / name),
        ],
        cwd=place,
        capture_output=True,
        text=True,
        env=ENV,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), (place / "shown.html").read_text()


def inert(page):
    assert "<script" not in page
    assert 'src="http' not in page
    # the style sheet changes nothing of the notebook around it
    for rule in page[page.index("<style>") + 7 : page.index("</style>")].split("}"):
        names = (
            rule.rpartition("{")[0].rpartition("{")[2]
            if "@media" in rule
            else rule.partition("{")[0]
        )
        assert all(
            ".darts-core" in n or n.strip().startswith("@") for n in names.split(",") if n.strip()
        ), rule


def test_a_script_of_ones_own_is_searched_in_a_notebook(tmp_path):
    shown, page = cells("own_training_code.ipynb", tmp_path)
    assert len(shown) == 1
    assert Store(tmp_path / "runs").version("notebook-script").state() == "succeeded"
    assert page.count("<svg") >= 3
    assert "Trials" in page
    inert(page)


@pytest.mark.full
def test_an_architecture_is_searched_in_a_notebook(tmp_path):
    shown, page = cells("architecture_search.ipynb", tmp_path)
    assert len(shown) == 1
    assert 'class="cell"' in page  # the drawing of the cell
    assert Store(tmp_path / "runs").version("notebook").state("search") == "succeeded"
    inert(page)


@pytest.mark.full
def test_an_interrupt_keeps_the_checkpoint_and_the_same_call_goes_on(tmp_path):
    code = (
        "from darts_core.api import search\n"
        "found = search('data=synthetic', 'data.count=400', 'space=nasbench201', 'search.epochs=4', "
        "'search.finalists=1', 'search.finalist_epochs=1', job='cut')\n"
        "print('done', len(list(open(found.folder / 'metrics.jsonl'))))\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "runs" / "cut" / "V001" / "search" / "metrics.jsonl"
    end = time.monotonic() + 300
    while not metrics.exists() or not metrics.read_text().count("\n"):
        assert started.poll() is None, started.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    said = started.communicate(timeout=300)[1]
    assert "its checkpoint is kept" in said
    version = Store(tmp_path / "runs").version("cut")
    assert version.running() is None
    assert (version.path / "search" / "checkpoint.pt").exists()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.stdout.splitlines()[-1] == "done 4", done.stderr
    assert [v.name for v in Store(tmp_path / "runs").versions("cut")] == ["V001"]


def test_settings_become_words_of_the_command_line():
    from darts_core.api import _value

    assert [_value(v) for v in (None, True, 0.1, "a", [1, "b"], {"low": 1})] == [
        "null",
        "true",
        "0.1",
        "a",
        "[1,b]",
        "{low:1}",
    ]


def test_a_refused_call_raises_the_sentence(tmp_path, monkeypatch):
    from darts_core.api import search
    from darts_core.errors import ConfigError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="epohcs"):
        search("search.epohcs=3", job="wrong", progress=False)
    assert not (tmp_path / "runs" / "wrong").exists()
