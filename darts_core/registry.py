"""Name -> object tables for names that live inside saved files (operations, spaces)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from darts_core.errors import ConfigError, unknown_name

__all__ = ["Entry", "Registry", "former_table"]

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered object with the line of text that `darts-core list` prints for it."""

    name: str
    value: T
    description: str


class Registry(Generic[T]):
    """A table that refuses a second object under a taken name and suggests near names for unknown ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry[T]] = {}

    def register(self, name: str, *, description: str) -> Callable[[T], T]:
        """A decorator that stores its object under `name`.

        Raises:
            ConfigError: `name` is taken by another object.
        """

        def store(value: T) -> T:
            if name in self._entries:
                raise ConfigError(
                    f"The {self.kind} name {name!r} is already registered by "
                    f"{self._entries[name].value!r}; choose another name."
                )
            self._entries[name] = Entry(name, value, description)
            return value

        return store

    def put(self, name: str, value: T, *, description: str) -> None:
        """Store `value` under `name`, in place of what may have stood there."""
        self._entries[name] = Entry(name, value, description)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise ConfigError(unknown_name(self.kind, name, self._entries))
        return self._entries[name].value

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Entry[T]]:
        """All entries in the order in which they were registered."""
        return list(self._entries.values())


class _FormerTable(MutableMapping[str, T]):
    """A registry seen as the plain dictionary that it once was: names may be replaced and taken out."""

    def __init__(self, registry: Registry[T]) -> None:
        self._registry = registry

    def __getitem__(self, name: str) -> T:
        if name not in self._registry:
            raise KeyError(name)
        return self._registry[name]

    def __setitem__(self, name: str, value: T) -> None:
        self._registry.put(name, value, description="")

    def __delitem__(self, name: str) -> None:
        del self._registry._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)


def former_table(registry: Registry[T], old: str, new: str) -> MutableMapping[str, T]:
    """What a module's `__getattr__` gives for a dictionary that has become a registration, with a warning.

    The warning is a FutureWarning: a DeprecationWarning of a module named in `plugins=` is not shown.

    Args:
        registry: what holds the entries now.
        old: the dictionary's name, with its module.
        new: what to call instead, with its module.
    """
    warnings.warn(
        f"{old} is read for one more version; use {new} instead.", FutureWarning, stacklevel=3
    )
    return _FormerTable(registry)
