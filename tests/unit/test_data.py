"""Splits, batches, residency, the guarded test split, and their errors."""

import threading

import numpy as np
import pytest
import torch

from darts_core.data import SOURCES, DataBundle, RawData, load_data, make_bundle
from darts_core.data.batches import derived_seed
from darts_core.data.splits import stratified_pick
from darts_core.errors import ConfigError, DataError, DeviceError, MemoryShortageError
from darts_core.registry import Entry
from darts_core.tasks import Classification


def raw(count=80, classes=4, size=8, channels=1, test=0):
    """Images whose pixels state their own number, so that a split shows what it holds."""
    images = np.zeros((count, channels, size, size), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
    images[:, :, 4] = np.random.default_rng(0).integers(0, 256, (count, channels, size))
    labels = np.arange(count) % classes
    names = tuple(f"c{i}" for i in range(classes))
    if not test:
        return RawData(images, labels, names, "made")
    return RawData(images[:-test], labels[:-test], names, "made", images[-test:], labels[-test:])


def numbers(bundle: DataBundle, name) -> np.ndarray:
    images = bundle.split(name).inputs.numpy()
    return images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1].astype(int)


def test_splits_are_disjoint_stratified_and_complete():
    bundle = make_bundle("made", raw(400), seed=3)
    assert bundle.sizes == {"params": 136, "alpha": 136, "val": 48, "test": 80}
    everything = np.concatenate([numbers(bundle, n) for n in ("params", "alpha", "val", "test")])
    assert sorted(everything) == list(range(400))
    for name in bundle.sizes:
        split = bundle.split(name)
        assert split.targets.bincount().tolist() == [len(split) // 4] * 4, name


def test_seed_moves_everything_but_the_test_split():
    first, again, other = (make_bundle("made", raw(400), seed=s) for s in (1, 1, 2))
    for name in ("params", "alpha", "val", "test"):
        assert np.array_equal(numbers(first, name), numbers(again, name))
    assert np.array_equal(numbers(first, "test"), numbers(other, "test"))
    assert not np.array_equal(numbers(first, "val"), numbers(other, "val"))


def test_official_test_set_is_the_test_split():
    bundle = make_bundle("made", raw(200, test=40))
    assert numbers(bundle, "test").tolist() == list(range(160, 200))
    assert sum(bundle.sizes.values()) == 200


def test_limit_cuts_all_but_test_in_proportion():
    bundle = make_bundle("made", raw(400, test=40), limit=60, test_limit=8)
    assert sum(bundle.sizes.values()) - bundle.sizes["test"] == 60
    assert bundle.sizes["test"] == 8
    labels = bundle.split(("params", "alpha", "val")).targets
    assert labels.bincount().tolist() == [15] * 4
    assert bundle.pool.inputs_N.shape[0] == 68
    assert set(numbers(bundle, "test")) <= set(range(360, 400))


def test_rare_classes_reach_every_training_split():
    labels = np.array([0] * 300 + [1] * 6)
    images = np.zeros((306, 1, 8, 8), np.uint8)
    bundle = make_bundle("made", RawData(images, labels, ("a", "b"), "made"))
    assert all(1 in bundle.split(n).targets for n in ("params", "alpha", "val", "test"))


def test_stratified_pick_takes_exactly_what_was_asked():
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = rng.integers(0, rng.integers(2, 12), rng.integers(2, 200))
        index = np.arange(len(labels))
        count = int(rng.integers(1, len(labels) + 1))
        picked, rest = stratified_pick(labels, index, count, rng)
        assert np.array_equal(np.sort(np.concatenate([picked, rest])), index)
        classes = len(np.unique(labels))
        if count >= classes:
            assert len(picked) == count


def test_a_limit_below_the_number_of_classes_is_kept():
    assert make_bundle("made", raw(400, test=40), test_limit=3).sizes["test"] == 3
    bundle = make_bundle("made", raw(400))
    few = bundle.take("val", 2)
    assert few.sizes["val"] == 2
    assert set(numbers(few, "val")) < set(numbers(bundle, "val"))
    # which classes stay is drawn, and drawn alike
    kept = [set(bundle.take("val", 2, seed=s).split("val").targets.tolist()) for s in range(9)]
    assert len({tuple(sorted(k)) for k in kept}) > 1
    assert set(few.split("val").targets.tolist()) == kept[0]


def test_options_of_a_source_of_ones_own(monkeypatch):
    def unknown(path=None, *, count: int, kind: "Absent" = "x"):  # noqa: F821
        return raw(count)

    def known(path=None, *, count: int = 80, fold: int = None, loose=1):  # noqa: RUF013
        return raw(count)

    def worded(path=None, *, count: "how many" = 80):  # noqa: F722
        return raw(count)

    def nested(path=None, *, sizes: list[int | None] = (), pair: tuple[int, str] = (1, "a")):
        return raw(80)

    for loader in (unknown, known, worded, nested):
        entry = Entry(loader.__name__, loader, "made here")
        monkeypatch.setitem(SOURCES._entries, loader.__name__, entry)
    with pytest.raises(ConfigError, match=r"The data set 'unknown' needs data\.count="):
        load_data("unknown")
    # a type that cannot be looked up is nobody's
    assert sum(load_data("unknown", count=80, kind=3).sizes.values()) == 80
    bundle = load_data("known", count=np.int64(60), fold=None, loose="a")
    assert sum(bundle.sizes.values()) == 60
    with pytest.raises(ConfigError, match=r"data\.count=60\.5 is not a whole number"):
        load_data("known", count=60.5)
    assert sum(load_data("worded", count=60).sizes.values()) == 60
    # of a list only that it is one is checked
    assert load_data("nested", sizes=[1, None], pair=[2, "b"]).sizes
    with pytest.raises(ConfigError, match=r"data\.sizes=3 is not a list"):
        load_data("nested", sizes=3)


def test_take_cuts_one_split():
    bundle = make_bundle("made", raw(400))
    cut = bundle.take("params", 20)
    assert cut.sizes == {**bundle.sizes, "params": 20}
    assert cut.split("params").targets.bincount().tolist() == [5] * 4
    assert set(numbers(cut, "params")) <= set(numbers(bundle, "params"))
    with pytest.raises(DataError, match="9999 images cannot be taken"):
        bundle.take("val", 9999)


def test_joined_splits_keep_their_order():
    bundle = make_bundle("made", raw(400))
    joined = numbers(bundle, ("alpha", "params"))
    assert np.array_equal(
        joined, np.concatenate([numbers(bundle, "alpha"), numbers(bundle, "params")])
    )


def test_normalise_matches_the_params_statistics():
    bundle = make_bundle("made", raw(400, channels=3))
    images = bundle.split("params").inputs
    scaled = images.double() / 255
    assert torch.allclose(
        torch.tensor(bundle.mean, dtype=torch.float64), scaled.mean((0, 2, 3)), atol=1e-9
    )
    expected = (scaled - scaled.mean((0, 2, 3), keepdim=True)) / scaled.std(
        (0, 2, 3), keepdim=True, unbiased=False
    )
    assert torch.allclose(bundle.normalize(images).double(), expected, atol=1e-5)


def test_batches_depend_on_seed_epoch_and_split():
    bundle = make_bundle("made", raw(400))

    def labels(**kwargs):
        return torch.cat([y for _, y in bundle.batches("params", 8, **kwargs)]).tolist()

    def places(name):
        """Where in the split each sample stands, in the order of an epoch."""
        drawn = torch.cat([x for x, _ in bundle.batches(name, 8, pixels=True)]).numpy()
        known = numbers(bundle, name).tolist()
        return [known.index(i) for i in drawn[:, 0, 0, 0] + 256 * drawn[:, 0, 0, 1].astype(int)]

    assert labels(seed=1, epoch=0) == labels(seed=1, epoch=0)
    assert labels(seed=1, epoch=0) != labels(seed=1, epoch=1)
    assert labels(seed=1, epoch=0) != labels(seed=2, epoch=0)
    assert sorted(places("params")) == sorted(places("alpha"))
    assert places("params") != places("alpha")
    assert labels(shuffle=False) == bundle.split("params").targets.tolist()[:136]
    assert derived_seed("a", 1, 2) != derived_seed("a", 2, 1) != derived_seed("b", 2, 1)


def test_streamed_batches_equal_resident_ones():
    resident = make_bundle("made", raw(400))
    streamed = make_bundle("made", raw(400), resident=False)
    assert streamed.streamed
    assert not resident.streamed

    def jitter(images, generator):
        return images ^ torch.randint(0, 2, images.shape, generator=generator, dtype=torch.uint8)

    for a, b in zip(
        resident.batches("alpha", 16, seed=4, augment=jitter),
        streamed.batches("alpha", 16, seed=4, augment=jitter),
        strict=True,
    ):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_streaming_stops_when_the_reader_stops():
    def workers():
        return {t for t in threading.enumerate() if t.name.startswith("darts-data")}

    bundle, before = make_bundle("made", raw(400), resident=False), workers()
    reader = bundle.batches("params", 4)
    next(reader)
    assert workers() - before
    reader.close()
    assert not workers() - before
    assert next(bundle.batches("params", 4))[0].shape == (4, 1, 8, 8)


def test_augmentation_can_start_at_any_step():
    bundle = make_bundle("made", raw(400))

    def noise(images, generator):
        return torch.rand(images.shape, generator=generator).mul(255).to(torch.uint8)

    whole = [x for x, _ in bundle.batches("params", 8, seed=1, augment=noise)]
    part = [x for x, _ in bundle.batches("params", 8, seed=1, augment=noise, start=10)]
    assert len(part) == len(whole) - 10
    assert all(torch.equal(x, y) for x, y in zip(part, whole[10:], strict=True))


def test_the_test_split_is_counted_and_can_be_left_out():
    bundle = make_bundle("made", raw(400))
    for _ in bundle.batches(("params", "alpha", "val"), 8):
        pass
    assert bundle.test_reads == 0
    next(bundle.batches("test", 8))
    _ = bundle.split("test")
    assert bundle.test_reads == 2
    blind = bundle.without_test()
    assert "test" not in blind.sizes
    with pytest.raises(DataError, match="without its test split"):
        blind.split("test")


def test_digits_are_real():
    bundle = load_data("digits")
    assert sum(bundle.sizes.values()) == 1797
    assert bundle.image_shape == (1, 8, 8)
    assert bundle.class_names == tuple("0123456789")
    assert load_data("digits", image_size=16).image_shape == (1, 16, 16)


def test_digits_are_those_of_scikit_learn(monkeypatch):
    from darts_core.data import digits

    assert digits._packaged_values() is not None, "both would come from scikit-learn"
    quick = digits.load_digits()
    monkeypatch.setattr(digits, "_packaged_values", lambda: None)
    public = digits.load_digits()
    assert np.array_equal(quick.inputs, public.inputs)
    assert np.array_equal(quick.targets, public.targets)
    assert int(quick.inputs.max()) == 255


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"name": "digit"}, ConfigError, "Did you mean 'digits'"),
        ({"name": "digits", "limits": 3}, ConfigError, "Unknown option of the data set 'digits'"),
        (
            {"name": "digits", "path": "/tmp"},
            DataError,
            "no data.path=/tmp; name the one that reads it",
        ),
        ({"name": "digits", "limit": 0}, ConfigError, "data.limit=0 is not allowed"),
        ({"name": "digits", "limit": 10**6}, ConfigError, "choose 1..1438 or null"),
        ({"name": "digits", "limit": 12}, DataError, "has no sample of class|would be empty"),
        ({"name": "digits", "val_fraction": 1.0}, ConfigError, "data.val_fraction=1.0"),
        ({"name": "digits", "alpha_fraction": -1}, ConfigError, "data.alpha_fraction=-1"),
        ({"name": "digits", "test_fraction": 0}, ConfigError, "data.test_fraction=0"),
        ({"name": "digits", "image_size": 4}, ConfigError, "data.image_size=4"),
        ({"name": "digits", "seed": -1}, ConfigError, "seed=-1"),
        ({"name": "digits", "seed": 1.5}, ConfigError, "data.seed=1.5 is not a whole number"),
        ({"name": "digits", "limit": 99.5}, ConfigError, "data.limit=99.5 is not a whole number"),
        (
            {"name": "digits", "test_limit": True},
            ConfigError,
            "data.test_limit=True is not a whole",
        ),
        (
            {"name": "digits", "val_fraction": "x"},
            ConfigError,
            "data.val_fraction='x' is not a num",
        ),
        ({"name": "digits", "image_size": 9.5}, ConfigError, "data.image_size=9.5 is not a whole"),
        ({"name": "digits", "device": "abacus"}, DeviceError, "device=abacus is no device"),
        ({"name": "synthetic", "reach": 99}, ConfigError, "data.reach=99"),
        ({"name": "synthetic", "count": "abc"}, ConfigError, "data.count='abc' is not a whole"),
        ({"name": "synthetic", "size": 16.5}, ConfigError, "data.size=16.5 is not a whole number"),
        ({"name": "text", "length": "x"}, ConfigError, "data.length='x' is not a whole number"),
        ({"name": "npy", "targets": 3}, ConfigError, "data.targets=3 is not text"),
        ({"name": "digits", "task": "regression"}, ConfigError, r"give make_task\('regression'\)"),
        ({"name": "digits", "task": Classification}, ConfigError, "task=.* is no task; give make"),
        ({"name": "parquet", "label_column": 0}, ConfigError, "data.label_column=0 is not text"),
    ],
)
def test_wrong_settings_are_sentences(options, error, text):
    with pytest.raises(error, match=text):
        load_data(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_absent_device_is_a_sentence():
    with pytest.raises(DeviceError, match="device=cuda is not there"):
        load_data("digits", device="cuda")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"inputs": np.zeros((80, 1, 8, 8), np.complex64)}, "dtype complex64"),
        ({"inputs": np.zeros((80, 1, 8, 8, 8), np.uint8)}, r"shape \(80, 1, 8, 8, 8\)"),
        (
            {"inputs": np.full((80, 1, 8, 8), np.nan, np.float32)},
            "NaN or infinity .first in number 0",
        ),
        ({"inputs": np.zeros((80, 8), np.int64) - 1}, "tokens of made hold -1"),
        ({"inputs": np.zeros((80, 1, 4, 4), np.uint8)}, "are 4x4; at least 8x8"),
        ({"inputs": np.zeros((79, 1, 8, 8), np.uint8)}, "79 training images but 80 labels"),
        (
            {"targets": np.zeros(80)},
            r"needs one class number a sample.*y.astype.int., or of one-hot",
        ),
        ({"targets": np.arange(80) % 5}, r"hold 4; allowed are 0\.\.3"),
        ({"targets": np.arange(80) % 4 - 1}, "hold -1"),
        ({"targets": np.zeros(80, int)}, "belong to one class"),
        ({"targets": np.arange(80) % 3}, "no training sample of class 'c3'"),
        ({"names": ("only",)}, "has one class only"),
        ({"inputs": np.zeros((0, 1, 8, 8), np.uint8), "targets": np.zeros(0, int)}, "no training"),
        (
            {"test_inputs": np.zeros((4, 1, 9, 9), np.uint8), "test_targets": np.arange(4)},
            "they must agree",
        ),
        (
            {"test_inputs": np.zeros((4, 1, 8, 8), np.uint8), "test_targets": np.arange(4) + 1},
            "test labels of made hold 4",
        ),
    ],
)
def test_unsuitable_data_are_sentences(change, text):
    fields = {**raw().__dict__, **change}
    with pytest.raises(DataError, match=text):
        make_bundle("made", RawData(**fields), task=Classification())


def test_batches_that_cannot_be_made_are_sentences():
    bundle = make_bundle("made", raw())
    with pytest.raises(DataError, match="batch_size=1000 is larger than the split 'params'"):
        bundle.batches("params", 1000)
    with pytest.raises(ConfigError, match="batch_size=0"):
        bundle.batches("params", 0)
    with pytest.raises(ConfigError, match="Did you mean 'params'"):
        bundle.split("param")
    with pytest.raises(ConfigError, match="at most once"):
        bundle.split(("val", "val"))
    with pytest.raises(ConfigError, match="may be negative"):
        bundle.batches("params", 4, epoch=-1)
    assert sum(len(y) for _, y in bundle.batches("val", 1000, drop_last=False)) == 10


def test_absurd_memory_demand_is_refused(monkeypatch):
    from darts_core import memory
    from darts_core.data import source

    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 1000)
    with pytest.raises(MemoryShortageError, match="made announces"):
        source.check_memory(2000, "made")
