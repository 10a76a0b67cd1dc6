"""Networks by name: a user's function, a registered one, timm's names; saved, and built again safely."""

import re
import sys
import uuid
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.commands.compose import compose, session
from darts_core.errors import ConfigError, ResumeError
from darts_core.models import trust
from darts_core.models.baselines import is_baseline
from darts_core.models.named import (
    REGISTERED,
    is_named,
    named_model,
    register_model,
    saved_model,
)
from darts_core.models.searched import named_space, network_of
from darts_core.models.weights import load_weights
from darts_core.settings import from_plain
from darts_core.spaces import SPACES
from darts_core.stages import finalist_training
from darts_core.stages.inputs import find_network, load_bundle, open_model
from darts_core.stages.schema import SearchStage
from darts_core.supernet import ModuleSupernet, build
from darts_core.train import load_model, save_model

SHAPE = (1, 8, 8)
SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, width):
        super().__init__()
        self.conv, self.head = nn.Conv2d(in_channels, width, 3), nn.Linear(width, num_classes)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))

def small(num_classes, in_channels, width=4):
    return Net(num_classes, in_channels, width)

def wide(width):
    return Net(3, 1, width)

def breaks():
    raise RuntimeError("out of order")

def other():
    return "a text"

def lazy(num_classes):
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(num_classes))

EIGHT = 8
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's own, importable and not yet imported."""
    name = f"nets_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_NAMED", set())
    yield name
    sys.modules.pop(name, None)


def made(text, **given):
    return named_model(text, given, image_shape=SHAPE, num_classes=3)


def test_a_function_is_given_the_data_s_sizes_and_the_users_arguments(module):
    found = made(f"{module}:small", width=6)
    assert found.arguments == {"num_classes": 3, "in_channels": 1, "width": 6}
    assert found.make().conv.weight.shape == (6, 1, 3, 3)
    # layers that take their sizes from their first input have them before anybody counts or loads
    assert made(f"{module}:lazy").make()[2].weight.shape == (3, 4 * 6 * 6)


def test_a_saved_network_is_built_again_with_its_widths_and_weights(module, tmp_path):
    found = made(f"{module}:small")
    model = found.make().eval()
    model.conv = nn.Conv2d(1, 2, 3)  # as pruning leaves it
    model.head = nn.Linear(2, 3)
    save_model(tmp_path / "model.pt", model, {"model": found.described(), "data": "x"})
    again, meta = load_model(tmp_path / "model.pt")
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(again(x), model(x))
    assert meta["data"] == "x"


def test_a_file_alone_does_not_import_a_module(module, tmp_path, monkeypatch):
    found = made(f"{module}:small")
    save_model(tmp_path / "model.pt", found.make(), {"model": found.described()})
    sys.modules.pop(module)
    monkeypatch.setattr(trust, "_NAMED", set())
    with pytest.raises(ConfigError, match=rf"plugins=\[{module}\]"):
        load_model(tmp_path / "model.pt")
    assert module not in sys.modules
    # a package that holds it is another module
    trust.trust(module[:-1])
    with pytest.raises(ConfigError, match="plugins"):
        load_model(tmp_path / "model.pt")
    from darts_core.stages.targets import import_plugins

    import_plugins([module])
    assert load_model(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("function", "given", "words"),
    [
        ("smal", {}, "Did you mean 'small'"),
        ("EIGHT", {}, "Unknown function"),
        ("breaks", {}, "RuntimeError: out of order"),
        ("other", {}, "gives a str"),
        ("small", {"depth": 3}, "TypeError"),
        ("small", {"width": {"a": 1}}, "is a dict"),
        ("small", {"num_classes": 5}, r"gives \(2, 5\) .* \[2, 3\]"),
        ("small", {"in_channels": 3}, "does not run on inputs"),
    ],
)
def test_a_function_that_gives_no_classifier_is_a_sentence(module, function, given, words):
    with pytest.raises(ConfigError, match=words):
        made(f"{module}:{function}", **given)


def test_a_module_that_is_not_there_is_a_sentence():
    with pytest.raises(ConfigError, match="no module 'not_there_at_all'"):
        made("not_there_at_all:f")


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18", "hf_hub:x", "local-dir:/tmp", "../x", ""])
def test_hub_and_folder_forms_of_timm_are_refused(name):
    with pytest.raises(ConfigError, match="are not opened"):
        saved_model({"name": f"timm:{name}", "arguments": {}}, "a file").make()


def test_timm_arguments_that_read_files_are_refused():
    for key in ("pretrained", "checkpoint_path", "pretrained_cfg"):
        with pytest.raises(ConfigError, match="weights=FILE"):
            made("timm:resnet18", **{key: "x"})


def test_what_is_a_name_and_what_is_a_file():
    assert all(is_named(text) for text in ("a:b", "a.b.c:d_e", "timm:resnet18"))
    assert not any(is_named(t) for t in (None, "runs/a/model.pt", "C:/model.pt", "a.b", "a:b:c"))
    # of a file resnet18.py; `bench` took it for a shape of ours
    assert not is_baseline("resnet18:net")
    assert is_baseline("resnet18:1x16-2x24")
    assert is_baseline("resnet18")


def test_a_registered_network_needs_no_module_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(REGISTERED, "_entries", {})

    @register_model("tiny", description="for this test")
    def tiny(num_classes, image_size):
        return nn.Sequential(nn.Flatten(), nn.Linear(image_size[0] * image_size[1], num_classes))

    found = made("tiny")
    assert found.arguments == {"num_classes": 3, "image_size": [8, 8]}
    save_model(tmp_path / "model.pt", found.make(), {"model": found.described()})
    assert load_model(tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="already registered"):
        register_model("tiny", description="again")(tiny)
    with pytest.raises(ConfigError, match="letters"):
        register_model("a:b", description="no name")
    for taken in ("resnet18", "train"):  # `bench` would take the one, `export` the other
        with pytest.raises(ConfigError, match=f"model={taken} is .* under another name"):
            register_model(taken, description="clashes")(tiny)
    # a later command without the module that registers it
    REGISTERED._entries.clear()
    with pytest.raises(ConfigError, match=r"registered network 'tiny'.*plugins=\[\.\.\.\]"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("shape", [5, "18", {1: 8}])
def test_a_damaged_shape_is_a_sentence(module, shape):
    made(f"{module}:small")
    node = {"name": f"{module}:small", "arguments": {}, "choices": {"a": 1}, "input_shape": shape}
    with pytest.raises(ConfigError, match=r"model\.pt: its input_shape is no shape of a sample"):
        saved_model(node, "model.pt")


def test_a_script_that_exits_when_it_is_imported_is_a_sentence(module, tmp_path):
    """Its own usage was printed, and nothing of ours."""
    (tmp_path / f"{module}.py").write_text("import sys\nsys.exit(2)\n")
    with pytest.raises(ConfigError, match="fails while its module is imported: SystemExit: 2"):
        made(f"{module}:small")


def test_weights_are_loaded_from_a_state_dict_and_nothing_else(module, tmp_path):
    found = made(f"{module}:small")
    one, two = found.make(), found.make()
    parallel = {f"module._orig_mod.{name}": value for name, value in one.state_dict().items()}
    for content in (one.state_dict(), {"state_dict": one.state_dict(), "epoch": 3}, parallel):
        two = found.make()
        torch.save(content, tmp_path / "weights.pt")
        load_weights(two, tmp_path / "weights.pt")
        assert torch.equal(one.conv.weight, two.conv.weight)
    torch.save(one, tmp_path / "pickled.pt")  # a whole module: code to be run
    with pytest.raises(ConfigError, match="cannot be read as plain tensors"):
        load_weights(two, tmp_path / "pickled.pt")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        load_weights(two, tmp_path / "none.pt")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="of another network"):
        load_weights(two, tmp_path / "other.pt")
    with pytest.raises(ConfigError):
        load_weights(two, tmp_path / "absent.pt")


def test_nobody_is_told_to_delete_her_own_file(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "mine.pt")
    (tmp_path / "junk.pt").write_bytes(b"hello")
    for name in ("mine.pt", "junk.pt"):
        with pytest.raises(ResumeError) as caught:
            load_model(tmp_path / name)
        assert not re.search("[Dd]elete (it|the file)", str(caught.value))
        assert "weights=FILE" in str(caught.value)


def test_train_and_prune_take_a_name_with_arguments_and_weights(module, tmp_path):
    def config(command, *overrides):
        with session() as extra:
            return compose(command, ["data=digits", *overrides], extra)

    named = (f"model={module}:small", "model_args.width=3")
    settings = config("train", *named)
    bundle = load_bundle(settings, torch.device("cpu"))
    network = find_network(settings, tmp_path, bundle)
    assert network.meta["model"]["arguments"]["width"] == 3
    first = network.make()
    torch.save(first.state_dict(), tmp_path / "w.pt")
    started = find_network(replace(settings, weights=str(tmp_path / "w.pt")), tmp_path, bundle)
    assert torch.equal(started.make().conv.weight, first.conv.weight)
    lazy = find_network(config("train", f"model={module}:lazy"), tmp_path, bundle).make()
    assert sum(parameter.numel() for parameter in lazy.parameters()) == 40 + 10 * 145
    pruning = config("prune", *named, f"weights={tmp_path / 'w.pt'}")
    model, meta, path = open_model(pruning, tmp_path, ("train",), bundle, torch.device("cpu"))
    assert path is None
    assert meta["model"]["name"] == f"{module}:small"
    assert torch.equal(model.conv.weight, first.conv.weight)
    with pytest.raises(ConfigError, match="not both"):
        find_network(replace(settings, architecture="DARTS_V2"), tmp_path, bundle)
    with pytest.raises(ConfigError, match="go with model="):
        find_network(replace(settings, model=None), tmp_path, bundle)
    with pytest.raises(ConfigError, match="names no network"):
        find_network(replace(settings, model="resnet_of_mine"), tmp_path, bundle)


def test_the_page_on_models_of_your_own_shows_a_network_that_works(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "extending" / "model.md").read_text()
    source = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.setattr(trust, "_NAMED", set())
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"page_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(source)
    try:
        model = made(f"{name}:small", width=12).make()
        assert model(torch.zeros(2, *SHAPE)).shape == (2, 3)
    finally:
        sys.modules.pop(name, None)


def test_a_mapping_that_holds_itself_is_no_state_dict(tmp_path):
    content = {}
    content["model"] = content
    torch.save(content, tmp_path / "loop.pt")
    with pytest.raises(ConfigError, match="holds no state dict"):
        load_weights(nn.Linear(1, 1), tmp_path / "loop.pt")
    inner = nn.Linear(2, 2)
    torch.save({"model": {"state_dict": inner.state_dict()}}, tmp_path / "deep.pt")
    other = nn.Linear(2, 2)
    load_weights(other, tmp_path / "deep.pt")
    assert torch.equal(other.weight, inner.weight)


OPEN = """
from torch import nn
from darts_core.supernet import LayerChoice, WidthChoice

class Net(nn.Module):
    def __init__(self, num_classes, in_features):
        super().__init__()
        linear = nn.Linear(in_features, 8)
        self.body = LayerChoice([linear, nn.Sequential(nn.Linear(in_features, 8), nn.Tanh())])
        self.act, self.width = nn.ReLU(), WidthChoice([4, 8], dim=-1)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.width(self.act(self.body(x))))
"""


@pytest.mark.parametrize("shape", [(1, 10), (10, 1)])
def test_choices_in_a_network_over_rows_are_searched_and_made(module, tmp_path, shape):
    (tmp_path / f"{module}.py").write_text(OPEN)
    sizes = {"image_shape": shape, "num_classes": 3, "in_channels": shape[0], "output_shape": (3,)}
    space = named_space(f"{module}:Net", {}, reads="series", **sizes)
    assert [label for label, _ in space.choices] == ["body", "width"]
    net = ModuleSupernet(space.made({}), space=space, input_shape=shape)
    x = torch.randn(2, *shape)
    assert net(x, net.mixing_weights()).shape == (2, 3)
    found = Architecture(space.name, choices=(("body", "1"), ("width", 4)))
    assert net.build(found)(x).shape == (2, 3)
    # as `train` makes it from the file that the search leaves
    plain = network_of(found, "architecture.yaml", **sizes).make()
    assert plain(x).shape == (2, 3)
    assert plain.model.head.weight.shape == (3, 4)
    for ours in ({"stem": "imagenet"}, {"auxiliary": True}):
        with pytest.raises(ConfigError, match="leave out auxiliary= and stem="):
            build(found, **ours)


def test_a_network_over_rows_that_fits_neither_way_is_told_of_as_it_was_written(module):
    with pytest.raises(ConfigError, match=r"does not run on inputs \[2, 1, 10\]"):
        named_model(f"{module}:small", {}, image_shape=(1, 10), num_classes=3)
    with pytest.raises(ConfigError, match="RuntimeError: out of order"):
        named_model(f"{module}:breaks", {}, image_shape=(1, 10), num_classes=3)


def test_a_node_of_a_cluster_makes_the_finalists_of_a_network_with_choices(
    module, tmp_path, monkeypatch
):
    """The space of its choices is registered where the network was made: not yet in a fresh process."""
    (tmp_path / f"{module}.py").write_text(OPEN)
    task = SimpleNamespace(output_shape=lambda shape: (3,))
    bundle = SimpleNamespace(
        kind="series", input_shape=(1, 10), num_outputs=3, in_channels=1, task=task
    )
    made = []

    class Brief:
        def __init__(self, make, *_, **__):
            self.up_to = lambda training: made.append(make(training.architecture))

    monkeypatch.setattr(SPACES, "_entries", dict(SPACES._entries))
    monkeypatch.setattr(finalist_training, "trial_bundle", lambda *_: bundle)
    monkeypatch.setattr(finalist_training, "finalist_recipe", lambda *_: None)
    monkeypatch.setattr(finalist_training, "Halving", Brief)
    config = from_plain(SearchStage, {"model": f"{module}:Net", "device": "cpu"})
    found = Architecture(f"model={module}:Net", choices=(("body", "1"), ("width", 4)))
    training = SimpleNamespace(architecture=found, seed=0, folder=tmp_path)
    finalist_training._There(config, (training,), None)(0)
    assert made[0](torch.randn(2, 1, 10)).shape == (2, 3)
