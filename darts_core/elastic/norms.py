"""Running statistics of a sub-network: those of the whole network do not fit it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from darts_core.errors import PruneError, is_memory_shortage
from darts_core.prune.groups import copied
from darts_core.prune.importance import inputs_and_targets

__all__ = ["batch_statistics", "check_batches", "of_several", "recalibrate", "unreached"]


def _with_statistics(model: nn.Module) -> list[Any]:
    """Norms over batches or instances, of torch's or of a class of one's own that is made of one of those."""
    norms = nn.modules.batchnorm._NormBase
    return [m for m in model.modules() if isinstance(m, norms) and m.running_mean is not None]


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """All of `model` in evaluation mode but its norms, which take each batch's, or example's, own statistics.

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


def of_several(batches: Iterable[Any]) -> Iterator[tuple[Tensor, Any]]:
    """(inputs, targets) of `batches`, without those of one example, unless the first is such a one.

    What a batch holds behind its targets is left out; where it is, or holds, inputs alone, targets are None.

    One example, as a last batch may be, has no spread: norms behind a pooling refuse it.

    Raises:
        PruneError: `batches` is one batch, or one of them is none.
    """
    check_batches(batches)
    alone: bool | None = None
    for batch in batches:
        x, y = inputs_and_targets(batch)
        alone = len(x) == 1 if alone is None else alone
        if alone or len(x) > 1:
            yield x, y


def check_batches(batches: Any) -> None:
    """Nothing, if it is some batches, and not one of them, whose examples would be taken for batches.

    Raises:
        PruneError: it is a tensor, or a tuple of several: the parts of one batch, most often.
    """
    # of one alone both readings are the same
    several = isinstance(batches, tuple) and len(batches) > 1
    pair = several and all(isinstance(b, Tensor) for b in batches)
    if isinstance(batches, Tensor) or pair:
        raise PruneError(
            "batches must be a list of batches, or a loader, and this is one batch, whose examples would be "
            "taken for batches; put it into a list: [(x, y)]. Batches of inputs alone go as a list, too, not "
            "as a tuple."
        )
    if not hasattr(batches, "__iter__") and not hasattr(batches, "__getitem__"):
        raise PruneError(
            f"batches must be a list of (inputs, targets), or a loader, not a {type(batches).__name__}."
        )


class _Mean:
    """The statistics of norms over all examples that a network is run on inside the block.

    Every run of a norm counts by its examples, also of one that stands in several places; one whose owner
    does not call it, but its `forward` or a function, counts with those of the network's input.
    """

    def __init__(self, model: nn.Module, norms: list[Any]) -> None:
        self.model, self.norms = model, norms
        self.seen: Counter[nn.Module] = Counter()
        self.examples = 0
        self.before = [(norm.momentum, self._statistics(norm)) for norm in norms]

    @staticmethod
    def _statistics(norm: Any) -> dict[str, Tensor]:
        return {k: v.clone() for k, v in norm._buffers.items() if v is not None}

    @staticmethod
    def _restore(norm: Any, statistics: dict[str, Tensor]) -> None:
        for name, value in statistics.items():
            norm._buffers[name].copy_(value)

    def _count(self, norm: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        size = len(given[0] if given else next(iter(named.values())))
        self.seen[norm] += size
        norm.momentum = size / self.seen[norm]

    def __enter__(self) -> _Mean:
        self.hooks = [
            n.register_forward_pre_hook(self._count, with_kwargs=True) for n in self.norms
        ]
        for norm in self.norms:
            norm.reset_running_stats()
        return self

    def __exit__(self, *_: object) -> None:
        for hook, norm, (momentum, statistics) in zip(
            self.hooks, self.norms, self.before, strict=True
        ):
            hook.remove()
            norm.momentum = momentum
            # as one that runs in training alone, or is of a class that holds its statistics fast
            if not norm.running_mean.any() and (norm.running_var == 1).all():
                self._restore(norm, statistics)

    def fits(self, x: Tensor) -> bool:
        """Run the network on `x`; False, and nothing counts, if the memory holds no such pass.

        Raises:
            RuntimeError: what torch raises; also where it holds none of half as many.
        """
        before, seen = [self._statistics(norm) for norm in self.norms], Counter(self.seen)
        for norm in self.norms:
            norm.momentum = len(x) / (self.examples + len(x))
        try:
            # the batches serve again, and a network may write into its input
            self.model(x.clone())
        except (RuntimeError, MemoryError) as error:
            if len(x) < 4 or not is_memory_shortage(error):
                raise
        else:
            self.examples += len(x)
            return True
        # outside the handler: the traceback would keep the failed pass's tensors alive
        self.seen = seen
        for norm, statistics in zip(self.norms, before, strict=True):
            self._restore(norm, statistics)
        return False


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """Give the norms of `model` the mean statistics of `batches`; in place, in evaluation mode.

    Every example counts as much as any other: a small last batch does not count as a whole one. A batch that
    does not fit into the memory goes in halves.

    A sub-network's norms see other activations than the whole network's: without this its accuracy is
    that of chance. A batch of one example behind larger ones is left out. A network without running
    statistics is left as it is, and so are any where there is no batch, and a norm that none reaches.

    Args:
        model: a plain network.
        batches: inputs, alone or with whatever stands beside them.

    Raises:
        PruneError: `batches` is one batch, or one of them is none.
    """
    model.eval()
    check_batches(batches)
    norms = _with_statistics(model)
    if not norms:
        return model
    found = iter(batches)
    first = next(found, None)
    if first is None:
        return model
    most = 0
    with _Mean(model, norms) as mean, batch_statistics(model):
        for x, _ in of_several(chain([first], found)):
            parts = list(x.tensor_split(-(-len(x) // (most or len(x)))))
            while parts:
                if mean.fits(parts[0]):
                    del parts[0]
                else:
                    most = -(-len(parts[0]) // 2)
                    parts[:1] = parts[0].tensor_split(2)
    return model


@torch.no_grad()
def unreached(model: nn.Module, x: Tensor) -> list[str]:
    """Paths of modules that are none of torch's norms and move running statistics of their own in training.

    By their buffers' names (`running_mean`, say); frozen ones, which do not move, are none of these.

    Args:
        model: the network, which is left as it is.
        x: inputs [B, ...].
    """
    own = {
        name: [key for key in module._buffers if key.startswith(("running_", "moving_"))]
        for name, module in model.named_modules()
        if not isinstance(module, nn.modules.batchnorm._NormBase)
    }
    if not any(own.values()):
        return []
    tried = copied(model)
    tried.train()
    # one that wants more than its input in training is not known
    with suppress(Exception), torch.random.fork_rng(devices=[]):
        tried(x.clone())

    def moved(name: str, key: str) -> bool:
        before, after = (m.get_submodule(name)._buffers[key] for m in (model, tried))
        return before is not None and after is not None and not torch.equal(before, after)

    return [name for name, keys in own.items() if any(moved(name, key) for key in keys)]
