"""Skeletons are registered; the dictionaries that they were are read for one more version."""

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from darts_core import cli
from darts_core.errors import ConfigError
from darts_core.models.named import REGISTERED
from darts_core.spaces import ChoiceSpace, get_space
from darts_core.strategies import baselines
from darts_core.supernet import LayerChoice, create_supernet, macro
from darts_core.supernet.build import NETWORKS, register_network
from darts_core.supernet.macro import CHOICE_MODELS, register_choice_model
from darts_core.supernet.search_skeleton import SEARCH_SKELETONS

SPACE = ChoiceSpace.of("flat", {"inner": ["0", "1"]}, skeleton="flat")


@pytest.fixture(autouse=True)
def own_tables(monkeypatch):
    for table in (CHOICE_MODELS, NETWORKS, SEARCH_SKELETONS, REGISTERED):
        monkeypatch.setattr(table, "_entries", dict(table._entries))


def flat(space, *, channels, layers, num_classes, in_channels):
    inner = LayerChoice([nn.Conv2d(in_channels, channels, 1) for _ in range(2)], label="inner")
    return nn.Sequential(
        inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )


def test_a_registered_choice_model_is_searched():
    register_choice_model("flat", description="one layer")(flat)
    assert create_supernet(
        SPACE, channels=3, layers=1, num_classes=2, image_size=4
    ).input_shape == (3, 4, 4)
    with pytest.raises(ConfigError, match="'flat' is already registered"):
        register_choice_model("flat", description="again")(flat)


def test_an_unregistered_skeleton_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"'flat'.*Known: .*mobilenet"):
        create_supernet(SPACE, channels=3, layers=1, num_classes=2, image_size=4)


@pytest.mark.parametrize(
    ("module", "name", "table"),
    [
        ("macro", "MODELS", CHOICE_MODELS),
        ("build", "BUILDERS", NETWORKS),
        ("search_skeleton", "BODIES", SEARCH_SKELETONS),
        ("search_skeleton", "SKELETONS", SEARCH_SKELETONS),
    ],
)
def test_the_former_dictionaries_are_read_with_a_warning(module, name, table):
    import importlib

    held = importlib.import_module(f"darts_core.supernet.{module}")
    with pytest.warns(
        FutureWarning, match=rf"{module}\.{name} is read for one more version; use .*register_"
    ):
        former = getattr(held, name)
    assert dict(former) == {entry.name: entry.value for entry in table.entries()}
    former["mine"] = flat
    assert table["mine"] is flat
    former["mine"] = nn.Identity
    assert table["mine"] is nn.Identity
    del former["mine"]
    assert "mine" not in table
    with pytest.raises(KeyError):
        former["mine"]


def test_a_plugin_that_still_writes_into_the_dictionary_is_searched():
    with pytest.warns(FutureWarning):
        macro.MODELS["flat"] = flat
    assert create_supernet(
        SPACE, channels=3, layers=1, num_classes=2, image_size=4
    ).input_shape == (3, 4, 4)


def test_a_network_class_stays_a_class_when_it_is_registered():
    @register_network("mine", description="nothing")
    class Mine(nn.Module):
        pass

    assert isinstance(Mine, type)
    assert NETWORKS["mine"] is Mine


def test_candidates_that_are_trained_alone_are_built_for_the_height_of_the_images(monkeypatch):
    given = {}
    monkeypatch.setattr(baselines, "build", lambda architecture, **sizes: given.update(sizes))
    space = get_space("nasbench201")
    supernet = create_supernet(space, channels=2, layers=1, input_shape=(3, 64, 48))
    baselines.fresh_network(supernet, space.random(np.random.default_rng(0)))
    assert given == {**supernet.sizes, "image_size": 64}


def test_list_shows_models_and_skeletons_of_a_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "listednets.py").write_text(
        "from torch import nn\n"
        "from darts_core.models.named import register_model\n"
        "from darts_core.supernet.macro import register_choice_model\n"
        "@register_model('mynet', description='a net of mine')\n"
        "def make(num_classes):\n    return nn.LazyLinear(num_classes)\n"
        "register_choice_model('flat', description='one layer')(make)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["list", "models", "skeletons", "--plugins", "listednets", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == {"mynet": "a net of mine"}
    assert found["skeletons"]["flat"] == "one layer"
    assert {"darts", "nasbench201", "mobilenet", "convnet", "toy"} <= set(found["skeletons"])
