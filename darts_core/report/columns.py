"""What stands side by side in a comparison: a version, or each element of a multirun."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from darts_core.errors import JobError
from darts_core.report.elements import elements, parts_of
from darts_core.store.jobs import Store
from darts_core.store.version import Version

__all__ = ["Column", "columns_named", "columns_of"]


@dataclass(frozen=True)
class Column:
    """A version, or one element of it.

    Attributes:
        version: whose it is.
        folder: where its stages lie.
    """

    version: Version
    folder: Path

    @property
    def name(self) -> str:
        """`V001`, of an element `V001/0`."""
        return self.folder.relative_to(self.version.path.parent).as_posix()

    @property
    def label(self) -> str:
        """`job/V001`, of an element `job/V001/0`."""
        return f"{self.version.job}/{self.name}"


def columns_of(versions: Iterable[Version]) -> list[Column]:
    """A column a version; of a multirun, or of several seeds, one an element."""
    found = []
    for version in versions:
        found += [Column(version, at) for at in parts_of(version.path) or [version.path]]
    return found


def columns_named(store: Store, name: str) -> list[Column]:
    """The columns that `job`, `job/V001` or `job/V001/0` stands for; a job stands for its newest version.

    Raises:
        JobError: there is no such job, version or element.
    """
    job, _, rest = name.partition("/")
    number, _, element = rest.partition("/")
    version = store.version(job, number or None)
    if not element:
        return columns_of([version])
    parts = {folder.name: folder for folder in elements(version.path)}
    if element not in parts:
        known = ", ".join(parts) or "none"
        raise JobError(f"{version.label} has no element {element[:20]!r}; it has {known}.")
    return [Column(version, parts[element])]
