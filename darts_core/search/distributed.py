"""Data-parallel search: every process takes its part of each batch, gradients are averaged.

Start the processes with `torchrun --nproc-per-node=N script.py`; in the script call `join_group()`, make the
supernet as for one process, and call `search_distributed` in the place of `search`.

By default batch norms see their own process's images, and gradients equal the mean over the parts of the
batch computed in one process. With `sync_batchnorm=True` the statistics are those of the whole batch, and
the search equals one process with the whole batch up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from darts_core.data import DataBundle
from darts_core.errors import ConfigError, DeviceError
from darts_core.runlog import RunFolder
from darts_core.search.loop import search
from darts_core.search.sync_norm import synchronize_norms
from darts_core.search.types import Group, SearchConfig, SearchResult
from darts_core.strategies import Strategy
from darts_core.strategies.base import Batch
from darts_core.supernet import Supernet

__all__ = ["ShardedBundle", "average_gradients", "join_group", "search_distributed"]


def join_group(backend: str | None = None) -> torch.device:
    """Join the process group that torchrun describes; returns this process's device.

    Args:
        backend: "nccl" on GPUs and "gloo" on the CPU if None.

    Raises:
        DeviceError: the process was not started by torchrun.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise DeviceError(
            "Data-parallel search needs a launcher: torchrun --nproc-per-node=N script.py."
        )
    gpu = torch.cuda.is_available() and backend != "gloo"
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")
    )
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(backend or ("nccl" if gpu else "gloo"))
    return device


class ShardedBundle:
    """A data bundle whose shuffled batches hold this process's part of each whole batch.

    Order and augmentation are those of one process. Everything else is the bundle's.
    """

    def __init__(self, bundle: DataBundle, rank: int, processes: int) -> None:
        self._bundle, self._rank, self._processes = bundle, rank, processes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)

    def batches(
        self, names: str | Sequence[str], batch_size: int, *, shuffle: bool = True, **options: Any
    ) -> Iterator[Batch]:
        """Parts of batches when shuffled (training), whole ones otherwise (evaluation)."""
        whole = self._bundle.batches(names, batch_size, shuffle=shuffle, **options)
        if not shuffle:
            yield from whole
            return
        part = batch_size // self._processes
        own = slice(self._rank * part, (self._rank + 1) * part)
        for images, labels in whole:
            yield images[own], labels[own]


@torch.no_grad()
def average_gradients(gradients: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in place, in one message."""
    if not gradients:
        return
    flat = _flatten_dense_tensors([gradient.contiguous() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(
        gradients, _unflatten_dense_tensors(flat, list(gradients)), strict=True
    ):
        gradient.copy_(mean)


def search_distributed(
    supernet: Supernet,
    strategy: Strategy,
    bundle: DataBundle,
    config: SearchConfig,
    *,
    seed: int = 0,
    sync_batchnorm: bool = False,
    run: RunFolder | None = None,
    checkpoint: Path | None = None,
    should_stop: Callable[[], bool] | None = None,
    **options: Any,
) -> SearchResult:
    """`search` in all processes of the group at once; every process gets the same architecture.

    The first process writes the run folder and the checkpoint; all read it when they resume.

    Args:
        supernet: on this process's device; the first process's values are sent to all.
        strategy: as for `search`.
        bundle: the whole data set.
        config: `batch_size` is that of all processes together.
        seed: the same in all processes.
        sync_batchnorm: batch norms see the whole batch.
        run: see `search`.
        checkpoint: see `search`.
        should_stop: see `search`; all processes stop when one is told to.
        options: further arguments of `search`.

    Raises:
        ConfigError: the batch cannot be divided equally.
        DeviceError: no process group was joined.
    """
    if not dist.is_initialized():
        raise DeviceError("Call join_group() before search_distributed.")
    rank, processes = dist.get_rank(), dist.get_world_size()
    if config.batch_size % processes:
        raise ConfigError(
            f"search.batch_size={config.batch_size} cannot be divided among {processes} processes; use "
            "a multiple."
        )
    if sync_batchnorm:
        if supernet.path != "plain":  # the fast paths have no norm modules to replace
            supernet.use_path("plain")
        synchronize_norms(supernet)
    _send_from_first([*supernet.state_dict().values()])
    strategy.reducer = average_gradients
    return search(
        supernet,
        strategy,
        cast(DataBundle, ShardedBundle(bundle, rank, processes)),
        config,
        seed=seed,
        run=run if rank == 0 else None,
        checkpoint=checkpoint,
        should_stop=None if should_stop is None else lambda: _any(should_stop()),
        group=Group(rank == 0, _any, _from_first),
        **options,
    )


@torch.no_grad()
def _send_from_first(tensors: Sequence[Tensor]) -> None:
    for tensor in tensors:
        dist.broadcast(tensor, src=0)


def _device() -> torch.device:
    gpu = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


def _any(value: bool) -> bool:
    """Whether the value is true in any process."""
    flag = torch.tensor(float(value), device=_device())
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def _from_first(value: float) -> float:
    """The first process's value: running statistics differ, decisions must not."""
    shared = torch.tensor(value, dtype=torch.float64, device=_device())
    dist.broadcast(shared, src=0)
    return float(shared.item())
