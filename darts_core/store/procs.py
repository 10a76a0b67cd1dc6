"""Processes: who is who, what belongs to a tree, how much memory it holds, and ending it for certain.

A process is named by its id, its start time and the machine's boot: an id alone may belong to somebody
else by now. A tree is everything below a process and everything that carries the same mark in its
environment, so a grandchild that made its own session, or whose parent died, still belongs. Facts come
from psutil; what it does not give (start in raw clock ticks, marks in an environment) is read from /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

__all__ = [
    "MARK",
    "OWN_FIRST",
    "Identity",
    "adopt_orphans",
    "cpu_seconds",
    "die_with_parent",
    "end_children",
    "end_tree",
    "handle_of",
    "identity",
    "is_alive",
    "program",
    "resident_mib",
    "send",
    "signal_name",
    "tree",
]

MARK = "DARTS_PROCESS_MARK"
# how a text for `python -c` begins: modules are looked for first in the folder that one stands in, which may
# be what a stranger sent, with a json.py in it; that is to be the last place, as for models and plugins
OWN_FIRST = "import sys; sys.path.sort(key=lambda place: place == '')"
_AS_A_PROGRAM = "import runpy; runpy.run_module({!r}, run_name='__main__', alter_sys=True)"
_PROC = Path("/proc")
# the kernel's number of the machine's own namespace; in another one, a container's, process 1 is its command
_MACHINE = "pid:[4026531836]"
# of kernels that give their boots no name, as macOS: there a start, to the millisecond, tells processes apart
_UNNAMED = "unnamed"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Identity:
    """One process for certain: id, start time (clock ticks after boot, or text of `ps`), boot."""

    pid: int
    start: str
    boot: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Any) -> Identity | None:
        """The identity in a JSON record, or None where the record holds none."""
        if not isinstance(record, dict) or not isinstance(record.get("pid"), int):
            return None
        # 0 and below mean process groups, and the machine's first process is not ours
        if record["pid"] < 1 or (record["pid"] == 1 and not _in_a_container()):
            return None
        return cls(record["pid"], str(record.get("start")), str(record.get("boot")))


def program(module: str) -> list[str]:
    """The words that start a module as `python -m` does, with the current folder in the last place."""
    return [sys.executable, "-c", f"{OWN_FIRST}; {_AS_A_PROGRAM.format(module)}"]


def _in_a_container() -> bool:
    """Whether process numbers are a container's, whose first process is the command it was started for."""
    try:
        return os.readlink("/proc/self/ns/pid") != _MACHINE
    except OSError:
        return False


@lru_cache(maxsize=1)
def _boot() -> str:
    path = _PROC / "sys/kernel/random/boot_id"
    if path.exists():
        return path.read_text(encoding="utf-8").strip()
    # a sandbox may show ticks after its boot, which another boot counts again, and no name
    return f"{psutil.boot_time():.0f}" if (_PROC / "self/stat").exists() else _UNNAMED


def _created(pid: int) -> float:
    """When a process started, as the kernel noted it then: what psutil makes of that, and the time of the
    boot, move with the clock, which a laptop that wakes up has corrected.

    Raises:
        psutil.Error: it is gone.
    """
    process: Any = psutil.Process(pid)
    try:
        return float(process._proc.create_time(monotonic=True))
    except TypeError:  # psutil before 7.1 gives it as it is
        return float(process.create_time())


def _start(pid: int) -> str | None:
    """When a process started: clock ticks after boot on Linux, else seconds; None when it is gone."""
    if not _PROC.joinpath("self/stat").exists():
        try:
            return f"{_created(pid):.3f}"
        except psutil.Error:
            return None
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # the name in parentheses may hold spaces and parentheses itself
    return text[text.rindex(")") + 2 :].split()[19]


def _parents() -> dict[int, int]:
    """The parent of every process but the zombies."""
    found = {}
    for process in psutil.process_iter(["ppid", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE:
            found[process.pid] = process.info["ppid"] or 0
    return found


def identity(pid: int | None = None) -> Identity:
    """The identity of a living process (this one by default).

    Raises:
        ProcessLookupError: there is no such process.
    """
    pid = os.getpid() if pid is None else pid
    start = _start(pid)
    if start is None:
        raise ProcessLookupError(f"There is no process {pid}.")
    return Identity(pid, start, _boot())


def is_alive(who: Identity | None) -> bool:
    """Whether exactly this process (same start, same boot, not a zombie) is running."""
    if who is None or _boot() not in (who.boot, _UNNAMED) or _start(who.pid) != who.start:
        return False
    try:
        return bool(psutil.Process(who.pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _marked(mark: str) -> set[int]:
    """Processes whose environment carries our mark, or one below it (Linux; own processes only)."""
    wanted = f"{MARK}={mark}".encode()
    found: set[int] = set()
    if not mark or not _PROC.joinpath("self/environ").exists():
        return found
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for item in (entry / "environ").read_bytes().split(b"\0"):
                if item == wanted or item.startswith(wanted + b"/"):
                    found.add(int(entry.name))
    return found


def tree(who: Identity | None, mark: str = "", seen: Iterable[Identity] = ()) -> list[Identity]:
    """The living members of a tree: `who`, all below it, all that carry `mark` and all below those.

    `seen` are earlier members: who lost parent and mark on the way still belongs. The calling process
    is never a member.
    """
    parents = _parents()
    roots = _marked(mark)
    for member in (who, *seen):
        if member is not None and is_alive(member):
            roots.add(member.pid)
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    members: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in members or pid == os.getpid():
            continue
        members.add(pid)
        waiting.extend(children.get(pid, []))
    return _identities(pid for pid in sorted(members) if pid in parents)


def _identities(pids: Iterable[int]) -> list[Identity]:
    """Those of the processes that are still there."""
    starts = [(pid, _start(pid)) for pid in pids]
    return [Identity(pid, start, _boot()) for pid, start in starts if start is not None]


def _sum(members: Iterable[Identity], fact: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for member in members:
        with contextlib.suppress(psutil.Error):
            total += fact(psutil.Process(member.pid))
    return total


def resident_mib(members: Iterable[Identity]) -> float:
    """Summed resident memory in MiB (pages shared between members count in each)."""
    return _sum(members, lambda process: process.memory_info().rss / 2**20)


def cpu_seconds(members: Iterable[Identity]) -> float:
    """Summed processor time in seconds."""
    return _sum(members, lambda process: sum(process.cpu_times()[:2]))


def handle_of(pid: int) -> int | None:
    """A file descriptor that stands for a process; None where the system gives none.

    macOS knows none; Linux before 5.3, and a container's filter of calls, refuse it.

    Raises:
        ProcessLookupError: there is no such process.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None


def send(who: Identity, number: int) -> None:
    """Signal exactly this process. A file descriptor of it is held while its start time is checked, so
    its id cannot pass to another process in between.
    """
    if who.pid == os.getpid():
        return
    try:
        handle = handle_of(who.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(who):
            with contextlib.suppress(OSError):
                if handle is None:
                    os.kill(who.pid, number)
                else:
                    signal.pidfd_send_signal(handle, number)
    finally:
        if handle is not None:
            os.close(handle)


def end_tree(
    who: Identity | None,
    mark: str = "",
    *,
    grace_seconds: float = 3.0,
    limit_seconds: float = 9.0,
    reap: Callable[[], object] | None = None,
    seen: Iterable[Identity] = (),
) -> bool:
    """End a whole tree: SIGTERM, then SIGKILL after `grace_seconds`. True when nothing of it is left.

    The tree is read anew in each round, so what is born while it dies is found too; who was a member once
    (`seen`, or in an earlier round) stays one. `reap` is called in each round (a parent collects its
    children there).
    """
    begun = time.monotonic()
    told: set[Identity] = set()
    known = set(seen)
    while True:
        if reap is not None:
            reap()
        members = tree(who, mark, known)
        known.update(members)
        passed = time.monotonic() - begun
        if not members:
            return True
        if passed > limit_seconds:
            return False
        for member in members:
            if passed >= grace_seconds:
                send(member, signal.SIGKILL)
            elif member not in told:
                told.add(member)
                send(member, signal.SIGTERM)
        time.sleep(0.05)


def end_children() -> bool:
    """End everything below this process, for one whose children are all to end with it.

    With `adopt_orphans` that includes what left its session, its parent and its mark behind.
    """
    own = os.getpid()
    members = _identities(pid for pid, parent in _parents().items() if parent == own)
    return end_tree(None, grace_seconds=0.2, limit_seconds=2.0, reap=_reap_orphans, seen=members)


def _reap_orphans() -> None:
    """Collect ended children, for which nobody else waits."""
    for process in psutil.process_iter(["ppid", "status"]):
        mine = process.info["ppid"] == os.getpid()
        if mine and process.info["status"] == psutil.STATUS_ZOMBIE:
            with contextlib.suppress(OSError):
                os.waitpid(process.pid, os.WNOHANG)


def adopt_orphans() -> bool:
    """Ask the system that orphaned descendants become children of this process (Linux); True if done."""
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def die_with_parent() -> bool:
    """Ask the system to kill this process when the one that started it is gone (Linux); True if done.

    The system means the thread that started it; call it where that thread lives as long as its process.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    return library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0


def signal_name(number: int) -> str:
    """A signal's name, such as `SIGKILL`; of those without one, for real time, `SIG40`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
