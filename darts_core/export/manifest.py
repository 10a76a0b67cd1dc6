"""manifest.json: what an export folder holds, how to feed it, how exact and fast each file is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darts_core import runlog
from darts_core.errors import DartsError, ExportError

__all__ = ["SCHEMA_VERSION", "DataMeta", "check_files", "data_meta", "read_manifest", "sha256"]

SCHEMA_VERSION = 1
_NEEDED = ("schema_version", "classes", "input_shape", "mean", "std", "artifacts")


@dataclass(frozen=True)
class DataMeta:
    """What a model's user must know: classes, input (C, H, W), normalisation in 0..1 units."""

    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str = ""


def data_meta(source: Any) -> DataMeta:
    """`source` (a `DataMeta`, a data bundle, or a mapping with the same names) as a `DataMeta`.

    Raises:
        ExportError: a value is missing or the numbers of channels disagree.
    """
    if isinstance(source, DataMeta):
        return source

    def read(*names: str) -> Any:
        for name in names:
            if isinstance(source, Mapping):
                if name in source:
                    return source[name]
            elif hasattr(source, name):
                return getattr(source, name)
        raise ExportError(f"The description of the data lacks {names[0]!r}; give it a value.")

    shape = tuple(int(size) for size in read("image_shape", "input_shape"))
    mean = tuple(float(value) for value in read("mean"))
    std = tuple(float(value) for value in read("std"))
    if len(shape) != 3 or len(mean) != shape[0] or len(std) != shape[0]:
        raise ExportError(
            f"Input shape {shape}, mean {mean} and std {std} do not fit; there must be one mean "
            "and one std a channel of (channels, height, width)."
        )
    if any(value <= 0.0 for value in std):
        raise ExportError(f"std {std} holds a value that is not positive.")
    classes = tuple(str(item) for item in read("class_names", "classes"))
    try:
        name = str(read("name"))
    except ExportError:
        name = ""
    return DataMeta(classes, (shape[0], shape[1], shape[2]), mean, std, name)


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of an export folder, checked for shape and version.

    Raises:
        ExportError: it is missing, damaged or written by a newer program.
    """
    path = Path(folder) / "manifest.json"
    if not path.is_file():
        raise ExportError(f"{folder} holds no manifest.json; name a folder that `export` wrote.")
    try:
        manifest = runlog.read_json(path)
    except DartsError as error:
        raise ExportError(str(error)) from error
    if not isinstance(manifest, dict) or any(key not in manifest for key in _NEEDED):
        raise ExportError(f"{path} lacks one of {', '.join(_NEEDED)}; export the model again.")
    version = manifest["schema_version"]
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ExportError(
            f"{path} has schema_version {version!r}; this program reads up to {SCHEMA_VERSION}. "
            "Update darts-core."
        )
    data_meta(manifest)
    return manifest


def check_files(folder: Path, artifact: Mapping[str, Any]) -> list[Path]:
    """The artifact's files, each with the hash that the manifest states.

    Raises:
        ExportError: a file is missing, lies elsewhere, or was changed.
    """
    names: Sequence[Any] = artifact.get("files", ())
    found = []
    for entry in names:
        name = str(entry["name"])
        path = folder / name
        if Path(name).name != name or path.is_symlink():
            raise ExportError(
                f"{folder / 'manifest.json'} names {name!r}, which is no plain file of it."
            )
        if not path.is_file():
            raise ExportError(f"{path} is missing; export the model again.")
        if sha256(path) != entry["sha256"]:
            raise ExportError(
                f"{path} was changed since it was exported (its SHA-256 is not the manifest's); "
                "export the model again."
            )
        found.append(path)
    if not found:
        raise ExportError(f"{folder / 'manifest.json'} names no file for this artifact.")
    return found
