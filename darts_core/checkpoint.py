"""Saving and loading torch files safely. A leaf: torch is imported only when a function is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import ResumeError
from darts_core.runlog import replacing

__all__ = ["load_checkpoint", "save_checkpoint"]

SCHEMA_VERSION = 1


def save_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write `content` to a temporary file, flush it to disk and rename it onto `path`.

    A kill at any moment leaves either the old file or the new one, never half a file.
    """
    import torch

    with replacing(path) as stream:
        torch.save({"schema_version": SCHEMA_VERSION, **content}, stream)


def load_checkpoint(path: str | Path, *, device: str | Any = "cpu") -> dict[str, Any]:
    """The content saved by `save_checkpoint`, read without unpickling code (`weights_only=True`).

    Raises:
        ResumeError: the file is missing, damaged, or written by a newer program.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise ResumeError(f"There is no checkpoint at {path}; name an existing file.")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for a damaged archive
        raise ResumeError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}); it is damaged or not "
            "one of ours. Delete it to start afresh."
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ResumeError(
            f"The checkpoint {path} has schema_version {version!r}; this program reads up to "
            f"{SCHEMA_VERSION}. Update darts-core or delete the file."
        )
    return dict(content)
