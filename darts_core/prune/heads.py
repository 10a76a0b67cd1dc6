"""Heads of an attention that may vary: found by the sizes of its linear layers, proven by trying.

Where their number follows from the network's width, the attention is opened first: replaced by one that
computes the same and takes it from its layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from darts_core.errors import PruneError
from darts_core.prune.groups import ChannelGroup, Member, remove_channels
from darts_core.prune.slices import Plan, Side, lose, plan_without, take_out
from darts_core.prune.trial import Trial
from darts_core.sample_inputs import draw_inputs
from darts_core.supernet.open_attention import HEAD_COUNTS, HEAD_SIZES, opened
from darts_core.supernet.replace import replace_modules

__all__ = [
    "find_heads",
    "groups_of_heads",
    "open_attentions",
    "open_left",
    "plan_of_heads",
    "remove",
]

log = logging.getLogger("darts_core")
# tokens that a hand-written attention is tried on beside those of the example
_LONG = 512
_OF_TORCH = (
    "it is torch's nn.MultiheadAttention, and has keys of its own, several widths, hooks, derived weights, "
    "several places, or an encoder around it that packs padded inputs (enable_nested_tensor=False does not)"
)


def find_heads(model: nn.Module, trial: Trial) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The attentions whose heads may be fewer, and module -> why another's stay.

    An attention is a module with linear layers of its own and a number or a size of heads. The network
    with fewer heads must compute what the whole one does when nothing reads the others.
    """
    groups: list[ChannelGroup] = []
    left: dict[str, str] = {}
    sizes = {name: found for name, module in model.named_modules() if (found := _sizes(module))}
    ran_last = _last_linears(trial, sizes)
    for name, (heads, size) in sizes.items():
        last = ran_last.get(name)
        if last is None or heads < 2 or model.get_submodule(last).in_features != heads * size:  # type: ignore[operator]
            left[name] = "its heads cannot be told from its layers"
            continue
        # one head alone as well: 8 channels are heads of 8 // 3 = 2 for three heads as for four, not for two
        unread = {kept: _unread(trial, last, kept * size) for kept in (heads - 1, 1)}
        made = next(
            (g for g in _ways(model, name, last, heads, size) if _right(trial, g, unread)), None
        )
        if made is None:
            left[name] = (
                "its heads cannot be fewer: their size follows from the width, or something beside its "
                "linear layers holds a share for each of them"
            )
        else:
            groups.append(made)
    for name in _of_torch(model):
        left[name] = _OF_TORCH
    return groups, left


def groups_of_heads(model: nn.Module, input_shape: Sequence[int]) -> list[ChannelGroup]:
    """The attentions of `model` whose heads may go; none where it does not run in double precision."""
    if not any(_sizes(module) for module in model.modules()):
        return []
    try:
        return find_heads(model, _trial(model, input_shape))[0]
    except PruneError:
        return []


def open_attentions(
    model: nn.Module, input_shape: Sequence[int], *, trained: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """Open the attentions whose heads could not be fewer as they are; in place.

    Args:
        model: the network.
        input_shape: of one example, without the batch.
        trained: as of `open_left`.

    Returns:
        Their paths, for `replace_modules`; and path -> why the heads of another one stay.
    """
    attentions = _of_torch(model)
    if not attentions and not any(_sizes(module) for module in model.modules()):
        return {}, {}
    try:
        trial = _trial(model, input_shape)
    except PruneError as error:
        return {}, dict.fromkeys(attentions, str(error))
    _, left = find_heads(model, trial)
    found = open_left(model, trial, left, trained=trained)
    return found, {name: why for name, why in left.items() if name not in found}


def open_left(
    model: nn.Module, trial: Trial, left: Iterable[str], *, trained: bool = False
) -> dict[str, str]:
    """Open those of the attentions in `left`, as of `find_heads`, that compute the same then; in place.

    Their parameters stay the objects that they are. `trial` has them opened, too.

    Args:
        model: the network.
        trial: of it.
        left: paths of attentions.
        trained: leave what is written by hand and drops out in training, which it would not do any more.

    Returns:
        Their paths, for `replace_modules`.
    """
    found = {
        name: "attention"
        for name in left
        if not (trained and _drops_out(trial, name)) and _same_when_opened(trial, name)
    }
    replace_modules(model, found)
    return found


def _of_torch(model: nn.Module) -> list[str]:
    return [n for n, m in model.named_modules() if isinstance(m, nn.MultiheadAttention)]


def _trial(model: nn.Module, input_shape: Sequence[int]) -> Trial:
    return Trial(model, draw_inputs(input_shape, 2))


def _drops_out(trial: Trial, name: str) -> bool:
    """Whether the module computes something else in training, in a way that an opened one does not."""
    module = trial.model.get_submodule(name)
    if type(module) is nn.MultiheadAttention:
        return False
    if any(True for _ in module.buffers()):  # it may count in training, which the trial must not
        return True
    module.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # the processes of a group find the same
            return not trial.same(trial.run())
    except Exception:  # whatever a foreign network raises
        return True
    finally:
        module.eval()


def _same_when_opened(trial: Trial, name: str) -> bool:
    """Open the attention in the trial's network; undone where it does not compute the same."""
    if not name:  # the network itself has no place that another module could take
        return False
    parent, _, last = name.rpartition(".")
    owner, old = trial.model.get_submodule(parent), trial.model.get_submodule(name)
    new = opened(old) if _replaceable(trial.model, old) else None
    if new is None:
        return False
    setattr(owner, last, new.eval())
    shapes: list[torch.Size] = []
    # one that is called by keyword is torch's
    hook = new.register_forward_pre_hook(lambda _, given: shapes.extend(x.shape for x in given[:1]))
    try:
        if trial.same(trial.run()) and all(_same_of_more(trial, old, new, s) for s in {*shapes}):
            return True
    except Exception:  # whatever a foreign network raises that calls it in another way
        log.debug("%s is not opened", name, exc_info=True)
    finally:
        hook.remove()
    setattr(owner, last, old)
    return False


@torch.no_grad()
def _same_of_more(trial: Trial, old: nn.Module, new: nn.Module, shape: torch.Size) -> bool:
    """Whether both give the same of more tokens than [B, T, C], where the given one takes so many.

    A window, or another mask over distances, may be as wide as the example is long.
    """
    count = min(max(4 * shape[1], _LONG), 2 * _LONG)
    if type(old) is nn.MultiheadAttention or len(shape) != 3 or count <= shape[1]:
        return True
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, count, shape[2], generator=generator, dtype=trial.whole.dtype)
    try:
        wanted = old(x.clone())
    except Exception:  # whatever a foreign network raises
        return True
    return trial.same(new(x), wanted)


def _replaceable(model: nn.Module, module: nn.Module) -> bool:
    """Whether another module can stand for it: in one place, and nothing watches or derives its parts."""
    places = sum(m is module for owner in model.modules() for m in owner._modules.values())
    return places == 1 and not any(
        m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or is_parametrized(m)
        for m in module.modules()
    )


def _sizes(module: nn.Module) -> tuple[int, int] | None:
    """(heads, channels of a head) as the module's attributes and layers state them."""
    linear = [child for child in module.children() if isinstance(child, nn.Linear)]
    if len(linear) < 2:
        return None
    own = vars(module)
    count = next((own[n] for n in HEAD_COUNTS if isinstance(own.get(n), int)), None)
    size = next((own[n] for n in HEAD_SIZES if isinstance(own.get(n), int)), None)
    inner = linear[-1].in_features
    if size is None and count:
        size = inner // count
    if count is None and size:
        count = inner // size
    return (count, size) if count and size else None


def _last_linears(trial: Trial, names: Iterable[str]) -> dict[str, str]:
    """Of each of these modules, its own linear layer that runs last."""
    last: dict[str, str] = {}

    def noting(name: str, at: str) -> Callable[..., None]:
        def note(*_: object) -> None:
            last[name] = f"{name}.{at}".lstrip(".")

        return note

    hooks = [
        child.register_forward_hook(noting(name, at))
        for name in names
        for at, child in trial.model.get_submodule(name).named_children()
        if isinstance(child, nn.Linear)
    ]
    trial.run()
    for hook in hooks:
        hook.remove()
    return last


def _ways(model: nn.Module, name: str, last: str, heads: int, size: int) -> Iterator[ChannelGroup]:
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
            [(name, n, 1) for n in HEAD_COUNTS if vars(module).get(n) == heads]
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
            yield ChannelGroup(f"{name}.heads".lstrip("."), heads, made, (), "heads", given)


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


def plan_of_heads(model: nn.Module, group: ChannelGroup, removed: Container[int]) -> Plan:
    """The plan of the network without some of an attention's heads."""
    lost: dict[Side, set[int]] = {}
    lose(lost, group.members, removed)
    left = sum(head not in removed for head in range(group.channels))
    sizes = {(path, name): left * unit for path, name, unit in group.attributes}
    return plan_without(model, lost, sizes)


def remove(
    model: nn.Module,
    input_shape: Sequence[int],
    groups: Iterable[ChannelGroup],
    removed: Mapping[str, Collection[int]],
) -> nn.Module:
    """Cut heads and channels (root -> which of them) of these groups and all that is coupled; in place.

    Raises:
        PruneError: a group would lose all, or the cut network does not run.
    """
    channels = {root: sorted(gone) for root, gone in removed.items()}
    for group in groups:
        if group.kind == "heads" and (gone := channels.pop(group.root, [])):
            take_out(model, plan_of_heads(model, group, gone))
    return remove_channels(model, input_shape, channels)


@torch.no_grad()
def _unread(trial: Trial, last: str, kept: int) -> Tensor:
    """The output when layer `last` of an attention reads so many of its channels, and no others."""
    weight = trial.model.get_submodule(last).weight
    assert isinstance(weight, Tensor)
    before = weight.clone()
    weight[:, kept:] = 0.0
    found = trial.run()
    weight.copy_(before)
    return found


def _right(trial: Trial, group: ChannelGroup, unread: Mapping[int, Tensor]) -> bool:
    """Whether the network with so many heads computes what it does when nothing reads the others."""
    return all(
        trial.same(
            trial.cut(plan_of_heads(trial.model, group, range(kept, group.channels))), without
        )
        for kept, without in unread.items()
    )
