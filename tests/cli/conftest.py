import json

import pytest
from jobs_command import CODE, JOB

from darts_core.store import procs


@pytest.fixture
def place(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "boot.py").write_text(CODE)
    (tmp_path / "job.yaml").write_text(JOB)
    yield tmp_path
    for version in (tmp_path / "runs").glob("*/V*/version.json"):
        for command in json.loads(version.read_text())["commands"].values():
            procs.end_tree(None, command["mark"], grace_seconds=0, limit_seconds=3)
