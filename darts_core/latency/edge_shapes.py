"""Where a supernet makes its choices: every edge of every cell, with the shape that reaches it."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darts_core.errors import LatencyError
from darts_core.ops import OPS, create_op
from darts_core.runlog import config_hash

__all__ = ["Place", "find_places"]


@dataclass(frozen=True)
class Place:
    """Where a choice is made: cell kind, edge (row of alpha), and the shape of its input."""

    kind: str
    edge: int
    channels: int
    height: int
    width: int
    stride: int

    def key(self, op: str, batch: int, *, by_name: bool = False) -> str:
        """The row of the table for operation `op` at this place.

        Of a user's own it says which code that is: edited, it takes another time. `by_name`: as tables of
        older programs have it.
        """
        own = op in OPS and not by_name
        mark = _code_mark(OPS[op], op, self.channels, self.stride) if own else ""
        return f"{op}{mark}/c{self.channels}/{self.height}x{self.width}/s{self.stride}/b{batch}"


@functools.cache
def _code_mark(factory: Any, name: str, channels: int, stride: int) -> str:
    """A hash of the layers of a user's operation and of their code; "" for one of the package's."""
    if str(getattr(factory, "__module__", "")).startswith("darts_core."):
        return ""
    # what is drawn here must not change what the search draws
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        module = create_op(name, channels, stride)
    kinds = {factory, *map(type, module.modules())}
    own = [k for k in kinds if not str(getattr(k, "__module__", "")).startswith("torch.")]
    code = sorted(map(_source, own))
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(module))  # an address is another in each process
    return f"~{config_hash({'layers': layers, 'code': code})}"


def _source(kind: Any) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):  # typed into a shell, or no function
        return ""


def find_places(supernet: nn.Module, input_shape: Sequence[int]) -> list[Place]:
    """Every edge of every cell of a supernet, with the shape that reaches it.

    Args:
        supernet: of the space, with the channels and layers of the network to be built.
        input_shape: (C, H, W).

    Raises:
        LatencyError: the network has no cells with mixed operations.
    """
    found: list[Place] = []
    hooks = []
    for module in supernet.modules():
        mixed, kind = getattr(module, "mixed", None), getattr(module, "kind", None)
        if not isinstance(mixed, nn.ModuleList) or not isinstance(kind, str):
            continue
        for edge, operation in enumerate(mixed):

            def note(
                _: nn.Module, inputs: tuple[Any, ...], output: Any, kind: str = kind, e: int = edge
            ) -> None:
                _, channels, height, width = inputs[0].shape
                stride = 1 if output.shape[2] == height else 2
                found.append(Place(kind, e, channels, height, width, stride))

            hooks.append(operation.register_forward_hook(note))
    reference = next(supernet.parameters())
    was_training = supernet.training
    try:
        with torch.no_grad():
            supernet.eval()(torch.zeros(2, *input_shape, device=reference.device))
    finally:
        supernet.train(was_training)
        for hook in hooks:
            hook.remove()
    if not found:
        raise LatencyError(
            f"{type(supernet).__name__} has no cells with mixed operations; pass a Supernet."
        )
    return found
