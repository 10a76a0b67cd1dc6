"""Data-parallel search: every process takes its part of each batch, gradients are averaged.

From the command line: `torchrun --nproc-per-node=N -m darts_core.cli search ...`. In a script of one's own
that torchrun starts: `join_group()`, the supernet as for one process, and `search_distributed` in the
place of `search`.

By default batch norms see their own process's images, and gradients equal the mean over the parts of the
batch computed in one process. With `sync_batchnorm=True` the statistics are those of the whole batch, and
the search equals one process with the whole batch up to rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from torch import nn

from darts_core.data import DataBundle
from darts_core.distributed import Group, current_group
from darts_core.distributed.sync_norm import Replaced, restore_norms, synchronize_norms
from darts_core.errors import DeviceError
from darts_core.runlog import RunFolder
from darts_core.search.loop import search
from darts_core.search.types import SearchConfig, SearchResult
from darts_core.strategies import Strategy
from darts_core.strategies.base import Batch
from darts_core.supernet import Supernet

__all__ = ["ShardedBundle", "search_distributed"]

log = logging.getLogger("darts_core")


class ShardedBundle:
    """A data bundle whose batches of training hold this process's part of each whole batch.

    Order and augmentation are those of one process. Everything else is the bundle's.
    """

    def __init__(self, bundle: DataBundle, group: Group) -> None:
        self._bundle, self._group = bundle, group

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bundle, name)

    def batches(
        self,
        names: str | Sequence[str],
        batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = True,
        **options: Any,
    ) -> Iterator[Batch]:
        """Parts of whole batches in a new order (training), else batches as they are (evaluation)."""
        whole = self._bundle.batches(
            names, batch_size, shuffle=shuffle, drop_last=drop_last, **options
        )
        if not (shuffle and drop_last):
            yield from whole
            return
        for images, labels in whole:
            yield self._group.part(images), self._group.part(labels)


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
    group = current_group()
    if group is None:
        raise DeviceError("Call join_group() before search_distributed.")
    group.check_batch("search.batch_size", config.batch_size)
    own_norms: list[Replaced] = []

    def make_common() -> None:
        if sync_batchnorm and getattr(supernet, "path", "plain") != "plain":
            log.info(
                "sync_batchnorm: the cells run as plain modules, whose norms can be synchronised"
            )
            supernet.use_path("plain")
        own_norms.extend(_make_common(supernet, sync_batchnorm, group))

    make_common()
    # stages of a progressive search make the network anew
    supernet.after_rebuild = make_common
    strategy.reducer = group.average
    # those that train architectures alone make a network for each
    strategy.common = lambda network: _make_common(network, sync_batchnorm, group)
    found = search(
        supernet,
        strategy,
        cast(DataBundle, ShardedBundle(bundle, group)),
        config,
        seed=seed,
        run=run if group.primary else None,
        checkpoint=checkpoint,
        should_stop=None if should_stop is None else lambda: group.agree(should_stop()),
        group=group,
        **options,
    )
    # the first process may go on with the supernet when the others have left
    restore_norms(own_norms)
    return found


def _make_common(network: nn.Module, sync_batchnorm: bool, group: Group) -> list[Replaced]:
    """Give a network the first process's values; the norms that now are those of all processes."""
    replaced = synchronize_norms(network) if sync_batchnorm else []
    group.send([*network.state_dict().values()])
    return replaced
