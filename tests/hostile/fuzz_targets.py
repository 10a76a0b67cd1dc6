"""What is fuzzed: one function of bytes for each parser of ours, with examples to start from.

Each may give a value or raise `DartsError`; any other exception, a hang or a run out of memory is a
finding. `fuzz.py` feeds them bytes (atheris), `test_fuzz.py` keeps every finding as a case.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from darts_core.errors import DartsError

__all__ = ["TARGETS", "Target"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """A parser: `run` takes the bytes, `seeds` are valid inputs, `words` a dictionary of its language."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()


def _on_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    """A target that reads a file called `name`, kept in memory where the system can."""
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = Path(tempfile.mkdtemp(prefix="darts-fuzz-", dir=place))

    def run(content: bytes) -> None:
        (folder / name).write_bytes(content)
        with contextlib.suppress(DartsError):
            read(folder / name)

    return run


def _architecture(content: bytes) -> None:
    from darts_core.architecture import Architecture

    with contextlib.suppress(DartsError):
        found = Architecture.from_text(content.decode("utf-8", "replace"))
        # what was read is written and read again to the same value
        again = Architecture.from_text(found.text()) if found.space == "nasbench201" else found
        assert again == found
        assert Architecture.from_dict(found.to_dict()) == found


def _manifest() -> Callable[[bytes], None]:
    from darts_core.export.choice import choose
    from darts_core.export.manifest import read_manifest

    def read(path: Path) -> None:
        choose(read_manifest(path.parent))

    return _on_file("manifest.json", read)


def _idx() -> Callable[[bytes], None]:
    from darts_core.data.idx import read_idx

    return _on_file("images.idx", lambda path: read_idx(path, 3))


def _csv() -> Callable[[bytes], None]:
    from darts_core.bench.tabular_read import from_csv

    return _on_file("table.csv", from_csv)


def _job() -> Callable[[bytes], None]:
    from darts_core.autosearch.plan_files import build_plan

    return _on_file("job.yaml", lambda path: build_plan([path]))


_MANIFEST = {
    "schema_version": 1, "classes": ["a"], "input_shape": [1, 8, 8], "mean": [0.5], "std": [0.5],
    "artifacts": {"onnx": {"kind": "onnx", "precision": "fp32", "device": "cpu", "chunk": 3,
                           "latency": {"1": {"median_ms": 1.5}},
                           "files": [{"name": "m.onnx", "sha256": "0" * 64}]}},
}  # fmt: skip
_CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|"
_GENOTYPE = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('skip_connect', 0)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('none', 1)], reduce_concat=[2])"
)


def _templates() -> tuple[bytes, ...]:
    folder = ROOT / "darts_core" / "autosearch" / "templates"
    return tuple(path.read_bytes() for path in sorted(folder.glob("*.yaml")))


# made when asked for: the parsers of data and exports import torch
TARGETS: dict[str, Callable[[], Target]] = {
    "architecture": lambda: Target(
        _architecture,
        (_CELL.encode(), _GENOTYPE.encode()),
        ("Genotype(", "normal=", "reduce=", "_concat=", "range(", "|", "~0", "+|", "[", "(", "'"),
    ),
    "manifest": lambda: Target(
        _manifest(),
        (json.dumps(_MANIFEST).encode(),),
        (
            *(f'"{key}":' for key in (*_MANIFEST, "kind", "files", "latency", "median_ms", "chunk")),
            *("null", "true", "NaN", "-1", "[", "{", "1e999", "\\ud800"),
        ),
    ),
    "idx": lambda: Target(
        _idx(),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2, 2, 2) + bytes(8),),
        ("\x1f\x8b\x08", "\x08\x03", "\xff\xff\xff\xff"),
    ),
    "csv": lambda: Target(
        _csv(),
        (
            f"architecture,accuracy,latency_ms\n{_CELL},0.9,1\n".encode(),
            f"arch\taccuracy_cifar10\tlatency_ms_cpu\n{_CELL}\t90.5\t\n".encode(),
        ),
        ("architecture", "accuracy", "latency_ms", _CELL, ",", "\t", '"', "nan", "inf", "-1", "\n"),
    ),
    "job": lambda: Target(
        _job(),
        _templates(),
        ("general:", "search_space:", "search_algorithm:", "scheduler:", "params:", "type:", "name:",
         "start:", "stop:", "values:", "default:", "num_samples:", "log: true", "space:", "objectives:",
         "trials:", "algorithm:", "trainingInput:", "&a", "*a", "!!int", "- ", "{", "["),
    ),
}  # fmt: skip
