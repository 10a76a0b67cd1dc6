"""Whole operations, edges and cells that could go: what may replace them, and what that costs.

Searched cells are many small operations, so narrower layers alone hardly save time at small batches.
An operation of a cell may become nothing (while its node keeps another edge) or an identity (where
its shapes agree), a block of a plain network an identity, a cell a pass-through. The loss of each is
measured directly: the mean loss on held batches with it replaced, minus without.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.modes import in_evaluation, with_gradients
from darts_core.prune.graph import let_go
from darts_core.prune.groups import CONVOLUTIONS, NORMS
from darts_core.prune.importance import CLASSES
from darts_core.prune.modes import runs_in_training
from darts_core.sample_inputs import draw_inputs, number_format
from darts_core.tasks import Task
from darts_core.train.save import is_identity, is_zero, replace_modules

__all__ = ["Cut", "find_cuts", "find_dead", "loss_increases", "mean_loss"]


@dataclass(frozen=True)
class Cut:
    """A possible replacement: the module's path, by what, and the node that it feeds."""

    path: str
    by: str
    node: str = ""


def find_cuts(model: nn.Module, input_shape: Sequence[int]) -> list[Cut]:
    """Everything that could be replaced in `model` as it is now."""
    shapes = _shapes(model, input_shape)
    trains = _trains(model, input_shape)
    cuts: list[Cut] = []
    for name, module in model.named_modules():
        edges, ops = getattr(module, "edges", None), getattr(module, "ops", None)
        alike = name in shapes and shapes[name][0] == shapes[name][1]
        if isinstance(ops, nn.ModuleList) and isinstance(edges, tuple):
            cuts += _edge_cuts(name, edges, ops, shapes)
            if alike:
                cuts.append(Cut(name, "pass_cell"))
        elif alike and _is_block(model, name, module):
            cut = Cut(name, "skip_connect")
            if _runs_with(model, cut, input_shape, trains=trains):
                cuts.append(cut)
    return cuts


@contextlib.contextmanager
def _replaced(model: nn.Module, cut: Cut) -> Iterator[None]:
    original = model.get_submodule(cut.path)
    parent, _, last = cut.path.rpartition(".")
    replace_modules(model, {cut.path: cut.by})
    try:
        yield
    finally:
        setattr(model.get_submodule(parent), last, original)


def _trains(model: nn.Module, input_shape: Sequence[int]) -> bool:
    return runs_in_training(model, _inputs(model, input_shape))


def _inputs(model: nn.Module, input_shape: Sequence[int], *, zeros: bool = True) -> Tensor:
    """Two samples of zeros, or always the same random ones, where and in which number format it is."""
    home = next(model.parameters()).device
    generator = None if zeros else torch.Generator(home).manual_seed(0)
    return draw_inputs(
        input_shape, 2, device=home, dtype=number_format(model), generator=generator, zeros=zeros
    )


def _runs_with(model: nn.Module, cut: Cut, input_shape: Sequence[int], *, trains: bool) -> bool:
    """Whether the network runs so: its forward may read more of a block than its output.

    torch's encoders ask their layers' attention. With `trains`, in training mode as well.
    """
    try:
        with _replaced(model, cut):
            _shapes(model, input_shape)
            return not trains or _trains(model, input_shape)
    except Exception:  # whatever a foreign network raises
        return False


def find_dead(model: nn.Module, input_shape: Sequence[int]) -> dict[str, str]:
    """Modules that run although nothing of them reaches the output, with their replacement.

    Cuts leave such modules behind (the preprocessing of a state that no edge reads any more), and
    channel coupling cannot be followed through them. A module from which only no gradient comes (behind a
    `detach`, under `no_grad`) is none of them: its output is tried.
    """
    ran = _shapes(model, input_shape)
    # whole numbers have no gradient, and tell nothing of the module that they stand in
    states = [(p, p.requires_grad, p.grad) for p in model.parameters() if _has_gradients(p)]
    try:
        for parameter, _, _ in states:
            parameter.requires_grad_(True)
            parameter.grad = None
        x = _inputs(model, input_shape)
        with with_gradients(model):
            in_evaluation(model)(x).sum().backward()
        alive = {id(parameter) for parameter, _, _ in states if parameter.grad is not None}
    finally:
        for parameter, wanted, gradient in states:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
        let_go(model)
    dead: dict[str, str] = {}
    for name, module in model.named_modules():
        own = [id(parameter) for parameter in module.parameters() if _has_gradients(parameter)]
        inside = any(name.startswith(f"{path}.") for path in dead)
        if not name or inside or name not in ran or not own or any(p in alive for p in own):
            continue
        if hasattr(module, "edges") and hasattr(module, "ops"):
            dead[name] = "pass_cell"
        else:
            dead[name] = "none" if ".ops." in f".{name}" else "skip_connect"
    for name, module in model.named_modules():
        if not any(name == path or name.startswith(f"{path}.") for path in dead):
            dead |= _dead_edges(name, module)
    return _idle(model, dead, input_shape)


def _has_gradients(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


@torch.no_grad()
def _idle(model: nn.Module, dead: Mapping[str, str], input_shape: Sequence[int]) -> dict[str, str]:
    """Those of the replacements that leave the output as it is."""
    if not dead:
        return {}
    x = _inputs(model, input_shape, zeros=False)
    # all see the same input, which a network may write into
    before = in_evaluation(model)(x.clone())

    def same(replaced: Mapping[str, str]) -> bool:
        try:
            with contextlib.ExitStack() as stack:
                for path, by in replaced.items():
                    stack.enter_context(_replaced(model, Cut(path, by)))
                return bool(torch.allclose(model(x.clone()), before, rtol=1e-4, atol=1e-6))
        except Exception:  # whatever a foreign network raises
            return False

    if same(dead):
        return dict(dead)
    found: dict[str, str] = {}
    for path, by in dead.items():
        if same({**found, path: by}):
            found[path] = by
    return found


def _dead_edges(name: str, cell: nn.Module) -> dict[str, str]:
    """Edges into states that the cell's output does not depend on, identities and pools included."""
    edges, ops = getattr(cell, "edges", None), getattr(cell, "ops", None)
    outputs = getattr(cell, "_outputs", None)
    if not isinstance(edges, tuple) or not isinstance(ops, nn.ModuleList) or outputs is None:
        return {}
    alive = set(outputs)
    # edges stand in the order of their targets: one pass from the back sees every path
    for (source, target), op in sorted(zip(edges, ops, strict=True), key=lambda pair: -pair[0][1]):
        if target in alive and not is_zero(op):
            alive.add(source)
    return {
        f"{name}.ops.{index}": "none"
        for index, ((_, target), op) in enumerate(zip(edges, ops, strict=True))
        if target not in alive and not is_zero(op)
    }


def _edge_cuts(
    cell: str, edges: tuple[tuple[int, int], ...], ops: nn.ModuleList, shapes: dict[str, Any]
) -> list[Cut]:
    # a node that only zeros enter carries nothing of the input on: what reads it holds no node up
    live = set(range(min((target for _, target in edges), default=0)))
    terms: dict[int, list[nn.Module]] = {target: [] for _, target in edges}
    for (source, target), op in sorted(zip(edges, ops, strict=True), key=lambda pair: pair[0][1]):
        if source in live and (_leaves(op) > 0 or is_identity(op)):
            terms[target].append(op)
            live.add(target)
    cuts = []
    for index, ((_, target), op) in enumerate(zip(edges, ops, strict=True)):
        path = f"{cell}.ops.{index}"
        if _leaves(op) == 0 or path not in shapes:
            continue  # an identity or nothing already
        node = f"{cell}.node{target}"
        others = [term for term in terms[target] if term is not op]
        # a node that is nothing but an identity would join the same channels twice in the
        # concatenation, which torch-pruning cannot follow
        if len(others) > 1 or any(not is_identity(term) for term in others):
            cuts.append(Cut(path, "none", node))
        if others and shapes[path][0] == shapes[path][1]:
            cuts.append(Cut(path, "skip_connect", node))
    return cuts


def _leaves(module: nn.Module) -> int:
    kinds = (*CONVOLUTIONS, *NORMS, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)
    return sum(isinstance(child, kinds) for child in module.modules())


def _is_block(model: nn.Module, name: str, module: nn.Module) -> bool:
    """A residual block, a transformer's or the like: one of a row, of two layers with weights or more."""
    parent = name.rpartition(".")[0]
    if not name or not isinstance(model.get_submodule(parent), (nn.Sequential, nn.ModuleList)):
        return False
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return False
    return sum(isinstance(child, (*CONVOLUTIONS, nn.Linear)) for child in module.modules()) >= 2


def _shapes(model: nn.Module, input_shape: Sequence[int]) -> dict[str, tuple[Any, Any]]:
    """(input, output) shape of every module that ran; a cell's input is its newest state."""
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, tuple[Any, Any]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        first = inputs[0] if inputs else None
        if isinstance(first, (list, tuple)) and first:
            first = first[-1]
        if isinstance(first, Tensor) and isinstance(output, Tensor):
            found[names[module]] = (tuple(first.shape), tuple(output.shape))

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            in_evaluation(model)(_inputs(model, input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def mean_loss(
    model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], task: Task = CLASSES
) -> float:
    """Mean loss of `model` in eval mode over the batches."""
    model.eval()
    # the batches serve again, and a network may write into its input
    found = [task.summed_loss(model(x.clone()), y) for x, y in batches]
    return sum(float(loss) for loss, _ in found) / max(sum(count for _, count in found), 1)


def loss_increases(
    model: nn.Module,
    cuts: Sequence[Cut],
    batches: Sequence[tuple[Tensor, Tensor]],
    task: Task = CLASSES,
) -> list[float]:
    """Rise of the mean loss through each cut alone, never below 0; the model is left as it was.

    Infinity where the loss becomes NaN, which is not below 0 either: such a cut would pass for a free one.
    """
    if not cuts:
        return []
    before = mean_loss(model, batches, task)
    rises = []
    for cut in cuts:
        with _replaced(model, cut):
            rise = mean_loss(model, batches, task) - before
            rises.append(math.inf if math.isnan(rise) else max(0.0, rise))
    return rises
