"""Tabular benchmarks: the known accuracy of every architecture of a space, to judge searches by.

A table is one compact `.npz`: architecture strings, accuracies per data set (or `data:split`) and
latencies per device. It is made from a CSV or from NATS-Bench files (`tabular_read`) and holds no code.
Accuracies are fractions 0..1, latencies milliseconds; NaN where a value is absent.
"""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from darts_core.architecture import Architecture, CellChoice
from darts_core.errors import ArchitectureError, ConfigError, DataError, unknown_name
from darts_core.reading import DAMAGE, regular_file
from darts_core.report.escape import plain_text
from darts_core.runlog import write_bytes

__all__ = ["Lookup", "TabularBenchmark", "canonical", "summarize"]

log = logging.getLogger("darts_core")
SCHEMA_VERSION = 1
_MAX_BYTES = 2 * 2**30
Values = NDArray[np.float64]


def canonical(architecture: Architecture | str) -> str:
    """One text for every way to write the same architecture: edges sorted by target, source, operation.

    A text that is no architecture notation (a size-space string such as 64:32:16) only loses the
    spaces around it.
    """
    if isinstance(architecture, str):
        text = architecture.strip()
        if not text.startswith(("Genotype", "|")):
            return text
        architecture = Architecture.from_text(text)
    cells = tuple(
        (kind, CellChoice(tuple(sorted(cell.edges, key=lambda e: (e[1], e[0], e[2]))), cell.concat))
        for kind, cell in architecture.cells
    )
    return Architecture(architecture.space, cells, architecture.choices).text()


@dataclass(frozen=True)
class Lookup:
    """What a table says of one architecture.

    `rank` 1 is the best of `total` architectures with a known accuracy (equal ones share a rank);
    `regret` is the best accuracy less this one's; `percentile` the share of architectures that are
    not better.
    """

    architecture: str
    data: str
    accuracy: float
    regret: float
    rank: int
    total: int
    percentile: float
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a result or a report."""
        return asdict(self)


@dataclass(frozen=True)
class TabularBenchmark:
    """A table in memory. Shapes: every array of `accuracies` and `latencies` [architectures].

    Raises:
        DataError: two entries are the same architecture, lengths differ, an accuracy lies outside
            0..1, or a latency is not positive.
    """

    name: str
    architectures: tuple[str, ...]
    accuracies: Mapping[str, Values]
    latencies: Mapping[str, Values] = field(default_factory=dict)
    _index: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.architectures or not self.accuracies:
            raise DataError(f"The table {self.name!r} needs architectures and accuracies.")
        self._index.update({text: i for i, text in enumerate(self.architectures)})
        if len(self._index) != len(self.architectures):
            raise DataError(f"The table {self.name!r} holds an architecture twice.")
        for kind, columns in (("accuracy", self.accuracies), ("latency", self.latencies)):
            for key, values in columns.items():
                where = f"The {kind} {plain_text(key)!r} of the table {plain_text(self.name)!r}"
                if values.shape != (len(self.architectures),):
                    raise DataError(
                        f"{where} has shape {values.shape}, not one value for each of the "
                        f"{len(self.architectures)} architectures."
                    )
                known = values[~np.isnan(values)]
                good = (known >= 0) & (known <= 1) if kind == "accuracy" else known > 0
                if not good.all() or not np.isfinite(known).all():
                    allowed = "between 0 and 1" if kind == "accuracy" else "above 0 ms"
                    raise DataError(f"{where} holds {known[~good][:1]}; allowed is {allowed}.")

    def __len__(self) -> int:
        return len(self.architectures)

    def __contains__(self, architecture: object) -> bool:
        return (
            isinstance(architecture, (str, Architecture)) and canonical(architecture) in self._index
        )

    def column(self, data: str | None = None) -> tuple[str, Values]:
        """The accuracies of a data set, with its full name; `None` takes the only or a test one.

        Raises:
            ConfigError: the data set is unknown, or None could mean several.
        """
        names = list(self.accuracies)
        if data is None:
            tests = [name for name in names if name.endswith(":test")]
            if len(names) > 1 and len(tests) != 1:
                raise ConfigError(
                    f"The table {self.name!r} has several data sets; choose one of {', '.join(names)}."
                )
            data = names[0] if len(names) == 1 else tests[0]
        if data not in self.accuracies and f"{data}:test" in self.accuracies:
            data = f"{data}:test"
        if data not in self.accuracies:
            raise ConfigError(unknown_name("data set of the table", data, names))
        return data, self.accuracies[data]

    def lookup(self, architecture: Architecture | str, data: str | None = None) -> Lookup:
        """Accuracy, regret and rank of one architecture.

        Raises:
            ArchitectureError: the table does not hold it, or has no accuracy for it.
            ConfigError: the data set is unknown.
        """
        text = canonical(architecture)
        name, values = self.column(data)
        place = self._index.get(text)
        if place is None or np.isnan(values[place]):
            what = "does not hold" if place is None else f"has no accuracy on {name} for"
            raise ArchitectureError(
                f"The table {self.name!r} ({len(self)} architectures) {what} {text[:200]!r}; it must be "
                "of the space that the table was made of."
            )
        known = values[~np.isnan(values)]
        accuracy = float(values[place])
        better = int((known > accuracy).sum())
        latency = {
            device: float(column[place])
            for device, column in self.latencies.items()
            if not np.isnan(column[place])
        }
        return Lookup(
            text,
            name,
            accuracy,
            float(known.max()) - accuracy,
            better + 1,
            len(known),
            (len(known) - better) / len(known),
            latency,
        )

    def save(self, path: str | Path) -> Path:
        """Write the table as a compressed .npz that holds plain arrays only."""
        arrays: dict[str, Any] = {
            "schema_version": np.array(SCHEMA_VERSION),
            "name": _bytes([self.name]),
            "architectures": _bytes(self.architectures),
            "accuracy_names": _bytes(list(self.accuracies)),
            "accuracies": np.stack(list(self.accuracies.values())).astype(np.float32),
        }
        if self.latencies:
            arrays["latency_names"] = _bytes(list(self.latencies))
            arrays["latencies"] = np.stack(list(self.latencies.values())).astype(np.float32)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_bytes(path, buffer.getvalue())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> TabularBenchmark:
        """Read what `save` wrote; nothing in the file is unpickled.

        Raises:
            DataError: the file is missing, damaged, too large, or from a newer program.
        """
        path = regular_file(path)
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
            if size > _MAX_BYTES:
                raise DataError(
                    f"{path} unpacks to {size >> 20} MiB, above {_MAX_BYTES >> 20} MiB."
                )
            with np.load(path, allow_pickle=False) as stored:
                content = {key: stored[key] for key in stored.files}
            version = int(content["schema_version"])
            if version > SCHEMA_VERSION:
                raise DataError(
                    f"{path} has schema_version {version}; this program reads up to {SCHEMA_VERSION}. "
                    "Update darts-core."
                )
            return cls(
                _texts(content["name"])[0],
                tuple(_texts(content["architectures"])),
                _columns(content, "accuracy_names", "accuracies"),
                _columns(content, "latency_names", "latencies"),
            )
        except DAMAGE as error:
            raise DataError(
                f"{path} is not a table of ours or is damaged ({type(error).__name__}: "
                f"{plain_text(error)}); convert it again."
            ) from error


def _bytes(texts: Sequence[str]) -> NDArray[np.uint8]:
    """Texts joined by line breaks as bytes: a tenth of numpy's fixed-width text arrays."""
    return np.frombuffer("\n".join(" ".join(t.split("\n")) for t in texts).encode(), dtype=np.uint8)


def _texts(array: NDArray[np.uint8]) -> list[str]:
    return bytes(array.astype(np.uint8)).decode().split("\n")


def _columns(content: Mapping[str, Any], names: str, values: str) -> dict[str, Values]:
    if names not in content:
        return {}
    table = np.asarray(content[values], dtype=np.float64)
    return dict(zip(_texts(content[names]), table, strict=True))


def summarize(
    table: TabularBenchmark, found: Mapping[str, Iterable[str]], data: str | None = None
) -> list[dict[str, Any]]:
    """One row a strategy: what its architectures score in the table, best median rank first.

    Returns:
        strategy, n, accuracy mean / std (sample) / worst, regret mean, median rank, total.

    Raises:
        ArchitectureError: an architecture is not in the table.
        ConfigError: a strategy brought none, or the data set is unknown.
    """
    rows = []
    for strategy, architectures in found.items():
        seen = [table.lookup(architecture, data) for architecture in architectures]
        if not seen:
            raise ConfigError(f"The strategy {strategy!r} brought no architecture to look up.")
        accuracy = np.array([item.accuracy for item in seen])
        rows.append(
            {
                "strategy": strategy,
                "n": len(seen),
                "data": seen[0].data,
                "accuracy_mean": float(accuracy.mean()),
                "accuracy_std": float(accuracy.std(ddof=1)) if len(seen) > 1 else None,
                "accuracy_worst": float(accuracy.min()),
                "regret_mean": float(np.mean([item.regret for item in seen])),
                "median_rank": float(np.median([item.rank for item in seen])),
                "total": seen[0].total,
            }
        )
    return sorted(rows, key=lambda row: (row["median_rank"], row["strategy"]))
