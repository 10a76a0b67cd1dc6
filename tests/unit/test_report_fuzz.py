"""Reports of run folders filled with arbitrary JSON: a page comes out, or a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import report_fixture as fixture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from darts_core.report import write_report, write_seeds_report
from darts_core.runlog import read_json, write_json, write_text

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
FILES = [
    "search/result.json", "train/result.json", "tune/result.json", "prune/result.json", "prune/pruning.json",
    "export/manifest.json", "bench/results.json", "version.json", "train/environment.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture.make_version(tmp_path_factory.mktemp("fuzz"), space="nasbench201", small=True)


def spoiled(content: Any, draw: Any) -> Any:
    """`content` with one value, at any depth, replaced by an arbitrary one."""
    if isinstance(content, dict) and content and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(content)))
        return {**content, key: spoiled(content[key], draw)}
    if isinstance(content, list) and content and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(content) - 1))
        return [*content[:index], spoiled(content[index], draw), *content[index + 1 :]]
    return draw(values)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_value_in_any_file_gives_a_page(version: Path, data: Any) -> None:
    name = data.draw(st.sampled_from(FILES))
    path = version / name
    before = path.read_text()
    try:
        write_text(path, json.dumps(spoiled(read_json(path), data.draw)))
        assert write_report(version).read_text().endswith("</html>\n")
        write_seeds_report([version, version], version / "seeds.html")
    finally:
        write_text(path, before)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_metric_row_gives_a_page(version: Path, data: Any) -> None:
    stage = data.draw(st.sampled_from(["search", "train"]))
    path = version / stage / "metrics.jsonl"
    before = path.read_text()
    rows = [json.loads(line) for line in before.splitlines()]
    try:
        text = "".join(
            json.dumps(row) + "\n" for row in [*rows[:3], spoiled(rows[3], data.draw), *rows[4:6]]
        )
        write_text(path, text)
        assert write_report(version).read_text().endswith("</html>\n")
        write_seeds_report([version, version], version / "seeds.html")
    finally:
        write_text(path, before)


def test_empty_files_give_a_page(version: Path, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / "job" / "V1" / name).parent.mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / "job" / "V1" / name, {})
    assert write_report(tmp_path / "job" / "V1").read_text().endswith("</html>\n")
