"""What to say when a network or a step does not fit into memory: of a step, the largest batch that does."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import MemoryShortageError, is_memory_shortage
from darts_core.memory import check_memory

__all__ = [
    "check_network",
    "largest_batch",
    "memory_sentence",
    "shared_memory_sentence",
    "state_bytes",
]


def state_bytes(make: Callable[[], nn.Module]) -> int:
    """Bytes of the state of the network that `make` builds, found without asking for any of them."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        described = make()
    return _bytes_of(described)


def _bytes_of(network: nn.Module) -> int:
    tensors = (v for v in network.state_dict().values() if isinstance(v, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _needed(make: Callable[[], nn.Module]) -> int:
    """As `state_bytes`; a network whose code reads the values that it makes, as the rates of a stochastic
    depth (`torch.linspace(...)[i].item()`), or moves them, is made for this.
    """
    try:
        return state_bytes(make)
    except MemoryShortageError:
        raise
    except Exception as error:  # of foreign code; what is wrong otherwise is raised below
        if is_memory_shortage(error):
            raise
    with torch.random.fork_rng(devices=[]):
        return _bytes_of(make())


def check_network(make: Callable[[], nn.Module], device: torch.device, what: str) -> None:
    """Refuse to train a network whose params, gradients and momentum alone no memory holds.

    Args:
        make: builds the network on torch's default device.
        device: where it will be trained.
        what: names the network in the sentence.

    Raises:
        MemoryShortageError: before any memory is asked for, but for what `make` alone takes where its code
            reads values.
    """
    check_memory(
        3 * _needed(make),
        f"{what} needs at least",
        "use fewer channels or layers, or another machine",
        device,
    )


def largest_batch(
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    model: nn.Module,
    x_BCHW: Tensor,
    y_B: Tensor,
    device: torch.device,
) -> int:
    """The largest batch below B whose forward and backward pass fit; 0 when none does.

    Found by halving, then by bisection to within an eighth of the size. Leaves gradients
    cleared and the network's running statistics as they were.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    size, too_large = len(x_BCHW) // 2, len(x_BCHW)
    try:
        while size >= 1 and not _fits(loss_of, x_BCHW[:size], y_B[:size], device):
            size, too_large = size // 2, size
        while size and too_large - size > max(1, size // 8):
            between = (size + too_large) // 2
            if _fits(loss_of, x_BCHW[:between], y_B[:between], device):
                size = between
            else:
                too_large = between
        return size
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])


def _fits(loss_of: Any, x_BCHW: Tensor, y_B: Tensor, device: torch.device) -> bool:
    _release(device)
    try:
        loss, _ = loss_of(x_BCHW.to(device), y_B.to(device))
        loss.backward()
    except (RuntimeError, MemoryError) as error:
        if not is_memory_shortage(error):
            raise
        return False
    return True


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def memory_sentence(
    loss_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    model: nn.Module,
    x_BCHW: Tensor,
    y_B: Tensor,
    device: torch.device,
    cause: str,
) -> MemoryShortageError:
    """The error for a batch that does not fit, with the largest batch found that does."""
    model.zero_grad(set_to_none=True)
    size = largest_batch(loss_of, model, x_BCHW, y_B, device)
    start = (
        f"A training step with batch_size={len(x_BCHW)} does not fit into the memory of {device}"
    )
    if size == 0:
        return MemoryShortageError(
            f"{start}, and neither does a single image; use fewer channels or layers ({cause})."
        )
    return MemoryShortageError(f"{start}; the largest that fits is batch_size={size} ({cause}).")


def shared_memory_sentence(
    batch_size: int, processes: int, device: torch.device, cause: str
) -> MemoryShortageError:
    """The error for a batch of several processes, of which one alone cannot look for a smaller one."""
    return MemoryShortageError(
        f"A training step with batch_size={batch_size} in {processes} processes does not fit into the memory "
        f"of {device}; use a smaller batch or more processes ({cause})."
    )
