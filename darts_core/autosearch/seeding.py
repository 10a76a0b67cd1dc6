"""Seeds what the user's code draws from, at the moment it imports it; nothing is imported for its sake.

A network made at module level is drawn while the file is loaded, so torch has to be seeded as soon as
torch is there. Standard library only, see contract.py.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["SEED_VARIABLE", "install", "seed_imported"]

SEED_VARIABLE = "DARTS_SEED"


def _numpy(module: Any, seed: int) -> None:
    module.random.seed(seed % 2**32)


def _torch(module: Any, seed: int) -> None:
    module.manual_seed(seed % 2**63)


def _tensorflow(module: Any, seed: int) -> None:
    module.random.set_seed(seed % 2**31)


_SEEDED: dict[str, Callable[[Any, int], None]] = {
    "numpy": _numpy,
    "torch": _torch,
    "tensorflow": _tensorflow,
}


def seed_imported(seed: int) -> None:
    """Seed `random` and whatever else is imported already."""
    random.seed(seed)
    for name, how in _SEEDED.items():
        if name in sys.modules:
            how(sys.modules[name], seed)


class _Seeded(Loader):
    """A module's own loader, and then its seed."""

    def __init__(self, inner: Any, seed: int) -> None:
        self.inner, self.seed = inner, seed

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.inner.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        # the module sees its own loader, as without us
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        module.__loader__ = self.inner
        self.inner.exec_module(module)
        _SEEDED[module.__name__](module, self.seed)


class _Finder(MetaPathFinder):
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _SEEDED:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Seeded(spec.loader, self.seed)
        return spec


def install(seed: int) -> None:
    """Seed what is imported, and what will be."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    sys.meta_path.insert(0, _Finder(seed))
    seed_imported(seed)
