"""What torch.compile is to be given, so that one process may compile any number of networks.

A leaf: torch is not imported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

__all__ = ["apart"]

_copies = itertools.count()


def apart(model: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`model` behind a function of its own, which is what torch.compile is to be given.

    torch keeps what it compiles beside a function's code, which networks of a class share, and of one code at
    most eight forms: what comes after them runs uncompiled. So each network gets a copy of the code; under
    another name, as torch also remembers by the name which sizes were several.
    """

    def call(x: Any) -> Any:
        return model(x)

    call.__code__ = call.__code__.replace(co_name=f"call_{next(_copies)}")
    return call
