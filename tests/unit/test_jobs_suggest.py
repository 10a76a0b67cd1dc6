"""Metrics proposed from a printed log, and what the proposed patterns find in it."""

import re
from io import BytesIO, TextIOWrapper
from types import SimpleNamespace

import pytest

from darts_core.autosearch.job_yaml import parse_file
from darts_core.commands.jobs.suggest import run_suggest, suggest
from darts_core.errors import JobError

LOG = """\
start 2026-11-24 03:46:21 on 10.0.0.1, model resnet50 v1.2
Epoch 1/2: train loss: 0.52 val accuracy 0.464 (12.3s)
step 10 lr=1e-3
Epoch 2/2: train loss: .31, val accuracy 0.6293, it's top@5 = 91.5%
accuracy 0.7
"""


def test_names_patterns_and_values_of_a_log():
    found = {item.name: item for item in suggest(LOG.splitlines())}
    figures = {name: (item.lines, item.first, item.last, item.mode) for name, item in found.items()}
    assert figures == {
        "train_loss": (2, 0.52, 0.31, "min"),
        "val_accuracy": (2, 0.464, 0.6293, "max"),
        "lr": (1, 0.001, 0.001, "max"),
        "s_top_5": (1, 91.5, 91.5, "max"),
        "accuracy": (1, 0.7, 0.7, "max"),
    }
    # the shorter name does not take the longer one's figure
    hits = [line for line in LOG.splitlines() if re.search(found["accuracy"].regex, line)]
    assert hits == ["accuracy 0.7"]


@pytest.mark.parametrize(
    "line", ["", "epoch 3", "1.5 2.5", "loss nan", "v 1.2.3", "x" * 5000 + " 1"]
)
def test_lines_without_a_metric(line):
    assert suggest([line]) == []


def test_the_printed_block_is_a_job_files_part(tmp_path, capsys):
    (tmp_path / "log.txt").write_text(LOG + "\x1b[31mred\x07 0.5\n")
    assert run_suggest(None, SimpleNamespace(log=str(tmp_path / "log.txt"), form="text")) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    block = out.partition("from the name):\n")[2]
    (tmp_path / "job.yaml").write_text(
        block + "search_space:\n  - params: [{type: discrete_param, name: lr, values: [1, 2]}]\n"
        "search_algorithm: {type: grid_search, reward_attr: val_accuracy}\n"
    )
    metrics = parse_file(tmp_path / "job.yaml").metrics
    assert {m["name"]: m["regex"] for m in metrics} == {s.name: s.regex for s in suggest(
        (LOG + "\x1b[31mred\x07 0.5\n").splitlines())}  # fmt: skip
    for text in ("nothing here\n", None):
        path = tmp_path / "other.txt"
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text)
        with pytest.raises(JobError):
            run_suggest(None, SimpleNamespace(log=str(path), form="text"))


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("Test set: Average loss: 0.4711, Accuracy: 1541/2000 (77%)", "Accuracy", 77.0),
        (
            "| end of epoch   1 | time:  5.11s | valid loss  6.59 | valid ppl   728.25",
            "valid_loss",
            6.59,
        ),
        ("    accuracy                           0.91       360", "accuracy", 0.91),
        ("5/5 - 0s - accuracy: 0.9 - val_accuracy: 0.8 - val_loss: 0.2", "val_accuracy", 0.8),
        ("." * 3000 + " val_acc=0.5", "val_acc", 0.5),
        ("{'eval_loss': 0.43, 'eval_accuracy': 9.1e-01, 'epoch': 1.0}", "eval_accuracy", 0.91),
        ('{"epoch": 3, "val": {"top-1": 0.4, "f1": 0.75}}', "f1", 0.75),
    ],
)
def test_figures_in_the_manner_of_common_scripts(line, name, value):
    found = {item.name: item for item in suggest([line])}
    assert found[name].last == value


def test_a_number_in_a_sentence_is_no_metric():
    line = "UserWarning: dropout expects num_layers greater than 1, but got dropout=0.2 and num_layers=1"
    assert "expects_num_layers_greater_than" not in {item.name for item in suggest([line])}


def test_a_progress_bar_is_read_as_a_terminal_shows_it(tmp_path, capsys):
    (tmp_path / "log.txt").write_bytes(b"\r1/2 acc=0.3\r2/2 acc=0.9\n")
    assert run_suggest(None, SimpleNamespace(log=str(tmp_path / "log.txt"), form="csv")) == 0
    assert "acc,1,0.9,0.9,max" in capsys.readouterr().out


def test_what_is_piped_in_may_hold_bytes_that_are_no_text(monkeypatch, capsys):
    piped = TextIOWrapper(BytesIO(b"caf\xe9\nacc=0.5\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", piped)
    assert run_suggest(None, SimpleNamespace(log="-", form="csv")) == 0
    assert "acc,1,0.5,0.5,max" in capsys.readouterr().out


@pytest.mark.parametrize("sign", ["/", "-", ".", "@"])
def test_a_name_does_not_take_the_figure_of_a_longer_one_behind_a_sign(sign):
    """Lightning's bar: `loss=0.31, v_num=0, val/loss=0.42`."""
    lines = [f"Epoch 3: loss=0.31, v_num=0, val{sign}loss=0.42", f"val{sign}loss=0.4"]
    found = {item.name: (item.lines, item.first, item.last) for item in suggest(lines)}
    assert found["loss"] == (1, 0.31, 0.31)
    assert found["val_loss"] == (2, 0.42, 0.4)
