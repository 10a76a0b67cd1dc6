"""What a GPU's machine that starts bare is told of the calls before: results, checkpoints, binaries.

`save` leaves in a folder, after every job, what the next call needs; `take_up` puts it into place there.
The state (`state-CALLS-1of2.tar.gz` ...) is written anew each time, in volumes below `VOLUME` of content, a
larger file in one of its own. Binaries (`triton-cache-CALLS.tar.xz`) are those that this call compiled: they
add up.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks import triton_cache

__all__ = ["VOLUME", "packed", "save", "take_up"]

VOLUME = 15 * 2**20
"""Bytes of files in a volume."""
_PACKED = "packed.json"
_LEFT_OUT = ("site", "triton", _PACKED)
"""What every machine makes for itself, or what travels as binaries."""
_STATE = re.compile(r"state-(\d+)-(\d+)of(\d+)\.tar\.gz")


def take_up(carried: Path, out: Path, cache: Path) -> str:
    """Put what was carried along into place; returns a sentence.

    A state is taken up where the folder has none of its own: the newest that is whole.
    """
    said = []
    own = (out / "jobs.json").is_file()
    newest = max(_whole_states(carried), default=None)
    if newest is not None and not own:
        for volume in newest[1]:
            with tarfile.open(volume, "r:gz") as archive:
                archive.extractall(out, filter="data")
        said.append(f"state of {newest[0]} earlier calls")
    before, count = triton_cache.entries(cache), 0
    for file in sorted(carried.glob("triton-cache*.tar.xz")):
        if triton_cache.fits(file):
            count += triton_cache.unpack(file, cache)
        else:
            said.append(f"{file.name} is of another Triton or Python: of no use here")
    _write_packed(out, packed(out) | triton_cache.entries(cache) - before)
    return ", ".join([*said, f"{count} binaries put into {cache}"])


def packed(out: Path) -> set[str]:
    """Entries of the cache that came along, or that an earlier call has saved."""
    path = out / _PACKED
    return set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()


def _write_packed(out: Path, names: set[str]) -> None:
    (out / _PACKED).write_text(json.dumps(sorted(names)), encoding="utf-8")


def save(out: Path, bring: Path, calls: int, cache: Path, known: Iterable[str]) -> str:
    """Leave the state and new binaries in a folder; returns a sentence.

    Args:
        out: the jobs' folder.
        bring: where the archives are put; those of this call that are there are replaced.
        calls: how many calls there have been, this one included.
        cache: where Triton keeps its binaries.
        known: entries that were packed before this call.
    """
    bring.mkdir(parents=True, exist_ok=True)
    volumes = list(_volumes(out, bring))
    said = []
    for number, files in enumerate(volumes, 1):
        path = bring / f"state-{calls:03d}-{number}of{len(volumes)}.tar.gz"
        temporary = path.with_suffix(".new")
        # checkpoints hardly shrink: a second of packing is worth more than a per cent
        with tarfile.open(temporary, "w:gz", compresslevel=1) as archive:
            for file in files:
                archive.add(file, str(file.relative_to(out)))
        temporary.replace(path)
        said.append(path)
    for path in bring.glob("state-*.tar.gz"):
        if path not in said:
            path.unlink()
    there = triton_cache.entries(cache)
    if there - set(known):
        said.append(bring / f"triton-cache-{calls:03d}.tar.xz")
        triton_cache.pack(cache, said[-1], but=known, quick=True)
        _write_packed(out, there)
    return ", ".join(f"{path.name} {path.stat().st_size / 2**20:.1f} MiB" for path in said)


def _whole_states(folder: Path) -> Iterator[tuple[int, list[Path]]]:
    """(calls, volumes) of each state of which no volume is missing."""
    found: dict[tuple[int, int], list[Path]] = {}
    for path in sorted(folder.glob("state-*.tar.gz")):
        match = _STATE.fullmatch(path.name)
        if match:
            found.setdefault((int(match[1]), int(match[3])), []).append(path)
    for (calls, count), volumes in found.items():
        if len(volumes) == count:
            yield calls, volumes


def _travels(path: Path, out: Path) -> bool:
    """A finished stage's checkpoint does not: what it led to lies beside it."""
    over = path.name == "checkpoint.pt" and (path.parent / "result.json").is_file()
    return not over and path.relative_to(out).parts[0] not in _LEFT_OUT


def _volumes(out: Path, bring: Path) -> Iterator[list[Path]]:
    files = [
        path
        for path in sorted(out.rglob("*"))
        if path.is_file() and bring not in path.parents and _travels(path, out)
    ]
    part: list[Path] = []
    size = 0
    for path in files:
        more = path.stat().st_size
        if part and size + more > VOLUME:
            yield part
            part, size = [], 0
        part.append(path)
        size += more
    yield part
