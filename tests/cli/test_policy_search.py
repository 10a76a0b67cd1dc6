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
        ["tune.policy=gradient", "tune.epochs=1", "+tune.options={steps_per_epoch: 2, length: 1}"],
        ["tune.policy=density", "tune.trials=2", "+tune.options={sub_policies: 2, keep: 1}"],
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
    use = ["augment=found", f"augment.path={folder / 'policy.yaml'}"]
    assert cli.main(["train", *quoted(TINY), *use, out, "version=V002"]) == 0
    assert (tmp_path / "p" / "V002" / "train" / "model.pt").is_file()


def test_an_unknown_method_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["tune", *quoted(TINY), "tune.policy=gradiant", f"out={tmp_path}"])
    assert status == 2
    assert "Did you mean 'gradient'" in capsys.readouterr().err
