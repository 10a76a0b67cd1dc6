"""What a study may begin with: the trials of another one that is judged by the same numbers."""

from __future__ import annotations

import pytest

from darts_core.errors import TuneError
from darts_core.study import run_study

SPACE = {"x": {"low": 0.0, "high": 1.0}}


def value(trial):
    return trial.params["x"]


def test_a_study_that_is_better_the_other_way_is_no_knowledge(tmp_path):
    less = {"metric": "val_loss", "direction": "minimize", "sampler": "random"}
    run_study(value, SPACE, folder=tmp_path / "first", trials=2, **less)
    words = r"judged by val_loss \(minimized\), this one by val_loss \(maximized\)"
    with pytest.raises(TuneError, match=words):
        run_study(
            value, SPACE, folder=tmp_path / "more", trials=1, warm_start=tmp_path / "first",
            metric="val_loss", sampler="random",
        )  # fmt: skip
    with pytest.raises(TuneError, match=r"this one by val_accuracy \(maximized\)"):
        run_study(value, SPACE, folder=tmp_path / "other", trials=1, warm_start=tmp_path / "first")
    found = run_study(
        value, SPACE, folder=tmp_path / "same", trials=1, warm_start=tmp_path / "first", **less
    )
    assert len(found.trials) == 1
