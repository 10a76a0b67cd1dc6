"""The graph of a network's channels, as torch-pruning reads it from autograd."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from darts_core.errors import PruneError
from darts_core.sample_inputs import draw_inputs
from darts_core.train.save import is_zero

__all__ = ["UnfollowedError", "all_groups", "follow"]

log = logging.getLogger("darts_core")
# entries of a flattened map: where torch-pruning misreads a chain of reshapes, each multiplies them
_MOST_ENTRIES = 250_000


def follow(model: nn.Module, input_shape: Sequence[int]) -> Any:
    """torch-pruning's dependency graph of `model`.

    Raises:
        PruneError: torch-pruning cannot follow it.
    """
    import torch_pruning

    _leave_reshapes_of_no_width()
    _bound_flattened_maps()

    reference = next(model.parameters())
    example = draw_inputs(input_shape, 2, device=reference.device, dtype=reference.dtype)
    model.eval()
    states = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in states:
        parameter.requires_grad_(True)  # the graph is read from autograd
    try:
        with warnings.catch_warnings(), _linked_zeros(model):
            warnings.simplefilter("ignore")
            return torch_pruning.DependencyGraph().build_dependency(model, example)
    except Exception as error:  # whatever the model or the tracer raises
        raise PruneError(
            f"The channels of {type(model).__name__} cannot be followed ({type(error).__name__}: "
            f"{str(error)[:200]}); use a plain network from build() or baseline()."
        ) from error
    finally:
        for parameter, wanted in states:
            parameter.requires_grad_(wanted)


@contextlib.contextmanager
def _linked_zeros(model: nn.Module) -> Iterator[None]:
    """Zeros as 0 * x meanwhile, so that autograd links what reads them to the width of x.

    In NAS-Bench-201 networks a node all of whose edges are `none` feeds further convolutions: zeros of
    the source's shape, whose width follows the source when that is cut.
    """
    zeros: list[Any] = [module for module in model.modules() if is_zero(module)]
    for zero in zeros:
        zero.forward = functools.partial(_linked, zero.stride)
    try:
        yield
    finally:
        for zero in zeros:
            del zero.forward


def _linked(stride: int, x_BCHW: torch.Tensor) -> torch.Tensor:
    return 0.0 * (x_BCHW if stride == 1 else x_BCHW[:, :, ::stride, ::stride])


def _leave_reshapes_of_no_width() -> None:
    """A reshape behind which no layer's width can be told divides by zero in torch-pruning: left alone.

    Tokens that meet a free parameter before the first layer are such a case. It is met again whenever a
    group is asked for, so torch-pruning keeps the changed function.
    """
    from torch_pruning.dependency import index_mapping

    known = index_mapping.update_reshape_index_mapping
    if getattr(known, "_left_alone", False):
        return

    def update(graph: Any, node: Any) -> None:
        with contextlib.suppress(ZeroDivisionError):
            known(graph, node)

    update._left_alone = True  # type: ignore[attr-defined]
    index_mapping.update_reshape_index_mapping = update


class UnfollowedError(RuntimeError):
    """A group of channels is spread over more entries than a flattened map has."""


def _bound_flattened_maps() -> None:
    """End the following of a group whose channels are spread out again and again, which would never end."""
    from torch_pruning.dependency import index_mapping

    kind = index_mapping._FlattenIndexMapping
    known = kind.__call__
    if getattr(known, "_bounded", False):
        return

    def spread(self: Any, entries: Any) -> Any:
        if not self.reverse and len(entries) * self._stride > _MOST_ENTRIES:
            raise UnfollowedError
        return known(self, entries)

    spread._bounded = True  # type: ignore[attr-defined]
    kind.__call__ = spread


def all_groups(
    graph: Any, fixed: Collection[nn.Module], kinds: tuple[type[nn.Module], ...]
) -> Iterator[Any]:
    """torch-pruning's groups of all output channels of the layers of some kinds, each layer in one group.

    Groups with a layer of `fixed` are left out, and so are those that torch-pruning cannot follow.
    """
    kept = {id(layer) for layer in (*fixed, *graph.IGNORED_LAYERS_IN_TRACING)}
    seen: set[int] = set()
    for layer in list(graph.module2node):
        if not isinstance(layer, kinds) or id(layer) in kept | seen:
            continue
        pruner = graph.get_pruner_of_module(layer)
        channels = None if pruner is None else pruner.get_out_channels(layer)
        if channels is None:
            continue
        try:
            handler = pruner.prune_out_channels
            group = graph.get_pruning_group(layer, handler, list(range(channels)))
        except UnfollowedError:
            log.debug("the channels of a %s cannot be followed through reshapes", type(layer))
            continue
        outs = {
            id(dep.target.module)
            for dep, _ in group
            if graph.is_out_channel_pruning_fn(dep.handler)
        }
        seen |= outs
        if not outs & kept:
            yield group
