"""Each file source reads tiny files of its format, and says in a sentence what is wrong with others."""

import gzip
import io
import json
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from darts_core.data import load_data
from darts_core.data.idx import DEBIAN_FASHION_MNIST, read_idx
from darts_core.data.synthetic import load_synthetic
from darts_core.errors import ConfigError, DataError, MemoryShortageError


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, packed, train=120, test=20):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", train), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in arrays.items():
        content = idx_bytes(array)
        path = folder / (name + ".gz" * packed)
        path.write_bytes(gzip.compress(content) if packed else content)
    return arrays


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files(tmp_path, packed, name):
    arrays = write_mnist(tmp_path, packed)
    bundle = load_data(name, tmp_path)
    assert bundle.image_shape == (1, 28, 28)
    assert bundle.sizes["test"] == 20
    assert np.array_equal(bundle.test.inputs[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    assert np.array_equal(bundle.test.targets.numpy(), arrays["t10k-labels-idx1-ubyte"])
    assert bundle.class_names[9] == ("9" if name == "mnist" else "Ankle boot")


@pytest.mark.skipif(not DEBIAN_FASHION_MNIST.is_dir(), reason="dataset-fashion-mnist is absent")
def test_debian_fashion_mnist_is_found_without_a_path():
    bundle = load_data("fashion_mnist", limit=1000)
    assert bundle.sizes["test"] == 10_000
    assert 0.2 < bundle.mean[0] < 0.4


def test_damaged_idx_files_are_sentences(tmp_path):
    write_mnist(tmp_path, packed=False)
    images = tmp_path / "train-images-idx3-ubyte"
    content = images.read_bytes()
    for bad, text in (
        (content[:-1], "truncated or damaged"),
        (content + b"x", "holds more than"),
        (content[:10], "ends within its header"),
        (b"", "begins with nothing"),
        (b"\0\0\x0d\x03" + content[4:], "begins with 00000d03"),
        (gzip.compress(content)[:-20], "cannot be read"),
        (gzip.compress(content)[:50] + b"\xff" * 50, "cannot be read"),
    ):
        images.write_bytes(bad)
        with pytest.raises(DataError, match=text):
            load_data("mnist", tmp_path)
    images.unlink()
    with pytest.raises(DataError, match="has neither train-images-idx3-ubyte nor"):
        load_data("mnist", tmp_path)
    with pytest.raises(DataError, match="is a file"):
        load_data("mnist", tmp_path / "train-labels-idx1-ubyte")
    with pytest.raises(DataError, match=r"needs data\.path"):
        load_data("mnist")
    with pytest.raises(DataError, match=r"nothing at data\.path"):
        load_data("mnist", tmp_path / "absent")


def test_idx_labels_out_of_range(tmp_path):
    write_mnist(tmp_path, packed=False)
    labels = np.full(120, 10, np.uint8)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    with pytest.raises(DataError, match=r"hold 10; allowed are 0\.\.9"):
        load_data("mnist", tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels[:100] % 10))
    with pytest.raises(DataError, match="120 training images but 100 labels"):
        load_data("mnist", tmp_path)


def test_idx_header_that_announces_terabytes_allocates_nothing(tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**10, 2**10))
    # the folder bears the test's name, which any error of this file would hold
    with pytest.raises(MemoryShortageError, match="huge announces 2,147,483,648 MiB"):
        read_idx(path, 3)


def write_cifar(folder, protocol, coarse=False):
    """The layout of the published archives: bytes keys, labels as list, one row an image."""
    rng = np.random.default_rng(1)

    def batch(count, offset=0):
        content = {
            b"data": rng.integers(0, 256, (count, 3072)).astype(np.uint8),
            b"batch_label": b"batch",
            b"filenames": [b"x.png"] * count,
        }
        labels = [(offset + i) % 10 for i in range(count)]
        if coarse:
            content |= {b"fine_labels": labels, b"coarse_labels": [label % 2 for label in labels]}
        else:
            content[b"labels"] = labels
        return content

    names = [f"name{i}".encode() for i in range(10)]
    if coarse:
        files = {"train": batch(100), "test": batch(20)}
        files["meta"] = {b"fine_label_names": names, b"coarse_label_names": names[:2]}
    else:
        files = {f"data_batch_{i}": batch(20, i) for i in range(1, 6)}
        files["test_batch"] = batch(20)
        files["batches.meta"] = {b"label_names": names, b"num_cases_per_batch": 20}
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return files


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar10_folder(tmp_path, protocol):
    files = write_cifar(tmp_path / "cifar-10-batches-py", protocol)
    bundle = load_data("cifar10", tmp_path)
    assert bundle.image_shape == (3, 32, 32)
    assert sum(bundle.sizes.values()) == 120
    assert bundle.class_names[3] == "name3"
    expected = files["test_batch"][b"data"].reshape(-1, 3, 32, 32)
    assert np.array_equal(bundle.test.inputs.numpy(), expected)


def test_cifar100_folder(tmp_path):
    write_cifar(tmp_path, 2, coarse=True)
    assert load_data("cifar100", tmp_path).num_classes == 10
    assert load_data("cifar100", tmp_path, label="coarse").num_classes == 2
    with pytest.raises(ConfigError, match=r"data\.label='middle'"):
        load_data("cifar100", tmp_path, label="middle")


def test_python_2_strings_of_the_published_files_are_read(tmp_path):
    # what cPickle of Python 2 wrote: SHORT_BINSTRING for texts and array bytes alike
    files = write_cifar(tmp_path, 2)
    rows = files["test_batch"][b"data"]
    out = io.BytesIO()
    out.write(b"\x80\x02}(U\x04dataCnumpy.core.multiarray\n_reconstruct\n".replace(b"C", b"c", 1))
    out.write(b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R")
    out.write(b"(K\x01K" + bytes([len(rows)]) + b"M" + struct.pack("<H", 3072) + b"\x86")
    out.write(
        b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    )
    out.write(b"K\x00tb\x89T" + struct.pack("<i", rows.nbytes) + rows.tobytes() + b"tb")
    out.write(b"U\x06labels](" + b"".join(b"K" + bytes([i % 10]) for i in range(20)) + b"eu.")
    (tmp_path / "test_batch").write_bytes(out.getvalue())
    bundle = load_data("cifar10", tmp_path)
    assert np.array_equal(bundle.test.inputs.numpy(), rows.reshape(-1, 3, 32, 32))


def test_damaged_cifar_files_are_sentences(tmp_path):
    files = write_cifar(tmp_path, 2)
    batch = tmp_path / "data_batch_2"
    good = dict(files["data_batch_2"])

    def check(content, text):
        batch.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 2))
        with pytest.raises(DataError, match=text):
            load_data("cifar10", tmp_path)

    check(pickle.dumps(good, 2)[:-500], "truncated")
    check(b"not a pickle", "data_batch_2 is not a CIFAR batch file")
    check([1, 2], "holds a list")
    check({**good, b"data": good[b"data"][:, :100]}, r"images of shape \(20, 100\)")
    check({**good, b"labels": [0.5] * 20}, "not a list of whole numbers")
    check({**good, b"labels": [-1] * 20}, "the label -1")
    check({**good, b"labels": [1] * 19}, "20 images but 19 labels")
    check({b"data": good[b"data"]}, "no entry 'labels'")
    check({**good, b"labels": [12] * 20}, r"hold 12; allowed are 0\.\.9")
    batch.unlink()
    with pytest.raises(DataError, match="data_batch_2 is missing"):
        load_data("cifar10", tmp_path)
    with pytest.raises(DataError, match="no file data_batch_1"):
        load_data("cifar10", tmp_path.parent)


def write_images(
    folder, classes=("cat", "dog"), count=20, size=(10, 10), mode="RGB", suffix=".png"
):
    rng = np.random.default_rng(2)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shape = size[::-1] + ((3,) if mode == "RGB" else ())
            pixels = rng.integers(0, 256, shape).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03}{suffix}")


def test_image_folder_without_and_with_test_set(tmp_path):
    write_images(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / "a" / "cat" / "readme.md").write_text("not an image")
    bundle = load_data("image_folder", tmp_path / "a")
    assert bundle.class_names == ("cat", "dog")
    assert bundle.image_shape == (3, 10, 10)
    assert bundle.sizes["test"] == 8
    write_images(tmp_path / "b" / "train", mode="L", suffix=".jpg")
    write_images(tmp_path / "b" / "test", mode="L", count=3)
    bundle = load_data("image_folder", tmp_path / "b", image_size=8)
    assert bundle.image_shape == (1, 8, 8)
    assert bundle.sizes["test"] == 6
    with Image.open(tmp_path / "b" / "test" / "cat" / "000.png") as image:
        expected = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR))
    assert np.array_equal(bundle.test.inputs[0, 0].numpy(), expected)


def test_image_folder_errors_are_sentences(tmp_path):
    folder = tmp_path / "a"
    write_images(folder)
    load_data("image_folder", folder)
    Image.new("RGB", (12, 10)).save(folder / "cat" / "zzz.png")
    with pytest.raises(DataError, match=r"zzz.png is 12x10, the first image 10x10"):
        load_data("image_folder", folder)
    (folder / "cat" / "zzz.png").write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"zzz\.png is not a readable image"):
        load_data("image_folder", folder)
    good = (folder / "cat" / "000.png").read_bytes()
    (folder / "cat" / "zzz.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"zzz.png (cannot be decoded|is not a readable image)"):
        load_data("image_folder", folder)
    write_images(tmp_path / "one", classes=("cat",))
    with pytest.raises(DataError, match="1 class sub-folders"):
        load_data("image_folder", tmp_path / "one")
    write_images(tmp_path / "c" / "train")
    write_images(tmp_path / "c" / "test", classes=("cow",))
    with pytest.raises(DataError, match="class folder 'cow'"):
        load_data("image_folder", tmp_path / "c")
    write_images(tmp_path / "wide", size=(12, 10))
    assert load_data("image_folder", tmp_path / "wide").image_shape == (3, 10, 12)
    with pytest.raises(ConfigError, match=r"data\.channels=2"):
        load_data("image_folder", tmp_path / "wide", channels=2)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "b").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load_data("image_folder", tmp_path / "empty")
    # as Kaggle hands out what is to be predicted
    write_images(tmp_path / "contest" / "train")
    write_images(tmp_path / "contest", classes=["test"], count=1)
    with pytest.raises(DataError, match=r"test, the test set, .* in folders.* move them elsewhere"):
        load_data("image_folder", tmp_path / "contest")


def test_folders_that_all_classes_hold_are_told(tmp_path, caplog):
    for day in ("monday", "sunday"):
        write_images(tmp_path / "a" / day)
    assert load_data("image_folder", tmp_path / "a").class_names == ("monday", "sunday")
    assert "are monday, sunday, and each holds the folders cat, dog, which are read" in caplog.text
    caplog.clear()
    # others below one of them, or images right in them
    write_images(tmp_path / "b" / "monday")
    write_images(tmp_path / "b" / "sunday", classes=("cat", "cow"))
    write_images(tmp_path / "c")
    load_data("image_folder", tmp_path / "b")
    load_data("image_folder", tmp_path / "c")
    assert "and each holds" not in caplog.text


def encoded(color, size=9):
    stream = io.BytesIO()
    Image.new("RGB", (size, size), color).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(path, count=40, names=("a", "b"), label="label", image="image", **columns):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": encoded((i, 2 * i, 255 - i)), "path": f"{i}.png"} for i in range(count)]
    table = {image: rows, label: [i % 2 for i in range(count)], **columns}
    schema = pa.table(table)
    features = {"info": {"features": {label: {"names": list(names), "_type": "ClassLabel"}}}}
    schema = schema.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(schema, path, compression="zstd")


def test_parquet_file_and_folder(tmp_path):
    write_parquet(tmp_path / "train.parquet")
    bundle = load_data("parquet", tmp_path / "train.parquet")
    assert bundle.class_names == ("a", "b")
    assert bundle.image_shape == (3, 9, 9)
    assert bundle.sizes["test"] == 8
    write_parquet(tmp_path / "test-00000-of-00001.parquet", count=10, image="img")
    bundle = load_data("parquet", tmp_path)
    assert bundle.sizes["test"] == 10
    assert bundle.test.inputs[3, :, 0, 0].tolist() == [3, 6, 252]


def test_parquet_errors_are_sentences(tmp_path):
    file = tmp_path / "x.parquet"
    write_parquet(file, label="target")
    with pytest.raises(DataError, match="no label column"):
        load_data("parquet", file)
    assert load_data("parquet", file, label_column="target").num_classes == 2
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        load_data("parquet", file)
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for column, text in (
        ({"image": [{"bytes": b"x"}] * 4, "label": ["a"] * 4}, "needed are whole numbers"),
        ({"image": ["x"] * 4, "label": [0, 1] * 2}, r"needed is image\{bytes\}"),
        ({"image": [{"path": "x"}] * 4, "label": [0, 1] * 2}, "no field 'bytes'"),
        ({"image": [{"bytes": None}] * 4, "label": [0, 1] * 2}, "without image bytes|type null"),
        ({"image": [{"bytes": b"x"}] * 4, "label": [0, 1] * 2}, "Row 0 of .* not a readable image"),
        ({"image": [{"bytes": encoded(1)}] * 4, "label": [0, 1, 2, -1]}, "hold -1"),
    ):
        pq.write_table(pa.table(column), file)
        with pytest.raises(DataError, match=text):
            load_data("parquet", file)
    (tmp_path / "y.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"no train\*\.parquet"):
        load_data("parquet", tmp_path)


def test_npz_layouts_and_names(tmp_path):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    labels = np.arange(40) % 2
    file = tmp_path / "a.npz"
    np.savez(file, images=pixels, labels=labels, class_names=np.array(["x", "y"]))
    bundle = load_data("npz", file)
    assert bundle.class_names == ("x", "y")
    assert bundle.image_shape == (3, 8, 8)
    nchw = tmp_path / "b.npz"
    np.savez_compressed(nchw, images=pixels.transpose(0, 3, 1, 2), labels=labels[:, None])
    other = load_data("npz", nchw)
    assert bundle.split("val").inputs.equal(other.split("val").inputs)
    keras = tmp_path / "c.npz"
    np.savez(
        keras, x_train=pixels[..., 0], y_train=labels, x_test=pixels[:6, ..., 0], y_test=labels[:6]
    )
    assert load_data("npz", keras).sizes["test"] == 6
    fortran = tmp_path / "d.npz"
    np.savez(fortran, images=np.asfortranarray(pixels), labels=labels)
    assert load_data("npz", fortran).split("val").inputs.equal(bundle.split("val").inputs)
    # of any kind of numbers, where the last side was the width
    free = tmp_path / "e.npz"
    np.savez(free, x=pixels, y=labels)
    assert load_data("npz", free).split("val").inputs.equal(bundle.split("val").inputs)
    assert load_data("npz", free, image_size=16).image_shape == (3, 16, 16)
    np.save(tmp_path / "x.npy", pixels / 255)
    np.save(tmp_path / "y.npy", labels)
    files = {"targets": str(tmp_path / "y.npy")}
    assert load_data("npy", tmp_path / "x.npy", **files).image_shape == (3, 8, 8)
    with pytest.raises(DataError, match="channels seem to stand last"):
        load_data("npz", free, layout="nchw")


def test_npz_errors_are_sentences(tmp_path):
    file = tmp_path / "a.npz"
    images, labels = np.zeros((40, 8, 8, 3), np.uint8), np.arange(40) % 2
    for arrays, text in (
        ({"pixels": images, "labels": labels}, "holds labels, pixels; needed is"),
        ({"images": images / 255, "labels": labels}, "dtype float64; store uint8"),
        ({"images": images, "labels": labels + 1j}, "needed are numbers"),
        (
            {"images": images, "labels": np.array(["a", "b"])[labels]},
            r"labels = np\.unique\(labels, ",
        ),
        ({"images": images, "labels": labels - 1}, "hold -1"),
        ({"images": images, "labels": labels * 10**9}, "hold 1000000000"),
        ({"images": images[..., :2], "labels": labels}, "channels are not recognised"),
        ({"images": images[0, 0], "labels": labels}, r"has shape \(8, 3\)"),
        ({"images": images, "labels": labels, "class_names": labels}, "must be a list of texts"),
        ({"images": images, "labels": labels * 0}, "has one class only"),
    ):
        np.savez(file, **arrays)
        with pytest.raises(DataError, match=text):
            load_data("npz", file)
    np.savez(file, images=images, labels=labels)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match="cannot be read"):
        load_data("npz", file)
    with pytest.raises(ConfigError, match=r"data\.layout='x'"):
        load_data("npz", file, layout="x")


def test_synthetic_plants_a_pair_and_a_weaker_shortcut():
    from darts_core.data.synthetic import _patterns

    raw = load_synthetic(classes=3, count=3000, size=16, reach=6, shortcut=0.5, noise=0.0)
    assert np.bincount(raw.targets).tolist() == [1000] * 3
    canvas = (raw.inputs[:, 0].astype(float) - 128) / 48
    # the last three rows hold the shortcut alone: it shows the class of half, and a third of the others'
    patterns = _patterns(6, np.random.default_rng([7, 0]))[3:]
    windows = np.lib.stride_tricks.sliding_window_view(np.rint(canvas[:, 13:]), (3, 3), axis=(1, 2))
    shown = (windows[:, 0, :, None] == patterns).all((3, 4)).any(1)
    assert shown.sum(1).tolist() == [1] * 3000
    assert (shown.argmax(1) == raw.targets).mean() == pytest.approx(1 / 2 + 1 / 6, abs=0.03)
    again = load_synthetic(classes=3, count=3000, size=16, reach=6, shortcut=0.5, noise=0.0)
    assert np.array_equal(raw.inputs, again.inputs)
    # a linear classifier of pixel averages of the upper rows learns nothing about the class
    features = canvas[:, :9].reshape(3000, -1)
    features = np.concatenate([features, np.ones((3000, 1))], 1)
    target = np.eye(3)[raw.targets]
    weights, *_ = np.linalg.lstsq(features[:2000], target[:2000], rcond=None)
    accuracy = ((features[2000:] @ weights).argmax(1) == raw.targets[2000:]).mean()
    assert abs(accuracy - 1 / 3) < 0.08


def test_synthetic_pair_determines_the_class():
    # recover both pattern numbers by matching, away from the shortcut's band: they give the label
    from darts_core.data.synthetic import _patterns

    classes, reach = 2, 4
    raw = load_synthetic(classes=classes, count=400, size=14, reach=reach, noise=0.0, shortcut=0.0)
    canvas = np.rint((raw.inputs[:, 0].astype(float) - 128) / 48)[:, :11]
    patterns = _patterns(2 * classes, np.random.default_rng([7, 0]))[:classes]
    windows = np.lib.stride_tricks.sliding_window_view(canvas, (3, 3), axis=(1, 2))
    right = found = 0
    for image, label in zip(windows, raw.targets, strict=True):
        places = [
            (r, c, k)
            for k, p in enumerate(patterns)
            for r, c in np.argwhere((image == p).all((2, 3)))
        ]
        pairs = [
            (a[2], b[2])
            for a in places
            for b in places
            if (b[0] - a[0], b[1] - a[1]) in ((0, reach), (reach, 0))
        ]
        if len(pairs) == 1:
            found += 1
            right += (pairs[0][1] - pairs[0][0]) % classes == label
    assert found > 200
    assert right == found
