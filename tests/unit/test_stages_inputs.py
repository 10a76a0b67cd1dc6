"""What a stage starts from: devices, architectures, models, recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from darts_core.architecture import Architecture
from darts_core.augment import policy_from_yaml
from darts_core.commands.compose import compose, session
from darts_core.commands.hydra_app import _stamp
from darts_core.commands.jobname import previous_version
from darts_core.data import DataBundle, RawData, make_bundle
from darts_core.errors import ArchitectureError, ConfigError, DeviceError
from darts_core.spaces import get_space
from darts_core.stages.given import find_model
from darts_core.stages.inputs import (
    check_fits,
    find_device,
    find_network,
    load_bundle,
    recipe,
)
from darts_core.stages.models import entries_of
from darts_core.stages.schema import SearchStage
from darts_core.stages.train import say_unread
from darts_core.store.record import new_record, write_record
from darts_core.supernet import count
from darts_core.tasks import make_task


def config(command: str = "train", *overrides: str) -> Any:
    with session() as extra:
        return compose(command, ["data=digits", *overrides], extra)


@pytest.fixture(scope="module")
def bundle() -> DataBundle:
    return load_bundle(config(), torch.device("cpu"))


def test_devices() -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99", "mps"):
        with pytest.raises(DeviceError, match=name):
            find_device(name)


def test_a_drop_path_that_a_network_does_not_have_is_told(
    bundle: DataBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="darts_core")
    sizes = ("train.channels=4", "train.layers=3")
    for name in ("resnet8", "DARTS_V2"):
        for setting in ("train.drop_path=0.3", "train.drop_path=0", "train.drop_path=0.2"):
            settings = config("train", *sizes, setting, f"architecture={name}")
            network = find_network(settings, tmp_path, bundle)
            say_unread(settings.train, network.make(), network.name)
    assert caplog.messages == ["train.drop_path=0.3 changes nothing: resnet8 has no paths to drop"]


def test_the_division_does_not_follow_the_seed_of_the_run(bundle: DataBundle) -> None:
    other = load_bundle(config("train", "seed=7"), torch.device("cpu"))
    assert all(torch.equal(bundle.parts[name], other.parts[name]) for name in bundle.parts)
    divided = load_bundle(config("train", "+data.seed=7"), torch.device("cpu"))
    assert not torch.equal(bundle.parts["params"], divided.parts["params"])


def test_an_architecture_is_taken_from_a_name_a_text_a_file_or_a_folder(
    bundle: DataBundle, tmp_path: Path
) -> None:
    found = Architecture.named("DARTS_V2")
    found.to_yaml(tmp_path / "search" / "architecture.yaml")
    sizes = ("train.channels=4", "train.layers=3")
    texts = [
        "DARTS_V2",
        found.text(),
        str(tmp_path / "search" / "architecture.yaml"),
        str(tmp_path),
        None,
    ]
    for text in texts:
        network = find_network(
            replace(config("train", *sizes), architecture=text), tmp_path, bundle
        )
        assert network.architecture == found
    model = network.make()
    assert model.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_the_auxiliary_head_fits_the_images(bundle: DataBundle, tmp_path: Path) -> None:
    settings = config("train", "train.channels=2", "train.layers=3", "train.auxiliary=true")
    network = find_network(replace(settings, architecture="DARTS_V2"), tmp_path, bundle)
    logits, auxiliary = network.make()(torch.randn(2, *bundle.image_shape))
    assert logits.shape == auxiliary.shape == (2, 10)


def test_an_unknown_operation_is_named_with_its_file_cell_and_edge(
    bundle: DataBundle, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    Architecture.named("DARTS_V2").to_yaml(path)
    path.write_text(path.read_text().replace("dil_conv_3x3", "dil_conv_3x4"))
    with pytest.raises(ArchitectureError) as caught:
        find_network(replace(config(), architecture=str(path)), tmp_path, bundle)
    for words in (str(path), "from state 2 to 5", "'normal'", "'dil_conv_3x4'", "Did you mean"):
        assert words in str(caught.value)


def test_a_hand_designed_network_is_sized_by_channels(bundle: DataBundle, tmp_path: Path) -> None:
    sizes = []
    for width in (4, 8):
        settings = replace(config("train", f"train.channels={width}"), architecture="resnet8")
        network = find_network(settings, tmp_path, bundle)
        assert network.architecture is None
        sizes.append(count(network.make(), bundle.image_shape).params)
    assert sizes[1] > 3 * sizes[0]


@pytest.mark.parametrize("task", ["classification", "multi_label", "regression", "next_token"])
def test_a_language_model_is_for_answers_at_each_position(tmp_path: Path, task: str) -> None:
    tokens = np.arange(160).reshape(40, 4) % 7
    wanted = {"classification": tokens[:, 0] % 2, "multi_label": tokens % 2, "next_token": tokens}
    targets = wanted.get(task, tokens[:, 0].astype(float))
    rows = make_bundle("rows", RawData(tokens, targets, (), "here"), task=make_task(task))
    space = get_space("gpt_tiny")
    space.random(np.random.default_rng(0)).to_yaml(tmp_path / "gpt.yaml")
    for text in ("transformer", str(tmp_path / "gpt.yaml")):
        settings = replace(config(), architecture=text)
        if task == "next_token":
            check_fits(space, rows)
            assert find_network(settings, tmp_path, rows).meta["task"]["name"] == task
            continue
        with pytest.raises(ConfigError, match=rf"task={task} of rows wants.*save them as floats"):
            find_network(settings, tmp_path, rows)
        with pytest.raises(ConfigError, match=r"^space=gpt_tiny answers at each position"):
            check_fits(space, rows)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        (None, ConfigError, "No architecture= is given"),
        ("DARTS_V7", ArchitectureError, "DARTS_V2"),
        ("missing.yaml", ConfigError, "missing.yaml.*no such file.*DARTS_V2"),
        ("Genotype(normal=", ArchitectureError, "genotype"),
    ],
)
def test_an_architecture_that_is_none_is_a_sentence(
    text: str | None, error: type[Exception], words: str, bundle: DataBundle, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        find_network(replace(config(), architecture=text), tmp_path, bundle)


def test_a_folder_without_an_architecture_is_a_sentence(bundle: DataBundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"without an architecture\.yaml"):
        find_network(replace(config(), architecture=str(tmp_path)), tmp_path, bundle)


def test_a_model_is_found_by_file_folder_or_version(tmp_path: Path) -> None:
    file = tmp_path / "train" / "model.pt"
    file.parent.mkdir()
    file.write_bytes(b"x")
    for given in (str(file), str(file.parent), None):
        assert find_model(given, tmp_path, ("prune", "train")) == file
    with pytest.raises(ConfigError, match="prune or export"):
        find_model(None, tmp_path, ("prune", "export"))
    with pytest.raises(ConfigError, match=r"neither.* holds train\.$"):
        find_model(str(tmp_path), tmp_path, ())
    version = tmp_path / "many" / "V001"
    element = version / "0" / "train"  # of a multirun
    element.mkdir(parents=True)
    (element / "model.pt").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"finished train \(.*V001 holds 0/train\)"):
        find_model(None, version, ("train",))
    # bench, which compares the networks of one folder, says so in either way to name it
    write_record(version, new_record("pipeline"))
    with session() as extra:
        of_job = compose("bench", [f"out={tmp_path}"], extra)
    said = rf"of its own.*report job=many/V001 compares its elements.* model={element}\.$"
    with pytest.raises(ConfigError, match=said):
        previous_version(of_job, "many")
    with pytest.raises(ConfigError, match=said):
        entries_of(version)
    with pytest.raises(ConfigError, match=r"neither.*; train one"):
        find_model(str(tmp_path / "none"), tmp_path, ())


def test_the_recipe_takes_a_policy_by_name_changed_or_found(tmp_path: Path) -> None:
    assert recipe(config(), tmp_path).policy is None
    assert recipe(config("train", "augment=randaugment"), tmp_path).policy == "randaugment"
    assert not (tmp_path / "policy.yaml").exists()
    changed = recipe(config("train", "augment=randaugment", "augment.magnitude=7"), tmp_path)
    assert changed.policy == str((tmp_path / "policy.yaml").resolve())
    assert "magnitude: 7" in (tmp_path / "policy.yaml").read_text()
    found = recipe(config("train", "augment=found", f"augment.path={tmp_path}/p.yaml"), tmp_path)
    assert found.policy == str((tmp_path / "p.yaml").resolve())
    with pytest.raises(ConfigError, match=r"augment\.path"):
        recipe(config("train", "augment=found"), tmp_path)
    with pytest.raises(ConfigError, match="learning_rate"):
        recipe(config("train", "train.learning_rate=-1"), tmp_path)


@pytest.mark.parametrize("first", ["", "name: none\n"])
def test_a_policy_in_a_file_of_ones_own_needs_no_name(tmp_path: Path, first: str) -> None:
    """As docs/augmentation.md shows one, or copied from none.yaml and filled in."""
    mine = tmp_path / "conf" / "augment" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(f"{first}sub_policies:\n  - [[rotate, 1, 5]]\n")
    with session(str(tmp_path / "conf")) as extra:
        own = compose("train", ["data=digits", "augment=mine"], extra)
    assert recipe(own, tmp_path).policy == str((tmp_path / "policy.yaml").resolve())
    assert policy_from_yaml(tmp_path / "policy.yaml").operations == ("rotate",)


def test_a_stage_is_stamped_by_what_it_reads_only() -> None:
    whole = config("run")
    own = whole.part(SearchStage).described()
    assert "train" not in own
    assert "job" not in own
    assert {"search", "seed", "data", "space"} <= set(own)


def test_loggers_and_launchers_are_no_part_of_what_a_multirun_is_stamped_by() -> None:
    found, words = config("search"), ["seed=0,1", "logger=wandb"]
    more = [*words, "logger.wandb.mode=online", "++logger.wandb.project=mine"]
    more += ["hydra/launcher=slurm", "+hydra.launcher.gpus=1"]
    assert _stamp(found, more) == _stamp(found, words)
    assert _stamp(found, [*words, "search.epochs=1,2"]) != _stamp(found, words)


@pytest.mark.parametrize(
    "doubt", [[{"guard": "ties", "message": "nothing is decided."}], [], "x", [3]]
)
def test_a_doubtful_architecture_is_trained_with_a_warning(
    tmp_path: Path, bundle: DataBundle, caplog: pytest.LogCaptureFixture, doubt: Any
) -> None:
    path = tmp_path / "search" / "architecture.yaml"
    path.parent.mkdir()
    Architecture.named("DARTS_V2").to_yaml(path, doubt=doubt)
    found = find_network(config(), tmp_path, bundle)
    assert found.architecture == Architecture.named("DARTS_V2")
    told = f"{path} is doubtful: nothing is decided." in caplog.text
    assert told == (isinstance(doubt, list) and bool(doubt) and doubt != [3])
