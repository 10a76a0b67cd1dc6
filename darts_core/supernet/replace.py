"""Modules of a built network swapped for cheaper ones by name, so that it can be rebuilt so.

A saved network carries `replaced: {"cells.3.ops.2": "none", "cells.5": "pass_cell"}` beside its
architecture: which places of it were cut afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from darts_core.errors import ArchitectureError, unknown_name
from darts_core.ops.simple import Skip, ZeroOp
from darts_core.supernet.open_attention import opened

__all__ = ["REPLACEMENTS", "PassCell", "is_identity", "is_zero", "replace_modules"]

REPLACEMENTS = ("none", "skip_connect", "pass_cell", "attention")


class PassCell(nn.Module):
    """A cell that hands on the newest of its input states."""

    def forward(
        self, inputs: Tensor | Sequence[Tensor], drop_probability: Tensor | None = None
    ) -> Tensor:
        """The last input."""
        return inputs if isinstance(inputs, Tensor) else inputs[-1]


class HandOn(Skip):
    """A block that hands on what it is called with first: the tokens, beside which a mask may stand."""

    def forward(self, x_BCHW: Tensor, *_: Any, **__: Any) -> Tensor:
        """The first argument."""
        return x_BCHW


def is_identity(module: nn.Module) -> bool:
    """Whether the module hands on its input unchanged."""
    return isinstance(module, (Skip, nn.Identity))


def is_zero(module: nn.Module) -> bool:
    """Whether the module gives zeros, whatever its input."""
    return isinstance(module, ZeroOp)


def replace_modules(model: nn.Module, replaced: Mapping[str, str]) -> nn.Module:
    """Put zeros, identities, cells that pass their input or opened attentions in the named places.

    Returns `model`.

    Args:
        model: a network from `build` or `baseline`; changed in place.
        replaced: module path -> one of `REPLACEMENTS`.

    Raises:
        ArchitectureError: a path or a replacement does not exist.
    """
    for path, name in replaced.items():
        if name not in REPLACEMENTS:
            raise ArchitectureError(unknown_name("replacement", name, REPLACEMENTS))
        parent, _, last = path.rpartition(".")
        try:
            old = model.get_submodule(path)
            owner = model.get_submodule(parent)
        except AttributeError as error:
            raise ArchitectureError(f"The network has no module {path!r} to replace.") from error
        setattr(owner, last, _new(path, name, old))
    return model


def _new(path: str, name: str, old: nn.Module) -> nn.Module:
    if name == "none":
        return ZeroOp(1, 1, affine=True)
    if name == "attention":
        found = opened(old)
        if found is None:
            raise ArchitectureError(
                f"{path!r} is a {type(old).__name__}, no attention to be opened."
            )
        return found.train(old.training)
    return HandOn() if name == "skip_connect" else PassCell()
