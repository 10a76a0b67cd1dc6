"""The golden file of binaries: what the compiler makes of every variant that is launched.

One file a Triton version, `variants-triton-<version>.json`: for every kernel the digest of its source, and
a line for each kind of binary, which says what it is made of, the facts (`binary.Binary`) and the variants
that it is for. A change in a kernel shows as a change of lines. `changed` tells what the file does not know
in its present form, and nothing else is compiled: a row whose name (types, hints, constants, options) and
source digest are as they were is taken as it stands.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from darts_kernels.binary import read_binary
from darts_kernels.standin import Variant, compile_variant

__all__ = [
    "Rows",
    "changed",
    "compiled",
    "compiled_row",
    "describe",
    "golden_path",
    "read_golden",
    "write_golden",
]

Rows = dict[str, dict[str, Any]]

_SHOWN = (
    "C", "CI", "CO", "HI", "HW", "H", "STRIDE", "S", "K", "BLOCK", "BLOCK_P", "STEPS", "ROWS", "COUNT",
    "REDUCE", "WGRAD", "DOT", "LOW", "SPARSE",
)  # fmt: skip


_HELD = ("kernel", "source", "of")
"""Of a row, what is written once a kernel or before its facts."""


def golden_path() -> Path:
    """The file of the installed Triton's version; it need not exist."""
    import triton

    short = ".".join(triton.__version__.split(".")[:2])
    return Path(__file__).with_name(f"variants-triton-{short}.json")


def read_golden(path: Path | None = None) -> Rows:
    """Rows by the variants' names; none where there is no file."""
    path = path or golden_path()
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        f"{kernel.strip('_')}-{digest}": {
            "kernel": kernel, "source": held["source"], **dict(zip(content["facts"], line[2:], strict=True)),
            "of": line[0],
        }
        for kernel, held in content["kernels"].items()
        for line in held["binaries"]
        for digest in line[1].split()
    }  # fmt: skip


def write_golden(rows: Mapping[str, Mapping[str, Any]], path: Path | None = None) -> Path:
    """Write the file whole, a line for all variants of a kernel that are described and compiled alike.

    Raises:
        ValueError: rows of one kernel are of different sources: some of them are out of date.
    """
    import triton

    path = path or golden_path()
    facts = [name for name in next(iter(rows.values()), {}) if name not in _HELD]
    kernels: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    sources: dict[str, str] = {}
    for name, row in sorted(rows.items()):
        kernel = row["kernel"]
        if sources.setdefault(kernel, row["source"]) != row["source"]:
            raise ValueError(f"Rows of {kernel} are of different sources.")
        line = (row["of"], *(row[fact] for fact in facts))
        kernels.setdefault(kernel, {}).setdefault(line, []).append(name.rpartition("-")[2])
    written = []
    for kernel, lines in sorted(kernels.items()):
        binaries = [
            f"  {json.dumps([of, ' '.join(names), *values])}"
            for (of, *values), names in sorted(lines.items())
        ]
        head = f' {json.dumps(kernel)}: {{"source": {json.dumps(sources[kernel])}, "binaries": [\n'
        written.append(head + ",\n".join(binaries) + "\n ]}")
    top = {"triton": triton.__version__, "target": "sm_90", "facts": facts}
    text = json.dumps(top)[:-1] + ', "kernels": {\n' + ",\n".join(written) + "\n}}\n"
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def describe(variant: Variant) -> str:
    """What tells a variant from others of its kernel, to read."""
    words = [
        f"{name}={int(value) if isinstance(value, bool) else value}"
        for name, value in variant.constants.items()
        if name in _SHOWN
    ]
    words += [f"{name}={value}" for name, value in variant.options.items() if name != "num_stages"]
    return " ".join(words)


def compiled_row(variant: Variant) -> dict[str, Any]:
    """Compile a variant and read its binary."""
    facts = read_binary(compile_variant(variant)).to_dict()
    return {
        "kernel": variant.kernel,
        "source": variant.source,
        **facts,
        "warps": variant.options["num_warps"],
        "of": describe(variant),
    }


def changed(variants: Iterable[Variant], rows: Mapping[str, Mapping[str, Any]]) -> list[Variant]:
    """The variants that `rows` does not hold in their present form."""
    return [v for v in variants if rows.get(v.name, {}).get("source") != v.source]


_LEFT: dict[str, Variant] = {}
"""What the processes of `compiled` are to compile: variants do not travel, so processes are forked."""
_WORK: list[Callable[[Variant], Any]] = []


def compiled(
    variants: Iterable[Variant],
    processes: int = 1,
    work: Callable[[Variant], Any] = compiled_row,
) -> Iterator[tuple[str, Any]]:
    """(name, row or what `work` makes of it) of every variant as it is done, in so many processes."""
    _LEFT.clear()
    _LEFT.update({variant.name: variant for variant in variants})
    _WORK[:] = [work]
    if processes == 1:
        yield from map(_compile_one, list(_LEFT))
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_compile_one, list(_LEFT))


def _compile_one(name: str) -> tuple[str, Any]:
    return name, _WORK[0](_LEFT[name])
