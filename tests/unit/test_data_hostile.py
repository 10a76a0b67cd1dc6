"""Hostile files: nothing in them runs, nothing absurd is allocated, and a sentence says why."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from darts_core.data import load_data
from darts_core.data.decode import decode_images
from darts_core.data.restricted_pickle import read_pickle
from darts_core.errors import DartsError, DataError


class _RunsACommand:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def hostile_pickles(marker):
    yield pickle.dumps(_RunsACommand(os.system, f"touch {marker}"))
    yield pickle.dumps(_RunsACommand(eval, f"open({str(marker)!r}, 'w')"))
    yield pickle.dumps({b"data": _RunsACommand(os.mkdir, str(marker))})
    yield b"cbuiltins\ngetattr\ncos\nsystem\n\x86R."
    yield pickle.dumps(_RunsACommand(np.load, str(marker)))
    yield pickle.dumps(_RunsACommand(np.fromfile, str(marker)))
    # the old-style opcodes, which name a class and call it
    yield b"(S'touch " + str(marker).encode() + b"'\nios\nsystem\n."
    # a dotted name below an admitted module
    yield b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93."
    yield b"cnumpy\nndarray.tofile\n."
    # extension registry and persistent ids
    yield b"\x82\x01."
    yield b"Pfoo\n."


def test_malicious_pickles_run_nothing(tmp_path):
    marker = tmp_path / "ran"
    for number, content in enumerate(hostile_pickles(marker)):
        file = tmp_path / f"p{number}"
        file.write_bytes(content)
        # not for what it would have done: a call that is let through fails as "truncated"
        with pytest.raises(DataError, match=r"file or is damaged: it holds|unregistered extension"):
            read_pickle(file)
        assert not marker.exists(), content


def test_malicious_batch_in_a_cifar_folder_is_refused(tmp_path):
    marker = tmp_path / "ran"
    (tmp_path / "data_batch_1").write_bytes(
        pickle.dumps({b"data": _RunsACommand(os.system, f"touch {marker}"), b"labels": [0]})
    )
    with pytest.raises(DataError, match=r"the name (posix|nt)\.system, .*Nothing of it was run"):
        load_data("cifar10", tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([print], dtype=object),
        np.zeros(3, np.float32),
        np.zeros(3, [("a", "u1")]),
        np.array(["2020"], dtype="datetime64"),
    ],
    ids=["object", "float", "record", "date"],
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_pickled_arrays_other_than_bytes_are_refused(tmp_path, value, protocol):
    file = tmp_path / "p"
    file.write_bytes(pickle.dumps({b"data": value}, protocol))
    with pytest.raises(DataError, match="where only bytes are allowed"):
        read_pickle(file)


def test_pickled_array_whose_shape_lies_is_refused(tmp_path):
    head = b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
    for shape, words in (
        (b"J\xff\xff\xff\x7f\x85", r"3 bytes for an array of shape \(2147483647,\)"),
        (b"J\xff\xff\xff\xff\x85", r"an array of shape \(-1,\)"),
        (b"U\x01a\x85", r"an array of shape \(b'a',\)"),
        (b"N", "is not iterable"),
    ):
        file = tmp_path / "p"
        file.write_bytes(head + b"(K\x01" + shape + dtype + b"\x89U\x03abctbs.")
        with pytest.raises(DataError, match=words):
            read_pickle(file)


def npy(array, **header):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream,
        {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
        | {"shape": array.shape}
        | header,
    )
    return stream.getvalue() + array.tobytes()


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)


IMAGES, LABELS = np.zeros((40, 8, 8), np.uint8), np.arange(40) % 2


def test_npz_with_object_arrays_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    labels = np.array([_RunsACommand(os.system, f"touch {marker}")] * 40, dtype=object)
    file = tmp_path / "a.npz"
    np.savez(file, images=IMAGES, labels=labels)
    with pytest.raises(DataError, match="holds Python objects"):
        load_data("npz", file)
    assert not marker.exists()


def test_npz_tricks_are_refused(tmp_path):
    file = tmp_path / "a.npz"
    labels = ("labels.npy", npy(LABELS))
    huge = npy(IMAGES, shape=(2**40, 8, 8))
    cases = (
        ([("images.npy", huge), labels], "announces shape"),
        (
            [("images.npy", npy(IMAGES, shape=(-40, 8, 8))), labels],
            "announces shape|cannot be read",
        ),
        ([("images.npy", npy(IMAGES, shape=(2**70,))), labels], "announces shape|cannot be read"),
        ([("images.npy", b"\x93NUMPY\x03\x00" + npy(IMAGES)[8:]), labels], "npy version"),
        ([("images.npy", b"not npy"), labels], "cannot be read"),
        ([("images.npy", b"\x93NUMPY\x01\x00\x10\x00__import__('os')"), labels], "cannot be read"),
        ([("../images.npy", npy(IMAGES)), labels], "needed is"),
        ([("images.npy", npy(IMAGES) + b"more"), labels], "announces shape"),
    )
    for members, text in cases:
        write_zip(file, members)
        with pytest.raises(DataError, match=text):
            load_data("npz", file)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_npz_with_two_members_of_one_name_is_refused(tmp_path):
    file = tmp_path / "a.npz"
    write_zip(
        file,
        [("images.npy", npy(IMAGES)), ("images.npy", npy(IMAGES)), ("labels.npy", npy(LABELS))],
    )
    with pytest.raises(DataError, match="two members of one name"):
        load_data("npz", file)


def test_npz_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    from darts_core import memory

    file = tmp_path / "a.npz"
    bomb = np.zeros((10_000, 32, 32), np.uint8)
    write_zip(file, [("images.npy", npy(bomb)), ("labels.npy", npy(LABELS))])
    assert file.stat().st_size < 50_000
    monkeypatch.setattr(memory, "free_bytes", lambda device=None: 5_000_000)
    with pytest.raises(DartsError, match="of host memory are free"):
        load_data("npz", file)


def test_npz_with_a_wrong_checksum_is_refused(tmp_path):
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("images.npy", npy(IMAGES))
        archive.writestr("labels.npy", npy(LABELS))
    content = bytearray(file.read_bytes())
    content[content.index(b"\n", 60) + 100] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match="Bad CRC"):
        load_data("npz", file)


def test_image_that_announces_absurd_dimensions_is_refused():
    stream = io.BytesIO()
    Image.new("1", (1, 1)).save(stream, "PPM")
    # cut off as they are, both would be refused without any limit, too; the second is refused by Pillow
    for size, why in (
        (b"9000 9000", "bomb announces 9000x9000 pixels; at most 64,000,000 are read"),
        (b"100000 100000", "bomb is not a readable image .*DecompressionBombError"),
    ):
        bomb = stream.getvalue().replace(b"1 1", size)
        with pytest.raises(DataError, match=why):
            decode_images([bomb], lambda i: "bomb", image_size=8, channels=1, origin="x")


def test_formats_that_start_programs_are_refused():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) = quit\n"
    with pytest.raises(DataError, match="allowed are JPEG"):
        decode_images([postscript], lambda i: "trick.png", image_size=8, channels=3, origin="x")
