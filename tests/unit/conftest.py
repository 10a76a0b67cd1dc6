import os
import textwrap

import pytest

from darts_core.autosearch.trials import UserCode, Workshop
from darts_core.store import procs
from darts_core.store.jobs import Store
from darts_core.supernet import batched


@pytest.fixture
def shop(tmp_path):
    made = []

    def build(source, *, arguments=(), **options):
        code = tmp_path / "code"
        code.mkdir(exist_ok=True)
        (code / "boot.py").write_text(textwrap.dedent(source))
        user = UserCode(code, code / "boot.py", tuple(arguments), **options)
        made.append(Workshop(tmp_path / "V001", user, mark=f"test-{os.getpid()}-{tmp_path.name}"))
        return made[-1]

    yield build
    for workshop in made:
        procs.end_tree(None, workshop.mark, grace_seconds=0.1, limit_seconds=3)


@pytest.fixture(params=["bands", "images"])
def cpu_form(request, monkeypatch):
    """Both forms of the batched path, whatever the shapes would choose."""
    largest = float("inf") if request.param == "bands" else 0
    monkeypatch.setattr(batched, "LARGEST_BAND", largest)
    return request.param


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def root(tmp_path):
    """A store that holds a made-up search, for tests of the live page."""
    from web_site import searched

    searched(tmp_path / "runs")
    return tmp_path / "runs"
