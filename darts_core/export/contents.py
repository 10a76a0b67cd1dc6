"""What an artifact's file is, by its own bytes: trust is asked for by this, never by a manifest."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterable
from pathlib import Path

from darts_core.errors import ExportError
from darts_core.reading import regular_file

__all__ = ["NATIVE", "needs_trust", "what_is"]

# what a file can be; the first two run machine code of the file's maker
LIBRARY = "compiled code"
ENGINE = "a graph with a compiled engine in it"
PROGRAM = "an exported program"
OTHER = "no archive"
NATIVE = (LIBRARY, ENGINE)

_LIBRARIES = (
    b"\x7fELF", b"MZ", b"\xfe\xed\xfa", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe",
)  # fmt: skip
_CODE = (".so", ".dll", ".dylib", ".cubin", ".fatbin", ".hsaco", ".o", ".a", ".cpp", ".cu")
# ONNX Runtime hands such a node to its provider, which runs what was compiled elsewhere
_ENGINE_NODE = b"EPContext"


def needs_trust(paths: Iterable[Path]) -> bool:
    """Whether opening one of these files runs machine code of its maker."""
    return any(what_is(path) in NATIVE for path in paths)


def what_is(path: Path) -> str:
    """`LIBRARY`, `ENGINE`, `PROGRAM` or `OTHER` (ONNX has no mark of its own).

    Raises:
        ExportError: the file is absent, no regular file, or an archive that cannot be listed.
    """
    regular_file(path, ExportError)
    with path.open("rb") as stream:
        head = stream.read(4)
        if head.startswith(_LIBRARIES):
            return LIBRARY
        if zipfile.is_zipfile(stream):
            return _archive(path)
        if not head:
            return OTHER
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return ENGINE if content.find(_ENGINE_NODE) >= 0 else OTHER


def _archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ExportError(f"{path} is no readable archive; export the model again.") from error
    if any("aotinductor/" in f"{name}/" or name.lower().endswith(_CODE) for name in names):
        return LIBRARY
    return PROGRAM
