"""Heads of an attention that may vary: found by the sizes of its linear layers, proven by trying."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from darts_core.elastic.trial import Trial
from darts_core.elastic.variables import Width
from darts_core.prune.groups import Member

__all__ = ["find_heads"]

_COUNTS = ("num_heads", "heads", "n_heads", "n_head", "nhead")
_SIZES = ("head_dim", "head_channels", "head_size", "dim_head")


def find_heads(model: nn.Module, trial: Trial) -> tuple[list[Width], dict[str, str]]:
    """The attentions whose heads may be fewer, and module -> why another's stay.

    An attention is a module with linear layers of its own and a number or a size of heads. The network
    with fewer heads must compute what the whole one does when nothing reads the others.
    """
    widths: list[Width] = []
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        found = _sizes(module)
        if found is None:
            continue
        last, heads, size = _last_linear(trial, name), *found
        if last is None or heads < 2 or model.get_submodule(last).in_features != heads * size:  # type: ignore[operator]
            left[name] = "its heads cannot be told from its layers"
            continue
        made = next(
            (w for w in _ways(model, name, last, heads, size) if _right(trial, w, last)), None
        )
        if made is None:
            left[name] = "its heads cannot be fewer: their size follows from the width"
        else:
            widths.append(made)
    return widths, left


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """(heads, channels of a head) as the module's attributes and layers state them."""
    linear = [child for child in module.children() if isinstance(child, nn.Linear)]
    if len(linear) < 2:
        return None
    own = vars(module)
    count = next((own[n] for n in _COUNTS if isinstance(own.get(n), int)), None)
    size = next((own[n] for n in _SIZES if isinstance(own.get(n), int)), None)
    inner = linear[-1].in_features
    if size is None and count:
        size = inner // count
    if count is None and size:
        count = inner // size
    return (count, size) if count and size else None


def _last_linear(trial: Trial, name: str) -> str | None:
    """The module's linear layer that runs last."""
    module = trial.model.get_submodule(name)
    ran: list[str] = []
    hooks = [
        child.register_forward_hook(lambda *_, at=at: ran.append(at))
        for at, child in module.named_children()
        if isinstance(child, nn.Linear)
    ]
    trial.run()
    for hook in hooks:
        hook.remove()
    return f"{name}.{ran[-1]}".lstrip(".") if ran else None


def _ways(model: nn.Module, name: str, last: str, heads: int, size: int) -> Iterator[Width]:
    """Ways in which the heads may lie in the layers, with and without a number of heads to set."""
    module, inner = model.get_submodule(name), heads * size
    prefix = f"{name}." if name else ""
    others = {
        f"{prefix}{at}": child.out_features
        for at, child in module.named_children()
        if isinstance(child, nn.Linear) and f"{prefix}{at}" != last
    }
    separate = [at for at, width in others.items() if width == inner]
    fused = [at for at, width in others.items() if width == 3 * inner]
    layouts: list[tuple[list[str], int, int]] = []
    if len(separate) >= 3:
        layouts.append((separate, 1, inner))
    if len(fused) == 1:
        # all queries, all keys, all values; or those of one head after another
        layouts += [(fused, 3, inner), (fused, 3, size)]
    attributes = [
        tuple(
            [(name, n, 1) for n in _COUNTS if vars(module).get(n) == heads]
            + [
                (name, n, size)
                for n, v in vars(module).items()
                if also and type(v) is int and v == inner
            ]
        )
        for also in (False, True)
    ]
    reader = Member(last, "in", *_positions(heads, size, 1, inner))
    for layers, parts, stride in layouts:
        made = (
            *(Member(at, "out", *_positions(heads, size, parts, stride)) for at in layers),
            reader,
        )
        for given in dict.fromkeys([(), *attributes]):
            options = tuple(range(1, heads + 1))
            yield Width(f"{name}.heads".lstrip("."), options, made, (), "heads", given)


def _positions(
    heads: int, size: int, parts: int, stride: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(head, channel) of every channel; `stride` lies between a head's parts."""
    step = size if stride != size else parts * size
    found = [
        (head, part * stride + head * step + channel)
        for head in range(heads)
        for part in range(parts)
        for channel in range(size)
    ]
    return tuple(head for head, _ in found), tuple(channel for _, channel in found)


@torch.no_grad()
def _right(trial: Trial, width: Width, last: str) -> bool:
    """Whether the network with all heads but the last computes what it does when nothing reads that."""
    least = width.options[-2]
    reader = width.members[-1]
    layer = trial.model.get_submodule(last)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    silent = [i for p, i in zip(reader.positions, reader.indices, strict=True) if p >= least]
    before = weight.clone()
    weight[:, silent] = 0.0
    wanted = trial.run()
    weight.copy_(before)
    return trial.same(trial.cut([width], {width.name: least}), wanted)
