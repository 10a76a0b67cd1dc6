"""Tables from elsewhere: a CSV, and the files of NATS-Bench (arXiv:2009.00437).

NATS-Bench stores pickles. They are read by an unpickler that builds plain containers and numbers only;
a file that asks for anything else is refused and nothing of it is run.
"""

from __future__ import annotations

import bz2
import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from darts_core.bench.tabular import TabularBenchmark, canonical
from darts_core.data.restricted_pickle import encode_latin1
from darts_core.errors import ArchitectureError, ConfigError, DataError, unknown_name
from darts_core.reading import csv_rows, read_text, regular_file
from darts_core.report.escape import plain_text

__all__ = ["from_csv", "from_nats_bench", "open_table"]

log = logging.getLogger("darts_core")
_TEXT_NAMES = ("architecture", "arch", "arch_str", "genotype", "structure")
# NATS-Bench's (data set, evaluation) -> our data:split
_NATS_SPLITS = {
    ("cifar10-valid", "x-valid"): "cifar10:val",
    ("cifar10", "ori-test"): "cifar10:test",
    ("cifar100", "x-valid"): "cifar100:val",
    ("cifar100", "x-test"): "cifar100:test",
    ("ImageNet16-120", "x-valid"): "ImageNet16-120:val",
    ("ImageNet16-120", "x-test"): "ImageNet16-120:test",
}
_MAX_ARCHIVE = 16 * 2**30
_MAX_ENTRY = 256 * 2**20
# in which latencies are stated elsewhere: a column called latency_us holds no milliseconds
_OTHER_UNITS = (
    "s", "sec", "secs", "second", "seconds", "us", "µs", "μs", "usec", "microseconds", "ns"
)  # fmt: skip


def _column_kind(name: str) -> tuple[str, str] | None:
    """("accuracy" or "latency", data set or device) of a CSV column, or None for another column."""
    words = name.strip().lower().replace("-", "_").replace(" ", "_")
    for kind, marks in (("accuracy", ("accuracy", "acc")), ("latency", ("latency_ms", "latency"))):
        for mark in marks:
            if words == mark:
                return kind, "default"
            if words.startswith(mark + "_"):
                return kind, name.strip()[len(mark) + 1 :]
            if words.endswith("_" + mark):
                return kind, name.strip()[: -len(mark) - 1]
    return None


def open_table(path: str | Path, **options: Any) -> TabularBenchmark:
    """A table from an .npz of ours, a CSV, or NATS-Bench files (a folder or a .pickle.pbz2).

    Raises:
        DataError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return TabularBenchmark.load(path)
    if path.suffix in (".csv", ".tsv", ".txt"):
        return from_csv(path, **options)
    if path.is_dir() or path.name.endswith(".pbz2"):
        return from_nats_bench(path, **options)
    raise DataError(
        f"{path} is no table: give an .npz of ours, a .csv, a NATS-Bench folder or a .pickle.pbz2."
    )


def from_csv(path: str | Path, *, name: str = "") -> TabularBenchmark:
    """A table from a CSV (or TSV) with a header.

    Columns: `architecture` (also arch, arch_str, genotype); one or more of `accuracy`,
    `accuracy_<data>` or `<data>_accuracy`; optionally `latency_ms`, `latency_ms_<device>`. A column of
    accuracies that goes above 1 is taken as per cent. An empty cell is an absent value; several rows of
    one architecture (seeds) are averaged; other columns are left out.

    Raises:
        DataError: the file is missing, has no such columns, or a cell is no number; names the line.
    """
    path = Path(path)
    rows = csv_rows(read_text(path), str(path))
    header = [cell.strip() for cell in next(rows, (0, []))[1]]
    place = next((i for i, cell in enumerate(header) if cell.lower() in _TEXT_NAMES), None)
    kinds = {i: kind for i, cell in enumerate(header) if (kind := _column_kind(cell)) is not None}
    if place is None or not any(kind == "accuracy" for kind, _ in kinds.values()):
        raise DataError(
            f"{path} needs a column 'architecture' and a column 'accuracy' (or accuracy_<data>); its "
            f"header is {plain_text(', '.join(header) or 'empty')}."
        )
    _check_columns(path, header, kinds)
    seen: dict[str, dict[tuple[str, str], list[float]]] = {}
    for line, row in rows:
        if row and any(cell.strip() for cell in row):
            _add_row(seen, row, place, kinds, f"{path}, line {line}")
    return _table(name or path.stem, seen)


def _check_columns(path: Path, header: Sequence[str], kinds: Mapping[int, tuple[str, str]]) -> None:
    """Refuse what would be read as another thing than its column says.

    Raises:
        DataError: latencies are in another unit, or two columns are of the same thing.
    """
    named: dict[tuple[str, str], str] = {}
    for index, (kind, label) in kinds.items():
        cell = plain_text(header[index], limit=80)
        words = cell.lower().replace("-", "_").replace(" ", "_")
        if words.removeprefix("latency_") in _OTHER_UNITS:
            raise DataError(
                f"{path}: the column {cell!r} is not in milliseconds; convert it and call it latency_ms."
            )
        if (kind, label) in named:
            raise DataError(
                f"{path}: the columns {named[kind, label]!r} and {cell!r} are of the same thing and would "
                "be averaged; rename or remove one."
            )
        named[kind, label] = cell


def _add_row(
    seen: dict[str, dict[tuple[str, str], list[float]]],
    row: list[str],
    place: int,
    kinds: Mapping[int, tuple[str, str]],
    where: str,
) -> None:
    """Take one CSV row into `seen`."""
    if len(row) <= max(place, *kinds):
        raise DataError(f"{where}: {len(row)} cells, fewer than the header has.")
    try:
        text = canonical(row[place])
    except ArchitectureError as error:
        raise DataError(f"{where}: {error}") from None
    values = seen.setdefault(text, {})
    for index, kind in kinds.items():
        cell = row[index].strip().removesuffix("%")
        if not cell or cell.lower() in ("nan", "none", "null"):
            continue
        try:
            values.setdefault(kind, []).append(float(cell))
        except ValueError:
            raise DataError(f"{where}: {plain_text(cell, limit=40)!r} is not a number.") from None


def _table(
    name: str,
    seen: Mapping[str, Mapping[tuple[str, str], list[float]]],
    *,
    percent: bool = False,
) -> TabularBenchmark:
    """The table of averaged values; `percent`, or a value above 1, says that accuracies are per cent."""
    if not seen:
        raise DataError(f"The table {plain_text(name)!r} holds no row.")
    texts = tuple(seen)
    keys = list(dict.fromkeys(key for values in seen.values() for key in values))
    columns: dict[str, dict[str, Any]] = {"accuracy": {}, "latency": {}}
    for kind, label in keys:
        column = np.full(len(texts), np.nan)
        for index, values in enumerate(seen.values()):
            if values.get((kind, label)):
                column[index] = np.mean(values[kind, label])
        if kind == "accuracy" and (percent or np.nanmax(column) > 1.0):
            column = column / 100.0
        columns[kind][label] = column
    return TabularBenchmark(name, texts, columns["accuracy"], columns["latency"])


class _Dtype:
    """Stands in for numpy.dtype: remembers a number type, nothing else."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        text = code.decode("ascii", "replace") if isinstance(code, bytes) else str(code)
        if text.lstrip("<|=") not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
            raise pickle.UnpicklingError(f"a number of type {plain_text(text, limit=20)!r}")
        self.code = text

    def __setstate__(self, state: Any) -> None:
        """Byte order is the machine's: the files are little-endian and so are all supported devices."""


def _scalar(dtype: Any, data: Any) -> float:
    """Stands in for numpy's scalar constructor."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes) or len(data) > 16:
        raise pickle.UnpicklingError("a number that is not a plain one")
    return float(np.frombuffer(data, dtype=np.dtype(dtype.code))[0])


class _Ordered(dict[Any, Any]):
    """Stands in for OrderedDict: dictionaries keep their order anyway."""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Ordered,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("_codecs", "encode"): encode_latin1,
}


class _Plain(pickle.Unpickler):
    """Builds containers and numbers; any other name in the file ends the reading."""

    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get((module, name))
        if found is None:
            raise pickle.UnpicklingError(f"the name {plain_text(f'{module}.{name}', limit=80)}")
        return found


class _Limited:
    """A bz2 file that stops after `limit` unpacked bytes: a small file can unpack to terabytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self._stream = bz2.open(regular_file(path), "rb")  # noqa: SIM115 - closed by `close`
        self._left = limit

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise pickle.UnpicklingError("more bytes than such a file has")
        return data

    def read(self, size: int = -1) -> bytes:
        # one byte more than is left shows an overflow without unpacking the rest
        return self._taken(
            self._stream.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        )

    def readline(self, size: int = -1) -> bytes:
        return self._taken(self._stream.readline(self._left + 1 if size < 0 else size))

    def close(self) -> None:
        self._stream.close()


def _unpickle(path: Path, limit: int) -> Any:
    """The plain content of a NATS-Bench pickle.

    Raises:
        DataError: the file is damaged or asks for anything but containers and numbers.
    """
    stream = _Limited(path, limit)
    try:
        return _Plain(stream).load()
    except Exception as error:  # a damaged pickle may fail with nearly every built-in exception
        reason = f"it holds {error}" if isinstance(error, pickle.UnpicklingError) else (
            f"{type(error).__name__}: {plain_text(error, limit=100)}"
        )  # fmt: skip
        raise DataError(
            f"{path} is not a NATS-Bench file of plain values ({reason}). Nothing of it was run. Use the "
            "files whose names end in '-simple' or the full .pickle.pbz2 of the benchmark."
        ) from error
    finally:
        stream.close()


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(architecture, results by training length) of each entry, one in memory at a time where possible."""
    if path.is_dir():
        meta = _unpickle(path / "meta.pickle.pbz2", _MAX_ENTRY)
        texts = list(meta["meta_archs"])
        entries = [path / f"{index:06d}.pickle.pbz2" for index in range(len(texts))]
        there = [pair for pair in zip(texts, entries, strict=True) if pair[1].is_file()]
        if len(there) < len(texts):
            log.warning(
                "%s holds files of %d of its %d architectures: ranks and regrets are among these",
                path, len(there), len(texts),
            )  # fmt: skip
        for text, entry in there:
            yield text, _unpickle(entry, _MAX_ENTRY)
        return
    content = _unpickle(path, _MAX_ARCHIVE)
    texts, infos = list(content["meta_archs"]), content["arch2infos"]
    for index, entry in infos.items():
        yield texts[index], entry


def from_nats_bench(path: str | Path, *, hp: str = "200", name: str = "") -> TabularBenchmark:
    """A table from NATS-Bench files that the user has: the folder `NATS-...-simple` or the .pickle.pbz2.

    Accuracies are the mean over seeds after the last epoch, as `cifar10:val`, `cifar10:test` ... ;
    latencies are those the benchmark states, per data set.

    Args:
        path: the folder or file.
        hp: training length: "200" or "12" (topology), "90", "12" or "01" (size).
        name: of the table; the file's by default.

    Raises:
        DataError: a file is missing, damaged, of another form, or asks for code.
        ConfigError: no entry has that training length.
    """
    path = Path(path)
    needed = path / "meta.pickle.pbz2" if path.is_dir() else path
    if not needed.is_file():
        raise DataError(
            f"There is no file {needed}; give a NATS-Bench folder or .pickle.pbz2 file."
        )
    seen: dict[str, dict[tuple[str, str], list[float]]] = {}
    lengths: set[str] = set()
    try:
        for text, entry in _entries(path):
            lengths |= {str(key) for key in entry}
            if str(hp) in entry:
                seen[canonical(str(text))] = _nats_values(entry[str(hp)])
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(
            f"{path} does not have the form of a NATS-Bench file ({type(error).__name__}: "
            f"{plain_text(error, limit=100)})."
        ) from error
    if not seen:
        raise ConfigError(unknown_name("training length hp=", str(hp), lengths))
    return _table(name or path.name.split(".")[0], seen, percent=True)


def _nats_values(result: Mapping[str, Any]) -> dict[tuple[str, str], list[float]]:
    """Accuracies (per cent) and latencies (ms) of one architecture, one value a seed."""
    values: dict[tuple[str, str], list[float]] = {}
    for (data, _), trial in result["all_results"].items():
        last = int(trial["epochs"]) - 1
        for split in trial["eval_names"]:
            ours = _NATS_SPLITS.get((data, split))
            accuracy = trial["eval_acc1es"].get(f"{split}@{last}")
            if ours is not None and accuracy is not None:
                values.setdefault(("accuracy", ours), []).append(float(accuracy))
        times = [float(t) for t in trial.get("latency") or () if float(t) > 0]
        if times:
            values.setdefault(("latency", f"nats-bench {data}"), []).append(
                1e3 * float(np.mean(times))
            )
    return values
