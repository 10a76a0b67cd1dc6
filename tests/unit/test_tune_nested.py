"""Studies that are one of several: below a trial of a sweep, beside others in one version or database."""

from __future__ import annotations

import pytest

from darts_core.runlog import write_json
from darts_core.settings import from_plain
from darts_core.stages.schema import TuneStage
from darts_core.stages.trial import RecipeTrial
from darts_core.stages.tune import _study_name, tune
from darts_core.study.trial import TrialHandle, inside

URL = "sqlite:///studies.db"


def stage(root, job="mine", **options):
    given = {"out": str(root), "job": job, "version": "V002", "tune": {"options": options}}
    return from_plain(TuneStage, given)


def test_in_a_sweep_of_pipelines_each_pipeline_has_its_own_study(tmp_path, monkeypatch):
    """It was taken for the sweep's trial: after search and training `run` ended in KeyError: 'best'."""
    monkeypatch.setattr(RecipeTrial, "__call__", lambda self, trial: {"trial": trial.number})
    trial = TrialHandle(
        3, {}, tmp_path / "V002/tune/trials/0003", seed=0, resumed=False, decide=lambda *_: None
    )
    study = trial.folder / "tune"
    write_json(study / "result.json", {"schema_version": 1, "best": {"learning_rate": 0.1}})
    with inside(trial):
        assert tune(stage(tmp_path), study)["best"] == {"learning_rate": 0.1}
        # a sweep of `tune` itself
        assert tune(stage(tmp_path), tmp_path / "V002/tune") == {"trial": 3}


def name(root, place, **options):
    config = stage(root, **options)
    return _study_name(config, root / str(config.job) / "V002" / place / "tune")


@pytest.mark.parametrize("place", ["baseline", "rivals/resnet8-w4", "0", "seed1"])
def test_studies_of_one_version_have_names_of_their_own_in_a_database(tmp_path, place):
    # as before: the job, the version and the stage, or what was given
    assert name(tmp_path, "", storage=URL) is None
    assert name(tmp_path, "", storage=URL, study_name="recipe") == "recipe"
    assert name(tmp_path, place, storage=URL) == f"mine/V002/{place}/tune"
    assert name(tmp_path, place, storage=URL, job="yours") == f"yours/V002/{place}/tune"
    assert name(tmp_path, place, storage=URL, study_name="recipe") == f"recipe/{place}/tune"
    # a journal lies in the study's own folder
    assert name(tmp_path, place) is None


def test_a_study_that_an_older_program_began_keeps_its_name(tmp_path):
    folder = tmp_path / "mine/V002/baseline/tune"
    write_json(folder / "study.json", {"schema_version": 1, "seed": 0, "storage": URL})
    assert name(tmp_path, "baseline", storage=URL) is None
    write_json(
        folder / "study.json", {"schema_version": 1, "study_name": "mine/V002/baseline/tune"}
    )
    assert name(tmp_path, "baseline", storage=URL) == "mine/V002/baseline/tune"
