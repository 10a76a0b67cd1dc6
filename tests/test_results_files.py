"""Files in `benchmarks/results`: whole, and of no one's machine."""

import json
import re
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*.json"))
# what every machine of a kind has
SHARED = ("/usr/", "/tmp/", "/dev/shm/")


def foreign(command: str) -> list[str]:
    """Absolute paths in a command that others do not have."""
    return [p for p in re.findall(r"(?:^|[\s=])(/[^\s\"']+)", command) if not p.startswith(SHARED)]


def test_a_path_of_ones_own_is_found():
    assert foreign("python x.py --out /home/me/out data.path=/data/a") == [
        "/home/me/out",
        "/data/a",
    ]
    assert foreign("python -m a.b data.path=/usr/share/c --runs /tmp/r x/y") == []


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_command_of_a_result_runs_elsewhere(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["rows"]
    assert foreign(result.get("command", "")) == []
