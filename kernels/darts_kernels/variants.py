"""The golden file of binaries: what the compiler makes of every variant that is launched.

One file a Triton version, `variants-triton-<version>.json`: a row a variant, with the digest of its source
and the facts of its binary (`binary.Binary`). A change in a kernel shows as a change of rows. `changed`
compiles what the file does not know in its present form, and nothing else: a row whose name (types, hints,
constants, options) and source digest are as they were is taken as it stands.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping
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


def golden_path(version: str | None = None) -> Path:
    """The file of a Triton version (of the installed one); it need not exist."""
    if version is None:
        import triton

        version = triton.__version__
    short = ".".join(version.split(".")[:2])
    return Path(__file__).with_name(f"variants-triton-{short}.json")


def read_golden(path: Path | None = None) -> Rows:
    """Rows by the variants' names; none where there is no file."""
    path = path or golden_path()
    return json.loads(path.read_text(encoding="utf-8"))["variants"] if path.is_file() else {}


def write_golden(rows: Mapping[str, Mapping[str, Any]], path: Path | None = None) -> Path:
    """Write the file whole, a row a line."""
    import triton

    path = path or golden_path()
    lines = [f"  {json.dumps(name)}: {json.dumps(rows[name])}" for name in sorted(rows)]
    head = {"triton": triton.__version__, "target": "sm_90"}
    text = json.dumps(head)[:-1] + ', "variants": {\n' + ",\n".join(lines) + "\n}}\n"
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


def compiled(
    variants: Iterable[Variant], processes: int = 1
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, row) of every variant as it is done, compiled in so many processes."""
    _LEFT.clear()
    _LEFT.update({variant.name: variant for variant in variants})
    if processes == 1:
        yield from map(_compile_one, list(_LEFT))
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_compile_one, list(_LEFT))


def _compile_one(name: str) -> tuple[str, dict[str, Any]]:
    return name, compiled_row(_LEFT[name])
