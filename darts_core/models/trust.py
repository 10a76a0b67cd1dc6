"""Which modules a saved file may have imported: those that the user named herself, and no others.

A saved network says which function made it. Importing a module runs it, so that a file that somebody
sent could run code; the module must therefore stand on the command line too.
"""

from __future__ import annotations

__all__ = ["is_trusted", "trust"]

_NAMED: set[str] = set()


def trust(module: str) -> None:
    """Note that the user named `module`, in `plugins=` or `model=`."""
    _NAMED.add(module)


def is_trusted(module: str) -> bool:
    """Whether the user named exactly this module."""
    return module in _NAMED
