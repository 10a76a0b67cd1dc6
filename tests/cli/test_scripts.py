"""Training scripts in the manner of well-known ones, through the real command, and their changed lines.

`tests/scripts/NAME/main.py` is the script as it is and `job.yaml` its job; `searched.py` and `search.yaml`
are the differentiable search of its network.
"""

import difflib
import json
import re
from pathlib import Path

import pytest
from jobs_command import jobs

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "scripts"
NAMES = sorted(path.name for path in SCRIPTS.iterdir() if (path / "main.py").is_file())
SEARCHED = [name for name in NAMES if (SCRIPTS / name / "searched.py").is_file()]
slow = pytest.mark.full


def run_job(place, name, config, *, settings=()):
    words = [f"--set={text}" for text in settings]
    folder = SCRIPTS / name
    text = jobs(place, "create", "--name", name, "--code", str(folder), "--config", str(folder / config),
                *words, "--wait")  # fmt: skip
    assert f"{name}/V001: succeeded." in text, text
    return json.loads(jobs(place, "show", name, "--json"))


def changed_lines(name):
    """How many lines of the searched script are not the script's own; empty ones are none."""
    before, after = (
        (SCRIPTS / name / f).read_text().splitlines() for f in ("main.py", "searched.py")
    )
    found = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    return sum(bool(line[2:].strip()) for line in found)


def table():
    """Script -> changed lines of the two columns, as docs/autosearch.md states them."""
    text = (ROOT / "docs" / "autosearch.md").read_text()
    rows = re.findall(r"\(`(\w+)`\) \| (\d+) \| (\d+|-) \|", text)
    return {name: (int(zero), None if more == "-" else int(more)) for name, zero, more in rows}


def test_the_page_states_the_changed_lines_of_every_script():
    stated = table()
    assert sorted(stated) == NAMES
    for name, (zero, more) in stated.items():
        assert zero == 0
        assert more == (changed_lines(name) if name in SEARCHED else None)
        assert more is None or more <= 5


@pytest.mark.parametrize(
    "name", [n if n == "sklearn_script" else pytest.param(n, marks=slow) for n in NAMES]
)
def test_a_script_is_searched_as_it_is(place, name):
    shown = run_job(place, name, "job.yaml")
    copy = place / "runs" / name / "V001" / "code" / "main.py"
    assert copy.read_bytes() == (SCRIPTS / name / "main.py").read_bytes()
    metric = shown["summary"]["objectives"][0]["metric"]
    rows = shown["rows"]
    assert [row["state"] for row in rows] == ["done"] * len(rows)
    # better than chance, and the settings reached the script
    chance = 10 if max(row[metric] for row in rows) > 1 else 0.1
    assert shown["summary"]["best"]["values"][metric] > 2 * chance
    assert len({row[metric] for row in rows}) > 1 or shown["summary"]["best"]["values"][metric] >= 1


@slow
@pytest.mark.parametrize("name", SEARCHED)
def test_the_network_of_a_script_is_searched(place, name):
    run_job(place, name, "search.yaml")
    trials = place / "runs" / name / "V001" / "autosearch" / "trials"
    found = {}
    for path in trials.iterdir():
        record = json.loads((path / "trial.json").read_text())
        found[record["number"]] = path
    supernet = json.loads((found[1] / "architecture.json").read_text())
    assert supernet["moved"]
    assert all(isinstance(value, int) for value in json.loads(supernet["value"]).values())
    # what was retrained is the found network, within the cost asked for, and is kept with its weights
    own, pick = (json.loads((found[n] / "network.json").read_text()) for n in (0, 2))
    assert pick["config"]["architecture"] == supernet["value"]
    assert pick["parameters"] < own["parameters"]
    assert (found[2] / "network.pt").is_file()
