"""Hosts on this machine: each a network, a PID and a UTS namespace of its own, with one cable to here.

The cable's near end stands in this machine's own network, where a server may listen on it; hosts do not
see each other. A cable can be pulled, put back and made slow; a host can be switched off.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

# set aside for tests of networks (RFC 2544); a subnet of four addresses a cable
_NET = "198.18.77"
_PROGRAMS = ("unshare", "nsenter", "ip", "tc")


def why_not() -> str | None:
    """The reason why there can be no hosts here, or None."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed (util-linux, iproute2)"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--uts", "--mount", "--fork", "true"], capture_output=True, text=True
    )  # fmt: skip
    return None if tried.returncode == 0 else f"no namespaces here ({tried.stderr.strip()})"


def _do(*command: object) -> None:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)


class Host:
    """A running host. `near` is the address of this machine on its cable."""

    def __init__(self, name: str, index: int) -> None:
        self.name, self._link = name, f"darts{index}"
        self.near, self._far = f"{_NET}.{4 * index + 1}", f"{_NET}.{4 * index + 2}"
        self.on()

    def on(self) -> None:
        """Switch it on."""
        # its first process, which takes all others with it
        kinds = ("--net", "--pid", "--uts", "--mount", "--mount-proc")
        body = f"hostname {self.name} && echo up && exec sleep infinity"
        self._first = subprocess.Popen(
            ["unshare", *kinds, "--fork", "--kill-child", "sh", "-c", body],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "up\n"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        self._pid = int(children.read_text())
        self._plug_in()

    def _plug_in(self) -> None:
        link = self._link
        subprocess.run(["ip", "link", "del", link], capture_output=True)  # of a run that was killed
        _do("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self._pid)
        _do("ip", "addr", "add", f"{self.near}/30", "dev", link)
        _do("ip", "link", "set", link, "up")
        _do(*self._inside(), "ip", "addr", "add", f"{self._far}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _do(*self._inside(), "ip", "link", "set", device, "up")

    def _inside(self) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--net", "--pid", "--uts", "--mount", "--"]

    def start(self, command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program there; what it says goes to `log`."""
        with log.open("ab") as stream:
            return subprocess.Popen(
                [*self._inside(), *command], stdout=stream, stderr=stream, env={**os.environ, **environment}
            )  # fmt: skip

    def cut(self) -> None:
        """Pull the cable: nothing goes through, and nobody is told."""
        _do("ip", "link", "set", self._link, "down")

    def back(self) -> None:
        """Put it back."""
        _do("ip", "link", "set", self._link, "up")

    def slow(self, rate: str) -> None:
        """Let so many bits a second through (`128kbit`), one packet at a time, each way."""
        shaped = ("root", "tbf", "rate", rate, "burst", "1600", "limit", "200000")
        _do("tc", "qdisc", "add", "dev", self._link, *shaped)
        _do(*self._inside(), "tc", "qdisc", "add", "dev", "eth0", *shaped)

    def quick(self) -> None:
        """As quick as before."""
        for where in ([], self._inside()):
            device = "eth0" if where else self._link
            subprocess.run(
                [*where, "tc", "qdisc", "del", "dev", device, "root"], capture_output=True
            )

    def off(self) -> None:
        """Switch it off."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._first.wait()
        subprocess.run(["ip", "link", "del", self._link], capture_output=True)


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """Running hosts, switched off at the end of the block."""
    with contextlib.ExitStack() as stack:
        made = []
        for index, name in enumerate(names):
            made.append(Host(name, index))
            stack.callback(made[-1].off)
        yield made
