"""Pad-crop, flip and cutout against plain per-image code; Augment's two places in a batch."""

import numpy as np
import pytest
import torch

from darts_core.augment import Augment, crop_and_flip, cutout
from darts_core.data import RawData, make_bundle
from darts_core.errors import ConfigError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch=40, channels=3, size=9):
    return torch.randint(
        1, 256, (batch, channels, size, size), generator=generator(5), dtype=torch.uint8
    )


def test_every_crop_is_a_window_of_the_padded_image():
    x = images()
    padding, size = 2, x.shape[-1]
    y = crop_and_flip(x, generator(1), padding=padding, flip=True)
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    seen = set()
    for source, result in zip(padded, y, strict=True):
        matches = {
            (top, left, flip)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for flip in (False, True)
            if torch.equal(
                result,
                (w := source[:, top : top + size, left : left + size]) if not flip else w.flip(-1),
            )
        }
        assert len(matches) == 1
        seen |= matches
    # drawn per image: many different windows, mirrored and not
    assert len(seen) > 20
    assert {flip for _, _, flip in seen} == {True, False}


def test_flip_alone_and_crop_alone():
    x = images()
    y = crop_and_flip(x, generator(1), padding=0, flip=True)
    mirrored = (y == x.flip(-1)).flatten(1).all(1)
    assert (mirrored | (y == x).flatten(1).all(1)).all()
    assert 8 < int(mirrored.sum()) < 32
    assert torch.equal(crop_and_flip(x, generator(1), padding=0, flip=False), x)


def test_shifts_are_uniform():
    x = torch.zeros(4000, 1, 8, 8)
    x[:, 0, 4, 4] = 1
    y = crop_and_flip(x, generator(3), padding=1, flip=False)
    counts = y.sum(0)[0, 3:6, 3:6]
    assert counts.sum() == 4000
    assert (counts - 4000 / 9).abs().max() < 5 * (4000 / 9) ** 0.5


def test_cutout_zeroes_one_square_an_image():
    x = torch.ones(300, 2, 10, 10)
    y = cutout(x, generator(2), size=4)
    holes = y[:, 0] == 0
    assert torch.equal(y[:, 0], y[:, 1])
    for hole in holes:
        rows, columns = hole.any(1), hole.any(0)
        assert torch.equal(hole, rows[:, None] & columns[None])
        assert 2 <= int(rows.sum()) <= 4
        assert int(rows.long().diff().ne(0).sum()) <= 2
    # centres are uniform, so the four corners are reached too
    assert holes[:, 0, 0].any()
    assert holes[:, -1, -1].any()


def test_batches_crop_before_and_cut_out_after_normalising():
    # without a black pixel of their own
    pixels = np.random.default_rng(0).integers(100, 201, (400, 1, 8, 8), dtype=np.uint8)
    bundle = make_bundle("made", RawData(pixels, np.arange(400) % 2, ("a", "b"), "made"))
    augment = Augment(crop_padding=1, cutout=4)
    x, _ = next(bundle.batches("params", 64, seed=1, augment=augment))
    holes = (x == 0).flatten(1).sum(1)
    assert (holes >= 4).all()
    black = bundle.normalize(torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    assert (x == black).any()
    again, _ = next(bundle.batches("params", 64, seed=1, augment=augment))
    assert torch.equal(x, again)
    other, _ = next(bundle.batches("params", 64, seed=1, epoch=1, augment=augment))
    assert not torch.equal(x, other)


def test_called_as_a_function_it_does_both():
    x = torch.rand(8, 3, 8, 8) + 1
    y = Augment(flip=True, cutout=2)(x, generator(1))
    assert ((y == 0).flatten(1).sum(1) > 0).all()
    same, mirrored = (((y == z) | (y == 0)).flatten(1).all(1) for z in (x, x.flip(-1)))
    assert (same ^ mirrored).all()
    assert same.any()
    assert mirrored.any()
    assert torch.equal(Augment()(x, generator(1)), x)


def test_policy_by_name():
    augment = Augment(policy="trivialaugment")
    x = images()
    y = augment.on_pixels(x, generator(1))
    assert y.shape == x.shape
    assert not torch.equal(x, y)
    assert Augment(policy="none").policy is None


@pytest.mark.parametrize(
    "options",
    [{"cutout": -1}, {"crop_padding": 5000}, {"crop_padding": 1.5}, {"policy": "randaugmen"}],
)
def test_wrong_settings_are_sentences(options):
    with pytest.raises(ConfigError, match=r"is not allowed|no augmentation policy"):
        Augment(**options)
