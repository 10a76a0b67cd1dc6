"""`bench` of a version's models, asked for again."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from darts_core import cli
from darts_core.errors import ConfigError
from darts_core.report.read import read_rows
from darts_core.runlog import config_hash
from darts_core.stages import bench as stage
from darts_core.stages.schema import BenchStage

TINY = [
    "data=digits", "data.limit=200", "data.test_limit=100", "device=cpu", "job=mine", "bench.seconds=0.02",
]  # fmt: skip


def runtimes(version: Path) -> list[str]:
    return [row.runtime for row in read_rows(version / "bench" / "results.json")]


@pytest.fixture
def version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that holds a trained network, measured."""
    monkeypatch.chdir(tmp_path)
    argv = ["train", "architecture=resnet8", "train.epochs=1", "train.channels=4", *TINY[:-1]]
    assert cli.main(argv) == 0
    assert cli.main(["bench", *TINY]) == 0
    place = tmp_path / "runs" / "mine" / "V001"
    assert runtimes(place) == ["eager"]
    return place


def test_what_was_left_there_since_is_measured_with_the_rest(version: Path) -> None:
    first = (version / "bench" / "results.json").stat().st_ino
    shutil.copytree(version / "train", version / "prune")
    assert cli.main(["bench", *TINY]) == 0
    assert runtimes(version) == ["eager", "eager"]
    assert (version / "bench" / "results.json").stat().st_ino != first
    # other settings are no other version: the models lie in this one
    assert cli.main(["bench", *TINY[:-1], "bench.seconds=0.03"]) == 0
    assert runtimes(version) == ["eager", "eager"]
    assert sorted(p.name for p in version.parent.glob("V*")) == ["V001"]
    assert not (version / "bench.before").exists()


def test_a_measurement_that_fails_leaves_the_former_one(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = (version / "bench" / "results.json").read_text()

    def fails(*_: object, **__: object) -> None:
        raise ConfigError("nothing runs here")

    with monkeypatch.context() as patched:
        patched.setattr(stage, "with_times", fails)
        assert cli.main(["bench", *TINY]) == 2
    assert (version / "bench" / "results.json").read_text() == kept
    # killed half way, it lies beside
    (version / "bench").rename(version / "bench.before")
    (version / "bench").mkdir()
    assert cli.main(["bench", *TINY]) == 0
    assert runtimes(version) == ["eager"]
    assert not (version / "bench.before").exists()


def test_the_models_of_a_run_are_measured_again(version: Path) -> None:
    """What `run` measured has the pipeline's settings, and `bench` no record there."""
    from darts_core.store.record import read_record, write_record

    record = read_record(version)
    assert record is not None
    record["commands"]["run"] = {**record["commands"].pop("bench"), "config_hash": "of a run"}
    write_record(version, record)
    (version / "bench" / "config.hash").write_text("of a run\n")
    assert cli.main(["bench", *TINY]) == 0
    assert runtimes(version) == ["eager"]


def test_another_comparison_in_a_version_is_not_measured_over(version: Path) -> None:
    """It could not be gone on with, nor found again, once its record was this one's."""
    from darts_core.store.record import read_record, write_record

    (version / "bench" / "result.json").unlink()  # killed half way
    for other in ("model=resnet8", "what=step"):
        record = read_record(version)
        assert record is not None
        record["commands"]["bench"] |= {"overrides": [other, *TINY], "config_hash": "of another"}
        write_record(version, record)
        assert cli.main(["bench", *TINY]) == 2
        assert read_record(version) == record
        assert (version / "bench" / "results.json").is_file()


def test_a_run_goes_on_where_bench_was_asked_for_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it measured has settings of its own, by which the run was refused."""
    module = importlib.import_module("darts_core.stages.run")
    kept: list[bool] = []

    def measures(config: BenchStage, folder: Path) -> dict[str, Any]:
        kept.append(folder.exists())
        return {}

    monkeypatch.setattr(module, "bench", measures)
    stage = BenchStage(job="mine")
    for stamp in ("of a bench", config_hash(stage.described())):
        (tmp_path / "bench").mkdir(exist_ok=True)
        (tmp_path / "bench" / "config.hash").write_text(f"{stamp}\n")
        module._measured(stage, tmp_path / "bench")
    assert kept == [False, True]
