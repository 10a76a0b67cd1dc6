"""Saving and loading torch files safely. A leaf: torch is imported only when a function is called."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, DartsError, ResumeError, disk_failure, is_memory_shortage
from darts_core.reading import check_stored, regular_file, why
from darts_core.runlog import replacing

__all__ = ["check_data", "load_checkpoint", "save_checkpoint", "taking_over"]

SCHEMA_VERSION = 1
_REMEDY = "move it away to start afresh"
# what `weights_only=True` reads besides tensors and what is torch's own
_READABLE = (type(None), bool, int, float, complex, str, bytes, bytearray, set)


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` to a temporary file, flush it to disk and rename it onto `path`.

    A kill at any moment leaves either the old file or the new one, never half a file. Numbers of numpy are
    written as Python's own.

    Raises:
        ConfigError: `content` holds what could not be read back, as the state of a user's class may.
    """
    import torch

    content = {name: _readable(value, name) for name, value in content.items()}
    with replacing(path) as stream:
        torch.save({"schema_version": SCHEMA_VERSION, **content}, stream)


def _readable(value: Any, place: str) -> Any:
    """`value`, or its like of Python's own numbers, as `load_checkpoint` reads it; see `save_checkpoint`."""
    kind = type(value)
    if kind in _READABLE:
        return value
    if kind in (dict, OrderedDict, Counter):
        pairs = [(_readable(k, place), _readable(v, f"{place}.{k}")) for k, v in value.items()]
        # as it is where it can be: a module's state has its version beside it
        same = all(k is a and v is b for (k, v), (a, b) in zip(pairs, value.items(), strict=True))
        return value if same else dict(pairs)
    if kind in (list, tuple):
        return kind(_readable(item, place) for item in value)
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor) or kind.__module__.partition(".")[0] == "torch":
        return value
    if isinstance(value, np.generic) and not isinstance(value.item(), np.generic):
        return _readable(value.item(), place)
    raise ConfigError(
        f"{place} is a {kind.__module__}.{kind.__qualname__}, with which no checkpoint could be read again; "
        "a state holds numbers, texts, tensors, and lists and dictionaries of them."
    )


def load_checkpoint(
    path: str | Path, *, device: str | Any = "cpu", remedy: str = _REMEDY
) -> dict[str, Any]:
    """The content saved by `save_checkpoint`, read without unpickling code (`weights_only=True`).

    Args:
        path: the file.
        device: where its tensors go.
        remedy: what to do about a file that cannot be read, as the end of a sentence.

    Raises:
        ResumeError: the file is missing, unreadable, damaged, or written by a newer program.
    """
    import torch

    path = regular_file(path, ResumeError)
    try:
        check_stored(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged archive
        # of what is no fault of the file: it must not be called damaged, nor moved away
        if is_memory_shortage(error):
            raise
        if isinstance(error, PermissionError) or disk_failure(error):
            raise ResumeError(
                f"The file {path} cannot be read ({why(error)}); mend that and try again."
            ) from error
        raise ResumeError(
            f"The file {path} cannot be read ({type(error).__name__}); it is damaged or not one of "
            f"ours: {remedy}."
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version > SCHEMA_VERSION:
        raise ResumeError(
            f"The file {path} has schema_version {version!r}; this program reads up to "
            f"{SCHEMA_VERSION}: update darts-core, or {remedy}."
        )
    return dict(content)


def check_data(path: str | Path, then: str | None, now: str | None) -> None:
    """Nothing, if a checkpoint, or a study, is gone on with on the data that it was written on.

    Args:
        path: the file.
        then: the mark of the data that it was written on (`DataBundle.mark`); None of older files.
        now: of the data at hand; None where they have none.

    Raises:
        ResumeError: other samples stand in the splits, so that some of those that judge were trained on.
    """
    if None not in (then, now) and then != now:
        raise ResumeError(
            f"{path} was written on other data: samples or targets have changed since. Use "
            "another version=, or restore the data."
        )


@contextmanager
def taking_over(path: str | Path) -> Iterator[None]:
    """A block that takes the values of `path` over: one that is missing or does not fit is a sentence.

    Raises:
        ResumeError: the block met a key that is not there, or a value of another type or shape.
    """
    try:
        yield
    except DartsError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as e:
        if is_memory_shortage(e):
            raise
        reason = (str(e).strip().splitlines() or [""])[0]
        raise ResumeError(
            f"{path} is damaged or was not written by this program ({type(e).__name__}: "
            f"{reason[:200]}); give another file, or move it away to start afresh."
        ) from e
