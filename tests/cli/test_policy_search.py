"""`darts-core tune tune.policy=...` finds a policy, and `augment=found` trains with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from darts_core import cli
from darts_core.augment import policy_from_yaml
from darts_core.runlog import read_json

TINY = [
    "data=digits",
    "data.limit=200",
    "train.channels=2",
    "train.layers=1",
    "train.epochs=1",
    "train.batch_size=64",
    "architecture=|nor_conv_1x1~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|",
    "job=p",
]


def quoted(argv: list[str]) -> list[str]:
    return [f"architecture='{a.partition('=')[2]}'" if a.startswith("arch") else a for a in argv]


@pytest.mark.parametrize(
    "method",
    [
        [
            "tune.policy=gradient",
            "tune.epochs=1",
            "tune.trainings=1000",
            "+tune.options={steps_per_epoch: 2, length: 1}",
        ],
        [
            "tune.policy=density",
            "tune.trials=2",
            "tune.trainings=2",
            "tune.training_seconds=500",
            "+tune.options={sub_policies: 2, keep: 1}",
        ],
    ],
    ids=["gradient", "density"],
)
def test_search_and_use(method: list[str], tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    assert cli.main(["tune", *quoted(TINY), *method, out, "version=V001"]) == 0
    folder = tmp_path / "p" / "V001" / "policy"
    policy = policy_from_yaml(folder / "policy.yaml")
    assert policy.sub_policies
    assert "color" not in policy.operations
    result = read_json(folder / "result.json")
    assert result["method"] == method[0].partition("=")[2]
    assert result["device_seconds"] > 0
    # the unit of tune.trainings is forecast where it is not given
    assert (folder / "forecast.json").is_file() == (result["method"] == "gradient")
    use = ["augment=found", f"augment.path={folder / 'policy.yaml'}"]
    assert cli.main(["train", *quoted(TINY), *use, out, "version=V002"]) == 0
    assert (tmp_path / "p" / "V002" / "train" / "model.pt").is_file()


def test_an_unknown_method_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["tune", *quoted(TINY), "tune.policy=gradiant", f"out={tmp_path}"])
    assert status == 2
    assert "Did you mean 'gradient'" in capsys.readouterr().err


def test_a_density_search_whose_own_training_spends_the_budget_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = ["tune.policy=density", "tune.trainings=1", "tune.training_seconds=0.001"]
    assert cli.main(["tune", *quoted(TINY), *budget, f"out={tmp_path}"]) == 2
    assert "on its own trainings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["tune.policy=gradient"], "tune.policy=gradient has no budget; give tune.epochs"),
        (
            ["tune.policy=density", "tune.epochs=2"],
            "tune.epochs=2 is not read by tune.policy=density; give tune.trials",
        ),
        (
            ["tune.policy=gradient", "tune.epochs=1", "tune.options.ranges={rotate: 30}"],
            "tune.options.ranges.rotate=30 is no range",
        ),
        (
            ["tune.policy=density", "tune.options.operations=[rotates]"],
            "Did you mean 'rotate'",
        ),
    ],
)
def test_wrong_settings_are_refused_before_the_first_training(
    settings: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("bilevel_objective", "density_objective"):
        monkeypatch.setattr(
            f"darts_core.stages.policy.{name}", lambda *_, **__: pytest.fail("it trains a network")
        )
    assert cli.main(["tune", *quoted(TINY), *settings, f"out={tmp_path}"]) == 2
    assert words in capsys.readouterr().err
    # nor is anything left that the corrected command would meet
    assert not list(tmp_path.rglob("policy"))


def test_a_study_takes_its_budget_in_trainings(tmp_path: Path) -> None:
    budget = ["tune.trials=1", "tune.trainings=1000"]
    assert cli.main(["tune", *quoted(TINY), *budget, f"out={tmp_path}", "version=V001"]) == 0
    folder = tmp_path / "p" / "V001" / "tune"
    one = read_json(folder / "forecast.json")["training_seconds"]
    result = read_json(folder / "result.json")
    assert result["forecast"]["trainings"] == 1  # one trial is at most one training
    assert result["forecast"]["device_seconds"] == pytest.approx(one)
    spent = result["spent"]
    assert spent["trainings"] == pytest.approx(spent["device_seconds"] / one)
