"""Byte-level fuzzing of one parser with atheris: `python tests/hostile/fuzz.py NAME [SECONDS]`.

Ends with status 0 when nothing was found; otherwise the input lies in `runs/fuzz/NAME-crash-*` and becomes a
case of `test_fuzz.py`.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import atheris

PARSERS = {
    "architecture": ("darts_core.architecture",),
    "manifest": ("darts_core.export.manifest",),
    "idx": ("darts_core.data.idx",),
    "csv": ("darts_core.bench.tabular_read", "darts_core.bench.tabular"),
    "job": ("darts_core.autosearch.plan_files",),
}


def main() -> None:
    """Fuzz until the time is over or something is found."""
    name, seconds = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "300"
    # torch and numpy are not ours; instrumenting them costs minutes and finds nothing
    with atheris.instrument_imports(include=["darts_core"]):
        for module in (*PARSERS[name], "darts_core.reading"):
            importlib.import_module(module)
        from fuzz_targets import TARGETS
    target = TARGETS[name]()
    folder = Path("runs") / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (folder / f"seed-{number}").write_bytes(seed)
    words = folder.with_suffix(".dict")
    lines = ("".join(f"\\x{byte:02x}" for byte in word.encode("latin-1")) for word in target.words)
    words.write_text("".join(f'"{line}"\n' for line in lines), encoding="ascii")
    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=4096", "-max_len=8192",
               f"-dict={words}", f"-artifact_prefix={folder}-", "-print_final_stats=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder)], target.run)
    sys.stdout.flush()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
