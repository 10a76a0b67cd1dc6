"""Which modules a saved file may have imported: those that the user named herself, and no others.

A saved network says which function made it. Importing a module runs it, so that a file that somebody
sent could run code; the module must therefore stand on the command line too.
"""

from __future__ import annotations

__all__ = ["is_her_own", "is_trusted", "trust"]

_NAMED: set[str] = set()


def trust(module: str) -> None:
    """Note that the user named `module`, in `plugins=` or `model=`."""
    _NAMED.add(module)


def is_trusted(module: str) -> bool:
    """Whether the user named exactly this module."""
    return module in _NAMED


def is_her_own(module: str) -> bool:
    """Whether `module` lies in the same package as one that the user named, ours left out."""
    root = module.partition(".")[0]
    return root != "darts_core" and any(name.partition(".")[0] == root for name in _NAMED)
