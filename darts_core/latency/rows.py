"""Rows of a latency table, timed in groups: what is taken off each of them is the same and is timed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from darts_core.latency import device as _device
from darts_core.latency.deployed import as_deployed, in_runtime
from darts_core.latency.measure import FOREIGN_CORES
from darts_core.latency.turns import added_in_turn

__all__ = ["REWRITING", "ROUND_SECONDS", "Timed", "groups_of", "time_group"]

# these change the layout of tensors and merge operations: alone, an operation pays for what it would not
# pay for inside a network (ONNX Runtime's blocked layout), and the other way round
REWRITING = ("onnx", "compile")
ROUND_SECONDS = 0.02
"""Time for the samples of one call in one round."""
_LEAST_MS = 1e-4
# more sessions at once would let the device's pace change between the first and the last of a round
_MOST = 8


class Timed(Protocol):
    """Something with a row of its own."""

    def beside(self) -> Hashable:
        """Equal for what is likely to have the same base and input."""
        ...

    def forms(
        self, runtime: str, device: torch.device
    ) -> tuple[nn.Module | None, nn.Module, torch.Tensor]:
        """(what is taken off, what is timed, the input of both)."""
        ...


@dataclass
class Group:
    """Rows that are timed in turns.

    Attributes:
        base: runs what is taken off all of them; None: nothing is.
        calls: key -> runs what is timed.
        free: keys of what hands its input on, which a runtime leaves out.
    """

    base: Callable[[], Any] | None = None
    calls: dict[str, Callable[[], Any]] = field(default_factory=dict)
    free: list[str] = field(default_factory=list)


def groups_of(
    wanted: Mapping[str, Timed], runtime: str, device: torch.device, dtype: torch.dtype
) -> Iterator[Group]:
    """The rows in groups of at most eight, each made when it is asked for.

    Args:
        wanted: key -> what is to be timed.
        runtime: of the table.
        device: where.
        dtype: number format on a GPU.
    """
    places: dict[Hashable, list[str]] = {}
    for key, subject in wanted.items():
        places.setdefault(subject.beside(), []).append(key)
    for keys in places.values():
        group, shared = Group(), None
        for key in keys:
            base, module, x = wanted[key].forms(runtime, device)
            like = (type(base), tuple(x.shape), x.dtype)
            if shared is not None and (like != shared or len(group.calls) == _MOST):
                yield group
                group, shared = Group(), None
            if shared is None:
                shared = like
                if base is not None:
                    group.base = in_runtime(*as_deployed(base, x, dtype), runtime)
            if base is not None and _hands_on(module, x):
                group.free.append(key)
            else:
                group.calls[key] = in_runtime(*as_deployed(module, x, dtype), runtime)
        yield group


@torch.inference_mode()
def _hands_on(module: nn.Module, x: torch.Tensor) -> bool:
    home = next(module.parameters(), x)
    same = x.to(home.device)
    return module(same) is same


def time_group(
    group: Group, device: torch.device, *, seconds: float, settle: float
) -> tuple[dict[str, float], bool]:
    """(key -> milliseconds, whether other work disturbed them twice).

    Args:
        group: of `groups_of`.
        device: where; hold its lock.
        seconds: time for the samples of one call in one round.
        settle: seconds for which one call's threads may keep the cores after it.
    """
    found, disturbed = dict.fromkeys(group.free, _LEAST_MS), False
    for _ in range(2 if group.calls else 0):
        load = _device.Load()
        times = added_in_turn(
            group.base, list(group.calls.values()), device=device, seconds=seconds, settle=settle,
        )  # fmt: skip
        found |= {k: max(ms, _LEAST_MS) for k, ms in zip(group.calls, times, strict=True)}
        disturbed = device.type == "cpu" and load.foreign() > FOREIGN_CORES
        if not disturbed:
            break
    return found, disturbed
