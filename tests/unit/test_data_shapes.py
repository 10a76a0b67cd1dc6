"""Data of any shape: kinds of inputs and targets, masks, groups, texts, and what does not fit."""

import numpy as np
import pytest
import torch

from darts_core.data import SOURCES, RawData, load_data, make_bundle
from darts_core.data.groups import _some
from darts_core.data.make import _limited
from darts_core.errors import ConfigError, DataError
from darts_core.registry import Entry
from darts_core.tasks import IGNORED, Classification, Regression, make_task
from darts_core.testing import DatasetContract


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return load_data("npz", path)


class TestSeries(DatasetContract):
    @pytest.fixture
    def bundle(self, tmp_path):
        rng = np.random.default_rng(0)
        x = rng.integers(-3000, 3000, (60, 2, 21)).astype(np.int16)
        return saved(
            tmp_path / "a.npz", x=x, y=np.arange(60) % 3, classes=["a", "b", "c"], rate=4000
        )

    same_bundle = bundle

    def test_it_says_what_it_is(self, bundle):
        assert (bundle.kind, bundle.input_shape, bundle.in_channels) == ("series", (2, 21), 2)
        assert bundle.rate == 4000
        assert bundle.class_names == ("a", "b", "c")
        with pytest.raises(DataError, match=r"holds series of shape \(2, 21\); this needs images"):
            _ = bundle.image_shape
        with pytest.raises(DataError, match=r"holds \d+ series; choose at most"):
            bundle.steps("params", 999)


class TestWideImages(DatasetContract):
    @pytest.fixture
    def bundle(self, tmp_path):
        x = 1000 + np.random.default_rng(0).normal(size=(50, 12, 8, 11)).astype(np.float32)
        return saved(tmp_path / "a.npz", x=x, y=np.random.default_rng(1).normal(size=(50, 2)))

    same_bundle = bundle

    def test_numbers_are_a_regression(self, bundle):
        assert bundle.input_shape == (12, 8, 11)
        assert isinstance(bundle.task, Regression)
        assert (bundle.num_outputs, bundle.class_names) == (2, ("value0", "value1"))
        params = bundle.split("params").targets.double()
        assert bundle.task.mean == pytest.approx(params.mean(0).tolist())


class TestText(DatasetContract):
    @pytest.fixture
    def bundle(self, tmp_path):
        (tmp_path / "a.txt").write_text("abcd\n" * 100, encoding="utf-8")
        return load_data("text", tmp_path / "a.txt", length=8)

    same_bundle = bundle

    def test_targets_are_the_characters_that_follow(self, bundle):
        x, y = next(iter(bundle.batches("val", 2, shuffle=False)))
        assert x.dtype == y.dtype == torch.int64
        assert torch.equal(x[:, 1:], y[:, :-1])
        assert "".join(bundle.vocabulary[t] for t in x[0]) in "abcd\n" * 3
        assert (bundle.in_channels, bundle.num_outputs, bundle.task.name) == (5, 5, "next_token")

    def test_splits_are_stretches_in_the_order_of_the_text(self, bundle):
        first, last = bundle.parts["val"].min(), bundle.parts["val"].max()
        assert bundle.parts["params"].max() < first
        assert bundle.parts["alpha"].max() < first
        assert last < bundle.parts["test"].min()


def test_several_labels_and_their_mask(tmp_path, rng):
    y, mask = (rng.random((40, 3)) < 0.5).astype(np.uint8), rng.random((40, 3)) < 0.9
    bundle = saved(tmp_path / "a.npz", x=rng.normal(size=(40, 5)), y=y, mask=mask)
    assert bundle.task.name == "multi_label"
    assert bundle.input_shape == (1, 5)
    targets = torch.cat([bundle.split(name).targets for name in bundle.parts])
    assert int(targets.isnan().sum()) == (~mask).sum()


def test_a_mask_of_positions_and_one_of_samples(tmp_path, rng):
    x = rng.integers(0, 7, (40, 6))
    mask = rng.random((40, 6)) < 0.8
    bundle = saved(tmp_path / "a.npz", x=x, y=x, mask=mask)
    targets = torch.cat([bundle.split(name).targets for name in bundle.parts])
    assert int((targets == IGNORED).sum()) == (~mask).sum()
    kept = np.arange(40) % 4 != 0
    few = saved(tmp_path / "b.npz", x=rng.normal(size=(40, 1, 9)), y=np.arange(40) % 2, mask=kept)
    assert sum(few.sizes.values()) == 30


def test_a_mask_of_samples_goes_with_targets_of_any_shape(tmp_path, rng):
    x, kept = rng.normal(size=(40, 1, 9)), np.arange(40) % 4 != 0
    tokens = rng.integers(0, 7, (40, 6))
    for inputs, y, task in (
        (x, rng.normal(size=(40, 2)), "regression"),
        (x, rng.normal(size=(40, 1)), "regression"),
        (x, rng.integers(0, 2, (40, 3)), "multi_label"),
        (tokens, tokens, "next_token"),
    ):
        bundle = saved(tmp_path / "a.npz", x=inputs, y=y, mask=kept)
        assert (bundle.task.name, sum(bundle.sizes.values())) == (task, 30)
        found = torch.cat([bundle.split(name).targets for name in bundle.parts]).numpy()
        wanted = y[kept].astype(found.dtype)
        assert np.array_equal(np.sort(found, axis=0), np.sort(wanted, axis=0))


def test_predicted_tokens_are_called_as_the_vocabulary_does(tmp_path, rng, caplog):
    x = rng.integers(0, 5, (60, 6))
    rare = x[:8].copy()
    rare[0, 0] = 6  # stands in a target of the test set alone
    words = ["the", "cat", "sat", "on", "a", "mat", "the"]
    arrays = {"x": x, "y": x, "x_test": x[:8], "y_test": rare}
    bundle = saved(tmp_path / "a.npz", **arrays, vocabulary=words)
    assert bundle.class_names == ("the (0)", "cat", "sat", "on", "a", "mat", "the (6)")
    assert bundle.num_outputs == 7
    assert "their numbers are added: the (0), the (6)" in caplog.text
    few = saved(tmp_path / "b.npz", x=x, y=x, vocabulary=words)
    assert few.class_names == tuple(words[:5])
    # without a vocabulary the rarest token of the test set counts as well
    assert saved(tmp_path / "c.npz", **arrays).class_names == tuple("0123456")


def test_whole_numbers_are_classes_unless_the_task_says_numbers(tmp_path, rng):
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(60, 1, 9)), y=10 + 5 * (np.arange(60) % 7))
    meant = r"\(numbers to be predicted, not classes: task=regression\)\.$"
    with pytest.raises(DataError, match=rf"no training sample of class '0'.*{meant}"):
        load_data("npz", tmp_path / "a.npz")
    rare = np.append(np.arange(59) % 7, 7)  # 7 stands there once
    for names, hint in ({}, meant), ({"classes": [f"c{i}" for i in range(8)]}, r"in each split\.$"):
        with pytest.raises(DataError, match=rf"no sample of class 'c?7' \(1 in all\).*{hint}"):
            saved(tmp_path / "b.npz", x=rng.normal(size=(60, 1, 9)), y=rare, **names)
    bundle = load_data("npz", tmp_path / "a.npz", task=make_task("regression"))
    assert bundle.num_outputs == 1
    assert set(bundle.split("params").targets.flatten().tolist()) <= {10 + 5 * i for i in range(7)}
    with pytest.raises(DataError, match=r"task=next_token needs one token number a position"):
        load_data("npz", tmp_path / "a.npz", task=make_task("next_token"))


def grouped(rng, **more):
    group = np.repeat(np.arange(6), 10)
    x = rng.normal(size=(60, 1, 9)).astype(np.float32)
    x[:, 0, 0] = group
    names = ("anna", "ben", "cleo", "dora", "emil", "3")
    return RawData(
        x, np.arange(60) % 2, ("a", "b"), "made", groups=group, group_names=names, **more
    )


@pytest.mark.parametrize("rate", [np.float64(50), np.int64(50), 50])
def test_a_rate_of_numpy_s_becomes_a_plain_number(rng, rate):
    found = make_bundle("made", grouped(rng, rate=rate)).rate
    assert (found, type(found) in (int, float)) == (50, True)


def groups_of(bundle):
    return {name: set(bundle.split(name).inputs[:, 0, 0].int().tolist()) for name in bundle.parts}


@pytest.mark.parametrize(("left", "number"), [("cleo", 2), (2, 2), ("3", 5), (3, 5), (4, 4)])
def test_a_group_is_left_out_by_name_or_number(rng, left, number):
    found = groups_of(make_bundle("made", grouped(rng), leave_out=left))
    assert found["test"] == {number}
    assert len(found["val"]) == 1
    everyone = [group for groups in found.values() for group in groups]
    assert sorted(everyone) == list(range(6))


def test_no_group_stands_in_two_splits_and_the_test_groups_are_those_of_every_seed(rng):
    raw = grouped(rng)
    found = [groups_of(make_bundle("made", raw, split_by="group", seed=seed)) for seed in range(8)]
    for parts in found:
        assert sorted(group for groups in parts.values() for group in groups) == list(range(6))
        assert parts["test"] == found[0]["test"]
    assert len({tuple(parts["val"]) for parts in found}) > 1


def test_a_limit_cuts_groups_and_stretches_in_proportion(rng):
    bundle = make_bundle("made", grouped(rng), leave_out="ben", limit=25, test_limit=4)
    assert bundle.sizes == {"params": 10, "alpha": 10, "val": 5, "test": 4}


@pytest.mark.parametrize("names", [(), ("a", "b", "c")])
def test_class_numbers_in_one_column_are_classes_of_a_source_of_ones_own(rng, names):
    x, y = rng.normal(size=(60, 1, 9)), np.arange(60) % 3
    plain = make_bundle("made", RawData(x, y, names, "mine", x[:9] + 1, y[:9]))
    column = make_bundle("made", RawData(x, y[:, None], names, "mine", x[:9] + 1, y[:9, None]))
    assert column.task == plain.task == Classification(outputs=3, names=plain.class_names)
    assert column.marks == plain.marks


def test_a_column_with_a_name_of_its_own_holds_numbers(rng):
    raw = RawData(rng.normal(size=(60, 1, 9)), np.arange(60)[:, None], ("age",), "mine")
    assert make_bundle("made", raw).task.name == "regression"


@pytest.mark.parametrize(("task", "name"), [("multi_label", "label0"), ("regression", "value0")])
def test_a_column_of_a_task_without_classes_stays_one(rng, task, name):
    raw = RawData(rng.normal(size=(60, 1, 9)), np.arange(60)[:, None] % 2, (), "mine")
    bundle = make_bundle("made", raw, task=make_task(task))
    assert (bundle.class_names, bundle.split("val").targets.shape[1:]) == ((name,), (1,))


@pytest.mark.parametrize("mask", [["yes", "no"], [1.0, np.nan], [2, 0]])
def test_a_mask_of_other_values_than_true_and_false_is_refused(rng, mask):
    # each of them would be taken for true
    x, y, counts = rng.normal(size=(60, 1, 9)), np.arange(60) % 2, np.repeat(mask, 30)
    with pytest.raises(DataError, match=r"mask of mine has .*; give booleans \(True: counts\)"):
        make_bundle("made", RawData(x, y, (), "mine", mask=counts))
    zeros = make_bundle("made", RawData(x, y, (), "mine", mask=np.repeat([1, 0], 30)))
    assert sum(zeros.sizes.values()) == 30


def of_groups(rng, groups, names=()):
    return RawData(
        rng.normal(size=(60, 1, 9)), np.arange(60) % 2, (), "mine", groups=groups, group_names=names
    )


@pytest.mark.parametrize("dtype", [str, object])
def test_a_source_of_ones_own_may_name_its_groups(rng, dtype):
    names = np.repeat(np.array(["anna", "ben", "cleo", "dora"], dtype), 15)
    bundle = make_bundle("made", of_groups(rng, names), leave_out="ben")
    assert bundle.sizes == {"params": 15, "alpha": 15, "val": 15, "test": 15}


@pytest.mark.parametrize("kind", [int, float, object])
def test_groups_may_have_numbers_of_any_size_and_type(rng, kind):
    numbers = np.repeat([5, 7, 3, 4_000_000_001], 15)
    large = make_bundle("made", of_groups(rng, numbers.astype(kind)), leave_out=4_000_000_001)
    small = make_bundle("made", of_groups(rng, np.repeat([1, 2, 0, 3], 15)), leave_out=3)
    assert large.marks == small.marks


@pytest.mark.parametrize(
    ("groups", "names", "text"),
    [
        (np.repeat([0, 1, 2, 3, np.nan], 12), (), "one whole number or name a sample, not float64"),
        (np.repeat(np.arange(5), 12), ("anna", "ben"), "group holds 4; allowed .* to 1"),
        (np.repeat(np.arange(5), 12)[:, None], (), r"a sample, not int64 \(60, 1\)"),
        (np.repeat(np.arange(5) - 1, 12), (), "group holds -1"),
    ],
)
def test_groups_that_are_none_are_a_sentence(rng, groups, names, text):
    # those of NaN stood in no split, and nothing said so
    with pytest.raises(DataError, match=text):
        make_bundle("made", of_groups(rng, groups, names), split_by="group")


def test_groups_of_one_name_are_told_apart(rng, caplog):
    raw = of_groups(rng, np.repeat(np.arange(5), 12), ("anna", "anna", "ben", "cleo", "dora"))
    with pytest.raises(ConfigError, match=r"Unknown group .* 'anna'.*anna \(0\), anna \(1\)"):
        make_bundle("made", raw, leave_out="anna")
    assert "several classes, columns or groups (anna)" in caplog.text


def test_names_beside_groups_that_are_names_are_told(tmp_path, rng, caplog):
    group = np.repeat(["a", "b", "c", "d"], 10)
    x, y = rng.normal(size=(40, 1, 9)), np.arange(40) % 2
    saved(tmp_path / "a.npz", x=x, y=y, group=group, groups=["A", "B", "C", "D"])
    assert "are not read: groups" in caplog.text


@pytest.mark.parametrize("limit", [3, 4, 7, 11, 16, 33, 50])
def test_a_limit_of_groups_is_met_whatever_its_share_of_each_split(rng, limit):
    sizes = make_bundle("made", grouped(rng), leave_out="ben", limit=limit).sizes
    assert sum(sizes.values()) - sizes["test"] == limit
    assert min(sizes.values()) >= 1


def test_a_limit_below_the_number_of_splits_is_refused(rng):
    with pytest.raises(DataError, match="choose 3 or more, one for each of params, alpha, val"):
        make_bundle("made", grouped(rng), leave_out="ben", limit=2)


@pytest.mark.parametrize(
    ("sizes", "limit", "wanted"),
    # what rounding meets stays as it is; what it misses is the largest one's
    [((5, 7, 4), 8, [2, 4, 2]), ((40, 40, 1), 20, [9, 10, 1]), ((5, 5, 5), 13, [5, 4, 4])],
)
def test_splits_of_a_limit(sizes, limit, wanted):
    ends = np.cumsum(sizes)
    parts = dict(zip(("params", "alpha", "val"), np.split(np.arange(ends[-1]), ends), strict=False))
    strata, parts["test"] = np.zeros(ends[-1] + 2, int), ends[-1] + np.arange(2)
    found = _limited(parts, strata, (limit, None), seed=0)
    assert [len(index) for index in found.values()] == [*wanted, 2]


def test_pairs_of_npy_files(tmp_path, rng):
    x, y, group = (
        rng.normal(size=(40, 3, 7)),
        np.arange(40) % 2,
        np.repeat(["a", "b", "c", "d"], 10),
    )
    for name, array in (("x", x), ("y", y), ("group", group)):
        np.save(tmp_path / f"{name}.npy", array)
    bundle = load_data(
        "npy",
        tmp_path / "x.npy",
        targets=str(tmp_path / "y.npy"),
        groups=str(tmp_path / "group.npy"),
        leave_out="c",
    )
    assert bundle.sizes["test"] == 10
    assert bundle.pool.inputs_N.dtype == torch.float32
    with pytest.raises(DataError, match=r"needs data\.targets=FILE"):
        load_data("npy", tmp_path / "x.npy")
    np.save(tmp_path / "o.npy", np.array([{}, 1], object))
    with pytest.raises(DataError, match="Python objects"):
        load_data("npy", tmp_path / "o.npy", targets=str(tmp_path / "y.npy"))


def test_a_test_set_on_another_scale_is_told(tmp_path, rng, caplog):
    x, y = rng.normal(2, 1, (60, 2, 9, 8)), np.arange(60) % 2
    for test, told in ((x / 255, True), (x * 255, True), (x - 100, True), (1 + 2 * x, False)):
        caplog.clear()
        saved(tmp_path / "a.npz", x=x, y=y, x_test=test, y_test=y)
        assert ("its test inputs are on another scale" in caplog.text) == told
    pixels = rng.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    for test, told in ((pixels // 64, True), (pixels // 2, False), (pixels[:5] // 64, False)):
        caplog.clear()
        arrays = {"test_images": test, "test_labels": y[: len(test)]}
        saved(tmp_path / "b.npz", train_images=pixels, train_labels=y, **arrays)
        assert ("channel 0: mean 0.00" in caplog.text) == told


def test_a_share_of_test_beside_a_test_set_is_told(tmp_path, rng, caplog):
    x, y = rng.normal(size=(60, 1, 9)), np.arange(60) % 2
    saved(tmp_path / "a.npz", x=x, y=y, x_test=x[:20] + 1, y_test=y[:20])
    assert "test_fraction" not in caplog.text
    load_data("npz", tmp_path / "a.npz", test_fraction=0.5)
    assert "data.test_fraction=0.5 is not used" in caplog.text


def test_a_split_in_which_no_target_counts_is_refused(tmp_path, rng):
    x, nan = rng.normal(size=(60, 1, 9)), np.full((20, 2), np.nan)
    for y in (rng.normal(size=(60, 2)), rng.integers(0, 2, (60, 2)).astype(float)):
        with pytest.raises(
            DataError, match=r"counts in the split 'test' .*Leave that test set out"
        ):
            saved(tmp_path / "a.npz", x=x, y=y, x_test=x[:20], y_test=nan)
        one = np.vstack([nan[1:], y[:1]])
        assert saved(tmp_path / "a.npz", x=x, y=y, x_test=x[:20], y_test=one).sizes["test"] == 20
        held = saved(tmp_path / "a.npz", x=x, y=y).parts["val"].numpy()
        y[held] = np.nan
        with pytest.raises(DataError, match=r"counts in the split 'val' .*another data\.seed"):
            saved(tmp_path / "a.npz", x=x, y=y)


def test_what_does_not_fit_is_a_sentence(tmp_path, rng):
    series = rng.normal(size=(40, 1, 9))
    for arrays, text in (
        ({"x": series, "y": np.arange(40) % 2, "group": np.arange(39)}, "39 values of groups"),
        ({"x": series, "y": np.arange(40) % 2, "mask": np.arange(40)}, "save booleans"),
        ({"x": series, "y": np.arange(39) % 2}, "40 training series but 39 labels"),
        ({"x": np.full((40, 1, 9), np.inf), "y": np.arange(40) % 2}, "hold NaN or infinity"),
        ({"x": series.astype(str), "y": np.arange(40) % 2}, "needed are numbers"),
        ({"x": series, "y": rng.normal(size=40), "class_names": ["a", "b"]}, "names 2 targets"),
        ({"x": series, "y": np.full(40, np.inf)}, "hold infinity"),
        ({"x": series, "y": np.zeros((40, 0))}, r"targets of .* have shape \(40, 0\): no values"),
        ({"x": series, "y": np.full(40, np.nan)}, "no number that counts"),
        ({"x": series, "y": np.arange(40) % 2, "group": np.arange(40) - 1}, "group holds -1"),
        ({"x": rng.integers(0, 9, (40, 6)) - 1, "y": np.arange(40) % 2}, "hold -1.*as floats"),
        ({"x": np.full((40, 6), 10**6), "y": np.arange(40) % 2}, "number 1000000;.*as floats"),
        ({"x": series, "y": np.arange(40) % 2, "mask": np.array(True)}, "are one value"),
        ({"x": series, "y": np.arange(40) % 2, "rate": 0}, "rate of .* is 0.0; needed are"),
        ({"x": series, "y": np.arange(40) % 2, "rate": np.nan}, "rate of .* is nan; needed are"),
        (
            {
                "x": series,
                "y": np.arange(40) % 2,
                "x_test": series[:4],
                "y_test": np.array([0.0, 1.0, np.nan, 0.0]),
            },
            "test targets of .* hold numbers that are not whole, or NaN",
        ),
    ):
        with pytest.raises(DataError, match=text):
            saved(tmp_path / "a.npz", **arrays)
    halves = RawData(series, np.arange(40) % 2, ("a", "b"), "made", test_inputs=series[:8])
    with pytest.raises(DataError, match="test set of made has no targets"):
        make_bundle("made", halves)
    raw = grouped(rng)
    with pytest.raises(ConfigError, match="seed=-1 is not allowed"):
        make_bundle("made", raw, split_by="group", seed=-1)
    with pytest.raises(ConfigError, match="Did you mean 'anna'"):
        make_bundle("made", raw, leave_out="anne")
    with pytest.raises(ConfigError, match="need groups; made names none"):
        make_bundle("made", RawData(series, np.arange(40) % 2, ("a", "b"), "made"), leave_out=1)
    few = RawData(
        series, np.arange(40) % 2, ("a", "b"), "made",
        groups=np.arange(40) % 3, group_names=("a", "b", "c"),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"hold 3 groups; data\.split_by=group needs at least 4"):
        make_bundle("made", few, split_by="group")
    np.savez(tmp_path / "s.npz", x=series, y=np.arange(40) % 2)
    with pytest.raises(DataError, match="resizes images of uint8"):
        load_data("npz", tmp_path / "s.npz", image_size=16)
    (tmp_path / "t.txt").write_text("short", encoding="utf-8")
    with pytest.raises(DataError, match="holds 5 characters"):
        load_data("text", tmp_path / "t.txt")
    assert isinstance(make_bundle("made", raw).task, Classification)


def test_sizes_of_groups_are_those_of_their_samples(rng):
    # gaps in the numbers and groups of unequal size, in any order
    sizes = {3: 5, 9: 40, 10: 8, 20: 22, 21: 15, 40: 10}
    group = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    for wanted in (1, 12, 30, 70, 99):
        order = rng.permutation(list(sizes))
        reached = np.cumsum([sizes[g] for g in order])[:-2]
        expected = order[: int(np.argmin(np.abs(reached - wanted))) + 1]
        assert np.array_equal(_some(group, order, wanted, spare=2), expected)


def test_a_source_of_ones_own_gives_lists_and_tensors(rng):
    x, y = rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 2
    plain = make_bundle("made", RawData(x, y, ("0", "1"), "made", group_names=("a",), groups=0 * y))
    given = RawData(
        torch.from_numpy(x), y.tolist(), [0, 1], "made", group_names=["a"], groups=[0] * 40
    )
    bundle = make_bundle("made", given)
    assert bundle.class_names == plain.class_names == ("0", "1")
    for part in ("params", "test"):
        assert torch.equal(bundle.split(part).inputs, plain.split(part).inputs)
        assert torch.equal(bundle.split(part).targets, plain.split(part).targets)
    with pytest.raises(DataError, match="targets of made are a list of which no array can be made"):
        RawData(x, [[1], [2, 3]], (), "made")
    with pytest.raises(DataError, match="are a Tensor of which no array"):
        RawData(torch.zeros(4, 3, dtype=torch.bfloat16), y, (), "made")


def test_a_source_that_gives_no_raw_data_is_refused(monkeypatch):
    entry = Entry("pair", lambda path: (np.zeros(3), np.zeros(3)), "")
    monkeypatch.setitem(SOURCES._entries, "pair", entry)
    with pytest.raises(DataError, match="The data set 'pair' gives a tuple; its function must"):
        load_data("pair")
