"""What an image with torch and Triton lacks, named, downloaded, and installed where there is no network.

    python -m benchmarks.gpu_wheels                        # what such images usually lack, into carried/
    python -m benchmarks.gpu_wheels --frozen image.txt     # all that `pip freeze` of the image does not name
    python -m benchmarks.gpu_wheels --install              # on the GPU's machine, from carried/ alone

Packages and versions are those of the environment that runs this (the tested set), with all that they need;
wheels are for Python 3.12 on Linux. One that is published as source only is built here, if it is pure Python.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.12"
LACKED = ("hydra-core", "optuna", "cmaes", "kornia", "torch-pruning", "filelock")
"""What images made for torch have not, or too old, while they have the rest of our requirements."""
NEVER = ("torch", "triton", "numpy")
"""The image's own: another torch would not fit its driver."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def needed(names: Iterable[str], have: Iterable[str]) -> dict[str, str]:
    """Name -> version of the packages and all that they need, but for those that are there.

    Raises:
        PackageNotFoundError: one of `names` is not installed here, so no version of it is tested.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    there = {canonicalize_name(name) for name in (*have, *NEVER)}
    found: dict[str, str] = {}
    left = [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name in there or name in found:
            continue
        package = metadata.distribution(name)
        found[name] = package.version
        for line in package.requires or ():
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or marker.evaluate({"python_version": PYTHON, "extra": ""}):
                left.append(canonicalize_name(requirement.name))
    return dict(sorted(found.items()))


def frozen(path: Path) -> set[str]:
    """The packages that a `pip freeze` names."""
    from packaging.utils import canonicalize_name

    lines = path.read_text(encoding="utf-8").splitlines()
    words = (line.split("==")[0].split(" @ ")[0].strip() for line in lines)
    return {canonicalize_name(word) for word in words if word and not word.startswith(("#", "-"))}


def fetch(name: str, version: str, folder: Path) -> Path | None:
    """Download a wheel, or build it from source where it is pure Python; None: neither worked."""
    before = set(folder.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    wanted = ["--no-deps", f"{name}=={version}"]
    ways = (
        ["download", "--only-binary=:all:", "--python-version", PYTHON, *platforms, "-d", str(folder)],
        ["wheel", "-w", str(folder)],
    )  # fmt: skip
    for way in ways:
        # a source instead of a wheel is no error: what pip says is of interest where neither worked
        done = subprocess.run(
            [*pip, *way, *wanted], check=False, capture_output=True, text=True, encoding="utf-8"
        )
        if done.returncode == 0:
            new = set(folder.glob("*.whl")) - before
            built = next(iter(new), None)
            if way[0] == "wheel" and built is not None and "-none-any" not in built.name:
                built.unlink()  # compiled for this machine's Python
                return None
            return built or next(folder.glob(f"{name.replace('-', '_')}-{version}*.whl"), None)
    print(done.stderr.strip(), file=sys.stderr)
    return None


def install(folder: Path, *, target: Path | None = None, dry_run: bool = False) -> int:
    """Install the folder's wheels without a network, into another folder if one is given.

    Returns:
        pip's exit status; 0 also where there are none.
    """
    wheels = sorted(map(str, folder.glob("*.whl")))
    if not wheels or dry_run:
        listed = "".join(f"\n  {Path(wheel).name}" for wheel in wheels)
        print(
            f"would install{listed}" if wheels else f"{folder} holds no wheels: nothing to install"
        )
        return 0
    place = ["--upgrade", "--target", str(target)] if target is not None else []
    words = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", *place, *wheels]
    return subprocess.run([sys.executable, "-m", "pip", "install", *words], check=False).returncode


def main() -> int:
    """Download or install; status 1 where a package has no wheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, default=ROOT / "carried")
    parser.add_argument("--frozen", type=Path, help="`pip freeze` of the image")
    parser.add_argument("--install", action="store_true", help="install what the folder holds")
    parser.add_argument(
        "--target", type=Path, help="install into this folder; it goes on PYTHONPATH"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    args = parser.parse_args()
    if args.install:
        return install(args.folder, target=args.target, dry_run=args.dry_run)
    names, have = (LACKED, set()) if args.frozen is None else (["darts-core"], frozen(args.frozen))
    packages = needed(names, have)
    packages.pop("darts-core", None)
    print("\n".join(f"{name}=={version}" for name, version in packages.items()))
    if args.dry_run:
        return 0
    args.folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name, version in packages.items() if not fetch(name, version, args.folder)]
    size = sum(path.stat().st_size for path in args.folder.glob("*.whl")) / 2**20
    print(f"{len(packages) - len(missing)} wheels, {size:.1f} MiB in {args.folder}")
    if missing:
        print(f"no wheel for Python {PYTHON}: {', '.join(missing)}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    raise SystemExit(main())
