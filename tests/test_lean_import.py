"""What must start fast: importing the package, `--help`, the sweeper plugin and the schemas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("torch", "triton", "optuna", "matplotlib", "kornia")

CASES = {
    "package": "import darts_core",
    "help": "from darts_core.cli import main; assert main(['--help']) == 0",
    "command help": "from darts_core.cli import main; assert main(['search', '--help']) == 0",
    "list help": """
from darts_core.cli import main
try:
    main(['list', '--help'])
except SystemExit as done:
    assert done.code == 0
""",
    "schema": "import darts_core.stages.schema, darts_core.store.claim",
    "wrong key": "from darts_core.cli import main; assert main(['search', 'search.epohcs=1']) == 2",
    "tune": "import darts_core.study",
    "report": "import darts_core.report",
    # what Hydra imports to find its plugins; the package itself is empty
    "sweeper": "import hydra_plugins.darts_sweeper.sweeper",
}


@pytest.mark.parametrize("name", CASES)
def test_nothing_heavy_is_loaded(name: str) -> None:
    code = (
        f"{CASES[name]}\nimport sys\nprint('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "loaded: []", done.stdout
