"""Standard output under `--json`: the command's objects, and nothing that the user's own modules print."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

__all__ = ["json_alone"]


@contextlib.contextmanager
def json_alone(wanted: bool) -> Iterator[Callable[[str], None]]:
    """A block with the function that prints on stdout; where `wanted`, all else printed goes to stderr."""
    say = partial(print, file=sys.stdout)
    aside: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    if wanted:
        aside = contextlib.redirect_stdout(sys.stderr)
    with aside:
        yield say
