"""Arrays of a usual layout that is not ours, and targets that give themselves away."""

import numpy as np
import pytest
from test_data_shapes import saved

from darts_core.data import SOURCES, RawData, load_data
from darts_core.errors import DataError
from darts_core.registry import Entry
from darts_core.tasks import make_task


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(("sides", "size"), [((9, 9, 3), 9), ((9, 10, 4), None), ((9, 9, 6), 16)])
def test_images_whose_channels_stand_last_are_not_enlarged(monkeypatch, rng, sides, size):
    x = rng.integers(0, 256, (40, *sides), dtype=np.uint8)
    for name, images in {"last": x, "first": x.transpose(0, 3, 1, 2)}.items():
        made = RawData(images, np.arange(40) % 2, (), "somewhere")
        entry = Entry(name, lambda path=None, made=made: made, "made here")
        monkeypatch.setitem(SOURCES._entries, name, entry)
    with pytest.raises(DataError, match=r"in which channels seem to stand last; .*transpose\(0, 3"):
        load_data("last", image_size=size)
    height, width = (size, size) if size else sides[:2]
    assert load_data("first", image_size=size).input_shape == (sides[2], height, width)


@pytest.mark.parametrize(
    ("shape", "kind", "told"),
    [
        ((16, 16, 12), "f4", "images of 16 channels; if channels stand last"),
        ((12, 16, 16), "f4", None),
        ((16, 9, 12), "f4", None),
        ((128, 9), "f4", "series of 128 channels and 9 positions; if positions stand first"),
        ((9, 128), "f4", None),
        ((128, 1), "f4", None),  # a table's columns as channels
        ((28, 28), "u1", "series of 28 channels; grey images have one channel: x[:, None]"),
        ((3, 28), "u1", None),
    ],
)
def test_shapes_that_look_like_another_layout_are_told(tmp_path, rng, caplog, shape, kind, told):
    x = rng.integers(0, 256, (40, *shape)).astype(kind)
    for name in ("npz", "npy"):
        caplog.clear()
        if name == "npz":
            bundle = saved(tmp_path / "a.npz", x=x, y=np.arange(40) % 2)
        else:
            np.save(tmp_path / "x.npy", x)
            np.save(tmp_path / "y.npy", np.arange(40) % 2)
            bundle = load_data("npy", tmp_path / "x.npy", targets=str(tmp_path / "y.npy"))
        assert bundle.input_shape == shape  # as documented
        assert ("is read as" in caplog.text) == (told is not None)
        assert (told or "") in caplog.text


def test_tokens_to_be_predicted_that_the_network_sees_are_told(tmp_path, rng, caplog):
    text = rng.integers(0, 9, (60, 8))
    some = rng.random((60, 7)) < 0.2
    for x, y, mask, told in (
        (text, text, None, "its targets are its inputs themselves"),
        (text[:, 1:], text[:, :-1], None, "its targets are the tokens before its inputs"),
        (text[:, :-1], text[:, 1:], None, None),
        (text[:, :-1], np.where(some, 8, text[:, :-1]), some, None),
        (text[:, :-1], np.where(some, 8, text[:, :-1]), ~some, "its inputs themselves"),
    ):
        caplog.clear()
        hidden = {} if mask is None else {"mask": mask}
        assert saved(tmp_path / "a.npz", x=x, y=y, **hidden).task.name == "next_token"
        assert ("x = t[:, :-1], y = t[:, 1:]" in caplog.text) == (told is not None)
        assert (told or "") in caplog.text


@pytest.mark.parametrize("tokens", [True, False])
def test_marks_of_what_does_not_count_are_told_to_be_a_mask(tmp_path, rng, tokens):
    x = rng.integers(0, 9, (60, 8))
    y = np.where(rng.random((60, 8)) < 0.2, -100, x) if tokens else np.arange(60) % 3 - 1
    with pytest.raises(DataError, match=r"hold -1(00)?; .* is told by an array mask: y >= 0"):
        saved(tmp_path / "a.npz", x=x, y=y)
    bundle = saved(tmp_path / "a.npz", x=x, y=np.abs(y), mask=y >= 0)
    assert bundle.task.name == ("next_token" if tokens else "classification")


def test_classes_in_several_columns_that_are_learned_as_numbers_are_told(tmp_path, rng, caplog):
    x, y = rng.normal(size=(60, 2, 9)), rng.integers(0, 4, (60, 9))
    for targets, told in ((y, True), (y + 1, False), (y.astype(float), False), (y // 2, False)):
        caplog.clear()
        saved(tmp_path / "a.npz", x=x, y=targets)
        assert ("its targets are whole numbers from 0 to 3 in 9 columns" in caplog.text) == told
    caplog.clear()
    saved(tmp_path / "a.npz", x=x, y=y)
    load_data("npz", tmp_path / "a.npz", task=make_task("regression"))  # as she says
    assert caplog.text.count("in 9 columns") == 1


def test_switches_that_nobody_touches_in_training_have_no_scale(tmp_path, rng, caplog):
    x, y = np.zeros((60, 3, 9)), np.arange(60) % 2
    x[:, 0] = rng.normal(size=(60, 9))
    test = x.copy()
    test[:3, 1:] = 0.1
    saved(tmp_path / "a.npz", x=x, y=y, x_test=test, y_test=y)
    assert "on another scale" not in caplog.text


def test_targets_that_are_plainly_no_classes_are_not_sorted_for_it(tmp_path, rng, monkeypatch):
    sizes, unique = [], np.unique
    monkeypatch.setattr(
        np, "unique", lambda x, **more: sizes.append(np.size(x)) or unique(x, **more)
    )
    saved(tmp_path / "a.npz", x=rng.normal(size=(60, 2, 9)), y=rng.integers(0, 5000, (60, 100)))
    assert max(sizes, default=0) < 6000
