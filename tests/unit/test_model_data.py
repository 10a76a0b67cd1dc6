"""A saved network and the data at hand: judged as it was trained, refused where its outputs mean others."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from darts_core.augment.by_kind import augment_for
from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError
from darts_core.runlog import write_json, write_yaml
from darts_core.settings import Data, Train, TrainConfig, from_plain
from darts_core.stages.export import export
from darts_core.stages.inputs import find_network, open_model
from darts_core.stages.schema import ExportStage, PruneStage, TrainStage
from darts_core.stages.train import train
from darts_core.tasks import Classification
from darts_core.testing import tiny_bundle
from darts_core.train import evaluate, of_model, save, save_model
from darts_core.train.judged import as_judged
from darts_core.train.judged import tested_before as known_from_before
from darts_core.train.model_data import check_samples, tell_other_optimizer, tell_other_test


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def meta_of(bundle):
    return {
        "class_names": list(bundle.class_names), "mean": list(bundle.mean), "std": list(bundle.std),
        "data": bundle.name, "task": bundle.task.describe(), "image_shape": list(bundle.input_shape),
    }  # fmt: skip


def test_other_classes_of_the_same_number_are_refused():
    bundle = tiny_bundle(channels=1)
    names = list(bundle.class_names)
    assert of_model(bundle, meta_of(bundle), "m.pt").class_names == bundle.class_names
    for others in (names[::-1], [f"{name}s" for name in names]):
        with pytest.raises(
            ConfigError, match=r"m\.pt was trained on .*, whose classes are .*Give the data of"
        ):
            of_model(bundle, {**meta_of(bundle), "class_names": others}, "m.pt")
        with pytest.raises(ConfigError, match="whose classes are"):  # a manifest
            of_model(bundle, {**meta_of(bundle), "class_names": None, "classes": others}, "m.pt")


def test_names_that_an_earlier_program_gave_are_no_other_classes():
    bundle = tiny_bundle(channels=1)
    meta, count = meta_of(bundle), len(bundle.class_names)
    numbers = [str(i) for i in range(count)]
    assert (
        of_model(bundle, {**meta, "class_names": numbers}, "m.pt").class_names == bundle.class_names
    )
    twice = replace(bundle, class_names=tuple(f"crane ({i})" for i in range(count)))
    of_model(twice, {**meta, "class_names": ["crane"] * count}, "m.pt")
    of_model(bundle, {**meta, "class_names": []}, "m.pt")


def test_samples_of_another_shape_are_refused():
    bundle = tiny_bundle(channels=1)
    with pytest.raises(ConfigError, match=r"m\.pt takes samples of shape \(1, 28, 28\); "):
        of_model(bundle, {**meta_of(bundle), "image_shape": [1, 28, 28]}, "m.pt")


class Flat(nn.Module):
    """Takes samples of one size only."""

    def __init__(self, size):
        super().__init__()
        self.head = nn.Linear(size * size, 3)

    def forward(self, x):
        return self.head(x.flatten(1))


class Pooled(nn.Module):
    """Takes images of any height and width."""

    def __init__(self, channels=1):
        super().__init__()
        self.conv, self.head = nn.Conv2d(channels, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


@pytest.mark.parametrize("key", ["image_shape", "input_shape"])
def test_a_network_is_trained_on_with_other_sizes_where_it_takes_them(key):
    bundle = tiny_bundle(channels=1)
    meta = {key: [1, 28, 28]}
    check_samples(bundle, {key: list(bundle.input_shape)}, "m.pt", trained_on=Flat(8))
    check_samples(bundle, meta, "m.pt", trained_on=Pooled())
    # one that runs on them is no network for other channels
    for network, other in ((Flat(28), meta), (Pooled(), {key: [3, 8, 8]})):
        with pytest.raises(ConfigError, match=r"m\.pt takes samples of shape .*Give the data"):
            check_samples(bundle, other, "m.pt", trained_on=network)
    with pytest.raises(ConfigError, match="takes samples of shape"):
        check_samples(bundle, meta, "m.pt")


def test_the_train_stage_refuses_a_saved_network_of_another_size_in_a_sentence(
    tmp_path, monkeypatch
):
    """A network that does not run on such samples used to end in a traceback of torch."""
    bundle = tiny_bundle(channels=1)
    monkeypatch.setattr(save, "_rebuild", lambda *_: Flat(28))
    described = {"baseline": {"name": "of the test's own"}, "image_shape": [1, 28, 28]}
    save_model(tmp_path / "model.pt", Flat(28), {**meta_of(bundle), **described})
    config = TrainStage(model=str(tmp_path / "model.pt"), device="cpu")
    with pytest.raises(ConfigError, match=r"takes samples of shape \(1, 28, 28\); tiny holds"):
        find_network(config, tmp_path, bundle)


def test_inputs_are_normalised_as_they_were_in_its_training():
    bundle = tiny_bundle(channels=1)
    then = {**meta_of(bundle), "mean": [0.25], "std": [0.75]}
    own = of_model(bundle, then, "m.pt")
    assert (own.mean, own.std) == ((0.25,), (0.75,))
    x, _ = next(iter(own.batches("val", 4, shuffle=False)))
    raw, _ = next(iter(bundle.batches("val", 4, shuffle=False, pixels=True)))
    np.testing.assert_allclose(
        x.numpy(), (raw.numpy() / bundle.unit - 0.25) / 0.75, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("what", "shape"), [("images", (80, 1, 8, 8)), ("series", (80, 2, 9))])
def test_samples_on_another_scale_are_refused(rng, what, shape):
    y = np.arange(80) % 2
    bytes_ = make_bundle("a", RawData(rng.integers(0, 256, shape, np.uint8), y, ("a", "b"), "a"))
    floats = make_bundle("b", RawData(rng.random(shape, np.float32), y, ("a", "b"), "b"))
    with pytest.raises(
        ConfigError, match=rf"{what} of bytes 0\.\.255; those of b are numbers as they are"
    ):
        of_model(floats, meta_of(bytes_), "m.pt")
    with pytest.raises(ConfigError, match=f"{what} of numbers as they are"):
        of_model(bytes_, {**meta_of(floats), "unit": 1}, "m.pt")
    # a file of somebody else's may say nothing of it
    own = {k: v for k, v in meta_of(floats).items() if k != "data"}
    assert of_model(floats, own, "m.pt").mean == floats.mean


def test_a_policy_is_refused_for_images_that_are_no_bytes():
    settings = replace(TrainConfig(), policy="trivialaugment")
    assert augment_for((3, 8, 8), settings, "trivialaugment") is not None
    with pytest.raises(ConfigError, match=r"images of bytes .*augment=none"):
        augment_for((3, 8, 8), settings, "trivialaugment", unit=1)
    flipped = replace(TrainConfig(), flip=True)
    assert augment_for((3, 8, 8), flipped, None, unit=1) is not None


def test_options_of_the_task_that_a_saved_network_was_not_trained_with_are_told(caplog):
    plain = tiny_bundle(channels=1)
    names, targets = plain.class_names, np.arange(30) % 3
    weighed = replace(plain, task=Classification(class_weights="balanced").fitted(targets, names))
    assert of_model(weighed, meta_of(plain), "m.pt").task == plain.task
    assert "task.class_weights=balanced: not used, as m.pt keeps the task" in caplog.text
    caplog.clear()
    # what it was trained with stays, also where nobody says it again
    for bundle in (plain, weighed):
        assert of_model(bundle, meta_of(weighed), "m.pt").task == weighed.task
    assert not caplog.text


def test_a_network_that_may_have_learned_from_the_test_split_is_told(tmp_path, monkeypatch, caplog):
    bundle, here = tiny_bundle(channels=1), {"name": "npz", "path": "a.npz", "seed": 3}
    monkeypatch.setattr(save, "_rebuild", lambda *_: Pooled())
    described = {"baseline": {"name": "of the test's own"}, **meta_of(bundle)}
    save_model(tmp_path / "train" / "model.pt", Pooled(), described)

    def opened(**then):
        write_yaml(tmp_path / "train" / "config.yaml", {"data": {"name": "npz", **then}})
        caplog.clear()
        pruning = PruneStage(data=from_plain(Data, here), device="cpu")
        open_model(pruning, tmp_path, ("train",), bundle, torch.device("cpu"))
        return caplog.text

    said = opened(leave_out="theo", split_by=None)
    assert (
        f"{tmp_path / 'train'} ran with data.leave_out=theo, here it is null: its network" in said
    )
    assert said.count("may have learned from samples of the test split") == 1
    point = tmp_path / "train" / "points" / "03"
    write_json(point / "point.json", {})
    caplog.clear()
    tell_other_test(point, here)  # a point of a front is what its stage made of these data
    assert f"{tmp_path / 'train'} ran with data.leave_out=theo, here it is null" in caplog.text
    # the seed divides what is left
    assert not opened(seed=7, test_fraction=0.2)
    (tmp_path / "train" / "config.yaml").unlink()
    tell_other_test(tmp_path / "train", here)
    tell_other_test(tmp_path / "train", None)
    assert not caplog.text


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [("adamw", "sgd", True), ("sgd", "sgd", False), (None, "sgd", False), ("lion", "sgd", False)],
)
def test_another_optimizer_than_that_of_its_training_is_told(tmp_path, caplog, then, now, told):
    if then is not None:
        write_yaml(tmp_path / "config.yaml", {"train": {"optimizer": then}})
    tell_other_optimizer(tmp_path, TrainConfig(optimizer=now), "shrink.learning_rate")
    words = (
        "with adamw and is trained on with sgd: train.optimizer=adamw, with a shrink.learning_rate"
    )
    assert (words in caplog.text) is told
    assert bool(caplog.text) is told


def test_a_point_of_a_front_is_judged_by_what_was_found_of_it(tmp_path, caplog):
    bundle, here, stage = tiny_bundle(channels=1), {"name": "npz", "seed": 3}, tmp_path / "shrink"
    write_yaml(stage / "config.yaml", {"data": here})
    write_json(stage / "result.json", {"test_accuracy": 0.9, "val_accuracy": 0.9})
    point, model = stage / "points" / "03", Pooled().eval()
    now = evaluate(model, bundle, "val").value
    for then, same in ((now, True), (-1.0, False)):
        write_json(point / "point.json", {"metric": 0.5, "val_metric": then})
        assert known_from_before(point, "accuracy", here, bundle) == 0.5
        assert as_judged(model, bundle, point, here) is same
    assert "its training found -100.00 %" in caplog.text
    # both have asked for it: every target is read once, and a bundle made from this one has its own
    assert bundle.marks is bundle.marks
    assert {*bundle.without_test().marks} == {"params", "alpha", "val"}
    assert known_from_before(stage, "accuracy", here, bundle) == 0.9
    write_json(stage / "result.json", {"data_marks": {**bundle.marks, "val": "0"}})
    assert known_from_before(point, "accuracy", here, bundle) is None  # it is of other samples
    assert f"{stage} ran on other data of the same settings" in caplog.text


def test_the_export_of_a_point_states_what_was_found_of_it(tmp_path, monkeypatch):
    bundle, point, stated = tiny_bundle(channels=1), tmp_path / "shrink" / "points" / "03", []
    monkeypatch.setattr(save, "_rebuild", lambda *_: Pooled())
    monkeypatch.setattr("darts_core.stages.export.load_bundle", lambda *_: bundle)

    def written(*_, accuracy, **__):
        stated.append(accuracy)
        return {"artifacts": {}, "params": 1}

    monkeypatch.setattr("darts_core.stages.export.export_model", written)
    save_model(
        point / "model.pt", Pooled(), {"baseline": {"name": "of the test's own"}, **meta_of(bundle)}
    )
    write_json(point / "point.json", {"metric": 0.5, "val_metric": 0.6})
    found = export(ExportStage(model=str(point), device="cpu"), tmp_path / "export")
    assert (stated, found["test_accuracy"], found["val_accuracy"]) == ([0.5], 0.5, 0.6)


def test_a_training_tells_it_once_and_the_trials_of_a_study_do_not(tmp_path, monkeypatch, caplog):
    bundle = tiny_bundle(channels=1)
    monkeypatch.setattr(save, "_rebuild", lambda *_: Pooled())
    described = {"baseline": {"name": "of the test's own"}, **meta_of(bundle)}
    save_model(tmp_path / "model.pt", Pooled(), described)
    write_yaml(tmp_path / "config.yaml", {"data": {"leave_out": "theo"}})
    small = from_plain(Train, {"batch_size": 8})
    config = TrainStage(model=str(tmp_path / "model.pt"), device="cpu", train=small)
    find_network(config, tmp_path, bundle)  # as each trial does
    assert "test split" not in caplog.text

    def enough(*_, **__):
        raise ConfigError("enough")

    monkeypatch.setattr("darts_core.stages.train.load_bundle", lambda *_: bundle)
    monkeypatch.setattr("darts_core.stages.train.forecast", enough)
    with pytest.raises(ConfigError, match="enough"):
        train(config, tmp_path / "V001" / "train")
    assert caplog.text.count("may have learned from samples of the test split") == 1
