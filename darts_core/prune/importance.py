"""How much the loss would rise without a channel: Taylor expansion, magnitude, or batch-norm scale.

    Taylor:     |sum over the channel's parameters of value * gradient|, mean over batches
    magnitude:  L2 norm of the channel's weights
    bn_scale:   |gamma|

A coupled group's importance is the sum over its producers: the batch norms that scale its channels,
or the convolutions and linear layers where no norm follows.
Sources: Molchanov et al., arXiv:1906.10771, Eq. 8; Li et al., arXiv:1608.08710; Liu et al.,
arXiv:1708.06519.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from darts_core.errors import PruneError, first_line, is_memory_shortage, unknown_name
from darts_core.modes import evaluating, with_gradients
from darts_core.prune.derived import derives_weight
from darts_core.prune.graph import let_go
from darts_core.prune.groups import CONVOLUTIONS, NORMS, ChannelGroup, Member
from darts_core.tasks import Classification, Task

__all__ = ["IMPORTANCES", "channel_importance", "inputs_and_targets", "taylor_products"]

CLASSES = Classification()
IMPORTANCES = ("taylor", "magnitude", "bn_scale")
Array = npt.NDArray[np.float64]


def channel_importance(
    model: nn.Module,
    groups: Sequence[ChannelGroup],
    kind: str,
    batches: Iterable[tuple[Tensor, Tensor]] = (),
    task: Task = CLASSES,
) -> dict[str, Array]:
    """Importance of every channel, by group root.

    Args:
        model: the network, on its device.
        groups: from `find_groups`.
        kind: one of `IMPORTANCES`.
        batches: (inputs, targets) to take gradients on; needed for Taylor only.
        task: whose loss is meant.

    Raises:
        PruneError: the kind is unknown, or Taylor is asked for without data.
    """
    if kind not in IMPORTANCES:
        raise PruneError(unknown_name("importance", kind, IMPORTANCES))
    modules = dict(model.named_modules())
    products = taylor_products(model, batches, task) if kind == "taylor" else [{}]
    result: dict[str, Array] = {}
    for group in groups:
        total = np.zeros(group.channels)
        for member in _producers(group, modules):
            for product in products:
                values = _values(modules[member.name], member, kind, product)
                share = np.zeros(group.channels)
                np.add.at(share, np.asarray(member.positions), values[list(member.indices)])
                total += np.abs(share) / len(products)
        result[group.root] = total
    return result


def taylor_products(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], task: Task = CLASSES
) -> list[dict[str, Array]]:
    """Per batch: for each layer's parameter, value * gradient summed to its output channels.

    Frozen parameters count as the others do, and stay frozen afterwards.

    Raises:
        PruneError: there is no batch, or one is not (inputs, targets) as the task takes them.
    """
    owners = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (*CONVOLUTIONS, *NORMS, nn.Linear)) and not derives_weight(module)
    }
    states = [(p, p.requires_grad) for p in model.parameters() if p.is_floating_point()]
    rows: list[dict[str, Array]] = []
    try:
        for parameter, _ in states:
            # without a gradient all channels of a frozen layer would be of no importance
            parameter.requires_grad_(True)
        for batch in batches:
            x, y = inputs_and_targets(batch)
            model.zero_grad(set_to_none=True)
            with evaluating(model), with_gradients(model):
                # the batches serve again, and a network may write into its input
                _loss(task, model(x.clone()), y).backward()
            found = {name: _product(module) for name, module in owners.items()}
            rows.append({name: part for name, part in found.items() if part is not None})
    finally:
        model.zero_grad(set_to_none=True)
        for parameter, wanted in states:
            parameter.requires_grad_(wanted)
        let_go(model)
    if not rows:
        raise PruneError("Taylor importance needs at least one batch of data; pass a bundle.")
    return rows


def _loss(task: Task, output: Tensor, y: Any) -> Tensor:
    """The task's loss of a batch.

    Raises:
        PruneError: it has none of such outputs and targets, or one that says nothing of them.
    """
    # one of somebody's own takes what it takes, also in a class that is made of one of ours, and its errors
    # are its own
    if not str(getattr(task.loss, "__module__", "")).startswith("darts_core."):
        return task.loss(output, y)
    entropy = isinstance(task, Classification)
    if y is None and entropy:
        raise PruneError(
            "Channels are judged by a loss, for which batches must be (inputs, targets) each; these hold "
            "inputs alone."
        )
    why = _no_classes(output, y) if entropy else ""
    cause: Exception | None = None
    if not why:
        try:
            return task.loss(output, y)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if is_memory_shortage(error):
                raise
            cause = error
            why = f"{type(error).__name__}: {first_line(error)[:200]}"
    # a class of somebody's own may leave the loss as it is, and have no name
    name = getattr(task, "name", "") or type(task).__name__
    raise PruneError(
        f"Of these outputs and targets the task {name!r} has no loss ({why.rstrip('.')}); give the task "
        'that they are for: task="regression", "multi_label", "next_token" or one of your own.'
    ) from cause


def _no_classes(output: Tensor, y: Any) -> str:
    """Why the entropy of classes would be a number that says nothing; empty where it would not."""
    if output.dim() < 2 or output.shape[1] < 2:
        return f"outputs of shape {list(output.shape)} are no classes [B, classes]"
    soft = isinstance(y, Tensor) and y.is_floating_point() and y.shape == output.shape
    if soft and not bool((y >= 0).all() & ((y.sum(1) - 1).abs() < 0.01).all()):
        return "the targets are neither numbers of classes nor shares of each that sum to 1"
    return ""


def inputs_and_targets(batch: Any) -> tuple[Tensor, Any]:
    """The inputs of a batch and its targets, None where it holds inputs alone; further parts are left out.

    A batch is whatever gives these one after another.

    Raises:
        PruneError: it begins with no tensor, as a dictionary does.
    """
    parts: list[Any] = [batch] if isinstance(batch, Tensor) else []
    if not isinstance(batch, (Tensor, Mapping, np.ndarray)):
        with suppress(TypeError, LookupError):
            parts = [*batch]
    x = parts[0] if parts else None
    if not isinstance(x, Tensor):
        raise PruneError(
            f"A batch must be a tensor of inputs or (inputs, targets), and one is a {type(batch).__name__}"
            f"{f' that begins with a {type(x).__name__}' if x is not None else ''}; give such pairs, of a "
            "dictionary [(b['image'], b['label']) for b in loader]."
        )
    return x, parts[1] if len(parts) > 1 else None


def _product(module: nn.Module) -> Array | None:
    total: Array | None = None
    weight = getattr(module, "weight", None)
    for parameter in module.parameters(recurse=False):
        # a subclass may keep one number for all channels (a quantiser's step), which speaks for none of them
        if weight is None or parameter.grad is None or parameter.shape[:1] != weight.shape[:1]:
            continue
        part = (parameter.detach() * parameter.grad).double()
        values = part.reshape(part.shape[0], -1).sum(1).cpu().numpy()
        total = values if total is None else total + values
    return total


def _producers(group: ChannelGroup, modules: Mapping[str, nn.Module]) -> list[Member]:
    outs = [member for member in group.members if member.side == "out"]
    norms = [m for m in outs if isinstance(modules[m.name], NORMS)]
    scaled = [m for m in norms if getattr(modules[m.name], "weight", None) is not None]
    # without a norm, a depthwise layer inside an operation: its own weights speak for it
    return scaled or [m for m in outs if isinstance(modules[m.name], (*CONVOLUTIONS, nn.Linear))]


def _values(module: nn.Module, member: Member, kind: str, product: Mapping[str, Array]) -> Array:
    """One number for each output channel of the layer."""
    if kind == "taylor":
        known = product.get(member.name)
        if known is not None:
            return known
        return np.zeros(max(member.indices) + 1)  # nothing of it reaches the loss
    weight = module.weight
    assert isinstance(weight, Tensor)
    flat = weight.detach().double().reshape(weight.shape[0], -1)
    return np.asarray(flat.norm(dim=1).cpu().numpy(), dtype=np.float64)
