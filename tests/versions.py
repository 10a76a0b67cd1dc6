"""Environments of the oldest, the pinned and the newest set of packages, and tests in each.

    python tests/versions.py                      # all three, with this Python; others are resolved
    python tests/versions.py --sets oldest --torch 2.13.0
    python tests/versions.py --pythons python3.12 python3.13 --sets newest

*Oldest* is the lower bound of every dependency in pyproject.toml, *pinned* is constraints.txt, *newest* is
what pip finds without either. Where a set's torch is too heavy (PyPI's builds for Linux bring CUDA, about
3 GB), `--torch` puts another in its place; what was run is printed with its versions. Environments stay in
`.venv-versions/` and are made again when the set has changed; the newest is brought up to date every time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-versions"
SETS = ("oldest", "pinned", "newest")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
TOOLS = ("pytest>=8", "pytest-xdist", "pytest-timeout", "hypothesis")
# of each package that we stand on, what would notice that it has changed
TESTS = (
    "tests/test_lean_import.py", "tests/test_configs.py", "tests/unit/test_architecture.py",
    "tests/unit/test_supernet.py", "tests/unit/test_relax.py", "tests/unit/test_search.py",
    "tests/unit/test_train_fit.py", "tests/unit/test_augment.py", "tests/unit/test_data.py",
    "tests/unit/test_tune_study.py", "tests/unit/test_tune_outcomes.py", "tests/unit/test_tune_storage.py",
    "tests/unit/test_study_front.py",
    "tests/unit/test_optuna_private.py", "tests/unit/test_prune.py", "tests/unit/test_export.py",
    "tests/unit/test_export_formats.py", "tests/unit/test_latency_measure.py", "tests/unit/test_report.py",
    "tests/kernels/test_imports.py", "tests/kernels/test_depthwise.py",
)  # fmt: skip
SHOWN = (
    "torch",
    "triton",
    "numpy",
    "hydra-core",
    "optuna",
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "kornia",
)


def requirements() -> list[str]:
    """The dependencies in pyproject.toml."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(content["project"]["dependencies"])


def oldest(required: Sequence[str]) -> list[str]:
    """The lower bound of each requirement as a pin; those without one are left to pip.

    >>> oldest(["torch>=2.11,<3", "scipy"])
    ['torch==2.11']
    """
    found = (re.match(r"([A-Za-z0-9_.-]+)[^;]*?>=([0-9.]+)", text) for text in required)
    return [f"{match[1]}=={match[2]}" for match in found if match]


def constraints(name: str, torch: str | None) -> list[str]:
    """The constraints of a set, with another torch where one is given."""
    lines: list[str] = []
    if name == "oldest":
        lines = oldest(requirements())
    elif name == "pinned":
        text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    if torch is not None:
        # a torch brings the triton that it was built with
        lines = [line for line in lines if line.split("==")[0] not in ("torch", "triton")]
        lines.append(f"torch=={torch}")
    return lines


def environment(python: str, name: str, torch: str | None) -> tuple[Path, str | None]:
    """(the interpreter of a set's environment, None or why it could not be made)."""
    pins = constraints(name, torch)
    stamp = hashlib.sha256("\n".join([*pins, *requirements()]).encode()).hexdigest()
    folder = HOME / f"python{_version(python)}-{name}"
    made = folder / "set"
    inside = folder / "bin" / "python"
    there = made.is_file() and made.read_text() == stamp
    if there and name != "newest":
        return inside, None
    listed = folder / "constraints.txt"
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", listed]
    if there:
        pip += ["--upgrade", "--upgrade-strategy", "eager"]
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        subprocess.run([python, "-m", "venv", folder], check=True)
    listed.write_text("\n".join(pins) + "\n")
    done = subprocess.run([*pip, "-e", str(ROOT), *TOOLS], capture_output=True, text=True)
    if done.returncode:
        return inside, done.stderr.strip().rpartition("\n")[2]
    made.write_text(stamp)
    return inside, None


def resolves(python: str, name: str, torch: str | None) -> str | None:
    """None where pip finds a set for an interpreter, nothing being installed; else its last word."""
    probe = HOME / f"python{_version(python)}-resolve"
    probe.parent.mkdir(exist_ok=True)
    if not probe.is_dir():
        subprocess.run([python, "-m", "venv", probe], check=True)
    listed = probe / f"{name}.txt"
    listed.write_text("\n".join(constraints(name, torch)) + "\n")
    pip = [probe / "bin/python", "-m", "pip", "install", "--dry-run", "--quiet", "-c", listed, ROOT]
    done = subprocess.run([*pip, *TOOLS], capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else None


def versions(inside: Path) -> str:
    """What an environment holds of the packages that matter most."""
    code = (
        "import importlib.metadata as m, json, sys; "
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run([inside, "-c", code, *SHOWN], capture_output=True, text=True, check=True)
    return ", ".join(f"{name} {version}" for name, version in json.loads(done.stdout).items())


def run(inside: Path, tests: Sequence[str]) -> tuple[bool, str]:
    """(whether the tests passed, pytest's last line)."""
    command = [inside, "-m", "pytest", "-p", "no:cacheprovider", "--maxfail=20"]
    marks = "not gpu and not interpret and not full and not web and not cluster"
    done = subprocess.run(
        [*command, "-m", marks, *tests], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if done.returncode:
        print(done.stdout[-4000:])
    return done.returncode == 0, lines[-1] if lines else "no output"


def main() -> int:
    """Make, run, print a line a set; the number of sets that are not green."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="run with these")
    parser.add_argument("--torch", help="instead of the set's own")
    parser.add_argument("--tests", nargs="+", default=list(TESTS))
    args = parser.parse_args()
    for python in args.pythons:
        if _version(python) is None:
            parser.error(f"--pythons: {python!r} does not start here")
    said, red = [], 0
    for python in args.pythons:
        for name in args.sets:
            inside, why = environment(python, name, args.torch)
            label = f"Python {_version(python)} {name}"
            if why is None:
                passed, last = run(inside, args.tests)
                said.append(f"{label}: {'green' if passed else 'RED'}, {last} ({versions(inside)})")
            else:
                passed = False
                said.append(f"{label}: RED, {why}")
            red += not passed
            print(said[-1], flush=True)
    ran = {_version(python) for python in args.pythons}
    for version in PYTHONS:
        path = _found(version)
        if path is None:
            said.append(f"Python {version}: not run, not resolved (no such interpreter here)")
        elif version not in ran:
            why = resolves(path, "newest", args.torch)
            how = "resolves" if why is None else f"RED, {why}"
            said.append(f"Python {version} newest: not run, {how}")
            red += why is not None
    print("\n".join(["", *said]))
    return red


def _found(version: str) -> str | None:
    """An interpreter of that version on the path, or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    paths = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python")]
    return next((str(p) for p in paths if p is not None and _version(str(p)) == version), None)


@cache
def _version(python: str) -> str | None:
    """3.11, say; None where it does not start."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
