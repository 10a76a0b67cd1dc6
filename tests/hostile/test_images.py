"""Image files: data sets and `predict` read the same ones, the same way, and refuse the same ones."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from darts_core.data import images
from darts_core.data.decode import decode_images
from darts_core.errors import DartsError, DataError
from darts_core.export.predict import read_image

SIDE = 9
GRADIENT = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(depth: int, colour: int, row: bytes, width: int = SIDE, height: int = SIDE) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    content = zlib.compress((b"\0" + row) * min(height, 100))
    end = chunk(b"IDAT", content) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + end


def both(tmp_path, content: bytes, channels: int = 3):
    """What the data reader and the predict reader make of one file: pixels, or the error."""
    path = tmp_path / "image.bin"
    path.write_bytes(content)
    found = []
    for read in (
        lambda: decode_images(
            [path], lambda i: str(path), image_size=SIDE, channels=channels, origin="o"
        )[0],
        lambda: decode_images(
            [content], lambda i: "row", image_size=SIDE, channels=channels, origin="o"
        )[0],
        lambda: read_image(path, (channels, SIDE, SIDE)),
    ):
        try:
            found.append(read())
        except DataError as error:
            found.append(error)
    return found


GREY = Image.fromarray(GRADIENT)
READ = {
    "png": encoded(GREY, "PNG"),
    "png palette": encoded(GREY.convert("P"), "PNG"),
    "png alpha": encoded(GREY.convert("RGBA"), "PNG"),
    "png 2 bits": png(2, 0, bytes(3)),
    "png two channels": encoded(GREY.convert("LA"), "PNG"),
    "jpeg": encoded(GREY.convert("RGB"), "JPEG"),
    "jpeg cmyk": encoded(GREY.convert("CMYK"), "JPEG"),
    "webp": encoded(GREY.convert("RGB"), "WEBP", lossless=True),
    "bmp": encoded(GREY.convert("RGB"), "BMP"),
    "tiff": encoded(GREY, "TIFF"),
    "tiff cmyk": encoded(GREY.convert("CMYK"), "TIFF"),
    "tiff packed": encoded(GREY.convert("RGB"), "TIFF", compression="tiff_deflate"),
    "ppm": encoded(GREY.convert("RGB"), "PPM"),
    "gif": encoded(GREY, "GIF"),
}
WIDE = np.full((SIDE, SIDE), 40_000, np.uint16)
REFUSED = {
    "png of 16 bits": encoded(Image.fromarray(WIDE), "PNG"),
    "png of 16 bits, colour": png(16, 2, bytes(6 * SIDE)),
    "png of 16 bits, alpha": png(16, 6, bytes(8 * SIDE)),
    "tiff of 16 bits": encoded(Image.fromarray(WIDE), "TIFF"),
    "tiff of 32 bits": encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF"),
    "tiff of floats": encoded(Image.fromarray(WIDE.astype(np.float32)), "TIFF"),
    "tiff lab": encoded(Image.new("LAB", (SIDE, SIDE)), "TIFF"),
    "pgm of 16 bits": b"P5\n9 9\n65535\n" + bytes(2 * 81),
    "ppm of 16 bits": b"P6\n9 9\n65535\n" + bytes(6 * 81),
    "eps": encoded(GREY.convert("RGB"), "EPS"),
    "pdf": encoded(GREY.convert("RGB"), "PDF"),
    "ico": encoded(GREY.convert("RGB"), "ICO"),
    "jpeg 2000": encoded(GREY.convert("RGB"), "JPEG2000"),
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "empty": b"",
    "text": b"no image",
    "pixels beyond the limit": png(8, 0, bytes(2), 10_000, 10_000)[:80],
    "pixels without end": png(8, 0, bytes(2), 2**31 - 1, 2**31 - 1)[:80],
    "png cut": READ["png"][:50],
    "png header only": READ["png"][:33],
    "jpeg cut": READ["jpeg"][:-200],
    "bmp cut": READ["bmp"][:60],
    "tiff directory in a ring": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "webp cut": READ["webp"][:24],
    "gif cut": READ["gif"][:20],
    "png wrong checksum": READ["png"].replace(b"IDAT", b"IDAT", 1)[:45]
    + b"\xff"
    + READ["png"][46:],
}


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("channels", [1, 3])
def test_data_and_predict_see_the_same_pixels(tmp_path, name, channels):
    first, *others = both(tmp_path, READ[name], channels)
    assert first.shape == (channels, SIDE, SIDE)
    for other in others:
        np.testing.assert_array_equal(first, other)
    if name in ("png", "png alpha", "webp", "bmp", "tiff", "ppm", "gif"):
        np.testing.assert_array_equal(first, np.repeat(GRADIENT[None], channels, 0))


@pytest.mark.parametrize("name", REFUSED)
def test_data_and_predict_refuse_the_same_files(tmp_path, name):
    found = both(tmp_path, REFUSED[name])
    assert all(isinstance(error, DataError) for error in found), found
    assert "image.bin" in str(found[0])
    assert "image.bin" in str(found[2])
    assert len(str(found[0])) < 600


def test_no_format_starts_a_program(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    tool = tmp_path / "gs"
    tool.write_text(f"#!/bin/sh\ntouch {marker}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    both(tmp_path, REFUSED["eps"])
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        encoded(GREY, "TIFF", save_all=True, append_images=[Image.new("L", (SIDE, SIDE), 255)]),
        encoded(GREY, "GIF", save_all=True, append_images=[Image.new("L", (SIDE, SIDE), 255)]),
        encoded(GREY, "PNG", save_all=True, append_images=[Image.new("L", (SIDE, SIDE), 255)]),
        encoded(GREY.convert("RGB"), "WEBP", lossless=True, save_all=True,
                append_images=[Image.new("RGB", (SIDE, SIDE), "white")]),
    ],
    ids=["tiff", "gif", "png", "webp"],
)  # fmt: skip
def test_the_first_frame_is_taken_and_that_is_said(tmp_path, content, caplog):
    first, _, predicted = both(tmp_path, content, 1)
    np.testing.assert_array_equal(first[0], GRADIENT)
    np.testing.assert_array_equal(first, predicted)
    assert sum("the first is taken" in record.message for record in caplog.records) == 3


def test_the_limit_of_pixels_is_one_number(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", SIDE * SIDE - 1)
    for error in both(tmp_path, READ["png"]):
        assert str(error).endswith("announces 9x9 pixels; at most 80 are read.")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "absent", "socket"])
def test_only_regular_files_are_opened(tmp_path, kind):
    import socket

    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    with pytest.raises(DataError, match=r"x\.png"):
        read_image(path, (3, SIDE, SIDE))


def test_bytes_changed_anywhere_give_pixels_or_a_sentence(tmp_path):
    draw = np.random.default_rng(0)
    for name, content in READ.items():
        for _ in range(40):
            changed = bytearray(content)
            for place in draw.integers(0, len(changed), 3):
                changed[place] = draw.integers(0, 256)
            first, second, third = both(tmp_path, bytes(changed))
            kinds = {type(item) for item in (first, second, third)}
            assert kinds in ({np.ndarray}, {DataError}), name
            if isinstance(first, np.ndarray):
                np.testing.assert_array_equal(first, third)


def test_a_model_for_other_channels_is_a_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(READ["png"])
    with pytest.raises(DartsError, match="channels"):
        read_image(tmp_path / "a.png", (2, SIDE, SIDE))
