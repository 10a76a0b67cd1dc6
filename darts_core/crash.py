"""An error that nobody expected: whose it is, and its report, a file to attach that holds nothing secret."""

from __future__ import annotations

import os
import shlex
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from darts_core.credentials import masked
from darts_core.models.trust import is_her_own
from darts_core.runlog import environment

__all__ = ["users_sentence", "write_crash_report"]


def users_sentence(error: BaseException) -> str | None:
    """The text to print for an error that arose in a module which the user named; None for one of ours.

    What torch raises for her code is that code's; what ours raises below it may be ours.
    """
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if is_her_own(module):
            place = f"{module}, line {line}, in {frame.f_code.co_name}"
        elif module.partition(".")[0] in ("darts_core", "darts_kernels"):
            place = None
    if place is None:
        return None
    return (
        f"{place}: {type(error).__name__}: {str(error)[:300]} (in code that you named in plugins= or model=; "
        "DARTS_DEBUG=1 shows the traceback). Mend it and run the same command again; if it is right as it "
        "is, please report this."
    )


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
    try:
        folder = Path(tempfile.gettempdir())
        folder.mkdir(parents=True, exist_ok=True)
        # everybody writes there: from its first moment the file is new, and nobody else's to read
        start = f"darts-core-crash-{moment}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(".txt", start, folder)
        with os.fdopen(handle, "wb") as stream:
            # a file name may hold bytes that are no text
            stream.write(f"{masked(chr(10).join(lines))}\n".encode(errors="backslashreplace"))
    except OSError:
        return None
    return Path(name)
