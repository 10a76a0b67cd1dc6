"""Faults at writes: a shim below `open`, `os.rename` and the like that counts the hits of each write site
and makes one of them fail, in a child forked after the imports."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import re
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import darts_core

HOME = str(Path(darts_core.__file__).parent)
# they write on behalf of whoever called them, who is the site
_HELPERS = {
    "replacing", "named_errors", "write_bytes", "write_text", "write_json", "write_yaml",
    "save_checkpoint", "write_record", "write_job", "append_logs", "append_bytes",
}  # fmt: skip
FAULTS = ("ENOSPC", "EIO", "kill")
# the write of a fault that is a full disk fails, and so does each after it; an unreadable sector is hit once
_LASTING = {"ENOSPC"}


@dataclass(frozen=True)
class Fault:
    """What happens at one hit (from 1) of one site."""

    site: str
    hit: int
    kind: str

    def __str__(self) -> str:
        return f"{self.kind} at hit {self.hit} of {self.site}"


@dataclass
class Shim:
    """Watches the writes below `root` in this process, and lets `fault` happen."""

    root: str
    fault: Fault | None = None
    hits: Counter[str] = field(default_factory=Counter)
    happened: bool = False
    log: int | None = None

    def at(self, operation: str, path: str, torn: Callable[[], object] | None = None) -> None:
        """Called before an operation on `path`; `torn` does half of it."""
        if not path.startswith(self.root):
            return
        if self.happened:
            if self.fault is not None and self.fault.kind in _LASTING and operation != "rename":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return
        site = f"{operation} {_place(path)}"
        self.hits[site] += 1
        if self.log is not None:
            os_write(self.log, f"{site}\n".encode())
        fault = self.fault
        if fault is None or (site, self.hits[site]) != (fault.site, fault.hit):
            return
        self.happened = True
        if self.log is not None:
            os_write(self.log, b"!\n")
        if torn is not None:
            torn()
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, fault.kind)
        raise OSError(number, os.strerror(number))


os_write, os_replace, os_rename, os_fsync = os.write, os.replace, os.rename, os.fsync
real_open = io.open


def _place(path: str) -> str:
    """Who writes: the innermost function of ours that is no helper, and the kind of file."""
    kind = re.sub(r"\d+", "N", os.path.basename(path))
    kind = re.sub(r"\.vm\..*|tfevents.*", "tfevents", kind)
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(HOME) and code.co_name not in _HELPERS:
            where = code.co_filename[len(HOME) + 1 :]
            return f"{kind} by {where}:{code.co_name}"
        frame = frame.f_back
    return f"{kind} by another library"


class _Raw(io.FileIO):
    """A file whose writes the shim sees."""

    shim: Shim

    def write(self, data):  # type: ignore[no-untyped-def]
        view = memoryview(data).cast("B")
        half = view[: len(view) // 2]
        self.shim.at("write", str(self.name), lambda: io.FileIO.write(self, half))
        return super().write(data)


def _opener(shim: Shim) -> Callable[..., object]:
    def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None,
               closefd=True, opener=None):  # type: ignore[no-untyped-def]  # fmt: skip
        path = "" if isinstance(file, int) else os.path.abspath(os.fsdecode(file))
        reads = not set(mode) & set("wax+")
        if reads or not path.startswith(shim.root) or opener is not None:
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _Raw(path, mode.replace("b", "").replace("t", ""))
        raw.shim = shim
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffer = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)

    return opened


def install(shim: Shim) -> None:
    """Patch this process for good: it is a forked child."""

    def of_descriptor(number: int) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            return ""

    def write(number, data):  # type: ignore[no-untyped-def]
        shim.at("write", of_descriptor(number), lambda: os_write(number, data[: len(data) // 2]))
        return os_write(number, data)

    def fsync(number):  # type: ignore[no-untyped-def]
        shim.at("fsync", of_descriptor(number if isinstance(number, int) else number.fileno()))
        return os_fsync(number)

    def renaming(real: Callable[..., None]) -> Callable[..., None]:
        def rename(source, target, **more):  # type: ignore[no-untyped-def]
            shim.at("rename", os.path.abspath(os.fspath(target)))
            return real(source, target, **more)

        return rename

    os.write, os.fsync = write, fsync
    os.replace, os.rename = renaming(os_replace), renaming(os_rename)
    io.open = builtins.open = _opener(shim)  # type: ignore[assignment]


@dataclass(frozen=True)
class Ended:
    """How a forked command ended."""

    status: int
    text: str
    hits: Counter[str]
    happened: bool


def forked(
    command: Callable[[], int], root: Path, fault: Fault | None = None, folder: Path | None = None
) -> Ended:
    """Run `command` in a forked child under the shim; its output and its hits come back as files."""
    place = folder or root.parent
    output, hits = place / "output.txt", place / "hits.txt"
    for path in (output, hits):
        path.write_bytes(b"")
    child = os.fork()
    if child == 0:
        status = 70
        try:
            os.setpgid(0, 0)
            stream = os.open(output, os.O_WRONLY | os.O_APPEND)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            sys.stdout = real_open(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = real_open(2, "w", encoding="utf-8", closefd=False, buffering=1)
            log = os.open(hits, os.O_WRONLY | os.O_APPEND)
            install(Shim(f"{root.resolve()}{os.sep}", fault, log=log))
            status = command()
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left running, workers of its own included
    seen = hits.read_text().splitlines()
    return Ended(
        os.waitstatus_to_exitcode(waited),
        output.read_text(errors="replace"),
        Counter(line for line in seen if line != "!"),
        "!" in seen,
    )


def faults(hits: Counter[str], kinds: Sequence[str] = FAULTS) -> Iterator[Fault]:
    """Each kind at the first, a middle and the last hit of each site."""
    for site, count in sorted(hits.items()):
        # written by the clock, or where another program is timing: not in every run
        if "resources.jsonl" in site or "latency/device.py" in site:
            continue
        for hit in sorted({1, (count + 1) // 2, count}):
            for kind in kinds:
                yield Fault(site, hit, kind)


def is_a_sentence(text: str) -> bool:
    """Whether the last thing said is a sentence of ours, and nothing is a traceback."""
    lines = [line for line in text.splitlines() if line.startswith("darts-core: ")]
    return bool(lines) and "Traceback" not in text and "this is a defect" not in text
