"""Exceptions that end a command in one sentence (exit status 2), and how such sentences are made."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator

__all__ = [
    "ArchitectureError",
    "ConfigError",
    "DartsError",
    "DataError",
    "DeviceError",
    "ExportError",
    "JobError",
    "LatencyError",
    "MemoryShortageError",
    "NoFormatError",
    "NonFiniteLossError",
    "NotInstalledError",
    "PruneError",
    "ResumeError",
    "TuneError",
    "disk_failure",
    "first_line",
    "is_memory_shortage",
    "nearest_names",
    "sentence_of",
    "unknown_name",
]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAULTY = (errno.EIO, errno.ESTALE)  # the second of NFS, whose server has forgotten the file
_TOO_MANY = (errno.EMFILE, errno.ENFILE)


class DartsError(Exception):
    """An expected failure: its text is a whole sentence naming the value, what is allowed, the remedy."""


class ConfigError(DartsError):
    """A setting is misspelt, of the wrong type, out of range, or contradicts another."""


class DataError(DartsError):
    """Data files are missing, damaged or do not fit the settings."""


class ArchitectureError(DartsError):
    """An architecture text or file is malformed or names something unknown."""


class DeviceError(DartsError):
    """The requested device is absent or unusable."""


class MemoryShortageError(DeviceError):
    """The device's memory is exhausted; the text states a batch size that fits."""


class NonFiniteLossError(DartsError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""


class ResumeError(DartsError):
    """A checkpoint or saved file belongs to another configuration or a newer program."""


class LatencyError(DartsError):
    """A timing is impossible or not comparable."""


class PruneError(DartsError):
    """A pruning budget cannot be met or a model cannot be pruned."""


class ExportError(DartsError):
    """A model cannot be exported, verified or loaded."""


class NotInstalledError(ExportError):
    """What a format needs is not installed here; once it is, the same command succeeds."""


class NoFormatError(ExportError):
    """None of the formats that were asked for can express a network and passes verification."""


class TuneError(DartsError):
    """A hyperparameter study is wrongly described or damaged."""


class JobError(DartsError):
    """A job command cannot be carried out."""


def is_memory_shortage(error: BaseException) -> bool:
    """Whether `error` says that a device's or the host's memory is exhausted."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text, the name of its kind where it has none (as `MemoryError()`)."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it comes from, the last first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def disk_failure(error: BaseException | None) -> OSError | None:
    """The error of a full or faulty disk that `error` is or comes from, if it does."""
    for seen in _with_causes(error):
        if isinstance(seen, OSError) and seen.errno in (*_FULL, *_FAULTY):
            return seen
    return None


def _lacking(error: BaseException) -> str | None:
    """The text for what the system does not give: file handles, a place, a process that loads data."""
    if isinstance(error, OSError) and error.errno in _TOO_MANY:
        return (
            f"Too many files are open at once ({error.strerror}); allow more (ulimit -n 4096), or use "
            "fewer workers, and run the same command again to go on."
        )
    text = str(error)
    if isinstance(error, FileNotFoundError) and error.filename is None and "temporary dir" in text:
        return f"No folder takes temporary files ({error.strerror}); set TMPDIR to one that does."
    if isinstance(error, RuntimeError) and "determine home directory" in text:
        return "A path begins with ~, but this user has no home here; set HOME, or give it whole."
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return (
            f"A process that loads data was ended ({first_line(error)}), mostly for want of memory; use "
            "fewer (data.workers=1, or 0 for none) or a smaller batch, and run the same command again."
        )
    return None


def sentence_of(error: BaseException) -> str | None:
    """The text to print for an expected failure; None for a defect."""
    for seen in _with_causes(error):
        if isinstance(seen, DartsError):
            return str(seen)
        if isinstance(seen, OSError) and seen.errno in _FULL:
            where = f" while writing {seen.filename}" if seen.filename else ""
            return (
                f"The disk is full{where}; what was saved before is intact. Free some space (or set "
                "out= to another disk) and run the same command again to go on."
            )
        if isinstance(seen, OSError) and seen.errno in _FAULTY:
            what = seen.filename or "a file"
            return (
                f"{what} cannot be read or written ({seen.strerror}): its disk, or the connection to it, is "
                "faulty. What was saved before is intact; run the same command again to go on, or set "
                "out= to another disk."
            )
        lacking = _lacking(seen)
        if lacking is not None:
            return lacking
        if is_memory_shortage(seen):
            return (
                f"The memory does not suffice ({first_line(seen)}); use a smaller batch, fewer channels or "
                "layers, or another machine."
            )
        if isinstance(seen, PermissionError):
            if seen.filename is None:
                return f"The system does not permit it ({seen}); ask for the right, or do it elsewhere."
            return (
                f"{seen.filename} cannot be read or written: permission denied; change its rights."
            )
        if isinstance(seen, OSError) and seen.errno == errno.EROFS:
            return (
                f"{seen.filename or 'A file'} cannot be written: its file system is read-only; choose "
                "another folder, for results with out=."
            )
    return None


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` members of `known` that are spelt most like `name`, best first."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence for an unknown `name`: what was given, what is registered, what was likely meant."""
    names = sorted(known)
    close = nearest_names(name, names)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"Unknown {kind} {name!r}. Known: {', '.join(names) or 'none'}.{hint}"
