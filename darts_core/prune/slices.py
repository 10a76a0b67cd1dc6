"""A sub-network's share of every tensor: which indices of which dimension, and what attributes it has.

`running` lets the network itself run as a sub-network: its layers hold slices of the shared parameters
meanwhile, so that a small sub-network costs its own time and its gradients reach the shared ones. `cut`
gives a copy with parameters of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import PruneError
from darts_core.prune.beside import tensors_beside
from darts_core.prune.groups import (
    CONVOLUTIONS,
    INSTANCE_NORMS,
    LAYER_NORMS,
    NORMS,
    Member,
    copied,
)
from darts_core.supernet.replace import replace_modules
from darts_core.supernet.tied import kept_tied
from darts_core.train.save import untold_width

__all__ = [
    "LAYERS",
    "Plan",
    "Side",
    "cut",
    "lose",
    "permute",
    "place_beside",
    "plan_without",
    "running",
    "sides_of",
    "take_out",
]

LAYERS = (
    *CONVOLUTIONS, *NORMS, nn.Linear, *LAYER_NORMS, *INSTANCE_NORMS, nn.GroupNorm, nn.PReLU, nn.Embedding,
)  # fmt: skip
_STATISTICS = ("running_mean", "running_var")
Index = slice | Tensor
# of a layer: its path, "out", "in" or "free", and of a free parameter the dimension
Side = tuple[str, str, int]


@dataclass
class Plan:
    """What a sub-network takes of the network.

    Attributes:
        tensors: module path -> tensor's name -> dimension -> what of it is kept.
        attributes: (module path, attribute) -> value.
        skipped: paths of blocks that hand on their input.
    """

    tensors: dict[str, dict[str, dict[int, Index]]] = field(default_factory=dict)
    attributes: dict[tuple[str, str], Any] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


def plan_without(
    model: nn.Module,
    lost: Mapping[Side, set[int]],
    attributes: Mapping[tuple[str, str], Any],
    skipped: Sequence[str] = (),
) -> Plan:
    """The plan of a network without some channels of its layers and without some blocks.

    Args:
        model: the network.
        lost: (path, side, dimension) -> the layer's channels that go.
        attributes: (module path, attribute) -> value, beside those that state a layer's size.
        skipped: paths of blocks that hand on their input.
    """
    found = Plan(attributes=dict(attributes), skipped=tuple(skipped))
    place = place_beside(model, found.skipped)
    for (path, side, dim), indices in lost.items():
        if place(path.rpartition(".")[0] if side == "free" else path) is not None:
            _slice(model, found, path, side, dim, indices)
    return found


def place_beside(model: nn.Module, blocks: Sequence[str]) -> Callable[[str], str | None]:
    """A module's path -> the one under which it runs where these blocks do not; None where it does not run.

    A module may stand in several places, such as a norm that all blocks share: it goes with the last of them.
    """
    if not blocks:
        return lambda path: path
    left: dict[nn.Module, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if not _inside(name, blocks):
            left.setdefault(module, name)
    return lambda path: left.get(model.get_submodule(path))


def lose(lost: dict[Side, set[int]], members: Sequence[Member], positions: Container[int]) -> None:
    """Note in `lost` what the members' layers lose with these of their group's channels."""
    for member in members:
        pairs = zip(member.positions, member.indices, strict=True)
        cut = {index for position, index in pairs if position in positions}
        if cut:
            lost.setdefault((member.name, member.side, member.dim), set()).update(cut)


def _inside(path: str, blocks: Sequence[str]) -> bool:
    return any(path == block or path.startswith(f"{block}.") for block in blocks)


def sides_of(module: nn.Module, side: str) -> dict[str, int]:
    """Which dimension of which tensor of a layer the channels of a side lie in."""
    if mixes(module):
        return {"weight": 0, "bias": 0} if side == "out" else {"weight": 1}
    if isinstance(module, nn.Embedding):
        return {"weight": 1}
    return {"weight": 0, "bias": 0, **dict.fromkeys(_STATISTICS, 0)}


def depthwise(module: nn.Module) -> bool:
    """Whether each channel is a group of its own with one output, so that input and output are one side."""
    if not isinstance(module, CONVOLUTIONS):
        return False
    return bool(module.groups == module.in_channels == module.out_channels > 1)


def mixes(module: nn.Module) -> bool:
    """Whether inputs and outputs of the layer are two sides; a depthwise one, a norm hand channels on."""
    return isinstance(module, nn.Linear) or (
        isinstance(module, CONVOLUTIONS) and not depthwise(module)
    )


def _slice(model: nn.Module, found: Plan, path: str, side: str, dim: int, lost: set[int]) -> None:
    if side == "free":
        parent, _, name = path.rpartition(".")
        count = model.get_parameter(path).shape[dim]
        _note(found, parent, name, dim, _kept(count, lost, model.get_parameter(path)))
        return
    module = model.get_submodule(path)
    kept_count = 0
    if untold := untold_width(module):
        kept_count = untold[1] - len(lost)
    elif own := _inputs_of_a_group(module, side):
        lost = _of_each_group(module, own, lost)
    for name, place in sides_of(module, side).items():
        tensor = getattr(module, name, None)
        if tensor is not None:
            count = int(tensor.shape[place])
            kept_count = count - len(lost)
            _note(found, path, name, place, _kept(count, lost, tensor))
    for name, value in _sizes(module, side, kept_count).items():
        found.attributes[path, name] = value


def _inputs_of_a_group(module: nn.Module, side: str) -> int:
    """How many inputs each group of a grouped convolution reads, where they are the side; otherwise 0."""
    if side != "in" or not isinstance(module, CONVOLUTIONS):
        return 0
    return 0 if module.groups == 1 or depthwise(module) else module.in_channels // module.groups


def _of_each_group(module: Any, own: int, lost: set[int]) -> set[int]:
    """Which of each group's `own` inputs a convolution loses, as its weight counts them.

    Raises:
        PruneError: its groups lose other ones.
    """
    each = {channel % own for channel in lost}
    if len(each) * module.groups != len(lost):
        raise PruneError("The groups of a convolution can only lose the same inputs each.")
    return each


def _note(found: Plan, path: str, name: str, dim: int, kept: Index) -> None:
    found.tensors.setdefault(path, {}).setdefault(name, {})[dim] = kept


def _kept(count: int, lost: set[int], like: Tensor) -> Index:
    left = [index for index in range(count) if index not in lost]
    if left == list(range(len(left))):
        return slice(0, len(left))  # a view: nothing is copied
    return torch.tensor(left, device=like.device)


def _sizes(module: nn.Module, side: str, count: int) -> dict[str, Any]:
    """The attributes that state a layer's size."""
    if isinstance(module, CONVOLUTIONS):
        if depthwise(module):
            return dict.fromkeys(("groups", "in_channels", "out_channels"), count)
        return {f"{side}_channels": count * module.groups if side == "in" else count}
    if isinstance(module, nn.Linear):
        return {f"{side}_features": count}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": count}
    if isinstance(module, (*NORMS, *INSTANCE_NORMS)):
        # without weights and statistics nothing says how many channels there were, or some number does
        return {"num_features": count} if count > 0 else {}
    if isinstance(module, LAYER_NORMS):
        return {"normalized_shape": (count,)}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": count}
    return {"num_parameters": count} if isinstance(module, nn.PReLU) else {}


def taken(tensor: Tensor, kept: dict[int, Index]) -> Tensor:
    """The share of `tensor`; a view where it is a prefix."""
    for dim, index in kept.items():
        if isinstance(index, slice):
            tensor = tensor.narrow(dim, 0, index.stop)
        else:
            tensor = tensor.index_select(dim, index)
    return tensor


def _owner(model: nn.Module, path: str, name: str) -> dict[str, Any]:
    """Where a layer keeps a tensor: among its parameters or its buffers.

    Raises:
        PruneError: the layer has none of its own by that name.
    """
    module = model.get_submodule(path)
    kept: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
    for tensors in kept:
        if name in tensors:
            return tensors
    raise PruneError(
        f"The {name} of {path!r} is derived from other tensors, as by weight_norm: nothing of it can be "
        "left out."
    )


def _hand_on(x: Any, *_: Any, **__: Any) -> Any:
    return x


@contextmanager
def running(model: nn.Module, found: Plan, *, whole: bool = False) -> Iterator[nn.Module]:
    """`model`, which runs as the sub-network of `found` inside the block.

    Buffers, running statistics among them, and numbers that modules keep as attributes are moved by the
    whole network alone: in training the sub-networks see copies; those of norms are recalibrated when one
    is cut out.

    Args:
        model: the network.
        found: of the sub-network.
        whole: it is the whole network, whose statistics move.

    Raises:
        PruneError: a tensor that is to be sliced is derived from others.
    """
    undo: list[tuple[dict[str, Any], str, Any]] = []
    counts: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def swap(where: dict[str, Any], name: str, value: Any) -> None:
        undo.append((where, name, where.get(name, undo)))
        where[name] = value

    try:
        for path, tensors in found.tensors.items():
            for name, kept in tensors.items():
                where = _owner(model, path, name)
                swap(where, name, taken(where[name], kept))
        for (path, name), value in found.attributes.items():
            swap(model.get_submodule(path).__dict__, name, value)
        for path in found.skipped:
            swap(model.get_submodule(path).__dict__, "forward", _hand_on)
        if not whole:
            for module in model.modules():
                if not module.training:
                    continue
                # what a pass may move: statistics, and what a network of a user's own counts or averages
                for name, buffer in module._buffers.items():
                    if buffer is not None:
                        swap(module._buffers, name, buffer.clone())
                own = vars(module)
                counts.append((own, {k: v for k, v in own.items() if type(v) in (int, float)}))
        yield model
    finally:
        for own, before in counts:
            own.update(before)
        for where, name, value in reversed(undo):
            if value is undo:
                del where[name]
            else:
                where[name] = value


def cut(model: nn.Module, found: Plan) -> nn.Module:
    """A plain network of its own that computes what `model` does as the sub-network of `found`.

    Raises:
        PruneError: the network cannot be copied, or a tensor that is to be cut is derived from others.
    """
    return take_out(copied(model), found)


@torch.no_grad()
def take_out(model: nn.Module, found: Plan) -> nn.Module:
    """Make `model` the sub-network of `found`, with parameters of its own; in place.

    Raises:
        PruneError: a tensor that is to be cut is derived from others.
    """
    with kept_tied(model):
        for path, tensors in found.tensors.items():
            module = model.get_submodule(path)
            for name, kept in tensors.items():
                old = _owner(model, path, name)[name]
                new = taken(old, kept).detach().clone()
                own = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                setattr(module, name, own)
    for (path, name), value in found.attributes.items():
        setattr(model.get_submodule(path), name, value)
    return replace_modules(model, dict.fromkeys(found.skipped, "skip_connect"))


@torch.no_grad()
def permute(model: nn.Module, members: Sequence[Member], order: Sequence[int]) -> None:
    """Move the channels of a group so that its channel p is what was order[p], in all members; in place.

    Parameters stay the objects that they are: an optimizer goes on with them, and their gradients move along.
    One that stands in several layers, such as an embedding that is also the output's weight, is moved once.

    Raises:
        IndexError: a member has channels that its layer has not; nothing was moved.
    """
    found: list[tuple[Tensor, int, list[int]]] = []
    # a layer that reads the channels twice, as behind a concatenation with themselves, has two members
    done: set[tuple[int, int, tuple[int, ...]]] = set()
    for member in members:
        places: dict[int, list[int]] = {}
        free = member.side == "free"
        own = 0 if free else _inputs_of_a_group(model.get_submodule(member.name), member.side)
        for position, index in zip(member.positions, member.indices, strict=True):
            places.setdefault(position, []).append(index % own if own else index)
        for tensor, dim in _held(model, member):
            if (id(tensor), dim, member.indices) in done:
                continue
            done.add((id(tensor), dim, member.indices))
            source = list(range(tensor.shape[dim]))
            for position, before in enumerate(order):
                # a layer that owns some parts of the channels has none of the others
                for new, old in zip(places.get(position, ()), places.get(before, ()), strict=True):
                    source[new] = old
            found.append((tensor, dim, source))
    for tensor, dim, source in found:
        taken_from = torch.tensor(source, device=tensor.device)
        tensor.copy_(tensor.index_select(dim, taken_from))
        if tensor.grad is not None:
            # a new one: somebody may hold the old one beside the former order
            tensor.grad = tensor.grad.index_select(dim, taken_from)


def _held(model: nn.Module, member: Member) -> list[tuple[Tensor, int]]:
    """The tensors of a member's layer, each with the dimension in which its channels lie."""
    if member.side == "free":
        return [(model.get_parameter(member.name), member.dim)]
    module = model.get_submodule(member.name)
    sides = sides_of(module, member.side).items()
    held = [
        (tensor, dim) for name, dim in sides if (tensor := getattr(module, name, None)) is not None
    ]
    if member.side == "out" and isinstance(module, (*CONVOLUTIONS, nn.Linear)):
        # what is cut with a channel, such as its gain, goes where the channel goes
        held += [(tensor, 0) for tensor in tensors_beside(module, len(module.weight)).values()]
    return held
