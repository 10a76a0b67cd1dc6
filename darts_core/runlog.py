"""Run folders: where a stage's config, metrics, environment and result live, and how they are written.

A stage owns one folder. `metrics.jsonl` holds one JSON object a line; on resume it is cut back to the
checkpoint, so that each epoch stands in it once. Files appear whole: they are written to a temporary
name and renamed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from darts_core.errors import ResumeError
from darts_core.loggers import Loggers
from darts_core.reading import is_number, read_json, read_jsonl, read_mapping, read_text
from darts_core.reading_yaml import read_yaml

__all__ = [
    "RunFolder",
    "append_bytes",
    "code_mark",
    "config_hash",
    "environment",
    "named_errors",
    "processor_name",
    "read_json",
    "read_jsonl",
    "read_mapping",
    "read_yaml",
    "replacing",
    "utf8_streams",
    "write_bytes",
    "write_json",
    "write_text",
    "write_yaml",
]

SCHEMA_VERSION = 1
_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "hydra-core",
    "optuna",
    "onnxruntime",
    "torch-pruning",
    "kornia",
)

log = logging.getLogger("darts_core")


@contextmanager
def replacing(path: str | Path, *, forced: bool = True) -> Iterator[BinaryIO]:
    """A stream into a temporary file beside `path`; when the block ends well it is renamed onto `path`.

    A kill or an error at any moment leaves the old file as it was. So does a power cut where it is `forced`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with named_errors(path):
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                if forced:
                    os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """A block that writes `path`: an error of the system that names no file (a full disk) names it."""
    try:
        yield
    except Exception as error:
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, OSError) and seen.errno is not None and seen.filename is None:
                seen.filename = str(path)
            seen = seen.__cause__ or seen.__context__
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path`, then rename it onto `path`."""
    with replacing(path) as stream:
        stream.write(content)


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; numpy numbers and paths become plain ones, NaN becomes null."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_yaml(path: str | Path, value: Any) -> None:
    """Write `value` as YAML in the order of its keys."""
    write_text(
        path, yaml.safe_dump(plain(value, keep_nan=True), sort_keys=False, allow_unicode=True)
    )


def utf8_streams() -> None:
    """Let stdout and stderr write UTF-8 whatever the locale; what no text holds appears as escapes.

    One that the process was started without (`>&-`, as some supervisors do) leads nowhere, as does stdin.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # it takes the free number, under which libraries print: no file of ours must
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def plain(value: Any, *, keep_nan: bool = False) -> Any:
    """`value` with numpy scalars and arrays, paths and tuples turned into what JSON and YAML know."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, keep_nan=keep_nan) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, keep_nan=keep_nan) for item in value]
    # numpy values exist only where numpy was imported; a command that needs none starts sooner
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return plain(value.tolist(), keep_nan=keep_nan)
    if numpy is not None and isinstance(value, numpy.generic):
        return plain(value.item(), keep_nan=keep_nan)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value) and not keep_nan:
        return None
    return value


def config_hash(config: Mapping[str, Any]) -> str:
    """Twelve hex digits that change when any setting in `config` changes (key order does not count)."""
    text = json.dumps(plain(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            encoding="utf-8",
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@cache
def code_mark() -> str:
    """Twelve hex digits of the program's own files: a commit says nothing of what was edited since."""
    own, found = Path(__file__).resolve().parent, hashlib.sha256()
    beside = own.parent
    for root in (own, beside / "darts_kernels", beside / "kernels" / "darts_kernels"):
        for path in sorted(root.rglob("*.py")):
            with suppress(OSError):  # an editor may be replacing it
                found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def processor_name() -> str:
    """The processor's model name, that of its architecture where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(found.group(1).split()) if found else platform.machine() or "cpu"


def environment() -> dict[str, Any]:
    """Versions and hardware of this process; never environment variables."""
    packages: dict[str, str | None] = {}
    for name in (*_PACKAGES, "darts-core"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "cpu_count": os.cpu_count(),
        "packages": packages,
        "commit": _git_commit(),
        "gpu": None,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        result["gpu"] = torch.cuda.get_device_name()
        result["cuda"] = torch.version.cuda
    return result


def _leave_to_the_caller() -> None:
    """Print no traceback of TensorBoard's thread that could not write: its next call raises the error."""
    usual = threading.excepthook
    if hasattr(usual, "leaves_tensorboard_out"):
        return

    def told(failure: threading.ExceptHookArgs) -> None:
        ours = type(failure.thread).__module__.partition(".")[0] == "tensorboard"
        if not (ours and isinstance(failure.exc_value, OSError)):
            usual(failure)

    told.leaves_tensorboard_out = True  # type: ignore[attr-defined]
    threading.excepthook = told


def _cut_torn_line(path: Path) -> None:
    """Drop what a write that was cut off left behind the last whole line: it would spoil the next one."""
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        kept = size
        while kept:
            start = max(0, kept - 4096)
            stream.seek(start)
            end = stream.read(kept - start).rfind(b"\n")
            kept = start + end + 1
            if end >= 0 or start == 0:
                break
        if kept < size:
            stream.truncate(kept)


def append_bytes(path: Path, content: bytes) -> None:
    """Append and force to the disk; after an error the file is what it was.

    Raises:
        OSError: the disk is full or failed; it names the file.
    """
    # without a buffer, which would write its content once more when the file is closed after an error
    with named_errors(path), path.open("ab", buffering=0) as stream:
        before, rest = stream.seek(0, os.SEEK_END), memoryview(content)
        try:
            while rest:
                rest = rest[stream.write(rest) :]
            os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                stream.truncate(before)
            raise


class RunFolder:
    """One stage's folder: config, environment, metrics, TensorBoard events, result."""

    def __init__(
        self, path: str | Path, *, tensorboard: bool = True, loggers: Loggers | None = None
    ) -> None:
        self.path = Path(path)
        self.loggers = Loggers() if loggers is None else loggers
        self._tensorboard_wanted = tensorboard if loggers is None else loggers.tensorboard
        self._writer: Any = None
        self._first: int | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Mapping[str, Any],
        *,
        tensorboard: bool = True,
        loggers: Loggers | None = None,
    ) -> RunFolder:
        """Make (or reopen) the folder and write `config.yaml` and, until it has finished, `environment.json`.

        Raises:
            ResumeError: the folder already holds a run of another configuration.
        """
        run = cls(path, tensorboard=tensorboard, loggers=loggers)
        run.path.mkdir(parents=True, exist_ok=True)
        stamp = config_hash(config)
        known = run.path / "config.hash"
        before = read_text(known, ResumeError).strip() if known.exists() else stamp
        if before != stamp:
            raise ResumeError(
                f"{run.path} holds a run of another configuration ({before}, now "
                f"{stamp}); use another version=, or move the folder away."
            )
        write_yaml(run.path / "config.yaml", config)
        if not run.finished:  # what one that has finished ran on may be gone or changed since
            write_json(run.path / "environment.json", environment())
        write_text(known, stamp + "\n")
        if not run.finished:
            run.loggers.start(run.path, config)
        return run

    @property
    def metrics_path(self) -> Path:
        """The JSON-lines file of this run's metrics."""
        return self.path / "metrics.jsonl"

    def log_metrics(self, epoch: int, **metrics: Any) -> None:
        """Append one row (epoch, time, metrics) and mirror its plain numbers to TensorBoard."""
        row = plain({"epoch": epoch, "time": round(time.time(), 3), **metrics})
        self.path.mkdir(parents=True, exist_ok=True)
        if self.metrics_path.exists():
            _cut_torn_line(self.metrics_path)
        append_bytes(self.metrics_path, (json.dumps(row, allow_nan=False) + "\n").encode())
        writer = self.tensorboard
        if writer is not None:
            for name, value in metrics.items():
                if is_number(value):
                    writer.add_scalar(name, value, epoch)
        self.loggers.metrics(epoch, metrics)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The rows logged so far."""
        return iter(read_jsonl(self.metrics_path))

    def rewind(self, epoch: int) -> None:
        """Drop the rows of `epoch` and later: the run goes on from a checkpoint before them."""
        found = read_jsonl(self.metrics_path)
        rows = [row for row in found if isinstance(row.get("epoch"), int) and row["epoch"] < epoch]
        write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))
        self._first = epoch

    @property
    def tensorboard(self) -> Any:
        """A `SummaryWriter` for this folder (made on first use), or None where it is switched off."""
        if self._writer is None and self._tensorboard_wanted:
            from torch.utils.tensorboard import SummaryWriter

            _leave_to_the_caller()
            with named_errors(self.path / "tensorboard"):
                # TensorBoard hides what an earlier sitting wrote of these epochs
                self._writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=self._first)
        return self._writer

    def finish(self, **result: Any) -> None:
        """Write `result.json`: from now on the run counts as finished."""
        write_json(self.path / "result.json", {"schema_version": SCHEMA_VERSION, **result})
        self.loggers.finish(self.path, result)
        self.close()

    def close(self) -> None:
        """Flush and close the TensorBoard writer and the loggers."""
        self.loggers.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @property
    def finished(self) -> bool:
        """Whether `result.json` is there."""
        return (self.path / "result.json").is_file()

    def result(self) -> dict[str, Any]:
        """The content of `result.json`.

        Raises:
            ResumeError: the run has not finished, its file is damaged or from a newer program.
        """
        result = read_mapping(self.path / "result.json")
        version = result.get("schema_version", 0)
        if type(version) is not int or version > SCHEMA_VERSION:
            raise ResumeError(f"{self.path / 'result.json'} was written by a newer program.")
        return result
