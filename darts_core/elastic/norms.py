"""Running statistics of a sub-network: those of the whole network do not fit it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from darts_core.errors import is_memory_shortage
from darts_core.prune.groups import NORMS

__all__ = ["batch_statistics", "of_several", "recalibrate"]


def _with_statistics(model: nn.Module) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, NORMS) and m.running_mean is not None]


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """All of `model` in evaluation mode but its batch norms, which take each batch's own statistics.

    Of this process alone: it may be the only one of its group that comes here.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    norms = _with_statistics(model)
    shared = [(n, n.process_group) for n in norms if isinstance(n, nn.SyncBatchNorm)]
    for norm in norms:
        norm.training = True
    for norm, _ in shared:
        # in the group of all it would wait for the others
        norm.process_group = dist.GroupMember.NON_GROUP_MEMBER
    try:
        yield
    finally:
        for norm, group in shared:
            norm.process_group = group
        for module, mode in modes:
            module.training = mode


def of_several(batches: Iterable[tuple[Tensor, Any]]) -> Iterator[tuple[Tensor, Any]]:
    """`batches` without those of one example, unless the first is such a one.

    One example, as a last batch may be, has no spread: norms behind a pooling refuse it.
    """
    alone: bool | None = None
    for x, y in batches:
        alone = len(x) == 1 if alone is None else alone
        if alone or len(x) > 1:
            yield x, y


def _fits(model: nn.Module, norms: list[Any], x: Tensor, weight: float) -> bool:
    """Let `x` count by `weight` in the statistics; False, and nothing counts, if the memory holds no pass.

    Raises:
        RuntimeError: what torch raises; also where it holds none of half as many.
    """
    before = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = weight  # the mean over the examples
    try:
        model(x)
    except (RuntimeError, MemoryError) as error:
        if len(x) < 4 or not is_memory_shortage(error):
            raise
    else:
        return True
    # outside the handler: the traceback would keep the failed pass's tensors alive
    for norm, (mean, variance) in zip(norms, before, strict=True):
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return False


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[tuple[Tensor, Any]]) -> nn.Module:
    """Give the batch norms of `model` the mean statistics of `batches`; in place, in evaluation mode.

    Every example counts as much as any other: a small last batch does not count as a whole one. A batch that
    does not fit into the memory goes in halves.

    A sub-network's norms see other activations than the whole network's: without this its accuracy is
    that of chance. A batch of one example behind larger ones is left out. A network without running
    statistics is left as it is, and so is any where there is no batch.

    Args:
        model: a plain network.
        batches: inputs and whatever stands beside them.
    """
    model.eval()
    norms = _with_statistics(model)
    if not norms:
        return model
    found = iter(batches)
    first = next(found, None)
    if first is None:
        return model
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    seen, most = 0, 0
    try:
        with batch_statistics(model):
            for x, _ in of_several(chain([first], found)):
                parts = list(x.tensor_split(-(-len(x) // (most or len(x)))))
                while parts:
                    size = len(parts[0])
                    if _fits(model, norms, parts[0], size / (seen + size)):
                        seen += size
                        del parts[0]
                    else:
                        most = -(-size // 2)
                        parts[:1] = parts[0].tensor_split(2)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
    return model
