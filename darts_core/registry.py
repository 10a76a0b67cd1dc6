"""Name -> object tables for names that live inside saved files (operations, spaces)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from darts_core.errors import ConfigError, unknown_name

__all__ = ["Entry", "Registry"]

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
