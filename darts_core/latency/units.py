"""The parts of a choice space's networks that are timed: as large as their combinations allow.

A large part holds what stands between its layers (additions, activations, attention) and lets the
runtime merge them; a small part depends on few choices and is timed under few combinations.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.copies import copy_of
from darts_core.errors import LatencyError
from darts_core.latency.rows import REWRITING
from darts_core.latency.survey import Survey
from darts_core.sample_inputs import number_format
from darts_core.spaces.choices import Option

__all__ = ["Unit", "find_units"]

# a part that takes more combinations than this is timed in pieces
_MOST = 36


def find_units(survey: Survey) -> tuple[dict[str, tuple[str, ...]], set[str]]:
    """(path of each part to be timed -> the choices on which it depends, those timed where bare).

    What is timed in pieces may, under some choices, have none: a convolution where others are a depthwise
    and a pointwise one. There it is timed itself.
    """
    paths = survey.paths()
    found: dict[str, tuple[str, ...]] = {}
    where_bare: set[str] = set()

    def visit(path: str) -> None:
        labels = survey.labels(path, whole=True)
        count = int(np.prod([len(survey.space.options(label)) for label in labels], dtype=np.int64))
        inner = _children(paths, path)
        if not inner or (count <= _MOST and _fits(survey, path)):
            found[path] = labels
            return
        if survey.ever_bare(path):
            found[path] = labels
            where_bare.add(path)
        for child in inner:
            visit(child)

    visit("")
    return found, where_bare


def _children(paths: list[str], path: str) -> list[str]:
    """The parts directly inside `path`; containers that do not run themselves are looked through."""
    inside = [p for p in paths if p != path and (not path or p.startswith(f"{path}."))]
    return [p for p in inside if not any(p.startswith(f"{other}.") for other in inside)]


def _fits(survey: Survey, path: str) -> bool:
    """Whether the part runs once a pass and gets a tensor, so that it can run alone."""
    part = survey.look({}).get(path)
    return part is None or (part.calls == 1 and bool(part.inputs[0]))


@dataclass(frozen=True)
class Unit:
    """A part of one network, to be timed alone.

    Attributes:
        survey: makes the network.
        path: of the part.
        changes: of the base architecture.
        batch: samples a call.
    """

    survey: Survey
    path: str
    changes: tuple[tuple[str, Option], ...]
    batch: int

    def key(self, work: str) -> str:
        """The row of the table for a part that does `work`."""
        return f"part/{work}/b{self.batch}"

    def beside(self) -> Hashable:
        """See `rows.Timed`: the shape of the part's input."""
        part = self.survey.look(dict(self.changes)).get(self.path)
        return part.inputs[:1] if part is not None else (), self.batch

    def forms(
        self, runtime: str, device: torch.device
    ) -> tuple[nn.Module | None, nn.Module, Tensor]:
        """See `rows.Timed`."""
        network = self.survey.network(self.survey.architecture(dict(self.changes)))
        module, x = _alone(network, self.path, self.survey.sample)
        x = _of_batch(x, self.batch).to(device)
        # what one run costs besides its work
        base = _Nothing() if runtime in REWRITING else None
        return base, module, x


@torch.no_grad()
def _alone(network: nn.Module, path: str, sample: Tensor) -> tuple[nn.Module, Tensor]:
    """The part at `path` as a module of one tensor, and that tensor in a pass over `sample`."""
    part = network.get_submodule(path)
    calls: list[tuple[Any, Any]] = []
    hook = part.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, dict(kwargs))), with_kwargs=True
    )
    x = sample.to(next(network.parameters(), sample).device, copy=True)
    try:
        network(x.to(number_format(network)) if x.is_floating_point() else x)
    finally:
        hook.remove()
    args, kwargs = calls[0]
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    if not tensors:
        raise LatencyError(
            f"The part {path or 'root'!r} gets no tensor; it cannot be timed alone. Call it with one."
        )
    # a copy: what is timed on a GPU is moved there, and the network is run again for its other parts
    alone = _Alone(copy_of(part), args, kwargs, tensors[0], len(calls), len(sample))
    return alone, tensors[0]


class _Alone(nn.Module):
    """Runs a part as often as its network does, everything but one tensor as it was there."""

    def __init__(
        self,
        part: nn.Module,
        args: Any,
        kwargs: Mapping[str, Any],
        x: Tensor,
        calls: int,
        batch: int,
    ) -> None:
        super().__init__()
        self.part, self.calls, self.samples = part, calls, batch
        self._args = tuple(self._keep(f"arg_{i}", a, x) for i, a in enumerate(args))
        self._kwargs = {name: self._keep(f"kwarg_{name}", a, x) for name, a in kwargs.items()}

    def _keep(self, name: str, value: Any, x: Tensor) -> Any:
        """None for the tensor that comes in, a name for another, else the value."""
        if value is x:
            return _Given()
        if not isinstance(value, Tensor):
            return value
        self.register_buffer(name, value.detach(), persistent=False)
        return _Given(name)

    def _get(self, value: Any, x: Tensor) -> Any:
        if not isinstance(value, _Given):
            return value
        if value.buffer is None:
            return x
        kept = self.get_buffer(value.buffer)
        return _of_batch(kept, len(x)) if len(kept) == self.samples else kept

    def forward(self, x: Tensor) -> Any:
        """The part's (first) output."""
        result: Any = None
        for _ in range(self.calls):
            args = [self._get(value, x) for value in self._args]
            result = self.part(*args, **{n: self._get(v, x) for n, v in self._kwargs.items()})
        return result if isinstance(result, Tensor) else result[0]


@dataclass(frozen=True)
class _Given:
    buffer: str | None = None


class _Nothing(nn.Module):
    """Hands its input on; a runtime still reads and writes it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.neg(x) if x.is_floating_point() else x + 1


def _of_batch(x: Tensor, batch: int) -> Tensor:
    return x.repeat((-(-batch // len(x)), *[1] * (x.dim() - 1)))[:batch].contiguous()
