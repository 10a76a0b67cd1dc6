"""Numbers that a constructor takes, declared beside it and checked before it runs.

Strategies, relaxations, penalties and guards are classes that a `_target_` names; their arguments are
settings as those of a stage are, with a range each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from darts_core.settings.field import Bounds, check_value, type_of_hint

__all__ = ["bounded", "ranges_of"]

F = TypeVar("F", bound=Callable[..., None])


def bounded(**ranges: Bounds) -> Callable[[F], F]:
    """Hold the arguments of an `__init__` to their annotations, and those named to a range each.

    A refused one is called `NODE.name` by the `NODE` of its class, as it is typed on the command line.

    Raises:
        ConfigError: when an object is made with a wrong type, nan, inf or a number out of range.
    """

    def decorate(init: F) -> F:
        signature = inspect.signature(init)
        hints: dict[str, tuple[Any, bool]] = {}

        @wraps(init)
        def checked(self: Any, *args: Any, **kwargs: Any) -> None:
            if not hints:
                annotations = inspect.get_annotations(init, eval_str=True)
                hints.update({k: type_of_hint(annotations[k]) for k in ranges})
            given = signature.bind(self, *args, **kwargs).arguments
            for name in ranges.keys() & given.keys():
                check_value(f"{self.NODE}.{name}", given[name], *hints[name], ranges[name])
            init(self, *args, **kwargs)

        checked.ranges = ranges  # type: ignore[attr-defined]
        return checked  # type: ignore[return-value]

    return decorate


def ranges_of(cls: type) -> Mapping[str, Bounds]:
    """The declared ranges of what the constructor of `cls` takes, those of its bases included."""
    found: dict[str, Bounds] = {}
    for base in reversed(cls.__mro__):
        found.update(getattr(vars(base).get("__init__"), "ranges", {}))
    return found
