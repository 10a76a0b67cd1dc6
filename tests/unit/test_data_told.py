"""What of somebody's data is not taken as she may think is told, or refused in a sentence."""

import io
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_data_shapes import saved
from test_data_sources import write_images, write_parquet

from darts_core.data import load_data
from darts_core.errors import DataError
from darts_core.export.predict import read_image
from darts_core.stages import pipeline
from darts_core.tasks import make_task


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pictures(rng, count=40):
    return rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)


def test_a_validation_set_that_is_not_read_is_told(tmp_path, rng, caplog):
    y = np.arange(40) % 2
    bundle = saved(
        tmp_path / "m.npz",
        train_images=pictures(rng), train_labels=y, val_images=pictures(rng), val_labels=y,
        test_images=pictures(rng, 10), test_labels=y[:10],
    )  # fmt: skip
    assert bundle.sizes["test"] == 10
    assert sum(bundle.sizes.values()) == 50
    assert "val_images and val_labels of" in caplog.text
    caplog.clear()
    for part in ("train", "validation", "test"):
        write_images(tmp_path / "a" / part)
    load_data("image_folder", tmp_path / "a")
    assert f"{tmp_path / 'a' / 'validation'} is not read" in caplog.text
    caplog.clear()
    for part in ("train", "validation", "test"):
        write_parquet(tmp_path / f"{part}.parquet")
    load_data("parquet", tmp_path)
    assert "validation.parquet is not read" in caplog.text


def test_a_column_that_hides_the_others_of_a_table_is_told(tmp_path, rng, caplog):
    x, y = rng.normal(size=(40, 4)), np.arange(40) % 2
    for units, told in (([1, 1, 1, 1], 0), ([1, 1, 100, 1e-6], 0), ([1, 1, 1e5, 1], 1)):
        caplog.clear()
        saved(tmp_path / "m.npz", x=x * units, y=y)
        assert caplog.text.count("less than a thousandth of column 2 (counted from 0)") == told
    caplog.clear()
    saved(tmp_path / "m.npz", x=(x * units)[:, :, None], y=y)
    saved(
        tmp_path / "m.npz", x=np.hstack([x, np.full((40, 9), 0.1)]), y=y
    )  # constants hide nothing
    assert "thousandth" not in caplog.text


def test_a_folder_called_validation_is_the_test_set_where_there_is_no_other(tmp_path):
    for part, count in (("train", 20), ("validation", 3)):
        write_images(tmp_path / part, count=count)
    assert load_data("image_folder", tmp_path).sizes["test"] == 6


def test_names_of_a_set_in_several_parquet_files(tmp_path, monkeypatch):
    for part in range(3):
        write_parquet(tmp_path / f"train-0000{part}-of-00003.parquet")
    assert load_data("parquet", tmp_path).class_names == ("a", "b")
    # what is wrong with an image names the file that holds it
    (tmp_path / "train-00000-of-00003.parquet").unlink()
    last = tmp_path / "train-00002-of-00003.parquet"
    monkeypatch.setattr("test_data_sources.encoded", lambda color: b"x")
    write_parquet(last, count=8)
    with pytest.raises(DataError, match=f"^Row 0 of {last} is not a readable image"):
        load_data("parquet", tmp_path)


def test_what_a_mask_hides_does_not_decide_what_the_targets_are(tmp_path, rng):
    y = rng.integers(-1, 2, (60, 4))
    bundle = saved(tmp_path / "a.npz", x=rng.normal(size=(60, 1, 9)), y=y, mask=y >= 0)
    assert bundle.task.name == "multi_label"
    targets = np.concatenate([bundle.split(name).targets.numpy() for name in bundle.parts])
    assert int(np.isnan(targets).sum()) == int((y < 0).sum())
    assert saved(tmp_path / "b.npz", x=rng.normal(size=(60, 1, 9)), y=y).task.name == "regression"


def test_class_numbers_in_a_column_are_classes_in_every_format(tmp_path, rng):
    x, y = rng.normal(size=(60, 1, 9)), (np.arange(60) % 3)[:, None]
    kept = np.arange(60)[:, None] % 4 != 0
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "m.npy", kept)
    files = {"targets": str(tmp_path / "y.npy"), "mask": str(tmp_path / "m.npy")}
    bundle = load_data("npy", tmp_path / "x.npy", **files)
    assert (bundle.task.name, bundle.num_outputs) == ("classification", 3)
    assert sum(bundle.sizes.values()) == 45
    again = saved(tmp_path / "a.npz", x=x, y=y, mask=kept)
    assert (again.task.name, again.sizes) == (bundle.task.name, bundle.sizes)
    np.save(tmp_path / "y.npy", y + 0.5)  # numbers stay a column
    bundle = load_data("npy", tmp_path / "x.npy", **files)
    assert (bundle.task.name, bundle.num_outputs) == ("regression", 1)


def test_samples_that_stand_in_training_and_in_what_judges_are_told(tmp_path, rng, caplog):
    few, y = rng.integers(0, 256, (20, 9, 9), dtype=np.uint8), np.arange(100) % 2
    bundle = saved(
        tmp_path / "a.npz", train_images=np.repeat(few[:10], 10, axis=0), train_labels=y,
        test_images=few, test_labels=y[:20],
    )  # fmt: skip
    held = bundle.sizes["val"]
    assert f"{held} of the {held} samples of split val stand in the training splits" in caplog.text
    assert "10 of the 20 samples of split test stand in the training splits, too" in caplog.text
    caplog.clear()
    # mostly of one ground, and each another one
    blank = np.zeros((100, 30, 30), np.uint8)
    blank.reshape(100, -1)[np.arange(100), np.arange(100)] = 255
    saved(tmp_path / "b.npz", images=blank, labels=y)
    # the rows of a table may be alike
    saved(tmp_path / "c.npz", x=rng.integers(0, 2, (100, 3)).astype(np.float32), y=y)
    assert "stand in the training splits" not in caplog.text


def test_groups_that_nothing_keeps_apart_are_told(tmp_path, rng, caplog):
    arrays = {
        "x": rng.normal(size=(60, 1, 9)),
        "y": np.arange(60) % 2,
        "group": np.repeat(np.arange(6), 10),
    }
    saved(tmp_path / "g.npz", **arrays)
    assert "data.split_by=group keeps each in one" in caplog.text
    caplog.clear()
    load_data("npz", tmp_path / "g.npz", split_by="group")
    assert "data.split_by=group" not in caplog.text


def test_a_class_that_no_training_group_holds_is_told(tmp_path, rng, caplog):
    group, y = np.repeat(np.arange(6), 10), np.arange(60) % 2
    y[group == 5] = 2  # the last group alone
    np.savez(tmp_path / "g.npz", x=rng.normal(size=(60, 1, 9)), y=y, group=group)
    load_data("npz", tmp_path / "g.npz", leave_out=5)
    assert "the groups of split params hold no sample of class 2" in caplog.text
    caplog.clear()
    np.savez(tmp_path / "g.npz", x=rng.normal(size=(60, 1, 9)), y=np.arange(60) % 2, group=group)
    load_data("npz", tmp_path / "g.npz", leave_out=5)
    assert "hold no sample" not in caplog.text


def test_a_test_set_of_any_kind_of_numbers(tmp_path, rng):
    x, y = rng.normal(size=(40, 3, 8, 8)).astype(np.float32), np.arange(40) % 2
    bundle = saved(tmp_path / "a.npz", x=x, y=y, x_test=x[:10] + 1, y_test=y[:10])
    assert bundle.sizes["test"] == 10
    np.testing.assert_allclose(bundle.test.inputs.numpy(), x[:10] + 1)
    small = (255 * rng.random((10, 3, 8, 8))).astype(np.uint8)
    with pytest.raises(
        DataError, match="have dtype float32, the test ones uint8: one of them is on"
    ):
        saved(tmp_path / "b.npz", x=x, y=y, x_test=small, y_test=y[:10])


FAR = 1.7e9 + np.arange(60) * 0.1


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"x": np.zeros((60, 1, 9)), "y": FAR}, "its targets"),
        ({"x": np.zeros((60, 1, 9)), "y": np.stack([FAR - FAR[0], FAR], 1)}, "column 1"),
        ({"x": np.zeros((60, 2, 9)) + FAR[:, None, None], "y": np.arange(60) % 2}, "its inputs"),
        ({"x_at": FAR, "x_a": FAR - FAR[0], "y": np.arange(60) % 2}, "its inputs x_at"),
    ],
)
def test_values_that_float32_makes_alike_are_told(tmp_path, caplog, arrays, what):
    saved(tmp_path / "a.npz", **arrays)
    (told,) = [r.message for r in caplog.records if "steps of 128" in r.message]
    assert what in told


def test_values_that_float32_tells_apart_are_not_told(tmp_path, rng, caplog):
    near = np.where(np.arange(60) % 5 == 0, np.nan, 1e4 + np.arange(60))
    saved(tmp_path / "a.npz", x=rng.normal(1e3, 1, (60, 2, 9)), y=near)
    saved(tmp_path / "b.npz", x=np.full((60, 2, 9), 1.7e9), y=np.full(60, 1.7e9))
    saved(tmp_path / "c.npz", x=9.81 + 1e-15 * rng.normal(size=(60, 2, 9)), y=near)
    assert "steps of" not in caplog.text


def test_equal_names_of_classes_are_told_apart(tmp_path, rng, caplog):
    names = ["crane", "dog", "crane"]
    bundle = saved(
        tmp_path / "a.npz", images=pictures(rng), labels=np.arange(40) % 3, class_names=names
    )
    assert bundle.class_names == ("crane (0)", "dog", "crane (2)")
    assert "stand for several classes, columns or groups (crane)" in caplog.text


def test_what_a_folder_holds_beside_images(tmp_path, caplog):
    folder = tmp_path / "a"
    write_images(folder)
    before = load_data("image_folder", folder).sizes
    (folder / "cat" / ".thumbs").mkdir()
    for name in ("000.png", "001.png"):
        (folder / "cat" / ".thumbs" / name).write_bytes((folder / "cat" / name).read_bytes())
    (folder / "dog" / "notes.txt").write_text("no image")
    (folder / "dog" / "raw").write_text("no image")
    assert load_data("image_folder", folder).sizes == before
    assert "2 files below" in caplog.text
    assert "(.txt, raw)" in caplog.text
    (folder / "cat" / "000.png").rename(folder / "cat" / "000.jfif")
    assert load_data("image_folder", folder).sizes == before


def test_images_and_folders_that_are_not_read_are_told(tmp_path, caplog):
    write_images(tmp_path / "a" / "train")
    write_images(tmp_path / "a" / "Test")
    # as where Train and train are one folder
    (tmp_path / "a" / "Train").symlink_to("train")
    load_data("image_folder", tmp_path / "a")
    assert f"of {tmp_path / 'a'} are not read: Test (" in caplog.text
    caplog.clear()
    folder = tmp_path / "a" / "train"
    load_data("image_folder", folder)
    assert "not read" not in caplog.text
    (folder / "cat" / "more").symlink_to(tmp_path / "a" / "Test" / "cat")
    (folder / "loose.png").write_bytes((folder / "cat" / "000.png").read_bytes())
    load_data("image_folder", folder)
    assert f"of {folder} are not read: loose.png, cat/more (" in caplog.text


def test_a_class_called_train(tmp_path):
    write_images(tmp_path / "a", classes=("bus", "car", "train"))
    assert load_data("image_folder", tmp_path / "a").class_names == ("bus", "car", "train")
    # beside a test set it is one of images without classes
    write_images(tmp_path / "b", classes=("test", "train"))
    with pytest.raises(DataError, match="train has 0 class sub-folders"):
        load_data("image_folder", tmp_path / "b")


@pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("seg_train", "seg_VAL")])
def test_a_training_and_a_test_set_of_other_names_are_no_two_classes(tmp_path, train, test):
    for name in (train, test, "other"):
        write_images(tmp_path / "a" / name)
    with pytest.raises(DataError, match=f"a holds {train} and {test}, .* call them train and test"):
        load_data("image_folder", tmp_path / "a")
    # images right in them make them classes, as does one name alone
    write_images(tmp_path / "b", classes=(train, test))
    assert load_data("image_folder", tmp_path / "b").num_classes == 2
    for name in (train, "bus"):
        write_images(tmp_path / "c" / name)
    assert load_data("image_folder", tmp_path / "c").class_names == tuple(sorted((train, "bus")))


def test_an_input_called_val_is_one_where_there_are_no_targets_of_val(tmp_path, rng):
    arrays = {"x_image": pictures(rng), "x_val": rng.normal(size=40), "y": np.arange(40) % 2}
    names = {one.name for one in saved(tmp_path / "a.npz", **arrays).named}
    assert names == {"image", "val"}


@pytest.mark.parametrize("channels", [None, 1])
def test_colour_that_is_lost_by_a_grey_first_image_is_told(tmp_path, caplog, channels):
    write_images(tmp_path)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        image.convert("L").save(tmp_path / "cat" / "000.png")
    with caplog.at_level(logging.WARNING):
        bundle = load_data("image_folder", tmp_path, channels=channels)
    assert bundle.image_shape[0] == 1
    assert ("39 of 40 images" in caplog.text) == (channels is None)
    assert load_data("image_folder", tmp_path, channels=3).image_shape[0] == 3


def test_labels_of_any_whole_numbers_and_values_that_float32_cannot_hold(tmp_path, rng):
    y = np.arange(40) % 2
    assert (
        saved(tmp_path / "u.npz", images=pictures(rng), labels=y.astype(np.uint64)).num_classes == 2
    )
    x = rng.normal(size=(40, 1, 9))
    x[3, 0, 2] = 1e300
    with pytest.raises(DataError, match=r"float32 cannot hold.*number 3, counted"):
        saved(tmp_path / "b.npz", x=x, y=y)


def test_a_parquet_file_is_of_one_part_whatever_its_folder_is_called(tmp_path):
    for name in ("test", "train"):
        (tmp_path / name).mkdir()
    write_parquet(tmp_path / "test" / "train.parquet")
    bundle = load_data("parquet", tmp_path / "test")
    # nothing of it stands in a test set, too: a fifth is held out
    assert (sum(bundle.sizes.values()), bundle.sizes["test"]) == (40, 8)
    write_parquet(tmp_path / "train" / "test-0.parquet", count=10)
    write_parquet(tmp_path / "train" / "0000.parquet")
    bundle = load_data("parquet", tmp_path / "train")
    assert (sum(bundle.sizes.values()), bundle.sizes["test"]) == (50, 10)


def test_a_parquet_file_in_a_folder_called_train_is_no_validation_set(tmp_path):
    (tmp_path / "train").mkdir()
    write_parquet(tmp_path / "train" / "valve.parquet", count=20)
    write_parquet(tmp_path / "train" / "crane.parquet", count=20)
    bundle = load_data("parquet", tmp_path)
    assert (sum(bundle.sizes.values()), bundle.sizes["test"]) == (40, 8)


def test_parquet_files_of_no_part_are_told(tmp_path, caplog):
    write_parquet(tmp_path / "train-0.parquet")
    write_parquet(tmp_path / "eval-0.parquet")
    assert sum(load_data("parquet", tmp_path).sizes.values()) == 40
    assert f"of {tmp_path} are not read: eval-0.parquet" in caplog.text


def test_inputs_in_which_nothing_is_left_are_told(tmp_path, rng, caplog):
    y, shares = np.arange(40) % 2, rng.random((40, 8, 8))
    shares[:, 0, 0] = 1.0
    for images, told in (
        (shares.astype(np.uint8), "its bytes are 0 and 1 alone; if they were numbers from 0 to 1"),
        (np.full((40, 8, 8), 7, np.uint8), "its inputs are one number everywhere, in each channel"),
        (np.rint(255 * shares).astype(np.uint8), None),
    ):
        caplog.clear()
        saved(tmp_path / "a.npz", images=images, labels=y)
        assert (told or "") in caplog.text
        assert ("alone;" in caplog.text or "one number" in caplog.text) == (told is not None)
    saved(tmp_path / "b.npz", x=np.stack([shares, 0 * shares], 1), y=y)  # one channel is known
    assert "one number" not in caplog.text
    # pictures of two colours, the planes of a board, and letters of which each is a channel
    caplog.clear()
    letters = np.eye(26, dtype=np.uint8)[rng.integers(0, 26, (40, 30))].transpose(0, 2, 1)
    planes = np.eye(12, dtype=np.uint8)[rng.integers(0, 12, (40, 8, 8))].transpose(0, 3, 1, 2)
    planes[:, :, ::2, ::2] = 0
    for x in ((shares > 0.8).astype(np.uint8)[:, None], planes, letters):
        saved(tmp_path / "c.npz", x=x, y=y)
    assert "alone;" not in caplog.text
    assert "grey images" not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_transparency_that_is_left_out_is_told(tmp_path, caplog, stream):
    write_images(tmp_path)
    opaque = Image.new("RGBA", (10, 10), (9, 9, 9, 255))
    opaque.save(tmp_path / "cat" / "000.png")
    load_data("image_folder", tmp_path, image_size=10, stream=stream)
    assert "transparent parts" not in caplog.text
    icon = tmp_path / "cat" / "001.png"
    Image.new("RGBA", (10, 10), (0, 0, 0, 0)).save(icon)
    palette = Image.new("P", (10, 10), 0)
    palette.save(tmp_path / "dog" / "001.png", transparency=0)
    bundle = load_data("image_folder", tmp_path, image_size=10, stream=stream)
    for name in bundle.parts if stream else ():
        _ = bundle.split(name).inputs
    (told,) = [r.message for r in caplog.records if "transparent parts are read" in r.message]
    assert stream or told.startswith(f"{icon} and 1 more: ")
    caplog.clear()
    assert read_image(icon, (3, 10, 10)).max() == 0
    assert f"{icon}: transparent parts are read in the colour that lies under them" in caplog.text


@pytest.mark.parametrize("stream", [False, True])
def test_photographs_that_are_stored_turned_are_told(tmp_path, caplog, stream):
    write_images(tmp_path)
    turned, upright = Image.Exif(), Image.Exif()
    turned[0x0112], upright[0x0112] = 6, 1
    photo = Image.new("RGB", (10, 10), (9, 99, 9))
    photo.save(tmp_path / "cat" / "a.jpg", exif=upright)
    load_data("image_folder", tmp_path, image_size=10, stream=stream)
    assert "stored turned" not in caplog.text
    photo.save(tmp_path / "dog" / "a.jpg", exif=turned)
    bundle = load_data("image_folder", tmp_path, image_size=10, stream=stream)
    for name in bundle.parts if stream else ():
        _ = bundle.split(name).inputs
    told = f"{tmp_path / 'dog' / 'a.jpg'}: stored turned (EXIF), and read as it is stored"
    assert caplog.text.count(told) == 1
    read_image(tmp_path / "dog" / "a.jpg", (3, 10, 10))
    assert caplog.text.count(told) == 2


@pytest.mark.parametrize("channels", [None, 1])
def test_colour_of_a_test_set_that_is_lost_by_grey_training_images_is_told(
    tmp_path, monkeypatch, caplog, channels
):
    write_parquet(tmp_path / "test.parquet", count=10)
    grey = io.BytesIO()
    Image.new("L", (9, 9), 7).save(grey, "PNG")
    monkeypatch.setattr("test_data_sources.encoded", lambda color: grey.getvalue())
    write_parquet(tmp_path / "train.parquet")
    assert load_data("parquet", tmp_path, channels=channels).image_shape == (1, 9, 9)
    assert ("10 of 10 images of" in caplog.text) == (channels is None)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (np.eye(3, dtype=int)[np.arange(60) % 3], "exactly one of its 3 labels"),
        (np.arange(60) % 3.0, "the numbers 0 to 2, saved as floats"),
        ((np.arange(60) % 3.0)[:, None], "the numbers 0 to 2, saved as floats"),
        (np.arange(60) % 3.0 + 1, None),
        (1 - np.eye(3, dtype=int)[np.arange(60) % 3], None),
        (np.arange(60) % 3, None),
    ],
)
def test_classes_that_are_taken_for_something_else_are_told(tmp_path, rng, caplog, y, told):
    x = rng.normal(size=(60, 1, 9))
    task = saved(tmp_path / "a.npz", x=x, y=y).task
    assert ("For" in caplog.text) == (told is not None)
    assert (told or "") in caplog.text
    caplog.clear()
    load_data("npz", tmp_path / "a.npz", task=make_task(task.name))  # as she says
    assert "For" not in caplog.text


def test_arrays_that_are_not_read_are_told(tmp_path, rng, caplog):
    x, y = rng.normal(size=(60, 1, 9)), np.arange(60) % 2
    speakers = np.repeat(np.arange(6), 10)
    # as scikit-learn calls it; here `group` says of which one a sample is, and `groups` their names
    saved(tmp_path / "a.npz", x=x, y=y, groups=speakers, x_test=x, weights=y)
    assert f"of {tmp_path / 'a.npz'} are not read: groups, weights, x_test" in caplog.text
    caplog.clear()
    saved(tmp_path / "b.npz", x_a=x, x_b=x, y=y, rate=4)
    assert "are not read: rate" in caplog.text
    caplog.clear()
    names = {"groups": list("abcdef"), "classes": ["c", "d"], "mask": y == y, "rate": 4}
    saved(tmp_path / "c.npz", x=x, y=y, group=speakers, x_test=x, y_test=y, **names)
    assert "not read" not in caplog.text


def test_what_each_stage_of_a_command_finds_in_the_data_is_told_once(
    tmp_path, rng, caplog, monkeypatch
):
    path, y = tmp_path / "m.npz", np.arange(40) % 2

    def stages(*_):
        for name in ("more", "more", "other"):
            saved(path, x=pictures(rng), y=y, **{name: y})
            logging.getLogger("darts_core").warning("of another part")

    monkeypatch.setattr(pipeline, "_call", stages)
    for times in (1, 2):  # another command says it again
        pipeline.run_command(SimpleNamespace(plugins=(), seeds=1), tmp_path)
        assert caplog.text.count("are not read: more") == times
        assert caplog.text.count("are not read: other") == times
        assert caplog.text.count("of another part") == 3 * times
