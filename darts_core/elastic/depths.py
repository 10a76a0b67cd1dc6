"""Stages whose depth may vary: blocks that hand on their input when their parameters say nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.elastic.plans import plan
from darts_core.elastic.variables import Depth
from darts_core.prune.groups import LAYER_NORMS
from darts_core.prune.modes import runs_in_training
from darts_core.prune.slices import Plan, place_beside, running, take_out
from darts_core.prune.trial import Trial
from darts_core.supernet.replace import is_identity

__all__ = ["find_depths"]


@dataclass(frozen=True)
class _Call:
    """How a module was called, a tensor first, and the tensor that it gave."""

    x: Tensor
    rest: tuple[Any, ...]
    named: Mapping[str, Any]
    output: Tensor


def find_depths(trial: Trial) -> tuple[list[Depth], dict[str, str]]:
    """The stages whose depth may vary, and block -> why another one always runs.

    A block is residual when it gives its input back with all of its parameters at 0, or that input
    normalised, where its norms stand behind the sums. Residual blocks of one class and one shape that follow
    one another in one module are a stage.
    """
    seen = _seen(trial)
    depths: list[Depth] = []
    left: dict[str, str] = {}
    for parent, module in trial.model.named_modules():
        stage: list[str] = []
        children = [(f"{parent}.{at}".lstrip("."), child) for at, child in module.named_children()]
        kinds = [type(child) for _, child in children]
        before: str | None = None
        for path, child in [*children, ("", nn.Identity())]:
            if path and is_identity(child):
                continue  # such as a block that was left out before stands between two of a stage
            repeated = kinds.count(type(child)) > 1 and _is_block(child)
            why = _stays(trial, path, child, seen) if repeated else ""
            if repeated and not why:
                same = stage and type(trial.model.get_submodule(stage[0])) is type(child)
                if stage and not (same and _shape(seen, stage[0]) == _shape(seen, path)):
                    _close(trial, stage, before, depths, left)
                    stage = []
                stage.append(path)
                continue
            if stage:
                _close(trial, stage, before, depths, left)
                stage = []
            before = path if repeated else None
            if repeated:
                left[path] = why
    return depths, left


def _stays(trial: Trial, path: str, block: nn.Module, seen: Mapping[str, _Call]) -> str:
    """Why the block always runs; empty where it may be skipped."""
    if not _residual(trial, block, seen.get(path)):
        return "it changes the shape, or is not residual: it always runs"
    if not _same_when_cut(trial, [path]):
        return "the network does not run without it, or reads more of it than its output"
    return ""


def _is_block(module: nn.Module) -> bool:
    own = type(module).__module__.startswith("torch.nn") and not isinstance(
        module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    )
    return not own and any(True for _ in module.parameters())


def _shape(seen: Mapping[str, _Call], path: str) -> tuple[int, ...]:
    return tuple(seen[path].x.shape)


def _seen(trial: Trial) -> dict[str, _Call]:
    """Path -> the last call of every module that takes a tensor first and gives one."""
    found: dict[str, _Call] = {}
    names = {module: name for name, module in trial.model.named_modules()}

    def note(
        module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: object
    ) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            x, *rest = inputs
            # as torch's encoder makes of padded inputs: it has no shape
            if x.is_nested or output.is_nested:
                return
            found[names[module]] = _Call(x.clone(), tuple(rest), named, output.clone())

    hooks = [
        module.register_forward_hook(note, with_kwargs=True) for module in trial.model.modules()
    ]
    try:
        trial.run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def _residual(trial: Trial, module: nn.Module, call: _Call | None) -> bool:
    if call is None or call.x.shape != call.output.shape:
        return False
    silent = copy.deepcopy(module)
    for parameter in silent.parameters():
        parameter.zero_()
    for name, buffer in silent.named_buffers():
        if name.endswith("running_mean"):
            buffer.zero_()
    if trial.same(_called(silent, call), call.x):
        return True
    norms = [m for m in silent.modules() if isinstance(m, LAYER_NORMS) and m.weight is not None]
    of_norms = {id(parameter) for norm in norms for parameter in norm.parameters()}
    if {id(parameter) for parameter in silent.parameters()} <= of_norms:
        return False  # a norm alone, as people write their own, is no block
    for norm in norms:
        norm.weight.fill_(1.0)
    found = _called(silent, call) if norms else None
    normalised = nn.functional.layer_norm(call.x, call.x.shape[-1:])
    # what was normalised before differs by the norms' eps
    return found is not None and torch.allclose(found, normalised, rtol=1e-3, atol=1e-3)


def _called(module: nn.Module, call: _Call) -> Tensor | None:
    """What the module gives when it is called so, if that is of its input's shape."""
    try:
        found = module(call.x.clone(), *call.rest, **call.named)
    except Exception:  # whatever a foreign network raises
        return None
    return found if isinstance(found, Tensor) and found.shape == call.x.shape else None


def _same_when_cut(trial: Trial, blocks: Sequence[str]) -> bool:
    """Whether the network trains without these blocks, and gives what it does when they hand on their input.

    What is put in a block's place has none of its attributes, which the module around it may read: torch's
    encoder asks its first layer for its attention.
    """
    without = Plan(skipped=tuple(blocks))
    sliced = trial.cut(without)
    if sliced is None:
        return False
    before = {path: trial.model.get_submodule(path) for path in blocks}
    try:
        found = trial.same(trial.run(take_out(trial.model, without)), sliced)
        return found and (not trial.trains or runs_in_training(trial.model, trial.x))
    except Exception:  # whatever a foreign network raises
        return False
    finally:
        for path, block in before.items():
            parent, _, last = path.rpartition(".")
            setattr(trial.model.get_submodule(parent), last, block)


def _close(
    trial: Trial, stage: list[str], before: str | None, depths: list[Depth], left: dict[str, str]
) -> None:
    """Note the stage, if the network runs without its blocks."""
    # where no block that always runs stands before these, half of them stay: a transformer of one block
    # teaches the others nothing
    least = 0 if before is not None else -(-len(stage) // 2)
    if least == len(stage):
        left[stage[0]] = "the only block of its stage"
        return
    name = f"{stage[0]}..{stage[-1].rpartition('.')[2]}.depth"
    depth = Depth(name, tuple(range(least, len(stage) + 1)), tuple(stage), tuple(stage))
    if not _same_when_cut(trial, depth.skipped(least)) or not _leaves_out(trial, depth):
        left.update(dict.fromkeys(stage, "the network does not run without it"))
        return
    depths.append(depth)


def _leaves_out(trial: Trial, depth: Depth) -> bool:
    """Whether a skipped block really does not run (a compiled forward may go around us)."""
    ran: list[int] = []
    last = trial.model.get_submodule(depth.blocks[-1])
    place = place_beside(trial.model, [depth.blocks[-1]])
    # what runs in other places as well says nothing of this one
    own = (m for at, m in last.named_modules() if at and place(f"{depth.blocks[-1]}.{at}") is None)
    inner = next(own, None)
    if inner is None:
        return True
    hook = inner.register_forward_hook(lambda *_: ran.append(1))
    choices = {depth.name: depth.options[-2]}
    with running(trial.model, plan(trial.model, [depth], choices)):
        trial.run()
    hook.remove()
    return not ran
