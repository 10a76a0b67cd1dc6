"""A saved network and the data at hand: judged as it was trained, refused where its outputs mean others."""

from dataclasses import replace

import numpy as np
import pytest

from darts_core.augment.by_kind import augment_for
from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError
from darts_core.settings import TrainConfig
from darts_core.testing import tiny_bundle
from darts_core.train import of_model


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


def test_images_on_another_scale_are_refused(rng):
    y = np.arange(80) % 2
    bytes_ = make_bundle(
        "a", RawData(rng.integers(0, 256, (80, 1, 8, 8), dtype=np.uint8), y, ("a", "b"), "a")
    )
    floats = make_bundle(
        "b", RawData(rng.random((80, 1, 8, 8), dtype=np.float32), y, ("a", "b"), "b")
    )
    with pytest.raises(
        ConfigError, match=r"images of bytes 0\.\.255; those of b are numbers as they are"
    ):
        of_model(floats, meta_of(bytes_), "m.pt")
    with pytest.raises(ConfigError, match="images of numbers as they are"):
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
