"""Triton's cache of binaries, compiled ahead and packed small, for a machine whose time is dear.

    python -m benchmarks.triton_cache --compile --pack cache.tar.xz    # where there is time: no GPU needed
    python -m benchmarks.triton_cache --unpack cache.tar.xz            # on the GPU's machine

The key of a binary holds a digest of Triton's own files, its compiled library included: what is packed fits
the same Triton for the same Python, and is of no use (and no harm) to another. Only what a launch loads is
packed: binaries and their metadata, not the stages on the way. `benchmarks.on_gpu` unpacks what it finds and
packs again what was compiled meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.resumable import UNFINISHED

if TYPE_CHECKING:
    from darts_kernels.standin import Variant

__all__ = ["cache_folder", "compile_steps", "digest", "entries", "fits", "pack", "unpack"]

LOADED = (".cubin", ".json")
_GROUP = "__grp__"
_DIGEST = "digest"


def cache_folder() -> Path:
    """Where Triton keeps its binaries."""
    given = os.environ.get("TRITON_CACHE_DIR")
    return Path(given) if given else Path.home() / ".triton" / "cache"


def digest() -> str:
    """Of what every key holds besides a kernel: Triton's own files, and the assembler's version."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler.compiler import make_backend
    from triton.runtime.cache import triton_key

    words = f"{triton_key()} {make_backend(GPUTarget('cuda', 90, 32)).hash()}"
    return hashlib.sha256(words.encode()).hexdigest()


def entries(folder: Path) -> set[str]:
    """What a cache holds, by name: an entry a binary or a launcher."""
    return {path.name for path in folder.glob("*") if path.is_dir()}


def pack(folder: Path, file: Path, *, but: Iterable[str] = (), quick: bool = False) -> int:
    """Write the binaries of a cache into an archive, with the launchers in C; returns how many there are.

    A group names its files by their paths: in the archive by their names alone.

    Args:
        folder: the cache.
        file: the archive.
        but: entries to leave out.
        quick: in a fifth of the time, and somewhat larger.
    """
    count = 0
    temporary = file.with_name(f"{file.name}.new")
    with tarfile.open(temporary, "w:xz", preset=1 if quick else 6) as archive:
        _add(archive, _DIGEST, digest().encode())
        for entry in sorted(entries(folder) - set(but)):
            for launcher in sorted((folder / entry).glob("*.so")):
                archive.add(launcher, f"{entry}/{launcher.name}")
            for group in sorted((folder / entry).glob(f"{_GROUP}*.json")):
                names = json.loads(group.read_text(encoding="utf-8"))["child_paths"]
                kept = [n for n in names if n.endswith(LOADED) and (group.parent / n).is_file()]
                if not any(name.endswith(".cubin") for name in kept):
                    continue  # a compilation that was cut off
                for name in kept:
                    archive.add(group.parent / name, f"{entry}/{name}")
                data = json.dumps({"child_paths": {name: name for name in kept}}).encode()
                _add(archive, f"{entry}/{group.name}", data)
                count += 1
    temporary.replace(file)
    return count


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


def fits(file: Path) -> bool:
    """Whether an archive's binaries are found under this Triton and Python."""
    with tarfile.open(file, "r:xz") as archive:
        first = archive.next()
        content = (
            archive.extractfile(first) if first is not None and first.name == _DIGEST else None
        )
        return content is not None and content.read().decode() == digest()


def unpack(file: Path, folder: Path) -> int:
    """Put an archive's binaries into a cache; returns how many were new to it.

    What is there already stays. Names that leave the folder are refused by tarfile's data filter.
    """
    count = 0
    with tarfile.open(file, "r:xz") as archive:
        members = [member for member in archive.getmembers() if member.name != _DIGEST]
        # the group last: what it names is then there
        for member in sorted(members, key=lambda m: Path(m.name).name.startswith(_GROUP)):
            place = folder / member.name
            if place.exists():
                continue
            archive.extract(member, folder, filter="data")
            if not place.name.startswith(_GROUP):
                continue
            names = json.loads(place.read_text(encoding="utf-8"))["child_paths"]
            paths = {name: str(place.parent / name) for name in names}
            place.write_text(json.dumps({"child_paths": paths}), encoding="utf-8")
            count += 1
    return count


def _make(variant: Variant) -> None:
    from darts_kernels.standin import compile_variant

    compile_variant(variant)


def compile_steps(
    most: int | None = None, *, minutes: float | None = None, processes: int = 1
) -> tuple[int, bool]:
    """Compile what `darts_core.bench.offline` knows to be launched, the most valuable first.

    What the cache has already takes no time, so a call that was stopped is gone on with.

    Returns:
        (how many are compiled or were found, whether some are left for another call)
    """
    from darts_core.bench.offline import variants_by_value
    from darts_kernels.variants import compiled

    until = None if minutes is None else time.monotonic() + 60 * minutes
    done = 0
    for variants in variants_by_value():
        part = variants if most is None else variants[: most - done]
        with contextlib.closing(compiled(part, processes, _make)) as made:
            for _ in made:
                done += 1
                if done % 25 == 0:
                    print(f"{done} variants", flush=True)
                if until is not None and time.monotonic() > until:
                    return done, True
        if done == most:
            break
    return done, False


def main() -> int:
    """Compile, pack or unpack; status UNFINISHED where the minutes were over before all was compiled."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--compile", action="store_true", help="compile what a GPU will launch")
    parser.add_argument("--most", type=int, help="no more than so many variants")
    parser.add_argument("--minutes", type=float, help="stop compiling after so many; call again")
    parser.add_argument("--processes", type=int, default=1, help="compile in so many processes")
    parser.add_argument("--pack", type=Path, help="the archive to write")
    parser.add_argument("--unpack", type=Path, help="the archive to read")
    args = parser.parse_args()
    if args.compile and os.environ.get("TRITON_INTERPRET") == "1":
        print("TRITON_INTERPRET=1 replaces the compiler; unset it.", file=sys.stderr)
        return 2
    left = False
    if args.unpack:
        print(f"{unpack(args.unpack, cache_folder())} binaries put into {cache_folder()}")
    if args.compile:
        done, left = compile_steps(args.most, minutes=args.minutes, processes=args.processes)
        print(f"{done} variants are compiled{', call again for the others' if left else ''}")
    if args.pack:
        count = pack(cache_folder(), args.pack)
        print(f"{count} binaries, {args.pack.stat().st_size / 2**20:.2f} MiB: {args.pack}")
    return UNFINISHED if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
