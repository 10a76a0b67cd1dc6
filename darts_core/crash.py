"""The report of an error that nobody expected: a text file to attach, which holds nothing secret."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from darts_core.credentials import masked
from darts_core.runlog import environment, write_bytes

__all__ = ["write_crash_report"]


def write_crash_report(error: BaseException, argv: Sequence[str]) -> Path | None:
    """Write what happened into the folder for temporary files; None where that cannot be written.

    It holds the command line, versions, hardware and the traceback with its causes. Passwords in URLs are
    masked; environment variables and the values of variables are not in it.
    """
    about = environment()
    packages = ", ".join(f"{name} {version}" for name, version in about.pop("packages").items())
    facts = [f"{name}: {value}" for name, value in about.items() if value is not None]
    lines = [
        f"darts-core {' '.join(shlex.quote(word) for word in argv)}",
        *facts,
        f"packages: {packages}",
        "",
        "".join(traceback.format_exception(error)).rstrip(),
    ]
    moment = time.strftime("%Y%m%d-%H%M%S")
    path = Path(tempfile.gettempdir()) / f"darts-core-crash-{moment}-{os.getpid()}.txt"
    try:
        # a file name may hold bytes that are no text
        write_bytes(path, f"{masked(chr(10).join(lines))}\n".encode(errors="backslashreplace"))
        path.chmod(0o600)
    except OSError:
        return None
    return path
