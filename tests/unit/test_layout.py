"""Trainings with channels last in memory."""

import copy
from dataclasses import asdict, replace

import pytest
import torch
from elastic_cases import Images, made
from torch import nn

from darts_core.bench.models import ModelCase, seed_settings
from darts_core.checkpoint import load_checkpoint
from darts_core.elastic import Sandwich
from darts_core.elastic.fit import fit_elastic
from darts_core.errors import ConfigError, ResumeError
from darts_core.layout import input_in_layout
from darts_core.runlog import config_hash
from darts_core.stages.forecast import forecast
from darts_core.stages.schema import Pipeline, TrainStage, deciding
from darts_core.testing import tiny_bundle
from darts_core.train import TrainConfig, fit
from darts_core.train.trainer import Trainer

LAST = torch.channels_last
RECIPE = TrainConfig(
    epochs=2, batch_size=8, ema=0.9, learning_rate=0.1, cutout=0, crop_padding=1, flip=True, drop_path=0.0,
    channels_last=True,
)  # fmt: skip


def _lies(x):
    """Whether its channels lie last."""
    return x.stride(1) == 1


class Net(nn.Module):
    """Convolutions of two and three dimensions; notes how its images lie."""

    def __init__(self):
        super().__init__()
        self.flat, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.solid, self.out = nn.Conv3d(6, 4, (1, 3, 3)), nn.Linear(4, 3)
        self.lies = []

    def forward(self, x):
        self.lies.append(_lies(x))
        y = self.norm(self.flat(x.double())).relu()
        return self.out(self.solid(y.unsqueeze(2)).mean((2, 3, 4)))


def _net():
    torch.manual_seed(1)
    return Net().double()


def test_a_training_with_channels_last_takes_the_same_steps(tmp_path):
    states = {}
    for last in (False, True):
        model, config = _net(), replace(RECIPE, channels_last=last)
        fit(
            model, tiny_bundle(), config, seed=2, checkpoint=tmp_path / f"{last}.pt", select_on=None
        )
        states[last] = model.state_dict()
        assert set(model.lies) == {last}
        assert model.flat.weight.is_contiguous()
    for name, value in states[False].items():
        assert torch.allclose(value, states[True][name], rtol=1e-9, atol=1e-12), name
    kept = load_checkpoint(tmp_path / "True.pt")["model"]["flat.weight"]
    assert kept.is_contiguous(memory_format=LAST)
    with pytest.raises(ResumeError, match="another training configuration"):
        fit(_net(), tiny_bundle(), RECIPE, seed=2, checkpoint=tmp_path / "False.pt")


class _Stop(Exception):
    pass


def _stop(*_):
    raise _Stop


def test_it_goes_on_bit_for_bit(tmp_path):
    whole, path = _net(), tmp_path / "checkpoint.pt"
    fit(whole, tiny_bundle(), RECIPE, seed=2)
    with pytest.raises(_Stop):
        fit(_net(), tiny_bundle(), RECIPE, seed=2, checkpoint=path, on_epoch=_stop)
    again = _net()
    nn.init.zeros_(again.flat.weight)  # begun anew it would end elsewhere
    fit(again, tiny_bundle(), RECIPE, seed=2, checkpoint=path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_an_elastic_training_takes_the_same_steps():
    states = []
    for last in (False, True):
        net = copy.deepcopy(made("resnet14", torch.float32))
        config = replace(RECIPE, batch_size=16, epochs=1, channels_last=last, learning_rate=0.01)
        lies = []
        net.model.register_forward_pre_hook(
            lambda _, given, lies=lies: lies.append(_lies(given[0]))
        )
        fit_elastic(net, Images(), config, Sandwich(net, seed=5))
        # those of the evaluation after it as well
        assert lies[0] == last
        states.append(net.model.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value.double(), states[1][name].double(), rtol=1e-3, atol=1e-4), name


def test_folders_from_before_the_setting_keep_their_names_and_go_on():
    for stage in (TrainStage, Pipeline):
        assert "channels_last" not in deciding(stage())["train"]
        told = replace(stage(), train=replace(stage().train, channels_last=True))
        assert deciding(told)["train"]["channels_last"] is True
    config = TrainConfig(**{**asdict(RECIPE), "channels_last": False})
    trainer = Trainer(_net(), tiny_bundle(), config, ("params",), 0, torch.device("cpu"))
    before = {k: v for k, v in asdict(config).items() if k != "channels_last"}
    assert trainer._stamp() == config_hash({**before, "on": ("params",), "seed": 0})
    case, bundle = ModelCase("a"), tiny_bundle()
    assert seed_settings(case, bundle, config, 0)["train"] == before
    assert seed_settings(case, bundle, RECIPE, 0)["train"]["channels_last"] is True


class Viewing(nn.Module):
    """Joins channels and positions as old code does."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 3)

    def forward(self, x):
        return self.out(self.conv(x).view(len(x), -1))


def test_a_network_that_calls_view_is_told_what_to_change():
    fit(Viewing(), tiny_bundle(), replace(RECIPE, channels_last=False, epochs=1))
    with pytest.raises(
        ConfigError, match=r"channels_last=true does not go.*call flatten\(\) or reshape"
    ):
        fit(Viewing(), tiny_bundle(), RECIPE)
    about = {"batch_size": 8, "steps": 1, "device": torch.device("cpu"), "what": "it"}
    assert forecast(Viewing, tiny_bundle(), **about).seconds > 0
    with pytest.raises(ConfigError, match="channels_last=true does not go"):
        forecast(Viewing, tiny_bundle(), **about, channels_last=True)


def test_other_inputs_stay_as_they_are():
    for shape in ((2, 3), (2, 3, 4), (2, 3, 1, 4, 4)):
        x = torch.zeros(shape)
        assert input_in_layout(x, LAST) is x


def test_a_long_training_is_told_where_channels_last_would_be_quicker(caplog, monkeypatch):
    caplog.set_level("INFO", "darts_core")
    about = {"batch_size": 8, "device": torch.device("cpu"), "what": "it"}

    def told(steps, seconds, make=_net, **more):
        left = iter(seconds)
        monkeypatch.setattr(
            "darts_core.stages.forecast._time", lambda step, x, y, _: (next(left), _lies(x))
        )
        caplog.clear()
        found = forecast(make, tiny_bundle(), steps=steps, **about, **more)
        assert (found.seconds, found.peak_mib) == (
            steps * seconds[0],
            more.get("channels_last", False),
        )
        assert not list(left)
        return [line for line in caplog.messages if "channels_last" in line]

    assert told(100, [1.0, 0.75, 1.1]) == [
        "train.channels_last=true would take about 0.75 of that (a step of 750 ms), with other rounding"
    ]
    assert told(100, [1.0, 0.95]) == []
    # it came later only
    assert told(100, [1.0, 0.75, 0.8]) == []
    # short or of few steps, not asked for, so already, or nothing in it that lies so
    assert told(100, [0.1]) == []
    assert told(99, [1.0]) == []
    assert told(100, [1.0], look=False) == []
    assert told(100, [1.0], channels_last=True) == []
    assert told(100, [1.0], lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 3))) == []


class Picky(nn.Module):
    """Takes images with their channels first alone."""

    def __init__(self):
        super().__init__()
        self.conv, self.lies = nn.Conv2d(3, 3, 8), []

    def forward(self, x):
        self.lies.append(_lies(x))
        if self.lies[-1]:
            raise ValueError("other strides")
        return self.conv(x).flatten(1)


@pytest.mark.parametrize("kind", [Viewing, Picky])
def test_the_look_at_another_layout_ends_nothing_and_draws_nothing(monkeypatch, kind):
    monkeypatch.setattr("darts_core.stages.forecast._WORTH_A_LOOK", 0.0)
    model = kind()
    torch.manual_seed(7)
    forecast(
        lambda: model, tiny_bundle(), batch_size=8, steps=900, device=torch.device("cpu"), what="it"
    )
    assert _lies(model.conv.weight)  # it was looked at
    found = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(found, torch.rand(1))
