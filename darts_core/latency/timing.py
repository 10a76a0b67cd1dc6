"""One timed row, and which rows may be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from darts_core.errors import LatencyError

__all__ = ["Timing", "require_comparable", "speedup"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Timing:
    """One timed row. Times are milliseconds a call, memory is MiB above what was held before.

    `flagged` rows were taken under foreign load and stay out of accuracy-latency fronts.
    """

    median_ms: float
    q05_ms: float
    q95_ms: float
    n: int
    device: str
    runtime: str = "eager"
    batch: int | None = None
    threads: int | None = None
    peak_mib: float | None = None
    flagged: bool = False
    flag_reason: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data for a JSON file."""
        return asdict(self)

    def scaled(self, factor: float) -> Timing:
        """The row as it would be at another pace of the device."""
        return replace(
            self, median_ms=self.median_ms * factor, q05_ms=self.q05_ms * factor,
            q95_ms=self.q95_ms * factor,
        )  # fmt: skip

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Timing:
        """The row read back from `to_dict`.

        Raises:
            LatencyError: fields are missing, or the row was written by a newer program.
        """
        version = row.get("schema_version", 0)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise LatencyError(
                f"A latency row has schema_version {version!r}; this program reads up to "
                f"{SCHEMA_VERSION}. Measure again or update darts-core."
            )
        known = {item.name for item in fields(cls)}
        try:
            return cls(**{key: value for key, value in row.items() if key in known})
        except TypeError as error:
            raise LatencyError(f"A latency row is incomplete ({error}); measure again.") from error


def require_comparable(rows: Iterable[Timing]) -> None:
    """Nothing, if all `rows` come from one device (and one thread count).

    Raises:
        LatencyError: two rows come from different hardware.
    """
    seen: Timing | None = None
    for row in rows:
        if seen is None:
            seen = row
        elif (row.device, row.threads) != (seen.device, seen.threads):
            raise LatencyError(
                f"Timings of {_where(seen)} and {_where(row)} cannot be compared; measure both on "
                "one device with the same number of threads."
            )


def _where(row: Timing) -> str:
    threads = f", {row.threads} threads" if row.threads is not None else ""
    return f"{row.device!r}{threads}"


def speedup(before: Timing, after: Timing) -> float:
    """How many times faster `after` is than `before` (medians), refused across devices."""
    require_comparable((before, after))
    return before.median_ms / after.median_ms
