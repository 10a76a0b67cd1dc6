"""`predict` takes a sample of a .npy file as the data hold it, or says why not."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from darts_core import cli
from darts_core.errors import DataError, ExportError
from darts_core.export.manifest import data_meta
from darts_core.export.predict import predict
from darts_core.export.runtime import LoadedModel

IMAGES = {
    "classes": ["a", "b"], "input_shape": [3, 8, 6], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5],
    "task": {"name": "classification", "outputs": 2, "names": ["a", "b"]},
}  # fmt: skip


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def loaded(**changes):
    """A network whose first probability tells the inputs apart."""
    described = {**IMAGES, **changes}
    size = int(np.prod(described["input_shape"]))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 2)).eval()
    return LoadedModel(described, "eager", model, torch.device("cpu"))


def said(tmp_path, model, sample):
    np.save(tmp_path / "one.npy", sample)
    (found,) = predict(model, [tmp_path / "one.npy"])
    return found.probabilities["a"]


def test_an_image_is_the_same_in_either_layout(tmp_path, rng):
    sample, model = rng.integers(0, 256, (3, 8, 6), dtype=np.uint8), loaded()
    wanted = said(tmp_path, model, sample)
    for same in (sample[None], sample.transpose(1, 2, 0), sample.astype(np.int64)):
        assert said(tmp_path, model, same) == pytest.approx(wanted)
    for other in (sample.reshape(6, 8, 3), sample.ravel(), sample.transpose(0, 2, 1)):
        with pytest.raises(DataError, match=r"takes one sample of shape \[3, 8, 6\]"):
            said(tmp_path, model, other)


@pytest.mark.parametrize(
    "change", [lambda x: x / 255, lambda x: x.astype(np.int64) + 200, lambda x: -x.astype(int) - 1]
)
def test_numbers_that_are_no_bytes_are_refused_by_a_model_of_bytes(tmp_path, rng, change):
    sample = rng.integers(0, 256, (3, 8, 6), dtype=np.uint8)
    with pytest.raises(
        DataError, match="bytes, as its training data were, whole numbers from 0 to 255"
    ):
        said(tmp_path, loaded(), change(sample))


def test_series_and_what_is_not_finite(tmp_path, rng):
    model = loaded(input_shape=[1, 9], mean=[0.0], std=[2.0], unit=1)
    sample = rng.normal(size=(1, 9)).astype(np.float32)
    assert said(tmp_path, model, sample[0]) == pytest.approx(said(tmp_path, model, sample))
    two = loaded(input_shape=[2, 9], mean=[0.0, 0.0], std=[1.0, 1.0], unit=1)
    with pytest.raises(DataError, match=r"takes one sample of shape \[2, 9\]"):
        said(tmp_path, two, rng.normal(size=(9, 2)))
    sample[0, 3] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        said(tmp_path, model, sample)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble, np.float16])
def test_numbers_are_taken_in_any_byte_order_and_width(tmp_path, rng, dtype):
    model = loaded(input_shape=[1, 9], mean=[0.5], std=[2.0], unit=1)
    sample = rng.normal(size=(1, 9)).astype(np.float16)
    wanted = said(tmp_path, model, sample.astype(np.float32))
    assert said(tmp_path, model, sample.astype(dtype)) == pytest.approx(wanted)
    images, pixels = loaded(), rng.integers(0, 256, (3, 8, 6), dtype=np.uint8)
    wanted = said(tmp_path, images, pixels)
    assert said(tmp_path, images, pixels.astype(">i4")) == pytest.approx(wanted)


def test_token_numbers_are_within_the_vocabulary(tmp_path):
    model = loaded(input_shape=[4], mean=[], std=[], unit=1, vocabulary=["x", "y", "z"])
    for wrong in ([0, 1, 2, 3], [0, -1, 2, 1], [0.0, 1.0, 2.0, 1.0]):
        with pytest.raises(DataError, match="token numbers whole numbers from 0 to 2"):
            said(tmp_path, model, np.array(wrong))


def test_a_text_is_for_a_model_of_characters(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat", encoding="utf-8")
    words = loaded(input_shape=[4], mean=[], std=[], unit=1, vocabulary=["the", "cat", "a"])
    with pytest.raises(
        DataError, match=r"no single characters.*give \.npy files of 4 token numbers"
    ):
        predict(words, [tmp_path / "a.txt"])
    for beside in ([], ["<pad>", "[UNK]"]):
        letters = loaded(input_shape=[4], mean=[], std=[], unit=1, vocabulary=[*beside, *"abst"])
        with pytest.raises(DataError, match="holds ' ', which the model has not seen"):
            predict(letters, [tmp_path / "a.txt"])


def test_of_a_description_without_a_unit_images_alone_are_bytes():
    assert data_meta(IMAGES).unit == 255
    series = {**IMAGES, "input_shape": [3, 9]}
    assert data_meta(series).unit == 1
    # a saved network of ours leaves 255 out
    assert data_meta({**series, "data": "mine"}).unit == 255


def test_the_data_of_a_saved_network_are_named_as_those_of_a_bundle():
    assert data_meta({**IMAGES, "data": "digits"}).name == "digits"
    assert data_meta({**IMAGES, "name": "mine", "data": "digits"}).name == "mine"
    assert data_meta(IMAGES).name == ""


@pytest.mark.parametrize("between", [["--top", "2"], ["--json"]])
def test_options_may_stand_between_what_is_asked_about(tmp_path, capsys, between):
    words = ["predict", f"model={tmp_path}", *between, "a.png", "--prefer", "exact", "b.png"]
    for given in (words, ["predict", "--model", str(tmp_path), *between, "--", "-a.png"]):
        assert cli.main(given) == 2
        assert "holds no manifest.json" in capsys.readouterr().err


def test_one_path_or_what_a_glob_gives_and_nothing_that_loading_reads(tmp_path, rng):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (3, 8, 6), dtype=np.uint8))
    model, paths = loaded(), sorted(tmp_path.glob("*.npy"))
    wanted = predict(model, paths, batch_size=1)
    assert predict(model, iter(paths), batch_size=1) == wanted
    assert predict(model, paths[0]) == predict(model, str(paths[0])) == wanted[:1]
    with pytest.raises(ExportError, match="already, as 'eager' on cpu: runtime, threads would not"):
        predict(model, paths, runtime="onnx", threads=2)
    for size in (0, -1):
        with pytest.raises(ExportError, match=f"batch_size={size} must be at least 1"):
            predict(model, paths, batch_size=size)
    (tmp_path / "model.pt").write_bytes(b"")
    for place in (tmp_path, tmp_path / "model.pt"):
        with pytest.raises(ExportError, match=r"runs eagerly, and threads, devcie would not count"):
            predict(place, paths, threads=2, devcie="cpu", trust=True)


def test_an_answer_that_is_no_number_is_told_and_is_null_in_json(
    tmp_path, caplog, capsys, monkeypatch
):
    def broken(x):
        return torch.full((len(x), 2), float("nan"))

    np.save(tmp_path / "one.npy", np.zeros((3, 8, 6), dtype=np.uint8))
    model = LoadedModel(IMAGES, "eager", broken, torch.device("cpu"))
    found = predict(model, tmp_path / "one.npy")
    assert "one.npy: the model gives NaN or infinity for it" in caplog.text

    def predicted(*_, **__):
        print("as a network of the user's own")  # is no part of the JSON
        return found

    monkeypatch.setattr("darts_core.export.predict", predicted)
    assert cli.main(["predict", "--model", "m", "--json", "--top", "2", "a.png"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert said["classes"] == {"a": None, "b": None}


def test_photographs_that_are_stored_turned_are_told_in_one_line(tmp_path, caplog):
    turned = Image.Exif()
    turned[0x0112] = 6
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for path in paths:
        Image.new("RGB", (6, 8)).save(path, exif=turned)
    assert len(predict(loaded(), paths, batch_size=1)) == 3
    assert [r.message for r in caplog.records if "turned" in r.message and "2 more" in r.message]
    assert caplog.text.count("stored turned") == 1
