"""A search whose every architecture is doubted says so everywhere, and the pipeline ends with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from darts_core import cli
from darts_core.errors import DataError
from darts_core.report import write_report
from darts_core.runlog import read_json, read_yaml

# alpha rests in the only epoch: nothing is decided
TIED = [
    "experiment=demo", "space=nasbench201", "aim=null", "search.epochs=1",
    "search.finalists=1", "search.alpha_warmup_epochs=1", "search.channels=2", "search.layers=1",
    "search.batch_size=256",
]  # fmt: skip


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tied")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.main(["run", *TIED]) == 2
    return folder / "runs" / "digits-nasbench201" / "V001"


def test_the_doubt_stands_in_every_file_and_on_the_page(
    version: Path,
) -> None:
    result = read_json(version / "search" / "result.json")
    assert [doubt["guard"] for doubt in result["doubt"]] == ["ties"]
    message = result["doubt"][0]["message"]
    assert read_yaml(version / "search" / "architecture.yaml")["notes"]["doubt"] == result["doubt"]
    assert f"DOUBTFUL: the guards doubt every architecture of this search; the least doubted one is "\
        f"returned: {message}" in (version / "log.txt").read_text()  # fmt: skip
    page = write_report(version).read_text()
    assert "The architecture of this search is doubtful." in page
    assert message[:40] in page
    # every edge has its confidence, and near-ties are named
    assert len(result["confidence"]) == 6
    assert all(0 <= one["confidence"] < 0.05 for one in result["confidence"])
    assert "6 of 6 choices are near-ties" in result["warnings"][0]["message"]


def test_the_pipeline_ends_in_a_sentence_and_goes_on_when_told_to(
    version: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(version.parents[2])
    assert not (version / "searched").exists()
    assert cli.main(["run", *TIED]) == 2, "the same again"
    said = capsys.readouterr().err
    assert "near-ties" in said
    assert "allow_doubtful=true" in said

    def reached(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        raise DataError(f"training would begin in {folder}")

    monkeypatch.setattr("darts_core.stages.run.train", reached)
    assert cli.main(["run", *TIED, "allow_doubtful=true"]) == 2
    assert f"training would begin in {version / 'searched'}" in capsys.readouterr().err
    assert [path.name for path in version.parent.glob("V*")] == ["V001"], (
        "the search is not repeated"
    )


def test_a_search_alone_ends_well_and_says_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in TIED[1:] if word != "aim=null"]  # the pipeline's own
    assert cli.main(["search", *words]) == 0
    assert "DOUBTFUL" in capsys.readouterr().err
