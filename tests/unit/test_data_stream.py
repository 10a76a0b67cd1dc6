"""Images that stay in their files: the same batches whoever decodes them, memory for some of them only."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darts_core.data import RawData, decoders, load_data, make_bundle
from darts_core.data.contract import DatasetContract
from darts_core.data.encoded import EncodedImages
from darts_core.data.image_folder import load_image_folder
from darts_core.errors import ConfigError, DataError
from darts_core.train import TrainConfig, fit

SIZE = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of two classes, of several shapes; the class is the brighter colour."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(40):
        label = number % 2
        height, width = [(16, 16), (16, 24), (30, 20)][number % 3]
        pixels = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
        pixels[:, :, label] += 130
        (root / "ab"[label]).mkdir(exist_ok=True)
        suffix = "png" if number % 2 else "jpg"
        Image.fromarray(pixels).save(root / "ab"[label] / f"{number:02}.{suffix}")
    return root


def streamed(folder: Path, workers: int = 0, **options: object):
    return load_data(
        "image_folder", folder, image_size=SIZE, stream=True, workers=workers, **options
    )


class TestContract(DatasetContract):
    @pytest.fixture
    def bundle(self, folder):
        return streamed(folder)

    @pytest.fixture
    def same_bundle(self, folder):
        return streamed(folder)


def test_a_stream_equals_the_decoded_folder(folder):
    whole = load_data("image_folder", folder, image_size=SIZE, stream=False)
    found = streamed(folder)
    assert found.mean == whole.mean
    assert found.std == whole.std
    for a, b in zip(found.batches("params", 5), whole.batches("params", 5), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_decoders_changes_no_batch_and_no_random_number(folder, workers):
    def epoch(count, start=0):
        torch.manual_seed(0)
        found = list(streamed(folder, count).batches("params", 4, seed=3, epoch=2, start=start))
        return found, torch.rand(1)

    (alone, drawn), (pool, also) = epoch(0), epoch(workers)
    assert len(alone) == len(pool) > 2
    assert all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(alone, pool, strict=True)
    )
    assert torch.equal(drawn, also)
    rest, _ = epoch(workers, start=2)
    assert all(torch.equal(a, c) for (a, _), (c, _) in zip(alone[2:], rest, strict=True))


def test_no_more_than_some_batches_are_decoded_at_a_time(folder, monkeypatch):
    seen = []
    known = EncodedImages.__getitem__
    monkeypatch.setattr(
        EncodedImages, "__getitem__", lambda self, i: seen.append(len(i)) or known(self, i)
    )
    bundle = streamed(folder)
    assert isinstance(bundle.pool.inputs_N, EncodedImages)
    seen.clear()
    batches = bundle.batches("params", 2)
    next(batches)
    # the first batch and those that are fetched ahead of it
    assert sum(seen) <= 2 * 5 < bundle.size("params")
    batches.close()


def test_a_training_stopped_in_the_middle_goes_on_as_if_it_had_not(folder, tmp_path):
    config = TrainConfig(epochs=2, batch_size=5, learning_rate=0.05, warmup_epochs=0.0)

    def network():
        torch.manual_seed(1)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(2)
        )

    class Stopped(Exception):
        pass

    def stop(epoch, row):
        raise Stopped

    model, other = network(), network()
    for net in (model, other):
        net(torch.zeros(1, 3, SIZE, SIZE))
    other.load_state_dict(model.state_dict())
    fit(model, streamed(folder, 0), config)
    file = tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        fit(other, streamed(folder, 1), config, checkpoint=file, on_epoch=stop)
    again = network()
    again(torch.zeros(1, 3, SIZE, SIZE))
    torch.nn.init.zeros_(again[0].weight)  # begun anew it would end elsewhere
    fit(again, streamed(folder, 1), config, checkpoint=file)
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


def test_decoders_are_counted_where_processes_have_no_cores_of_their_own(folder, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS, Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert load_image_folder(folder, image_size=SIZE, stream=True).inputs.workers == 3


def test_what_a_stream_cannot_do_is_said(folder):
    with pytest.raises(ConfigError, match=r"data.stream=true needs data.image_size"):
        load_data("image_folder", folder, stream=True)
    with pytest.raises(ConfigError, match=r"data.workers=65 is not allowed; choose 0..64"):
        streamed(folder, 65)
    with pytest.raises(ConfigError, match=r"data.resident=true .* give one of them"):
        streamed(folder, resident=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named_when_it_is_reached(folder, tmp_path, workers):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file in (folder / name).iterdir():
            os.link(file, tmp_path / name / file.name)
    bundle = streamed(tmp_path, workers)
    files = bundle.pool.inputs_N.files
    bad = Path(files[int(bundle.parts["val"][0])])
    bad.unlink()
    bad.write_bytes(b"no picture")
    with pytest.raises(DataError, match=bad.name):
        list(bundle.batches("val", 2, drop_last=False))


def test_too_little_memory_to_share_is_said_where_it_is_missed(folder, monkeypatch):
    """In a container of a small /dev/shm a thread lost the batch, and the training waited for ever."""
    images = streamed(folder, 1).pool.inputs_N
    batches = decoders._Batches(images, [np.arange(4)])
    assert not batches[0][0].is_shared()
    monkeypatch.setattr(decoders, "get_worker_info", lambda: "a decoding process")
    assert batches[0][0].is_shared()

    def full(_):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    said = str(batches[0])
    assert "lacks room for a batch of 0.0 MiB (unable to allocate shared memory" in said
    assert "--shm-size=2g" in said


def test_the_middle_of_an_image_is_taken_undistorted(tmp_path):
    """A wide picture: dark ends, a bright square in the middle."""
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, 16:32] = 200
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(8):
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    for stream in (False, True):
        bundle = load_data("image_folder", tmp_path, image_size=8, stream=stream)
        # the outermost columns blend with what is cut away
        assert bool((bundle.split("params").inputs[..., 1:-1] == 200).all())


def test_large_sets_are_streamed_unasked(folder, monkeypatch):
    monkeypatch.setattr("darts_core.data.image_folder.free_bytes", lambda: 4 * 40 * 3 * SIZE**2 - 1)
    assert load_data("image_folder", folder, image_size=SIZE).streamed
    assert not load_data("image_folder", folder, image_size=SIZE, stream=False).streamed
    monkeypatch.setattr("darts_core.data.image_folder.free_bytes", lambda: 4 * 40 * 3 * SIZE**2)
    assert not load_data("image_folder", folder, image_size=SIZE).streamed


def test_a_mask_of_samples_leaves_the_files_of_others_alone(folder):
    files = sorted(str(file) for file in folder.rglob("*.*"))
    kept = np.arange(40) % 4 != 0
    made = RawData(
        EncodedImages(files, 3, SIZE, 0), np.arange(40) % 2, ("a", "b"), "made", mask=kept
    )
    images = make_bundle("made", made).pool.inputs_N
    assert isinstance(images, EncodedImages)
    assert images.files == [file for file, stays in zip(files, kept, strict=True) if stays]


def test_colour_that_is_lost_is_told_once_unless_grey_was_asked_for(folder, tmp_path, caplog):
    for name in "ab":
        (tmp_path / name).mkdir()
        for file in (folder / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    Image.fromarray(np.full((16, 16), 90, np.uint8)).save(tmp_path / "a" / "0.png")

    def told(**options: object) -> list[str]:
        caplog.clear()
        bundle = streamed(tmp_path, **options)
        for part in ("params", "val"):
            assert {tuple(x.shape[1:]) for x, _ in bundle.batches(part, 5)} == {(1, SIZE, SIZE)}
        return [r.message for r in caplog.records if "colour" in r.message]

    [message] = told()
    assert "is read as grey, as the first image is" in message
    assert "data.channels=3" in message
    assert told(channels=1) == []


def test_what_decoders_meet_is_told_once_and_not_by_each_in_every_epoch(folder, tmp_path, caplog):
    bundle = streamed(folder, 2)
    images, turned = bundle.pool.inputs_N, Image.Exif()
    turned[0x0112] = 6
    # of none that the statistics read: each epoch's decoders meet them anew
    for number, position in enumerate(bundle.parts["val"]):
        file = tmp_path / f"{number}.jpg"
        Image.new("RGB", (20, 20)).save(file, exif=turned)
        images.files[int(position)] = str(file)
    for _ in range(2):
        assert len(list(bundle.batches("val", 1))) > 2
    assert caplog.text.count(": stored turned (EXIF)") == 1
