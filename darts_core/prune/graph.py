"""The graph of a network's channels, as torch-pruning reads it from autograd."""

from __future__ import annotations

import contextlib
import functools
import logging
import types
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darts_core.copies import kept_tensors
from darts_core.errors import PruneError
from darts_core.sample_inputs import draw_inputs, number_format
from darts_core.train.save import is_zero

__all__ = [
    "UNFOLLOWED",
    "UnfollowedError",
    "all_groups",
    "follow",
    "group_of",
    "let_go",
    "outputs_of",
]

log = logging.getLogger("darts_core")
# entries of flattened maps in one group: where torch-pruning misreads a chain of reshapes, each multiplies
# them, and a group goes round and round
_MOST_ENTRIES = 250_000
# layers and operations that a group meets, each as often as with other channels
_MOST_STEPS = 3_000
# a reshape or a join whose widths torch-pruning could not tell ends in any of these
UNFOLLOWED = (ArithmeticError, LookupError, TypeError, AttributeError)
_UNCUT = "its channels cannot be followed through a reshape, or a layer that is not cut"
# of the group that is being followed; None: it may take what it takes
_watched: _Watched | None = None


def follow(model: nn.Module, input_shape: Sequence[int]) -> Any:
    """torch-pruning's dependency graph of `model`.

    Raises:
        PruneError: torch-pruning cannot follow it.
    """
    import torch_pruning

    _leave_reshapes_of_no_width()
    _state_widths_of_joins()
    _bound_groups()

    reference = next(model.parameters())
    example = draw_inputs(input_shape, 2, device=reference.device, dtype=number_format(model))
    model.eval()
    states = [
        (parameter, parameter.requires_grad)
        for parameter in model.parameters()
        if parameter.is_floating_point() or parameter.is_complex()  # others have no gradient
    ]
    alone = _of_one_number(model)
    for parameter, _ in states:
        parameter.requires_grad_(id(parameter) not in alone)  # the graph is read from autograd
    try:
        with warnings.catch_warnings(), _linked_zeros(model):
            warnings.simplefilter("ignore")
            forward = None
            if example.is_floating_point() and _joins_data(model(example)):
                forward = _sized
            return torch_pruning.DependencyGraph().build_dependency(
                model, example, forward_fn=forward, customized_pruners={nn.RMSNorm: _of_rms_norms()}
            )
    except Exception as error:  # whatever the model or the tracer raises
        raise PruneError(
            f"The channels of {type(model).__name__} cannot be followed ({type(error).__name__}: "
            f"{str(error)[:200]}); use a plain network from build() or baseline()."
        ) from error
    finally:
        for parameter, wanted in states:
            parameter.requires_grad_(wanted)
        let_go(model)


def _of_one_number(model: nn.Module) -> set[int]:
    """Ids of the slopes that an activation has for all channels at once.

    Of what meets such a one torch-pruning cannot tell how many channels it has.
    """
    slopes = [module.weight for module in model.modules() if isinstance(module, nn.PReLU)]
    return {id(slope) for slope in slopes if slope.numel() == 1}


def _joins_data(output: Any) -> bool:
    """Whether the network joins its input, or a part of it, to channels: `torch.cat([x, conv(x)], 1)`.

    What needs no gradient is not in the graph. The widths behind such a join then do not add up, and
    torch-pruning would take its channels for others.
    """
    outputs = output if isinstance(output, (tuple, list)) else [output]
    left = [one.grad_fn for one in outputs if isinstance(one, torch.Tensor)]
    seen: set[Any] = set()
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [function for function, _ in node.next_functions]
        if None in before and node.name().startswith("CatBackward"):
            return True
        left += before
    return False


def _sized(model: nn.Module, example: torch.Tensor) -> Any:
    """The network's outputs, with the input in the graph and its width stated there by a split."""
    (whole,) = example.requires_grad_(True).split([example.shape[1]], dim=1)
    return model(whole * 1.0)


def let_go(model: nn.Module) -> None:
    """Cut what modules have kept of a pass (an attention's map, say) off its history; in place.

    With it they could not be copied.
    """
    for owner, key, value in kept_tensors(model):
        if value.grad_fn is not None:
            owner[key] = value.detach()


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


@functools.cache
def _of_rms_norms() -> Any:
    """How torch's root mean square norms are cut, which torch-pruning does not know."""
    from torch_pruning.pruner.function import LayernormPruner

    def cut(pruner: Any, layer: nn.RMSNorm, channels: Sequence[int]) -> nn.RMSNorm:
        *before, count = layer.normalized_shape
        gone = set(channels)
        kept = [channel for channel in range(count) if channel not in gone]
        if layer.weight is not None:
            layer.weight = pruner._prune_parameter_and_grad(layer.weight, kept, -1)
        layer.normalized_shape = (*before, len(kept))
        return layer

    pruner: Any = LayernormPruner()
    # bound, as torch-pruning asks a handler whose it is
    pruner.prune_out_channels = pruner.prune_in_channels = types.MethodType(cut, pruner)
    return pruner


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


def _state_widths_of_joins() -> None:
    """A join of channels whose numbers torch-pruning cannot infer ends it: autograd knows them."""
    from torch_pruning.dependency import index_mapping

    known = index_mapping.update_concat_index_mapping
    if getattr(known, "_stated", False):
        return

    def update(graph: Any, node: Any) -> None:
        try:
            known(graph, node)
        except TypeError:  # it adds up what it could not infer
            widths = _joined_widths(node)
            if widths is None:
                raise
            node.module.concat_sizes = widths
            known(graph, node)

    update._stated = True  # type: ignore[attr-defined]
    index_mapping.update_concat_index_mapping = update


def _joined_widths(node: Any) -> list[int] | None:
    """How many channels each input of a join has, as far as autograd tells."""
    inputs = node.grad_fn.next_functions
    if len(inputs) != len(node.inputs):
        return None  # some are left out of the graph
    dim = int(node.grad_fn._saved_dim)
    if dim >= 2**63:
        dim -= 2**64  # autograd keeps -1, the last one of tokens, without its sign
    return [int(function._input_metadata[at].shape[dim]) for function, at in inputs]


class UnfollowedError(RuntimeError):
    """A group of channels is spread over more entries, or meets more layers, than there can be."""


@dataclass
class _Watched:
    """How far a group has been followed: entries that are left, and the group so far."""

    left: int
    group: Any = None


def _bound_groups() -> None:
    """End the following of a group whose channels go round and round, or are spread out again and again."""
    from torch_pruning.dependency import group, index_mapping

    kind, followed = index_mapping._FlattenIndexMapping, group.Group
    known, added = kind.__call__, followed.add_dep
    if getattr(known, "_bounded", False):
        return

    def add(self: Any, dep: Any, idxs: Any) -> None:
        if _watched is not None:
            _watched.group = self
            if len(self) >= _MOST_STEPS:
                raise UnfollowedError
        added(self, dep, idxs)

    def spread(self: Any, entries: Any) -> Any:
        if _watched is not None:
            _watched.left -= len(entries) * (1 if self.reverse else self._stride)
            if _watched.left < 0:
                raise UnfollowedError
        return known(self, entries)

    spread._bounded = True  # type: ignore[attr-defined]
    kind.__call__, followed.add_dep = spread, add


def group_of(graph: Any, layer: nn.Module, handler: Any, channels: Sequence[int]) -> Any:
    """torch-pruning's group of some output channels of `layer`.

    Raises:
        UnfollowedError: it cannot be followed; `args[0]` is the group so far.
    """
    global _watched
    _watched = _Watched(_MOST_ENTRIES)
    try:
        return graph.get_pruning_group(layer, handler, idxs=list(channels))
    except (UnfollowedError, *UNFOLLOWED) as error:
        raise UnfollowedError(_watched.group) from error
    finally:
        _watched = None


def outputs_of(graph: Any, group: Any) -> set[nn.Module]:
    """The layers whose output channels the group cuts."""
    return {
        item.dep.target.module
        for item in group
        if graph.is_out_channel_pruning_fn(item.dep.handler)
    }


def all_groups(
    graph: Any,
    fixed: Collection[nn.Module],
    kinds: tuple[type[nn.Module], ...],
    left: dict[nn.Module, str],
) -> Iterator[Any]:
    """torch-pruning's groups of all output channels of the layers of some kinds, each layer in one group.

    Groups with a layer of `fixed` are left out, and so are those that torch-pruning cannot follow; `left`
    gets why, by layer.
    """
    kept = {*fixed, *graph.IGNORED_LAYERS_IN_TRACING}
    seen: set[nn.Module] = set()
    unfollowed = 0
    for layer in list(graph.module2node):
        if not isinstance(layer, kinds) or layer in kept | seen:
            continue
        pruner = graph.get_pruner_of_module(layer)
        channels = None if pruner is None else pruner.get_out_channels(layer)
        if channels is None:
            continue
        try:
            group = group_of(graph, layer, pruner.prune_out_channels, range(channels))
        except UnfollowedError as error:
            # the layers that it met are coupled: none of them leads anywhere else
            met = outputs_of(graph, error.args[0] or ())
            seen |= met
            unfollowed += max(1, len(met))
            left.update(dict.fromkeys((layer, *met), _UNCUT))
            continue
        outs = outputs_of(graph, group)
        seen |= outs
        if outs & kept:
            left.update(
                dict.fromkeys(outs - kept, "its channels are added to the network's outputs")
            )
        else:
            yield group
    if unfollowed:
        log.info(
            "torch-pruning cannot follow the channels of %d layers through reshapes: they stay",
            unfollowed,
        )
