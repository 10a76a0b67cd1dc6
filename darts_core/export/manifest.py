"""manifest.json: what an export folder holds, how to feed it, how exact and fast each file is."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darts_core.data.checks import told_apart
from darts_core.data.kinds import KINDS
from darts_core.errors import ConfigError, ExportError
from darts_core.named_inputs import NamedInput, read_named, shapes_of, total
from darts_core.reading import is_number, read_json, regular_file

__all__ = [
    "SCHEMA_VERSION",
    "DataMeta",
    "check_files",
    "data_meta",
    "read_manifest",
    "refuse_part",
    "sha256",
]

SCHEMA_VERSION = 1
_NEEDED = ("schema_version", "classes", "input_shape", "mean", "std", "artifacts")
_MOST_PIXELS = 2**26
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class DataMeta:
    """What a model's user must know.

    Attributes:
        classes: what the outputs are called.
        input_shape: (C, H, W), (C, T), or (T,) of tokens.
        mean, std: one number a channel; inputs are `(value / unit - mean) / std`. Of tokens none.
        name: of the data set.
        task: as `Task.describe` gives it; empty in files from before there were tasks.
        unit: 255 of uint8 images, else 1.
        vocabulary: what token numbers stand for.
        rate: samples a second of a series.
        named: what the row of a sample is made of, where the network takes several inputs by name.
    """

    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str = ""
    task: Mapping[str, Any] = field(default_factory=dict)
    unit: int = 255
    vocabulary: tuple[str, ...] = ()
    rate: float | None = None
    named: tuple[NamedInput, ...] = ()

    @property
    def fed(self) -> str:
        """How inputs must come, in words."""
        if self.named:
            return f"float32 [batch, 1, values], raw values of {shapes_of(self.named)} side by side"
        kind = KINDS[len(self.input_shape) + 1]
        return kind.fed.replace("value", "pixel / 255" if self.unit == 255 else "value")


def data_meta(source: Any) -> DataMeta:
    """`source` (a `DataMeta`, a data bundle, or a mapping with the same names) as a `DataMeta`.

    Raises:
        ExportError: a value is missing, of another type, or the numbers of channels disagree.
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

    def optional(name: str) -> Any:
        return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)

    def values(kind: Any, *names: str) -> tuple[Any, ...]:
        found = read(*names)
        try:
            if isinstance(found, (str, bytes, Mapping)):
                raise TypeError("one value where a list is needed")
            return tuple(kind(item) for item in found)
        except (TypeError, ValueError, OverflowError) as error:
            raise ExportError(
                f"{names[0]} = {str(found)[:80]} of the data's description is no list of "
                f"{'names' if kind is str else 'numbers'} ({error})."
            ) from None

    shape = values(int, "input_shape", "image_shape")
    mean, std = values(float, "mean"), values(float, "std")
    channels = shape[0] if len(shape) in (2, 3) else 0
    if len(shape) not in (1, 2, 3) or len(mean) != channels or len(std) != channels:
        raise ExportError(
            f"Input shape {shape}, mean {mean} and std {std} do not fit; there must be one mean "
            "and one std a channel of (channels, height, width) or (channels, positions)."
        )
    if min(shape) < 1 or math.prod(shape) > _MOST_PIXELS:
        raise ExportError(f"Input shape {shape} is no input of at most {_MOST_PIXELS:,} values.")
    if not all(math.isfinite(value) for value in (*mean, *std)) or min(std, default=1.0) <= 0.0:
        raise ExportError(f"mean {mean} or std {std} holds a value that is not finite or positive.")
    # answers go by name: of two classes called crane one would get the other's
    classes = told_apart(values(str, "class_names", "classes"), "The description of the data")
    if not classes:
        raise ExportError("The description of the data names no classes.")
    try:
        # saved networks and manifests call it `data`
        name = str(read("name", *(["data"] if isinstance(source, Mapping) else [])))
    except ExportError:
        name = ""
    task, unit = optional("task"), optional("unit")
    vocabulary, rate = optional("vocabulary") or (), optional("rate")
    described = getattr(task, "describe", lambda: task or {})()
    known = isinstance(described, Mapping) and unit in (None, 1, 255)
    texts = isinstance(vocabulary, (list, tuple)) and all(isinstance(t, str) for t in vocabulary)
    number = rate is None or (isinstance(rate, (int, float)) and 0 < rate < math.inf)
    if not (known and texts and number):
        raise ExportError(
            "task, unit, vocabulary or rate of the data's description is damaged (unit "
            f"{str(unit)[:40]}, rate {str(rate)[:40]}); export the model again."
        )
    # a saved network of ours, which names its data, leaves out 255
    ours = isinstance(source, Mapping) and "data" in source
    usual = 255 if len(shape) == 3 or ours else 1
    return DataMeta(
        classes, shape, mean, std, name, described, unit or usual, tuple(vocabulary), rate,
        _named(optional("named"), shape),
    )  # fmt: skip


def _named(found: Any, shape: tuple[int, ...]) -> tuple[NamedInput, ...]:
    if not found:
        return ()
    if isinstance(found, tuple):
        return found
    try:
        named = read_named(found, "the data's description")
    except ConfigError as error:
        raise ExportError(str(error)) from None
    if shape != (1, total(named)):
        raise ExportError(
            f"The named inputs of the data's description do not fill its shape {shape}."
        )
    return named


def sha256(path: str | Path) -> str:
    """The file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def refuse_part(path: Path) -> None:
    """Nothing, unless one file of an export is given in place of its folder.

    Raises:
        ExportError: it is.
    """
    if path.name == "manifest.json" or path.suffix.lower() in (".onnx", ".pt2"):
        raise ExportError(
            f"{path} is one file of an export: name its folder, {path.parent}, and by runtime (in a command "
            "--runtime NAME) which of its files is to run; manifest.json lists them."
        )


def _no_export(folder: str | Path) -> str:
    """Why a folder is no export, with the command that makes one where a model was given instead."""
    given = Path(folder)
    if given.is_file():
        refuse_part(given)
    named = ":" in str(folder) and not given.exists()
    if named or given.is_file() or (given / "model.pt").is_file():
        return (
            f"{folder} is a model, and exported files are run here: write them with `darts-core export "
            f"model={folder}` and name the folder that it says."
        )
    return f"{folder} holds no manifest.json; name a folder that `export` wrote."


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of an export folder; every value that the program goes by is of its type.

    What it says of the files is compared with the files when one is opened.

    Raises:
        ExportError: it is missing, damaged or written by a newer program.
    """
    path = Path(folder) / "manifest.json"
    if not path.exists():
        raise ExportError(_no_export(folder))
    manifest = read_json(path, ExportError)
    if not isinstance(manifest, dict) or any(key not in manifest for key in _NEEDED):
        raise ExportError(f"{path} lacks one of {', '.join(_NEEDED)}; export the model again.")
    version = manifest["schema_version"]
    if type(version) is not int or version > SCHEMA_VERSION:
        raise ExportError(
            f"{path} has schema_version {version!r}; this program reads up to {SCHEMA_VERSION}. "
            "Update darts-core."
        )
    try:
        data_meta(manifest)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from None
    artifacts = manifest["artifacts"]
    if not isinstance(artifacts, dict):
        raise _wrong(path, "artifacts", artifacts, "a mapping of names to files")
    for name, artifact in artifacts.items():
        _check_artifact(path, f"artifacts.{name}", artifact)
    return manifest


def _check_artifact(path: Path, where: str, artifact: Any) -> None:
    if not isinstance(artifact, dict):
        raise _wrong(path, where, artifact, "a mapping with kind, precision and files")
    for key in ("kind", "precision"):
        if not isinstance(artifact.get(key), str):
            raise _wrong(path, f"{where}.{key}", artifact.get(key), "a text")
    device = artifact.get("device", "cpu")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise _wrong(path, f"{where}.device", device, "cpu, cuda or cuda:N")
    chunk = artifact.get("chunk")
    if chunk is not None and (type(chunk) is not int or not 0 < chunk < 2**31):
        raise _wrong(path, f"{where}.chunk", chunk, "a number of images, or null")
    files = artifact.get("files")
    if not isinstance(files, list) or not files:
        raise _wrong(path, f"{where}.files", files, "a list of name and sha256")
    for entry in files:
        known = isinstance(entry, dict) and isinstance(entry.get("name"), str)
        if not known or not isinstance(entry.get("sha256"), str):
            raise _wrong(path, f"{where}.files", entry, "a name and a sha256")
    _check_latency(path, f"{where}.latency", artifact.get("latency"))


def _check_latency(path: Path, where: str, latency: Any) -> None:
    if latency is None:
        return
    if not isinstance(latency, dict) or not all(isinstance(r, dict) for r in latency.values()):
        raise _wrong(path, where, latency, "a mapping of batch sizes to timings")
    for batch, row in latency.items():
        number = row.get("median_ms")
        if (
            not is_number(number)
            or not math.isfinite(number)
            or number <= 0
            or not batch.isdecimal()
        ):
            raise _wrong(path, f"{where}.{batch}.median_ms", number, "milliseconds above 0")


def _wrong(path: Path, where: str, value: Any, needed: str) -> ExportError:
    return ExportError(
        f"{path}: {where[:80]} is {str(value)[:80]!r}; needed is {needed}. Export the model again."
    )


def check_files(folder: Path, artifact: Mapping[str, Any]) -> list[Path]:
    """The artifact's files, each with the hash that the manifest states. Nothing in them is read as more
    than bytes.

    Raises:
        ExportError: a file is missing, lies elsewhere, or was changed.
    """
    found = []
    for entry in artifact["files"]:
        name = entry["name"]
        path = folder / name
        if Path(name).name != name or path.is_symlink():
            raise ExportError(
                f"{folder / 'manifest.json'} names {name!r}, which is no plain file of it."
            )
        if not path.exists():
            raise ExportError(f"{path} is missing; export the model again.")
        if sha256(regular_file(path, ExportError)) != entry["sha256"]:
            raise ExportError(
                f"{path} was changed since it was exported (its SHA-256 is not the manifest's); "
                "export the model again."
            )
        found.append(path)
    return found
