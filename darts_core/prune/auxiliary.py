"""The second head that only helps a training: what is cut to size goes on without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from darts_core.supernet.skeleton import AuxiliaryHead

__all__ = ["drop_auxiliary"]


def drop_auxiliary(model: nn.Module, meta: Mapping[str, Any] | None = None) -> None:
    """Take the auxiliary head off a network that `build` made; in place.

    What is called so in somebody's own network is a part of it as any other.

    Args:
        model: the network.
        meta: what `save_model` keeps of it; None: not known.
    """
    head = getattr(model, "auxiliary", None)
    # a registered skeleton may have a head of another class, which is built anew where `build` says so
    built = dict(meta or {}).get("build")
    asked = isinstance(built, Mapping) and bool(built.get("auxiliary"))
    if isinstance(head, AuxiliaryHead) or (asked and head is not None):
        model.auxiliary = None  # type: ignore[assignment]
