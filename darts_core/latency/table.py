"""The latency table: each operation of a space, at each shape it occurs at, timed on this device.

Rows are keyed by operation, shape, stride and batch; the file states device, threads, runtime and
versions, and is refused on another device. It is written while it grows, so that an interrupted
build goes on where it stopped; several processes may fill one file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import nn

from darts_core import runlog
from darts_core.device import require_device
from darts_core.errors import DartsError, LatencyError
from darts_core.latency import device as _device
from darts_core.latency.deployed import DTYPES, RUNTIMES, settle_seconds, without_norms
from darts_core.latency.edge_shapes import Place, find_places
from darts_core.latency.measure import default_batch_sizes, default_runtime
from darts_core.latency.rows import REWRITING, ROUND_SECONDS, Timed, groups_of, time_group
from darts_core.ops import create_op
from darts_core.reading import finite
from darts_core.sample_inputs import draw_inputs

__all__ = [
    "LatencyTable",
    "Place",
    "build_table",
    "fill_table",
    "find_places",
    "open_table",
    "table_settings",
]

log = logging.getLogger("darts_core")
SCHEMA_VERSION = 2
_SAVE_EVERY_SECONDS = 5.0
# for a file that another process writes; it is written in far less
_PATIENCE_SECONDS = 60.0
_FREE = ("none",)  # adds nothing to a sum and is not run


@dataclass
class LatencyTable:
    """Times in milliseconds by `Place.key`, and the fit that turns their sum into a network's time.

    Attributes:
        device: the hardware's name.
        threads: CPU threads; None on a GPU.
        runtime: one of `RUNTIMES`.
        dtype: number format of the timed operations.
        rows: key -> median milliseconds.
        fits: `CostModel.fit_key` -> {"overhead_ms", "slope", ...} from `check_predictions`.
        versions: of torch and the runtime.
        flagged: keys of rows that were taken under foreign load; the next build takes them anew.
    """

    device: str
    runtime: str
    threads: int | None = None
    dtype: str = "float32"
    rows: dict[str, float] = field(default_factory=dict)
    fits: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    flagged: list[str] = field(default_factory=list)
    # the fits of the file when it was read or written last
    _read: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def ms(self, place: Place, op: str, batch: int) -> float:
        """Time of `op` at `place`; operations that are not run take none.

        Raises:
            LatencyError: the row was not measured.
        """
        if op in _FREE or (op == "skip_connect" and place.stride == 1):
            return 0.0
        key = place.key(op, batch)
        if key not in self.rows:
            key = place.key(op, batch, by_name=True)
        if key not in self.rows:
            raise LatencyError(
                f"The latency table lacks {key!r}; build it again with the space, channels, layers "
                "and image size of this search."
            )
        return self.rows[key]

    def require_device(self, device: str | torch.device) -> None:
        """Nothing, if the table was measured on this device.

        Raises:
            LatencyError: it was measured on other hardware.
        """
        here = _device.device_name(device)
        if here != self.device:
            raise LatencyError(
                f"The latency table was measured on {self.device!r}; this is {here!r}. Build one "
                "here: darts-core latency build."
            )

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, with what another process has measured into the same file since.

        What a file holds that is no table of this device, runtime, threads and number format is replaced.
        """
        with _alone_with(Path(path)):
            self.catch_up(path)
            content = {
                "schema_version": SCHEMA_VERSION,
                "device": self.device,
                "threads": self.threads,
                "runtime": self.runtime,
                "dtype": self.dtype,
                "versions": self.versions,
                "fits": self.fits,
                "flagged": self.flagged,
                "rows": self.rows,
            }
            runlog.write_json(path, content)
        self._read = dict(self.fits)

    def catch_up(self, path: str | Path) -> None:
        """Take over what the file has and the table lacks, or has from a disturbed timing or from before."""
        try:
            other = LatencyTable.load(path)
        except LatencyError:
            return  # there is none, or it is to be replaced
        if other._kind() != self._kind():
            return
        ours, theirs = {*self.flagged}, {*other.flagged}
        better = ours - theirs
        taken = {k: v for k, v in other.rows.items() if k not in self.rows or k in better}
        self.rows |= taken
        self.flagged = sorted((ours - {*taken}) | (theirs & {*taken}))
        for key, fit in other.fits.items():
            # one that was fitted here since is the newer one
            if key not in self.fits or self.fits[key] == self._read.get(key):
                self.fits[key] = fit
        self._read = dict(other.fits)

    def _kind(self) -> tuple[Any, ...]:
        return self.device, self.runtime, self.threads, self.dtype

    @classmethod
    def load(cls, path: str | Path, *, device: str | torch.device | None = None) -> LatencyTable:
        """The table in a file; given a device, only if it was measured on it.

        Raises:
            LatencyError: the file is missing, damaged, newer, or of another device.
        """
        try:
            content = runlog.read_mapping(path)
        except DartsError as error:
            raise LatencyError(f"{error} Build one: darts-core latency build.") from error
        if "rows" not in content:
            raise LatencyError(f"{path} is no latency table; build one: darts-core latency build.")
        version = content.get("schema_version", 0)
        if type(version) is not int or version > SCHEMA_VERSION:
            raise LatencyError(
                f"{path} has schema_version {version!r}; this program reads up to {SCHEMA_VERSION}."
            )
        if version < SCHEMA_VERSION:
            raise LatencyError(
                f"{path} has schema_version {version}: operations were timed another way. Build "
                "another beside it: darts-core latency build table=FILE."
            )
        for key, fits in _FIELDS.items():
            if (key not in content and key != "flagged") or not fits(content.get(key, [])):
                shown = str(content.get(key, "missing"))[:80]
                raise LatencyError(
                    f"{path}: {key} is {shown!r}, which no table has; build it again: darts-core "
                    "latency build."
                )
        table = cls(
            content["device"], content["runtime"], content["threads"], content["dtype"],
            content["rows"], content["fits"], content["versions"], content.get("flagged", []),
        )  # fmt: skip
        table._read = dict(table.fits)
        if device is not None:
            table.require_device(device)
        return table


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """A block in which no other process of this program writes `path`.

    A file system without locks has none to give; there the block runs all the same.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # a lock file that stands for the lock by being there would outlive a killed holder
    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)
    with suppress(OSError):  # also where it stays taken for so long
        lock.acquire(timeout=_PATIENCE_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _is_time(value: Any) -> bool:
    return finite(value) is not None


def _is_fit(value: Any) -> bool:
    known = isinstance(value, dict) and {"overhead_ms", "slope"} <= set(value)
    return known and all(_is_time(value[key]) for key in ("overhead_ms", "slope"))


def _maps(kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(kind, value.values()))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# what each field of a saved table has to be
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "device": _is_text,
    "runtime": _is_text,
    "dtype": _is_text,
    "threads": lambda value: value is None or (type(value) is int and value > 0),
    "rows": _maps(_is_time),
    "fits": _maps(_is_fit),
    "versions": _maps(lambda value: value is None or _is_text(value)),
    "flagged": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}


def build_table(
    supernet: nn.Module,
    ops: Sequence[str],
    input_shape: Sequence[int],
    *,
    path: str | Path | None = None,
    device: str | torch.device = "cpu",
    runtime: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    seconds: float = ROUND_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """Time every operation of a space at every shape at which it occurs.

    Args:
        supernet: of the space, with the channels and layers of the network to be built.
        ops: the space's operations.
        input_shape: (C, H, W).
        path: the table's file; rows that it holds already are not timed again, unless they were
            taken under foreign load.
        device: where.
        runtime: how the network will run; ONNX Runtime on a CPU, CUDA graphs on a GPU by default.
        batch_sizes: batch 1 and the throughput batch by default.
        dtype: number format; on a CPU operations are timed in float32.
        seconds: time for the samples of one call in one round.
        progress: called with (rows done, rows in all).

    Raises:
        LatencyError: the runtime cannot run here or cannot express an operation, or the file
            belongs to another device or runtime.
    """
    home, runtime, sizes = table_settings(device, runtime, dtype, batch_sizes)
    table = open_table(path, home, runtime, dtype)
    wanted = {
        key: _Operation(place, op, batch)
        for key, (place, op, batch) in _wanted(
            find_places(supernet, input_shape), ops, sizes
        ).items()
    }
    fill_table(table, wanted, path=path, device=home, seconds=seconds, progress=progress)
    return table


def fill_table(
    table: LatencyTable,
    wanted: Mapping[str, Timed],
    *,
    path: str | Path | None,
    device: torch.device,
    seconds: float = ROUND_SECONDS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Time what `wanted` names and the table lacks, or has from a disturbed timing.

    Args:
        table: receives the rows, and is written to `path` while it grows.
        wanted: key -> what is to be timed.
        path: the table's file, or None.
        device: where.
        seconds: time for the samples of one call in one round.
        progress: called with (rows done, rows in all).
    """
    # a session of one thread has no others that could go on spinning
    spins = table.runtime == "onnx" and table.threads != 1
    settle = settle_seconds(table.runtime) if spins else 0.0
    with _device.device_lock(device), _device.pinned_threads(device):
        if path is not None:  # whoever had the lock before may have timed the same
            table.catch_up(path)
        missing = {k: s for k, s in wanted.items() if k not in table.rows or k in table.flagged}
        if missing:
            log.info("timing %d of %d rows of the latency table", len(missing), len(wanted))
        started = saved = time.monotonic()
        done = len(wanted) - len(missing)
        if progress is not None:
            progress(done, len(wanted))
        for group in groups_of(missing, table.runtime, device, getattr(torch, table.dtype)):
            times, disturbed = time_group(group, device, seconds=seconds, settle=settle)
            table.rows |= times
            flagged = {*table.flagged} - {*times}
            table.flagged = sorted(flagged | {*times} if disturbed else flagged)
            done += len(times)
            if path is not None and time.monotonic() - saved > _SAVE_EVERY_SECONDS:
                table.save(path)
                saved = time.monotonic()
            if progress is not None:
                progress(done, len(wanted))
    if path is not None:
        table.save(path)
    if missing:
        log.info("timed %d rows in %.0f s", len(missing), time.monotonic() - started)
    bad = len({*table.flagged} & {*wanted})
    if bad:
        log.warning(
            "%d of %d rows were timed while other processes were busy; build the table again while "
            "the device is quiet to take them anew",
            bad,
            len(wanted),
        )


def table_settings(
    device: str | torch.device,
    runtime: str | None,
    dtype: torch.dtype,
    batch_sizes: Sequence[int] | None,
) -> tuple[torch.device, str, tuple[int, ...]]:
    """The device, runtime and batch sizes of a table, with defaults for what is None.

    Raises:
        LatencyError: the runtime is unknown or the number format cannot be timed there.
    """
    home = require_device(device)
    runtime = runtime or default_runtime(home)
    if runtime not in RUNTIMES:
        raise LatencyError(f"Unknown runtime {runtime!r}; use {', '.join(RUNTIMES)}.")
    if dtype not in DTYPES.values() or (home.type == "cpu" and dtype != torch.float32):
        raise LatencyError(
            f"Operations cannot be timed in {dtype} on {home}; use {', '.join(DTYPES)} on a GPU and "
            "fp32 on a CPU."
        )
    return home, runtime, tuple(batch_sizes or default_batch_sizes(home))


def _wanted(
    places: Iterable[Place], ops: Sequence[str], sizes: Sequence[int]
) -> dict[str, tuple[Place, str, int]]:
    wanted: dict[str, tuple[Place, str, int]] = {}
    for place in places:
        for op in ops:
            if op in _FREE or (op == "skip_connect" and place.stride == 1):
                continue
            for batch in sizes:
                wanted.setdefault(place.key(op, batch), (place, op, batch))
    return wanted


def open_table(
    path: str | Path | None, device: torch.device, runtime: str, dtype: torch.dtype
) -> LatencyTable:
    """The table in `path`, or an empty one.

    Raises:
        LatencyError: the file is of another device, runtime or number format.
    """
    kind = str(dtype).removeprefix("torch.")
    threads = torch.get_num_threads() if device.type == "cpu" else None
    if path is None or not Path(path).exists():
        return LatencyTable(
            _device.device_name(device), runtime, threads, kind, versions=_device.versions(runtime)
        )
    table = LatencyTable.load(path, device=device)
    if (table.runtime, table.dtype, table.threads) != (runtime, kind, threads):
        raise LatencyError(
            f"{path} holds times of {table.runtime} in {table.dtype} on {table.threads} threads, not "
            f"of {runtime} in {kind} on {threads}; name another file, or set the runtime, precision and "
            "threads (OMP_NUM_THREADS) that it was measured with."
        )
    log.info("%s holds %d rows already", path, len(table.rows))
    _say_other_versions(path, table)
    return table


def _say_other_versions(path: str | Path, table: LatencyTable) -> None:
    """A warning where the rows were timed in other versions of what runs here; they count all the same."""
    here = _device.versions(table.runtime)
    other = {name: at for name, at in table.versions.items() if at and here.get(name, at) != at}
    if other and table.rows:
        log.warning(
            "%s was measured with %s, here is %s: its times are used as they are; move the file away, and "
            "they are measured anew",
            path,
            ", ".join(f"{name} {version}" for name, version in other.items()),
            ", ".join(f"{name} {here[name]}" for name in other),
        )


@dataclass(frozen=True)
class _Operation:
    """An operation at a place."""

    place: Place
    op: str
    batch: int

    def beside(self) -> Hashable:
        place = self.place
        return place.channels, place.height, place.width, place.stride, self.batch

    def forms(
        self, runtime: str, device: torch.device
    ) -> tuple[nn.Module | None, nn.Module, torch.Tensor]:
        place = self.place
        x = draw_inputs((place.channels, place.height, place.width), self.batch, device=device)
        module = without_norms(create_op(self.op, place.channels, place.stride, affine=True), x)
        if runtime not in REWRITING:
            return None, module, x
        # what it adds between two others
        return between(None, place), between(module, place), x


def between(module: nn.Module | None, place: Place) -> nn.Module:
    """`module` between two pointwise convolutions; None: the two alone, the second with the stride."""
    first, last = (
        nn.Conv2d(place.channels, place.channels, 1, stride)
        for stride in (1, place.stride if module is None else 1)
    )
    parts = [first, last] if module is None else [first, module, last]
    return nn.Sequential(*parts).eval().requires_grad_(False)
