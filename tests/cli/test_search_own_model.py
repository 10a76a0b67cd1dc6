"""`search model=package.module:function`: the choices in a network of one's own, no line registered."""

import json
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from darts_core import cli
from darts_core.errors import ConfigError
from darts_core.models import trust
from darts_core.train import load_model

SOURCE = """
from torch import nn
from darts_core.supernet import LayerChoice, WidthChoice

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, most):
        super().__init__()
        layers = {str(k): nn.Conv2d(in_channels, most, k, padding=k // 2) for k in (1, 3)}
        self.conv, self.norm = LayerChoice(layers, "kernel"), nn.BatchNorm2d(most)
        self.width = WidthChoice([most // 2, most], "width")
        self.head = nn.Linear(most, num_classes)

    def forward(self, x):
        return self.head(self.width(self.norm(self.conv(x)).relu()).mean((2, 3)))

def net(num_classes, in_channels, most=4):
    return Net(num_classes, in_channels, most)

def plain(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

def askew(most=4):
    return Net(3, 1, most)
"""
FEW = ["data=digits", "data.limit=120", "device=cpu"]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"nets_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "_NAMED", set())
    yield name
    sys.modules.pop(name, None)


def test_the_choices_in_an_own_network_are_searched_and_the_found_network_trained(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"model={module}:net", "model_args.most=6", "search.epochs=1", "search.batch_size=16"]
    words += ["search.finalists=2", "search.finalist_epochs=1", "latency.cost=macs"]
    assert cli.main(["search", "job=own", *words, "latency.budget=0.002", *FEW]) == 0
    version = tmp_path / "runs" / "own" / "V001"
    found = yaml.safe_load((version / "search" / "architecture.yaml").read_text(encoding="utf-8"))
    assert found["space"] == f'model={module}:net {{"most": 6}}'
    assert set(found["choices"]) == {"kernel", "width"}
    # 64 places of 6 channels: one within the budget has a 1x1 convolution or half the width
    assert (found["choices"]["kernel"], found["choices"]["width"]) != ("3", 6)

    train = ["train", "job=own", "train.epochs=1", "train.batch_size=16", *FEW]
    monkeypatch.setattr(trust, "_NAMED", set())
    assert cli.main(train) == 2  # the file alone names the module
    assert cli.main([*train, f"plugins=[{module}]"]) == 0
    network, meta = load_model(version / "train" / "model.pt")
    assert network.conv.weight.shape[0] == found["choices"]["width"]
    assert network.conv.kernel_size[0] == int(found["choices"]["kernel"])
    assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert meta["model"]["choices"] == found["choices"]

    # before an export, too, it is asked about files
    np.save(tmp_path / "sample.npy", np.zeros((1, 8, 8), np.uint8))
    asked = ["predict", "--model", str(version / "train"), "--json", "--plugins", module]
    assert cli.main([*asked, str(tmp_path / "sample.npy")]) == 0
    answer = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert 0.0 < next(iter(answer["classes"].values())) <= 1.0

    monkeypatch.setattr(trust, "_NAMED", set())
    with pytest.raises(ConfigError, match=rf"plugins=\[{module}\]"):
        load_model(version / "train" / "model.pt")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model={module}:plain"], "holds no LayerChoice"),
        (["model={module}:askew"], "outputs [2, 10] are needed"),
        (["model=somewhere"], "names no network"),
        (["model_args.most=3"], "goes with model="),
    ],
)
def test_a_network_that_cannot_be_searched_is_a_sentence(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    given = [word.format(module=module) for word in words]
    assert cli.main(["search", "job=own", *given, *FEW]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs" / "own").exists()
