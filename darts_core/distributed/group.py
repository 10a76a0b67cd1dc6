"""The processes that torchrun starts for one search or training, and what they settle among themselves.

Every process takes its part of each batch and has the same parameters at every step.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from darts_core import errors
from darts_core.errors import ConfigError, DartsError, DeviceError, first_line, sentence_of

__all__ = ["Group", "current_group", "first_goes_first", "first_may_fail", "join_group"]

# the first process measures and evaluates for so long while the others wait; torchrun ends them all when
# one dies, so that nobody waits for the dead
_LONGEST_WAIT = timedelta(days=1)


def join_group(backend: str | None = None) -> torch.device:
    """Join the process group that torchrun describes; returns this process's device.

    Args:
        backend: "nccl" on GPUs and "gloo" on the CPU if None.

    Raises:
        DeviceError: the process was not started by torchrun, or there are more processes than GPUs.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise DeviceError(
            "Several processes need a launcher: torchrun --nproc-per-node=N script.py."
        )
    gpu = torch.cuda.is_available() and backend != "gloo"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if gpu and here > torch.cuda.device_count():
        raise DeviceError(
            f"torchrun started {here} processes here and each needs a GPU of its own; there are "
            f"{torch.cuda.device_count()}: start so many, or use device=cpu."
        )
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
    )
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(backend or ("nccl" if gpu else "gloo"), timeout=_LONGEST_WAIT)
    return device


def current_group() -> Group | None:
    """The processes that this one has joined; None before `join_group`."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    gpu = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    return Group(dist.get_rank(), dist.get_world_size(), device)


@dataclass(frozen=True)
class Group:
    """The processes of one search or training. Every method is called in all of them at the same place.

    A group of one process is a process of its own: nothing is sent.

    Attributes:
        rank: of this process, 0 to `processes` - 1.
        processes: how many there are.
        device: of this process.
    """

    rank: int
    processes: int
    device: torch.device

    @classmethod
    def alone(cls) -> Group:
        """A process of its own."""
        return cls(0, 1, torch.device("cpu"))

    @property
    def primary(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def check_batch(self, key: str, batch_size: int) -> None:
        """Refuse a batch that has no equal parts.

        Raises:
            ConfigError: naming the setting `key`.
        """
        if batch_size % self.processes:
            raise ConfigError(
                f"{key}={batch_size} cannot be divided among {self.processes} processes; use a multiple."
            )

    def part(self, whole: Tensor) -> Tensor:
        """This process's part of a batch."""
        if self.processes == 1:
            return whole
        size = len(whole) // self.processes
        return whole[self.rank * size : (self.rank + 1) * size]

    def joined(self, own: Tensor) -> Tensor:
        """The processes' parts one below the other; gradients reach this process's own alone.

        A loss of the joined outputs therefore has, in each process, that process's share of the gradient
        of the whole batch's loss, whatever the loss divides by; `sum_gradients` adds the shares up.

        Shapes: own [B/processes, ...] -> [B, ...].
        """
        if self.processes == 1:
            return own
        sent = own.detach().contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.processes)]
        dist.all_gather(parts, sent)
        parts[self.rank] = own
        return torch.cat(parts)

    @torch.no_grad()
    def sum_gradients(self, params: Sequence[nn.Parameter]) -> None:
        """Make the `grad` of each parameter the sum over the processes, in one message.

        A parameter that has a gradient in no process stays without.
        """
        if self.processes == 1:
            return
        learning = [param for param in params if param.requires_grad]
        grads = [
            torch.zeros_like(param) if param.grad is None else param.grad for param in learning
        ]
        known = tuple(float(param.grad is not None) for param in learning)
        having = _constant(known, self.device).clone()
        _sum_in_place([having, *grads])
        # looked at only where it matters: on a GPU it waits for the device
        anywhere = [True] * len(known) if all(known) else having.bool().tolist()
        for param, grad, there in zip(learning, grads, anywhere, strict=True):
            param.grad = grad if there else None

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in place, in one message."""
        if tensors and self.processes > 1:
            _sum_in_place(tensors, divisor=self.processes)

    @torch.no_grad()
    def send(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the first one's values, in place."""
        if self.processes > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def agree(self, value: bool) -> bool:
        """Whether the value is true in any process."""
        if self.processes == 1:
            return value
        flag = torch.tensor(float(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def share(self, value: float) -> float:
        """The first process's value: running statistics differ, decisions must not."""
        if self.processes == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def text(self, text: str) -> str:
        """The first process's text, in all processes."""
        if self.processes == 1:
            return text
        content = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self.device)
        length = torch.tensor(len(content), device=self.device)
        dist.broadcast(length, src=0)
        if not self.primary:
            content = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        dist.broadcast(content, src=0)
        return bytes(content.tolist()).decode()

    def values(self, values: dict[str, float]) -> dict[str, float]:
        """The first process's numbers by name, in all processes, bit for bit."""
        if self.processes == 1:
            return values
        # the shortest text of a double reads as the same double
        found: dict[str, float] = json.loads(self.text(json.dumps(values if self.primary else {})))
        return found


@contextmanager
def first_goes_first(group: Group | None) -> Iterator[None]:
    """A block that the first process runs through before the others enter it."""
    if group is not None and not group.primary:
        dist.barrier()
    yield
    if group is not None and group.primary:
        dist.barrier()


@contextmanager
def first_may_fail(group: Group) -> Iterator[None]:
    """A block of work that the first process alone does; the others wait at its end for how it went.

    Without it they would wait for what a failed one never sends, until torchrun ends them by force.

    Raises:
        DartsError: in the others what failed in the first one, of its kind and with its sentence.
    """
    if not group.primary:
        yield
        told: dict[str, str] = json.loads(group.text(""))
        if told:
            raise getattr(errors, told["kind"], DartsError)(told["sentence"])
        return
    try:
        yield
    except Exception as error:
        sentence = sentence_of(error) or f"The first process failed: {first_line(error)}"
        kind = type(error).__name__ if isinstance(error, DartsError) else ""
        group.text(json.dumps({"kind": kind, "sentence": sentence}))
        raise
    group.text("{}")


def _sum_in_place(tensors: Sequence[Tensor], divisor: int = 1) -> None:
    flat = _flatten_dense_tensors([tensor.contiguous() for tensor in tensors])
    dist.all_reduce(flat)
    if divisor != 1:
        flat /= divisor
    for tensor, total in zip(tensors, _unflatten_dense_tensors(flat, list(tensors)), strict=True):
        tensor.copy_(total)


@lru_cache(maxsize=8)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)
