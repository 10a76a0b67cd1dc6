"""One weight in several places of a network, such as an embedding that is also the output's weight.

What cuts a network gives each of its layers a weight of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["kept_tied", "tied", "untied"]

Names = tuple[str, ...]


def tied(model: nn.Module) -> list[Names]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [tuple(found) for found in names.values() if len(found) > 1]


@contextmanager
def kept_tied(model: nn.Module) -> Iterator[None]:
    """What is one parameter before the block is one behind it, where its places then hold the same numbers.

    Places that were cut in different ways hold weights of their own from then on; see `untied`.
    """
    before = tied(model)
    yield
    for names in before:
        places = _there(model, names)
        for name, parameter in places[1:]:
            first = places[0][1]
            if parameter is not first and _same(parameter, first):
                owner, _, last = name.rpartition(".")
                setattr(model.get_submodule(owner), last, first)


def untied(model: nn.Module, before: Iterable[Names]) -> list[Names]:
    """Those of `before`, of `tied`, that are several parameters of `model`; places that are gone left out."""
    found = []
    for names in before:
        there = _there(model, names)
        if len({id(parameter) for _, parameter in there}) > 1:
            found.append(tuple(name for name, _ in there))
    return found


def _there(model: nn.Module, names: Sequence[str]) -> list[tuple[str, nn.Parameter]]:
    known = dict(model.named_parameters(remove_duplicate=False))
    return [(name, known[name]) for name in names if name in known]


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
