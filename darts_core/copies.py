"""Copies of networks as people write them: what they keep of a pass is copied without its history.

A leaf: torch is imported only when a function is called.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from darts_core.errors import DartsError, is_memory_shortage

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["copy_of", "copy_or_refuse", "kept_tensors"]


def kept_tensors(model: nn.Module) -> Iterator[tuple[Any, Any, torch.Tensor]]:
    """(where, under which key, tensor) of what modules keep as attributes, or in a list or dictionary."""
    import torch

    for module in model.modules():
        own = vars(module)
        for owner in (own, *(value for value in own.values() if type(value) in (dict, list))):
            pairs: Iterable[tuple[Any, Any]] = (
                owner.items() if isinstance(owner, dict) else enumerate(owner)
            )
            for key, value in list(pairs):
                if isinstance(value, torch.Tensor):
                    yield owner, key, value


def copy_of(model: nn.Module) -> nn.Module:
    """A copy of `model`, of all that it keeps of a pass the values alone.

    torch copies no tensor with a history, and a weight that weight_norm derived is one.

    Raises:
        Exception: of many kinds, where it holds something else that cannot be copied.
    """
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for _, _, value in kept_tensors(model)
        if not value.is_leaf
    }
    return copy.deepcopy(model, memo)


def copy_or_refuse(model: nn.Module, refused: type[DartsError], remedy: str) -> nn.Module:
    """As `copy_of`, with a sentence for what cannot be copied.

    Args:
        model: a network.
        refused: the error that is raised.
        remedy: how its sentence ends, after "remove what it keeps beside its parameters and buffers".

    Raises:
        DartsError: `refused`, where the network cannot be copied, or is compiled: what is done to its layers
            would not reach what runs.
    """
    # how torch.compile's module holds the plain one
    compiled = next((m for m in model.modules() if "_orig_mod" in m._modules), None)
    if compiled is not None:
        raise refused(
            f"{type(compiled._modules['_orig_mod']).__name__} is compiled by torch.compile; give the plain "
            "network, which the compiled one keeps as `_orig_mod`."
        )
    try:
        return copy_of(model)
    except Exception as error:  # whatever a foreign network raises
        if is_memory_shortage(error):
            raise
        raise refused(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {str(error)[:200]}); "
            f"remove what it keeps beside its parameters and buffers{remedy}"
        ) from error
