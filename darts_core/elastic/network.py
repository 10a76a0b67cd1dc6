"""A given network made elastic: what may vary in it, and the sub-networks that share its parameters."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from darts_core.elastic.depths import find_depths
from darts_core.elastic.given import check_example, check_network, check_numbers
from darts_core.elastic.importance import most_important_first, skip_losses
from darts_core.elastic.norms import check_batches, recalibrate, unreached
from darts_core.elastic.plans import plan
from darts_core.elastic.variables import (
    Choices,
    Depth,
    Variable,
    Width,
    check_choices,
    draw,
    largest,
    smallest,
)
from darts_core.elastic.widths import by_importance, find_widths, of_heads
from darts_core.errors import PruneError
from darts_core.modes import evaluating
from darts_core.prune.heads import find_heads, open_left
from darts_core.prune.proof import moves
from darts_core.prune.prune import preferred_step
from darts_core.prune.slices import Plan, cut, place_beside, running
from darts_core.prune.trial import Trial
from darts_core.tasks import Classification, Task, make_task
from darts_core.train.save import untold_width

__all__ = ["Elastic", "elastic"]

log = logging.getLogger("darts_core")
Batches = Sequence[tuple[Tensor, Any]]
Orders = Mapping[str, Sequence[Any]]
_PLANS = 512
_SHARED = "its heads cannot be sorted: another part of the network reads the same weights"


class Elastic:
    """A network whose sub-networks share its parameters.

    Attributes:
        model: the network itself, its channels sorted by importance; the same object as was given.
        variables: what may vary.
        left: layer, attention or block -> why it does not.
        opened: attentions that were replaced by ones that compute the same, so that their heads may vary.
        orders: variable's name -> its channels, heads or blocks, the most important first.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Sequence[Variable],
        left: Mapping[str, str],
        opened: Iterable[str] = (),
        orders: Orders | None = None,
    ) -> None:
        self.model, self.variables, self.left = model, tuple(variables), dict(left)
        self.opened, self.orders = tuple(opened), dict(orders or {})
        self._plans: dict[tuple[torch.device, tuple[int, ...]], Plan] = {}

    @property
    def largest(self) -> dict[str, int]:
        """The choices of the whole network."""
        return largest(self.variables)

    @property
    def smallest(self) -> dict[str, int]:
        """The choices of the smallest sub-network."""
        return smallest(self.variables)

    def draw(self, generator: np.random.Generator) -> dict[str, int]:
        """A sub-network, each variable drawn evenly."""
        return draw(self.variables, generator)

    def plan(self, choices: Choices) -> Plan:
        """What a sub-network takes of each tensor.

        Raises:
            ConfigError: a choice is no variable or no option of one.
        """
        full = check_choices(self.variables, choices)
        # its indices lie where the network does, which may be moved between two calls
        home = next(self.model.parameters()).device
        key = (home, tuple(full[variable.name] for variable in self.variables))
        if key not in self._plans:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            # also where it is first asked for in inference mode, as a validation's may be: its indices serve
            # the training, which no tensor of that mode may
            with torch.inference_mode(False):
                self._plans[key] = plan(self.model, self.variables, full)
        return self._plans[key]

    def running(
        self, choices: Choices, *, still: bool = False
    ) -> AbstractContextManager[nn.Module]:
        """The network, which runs as a sub-network inside the block and costs that one's time.

        Gradients reach the shared parameters; running statistics stay those of the whole network.

        Args:
            choices: of the sub-network.
            still: leave the running statistics as they are, also where it is the whole network.
        """
        full = check_choices(self.variables, choices)
        return running(self.model, self.plan(full), whole=not still and full == self.largest)

    def cut(self, choices: Choices, batches: Iterable[Any] | None = ()) -> nn.Module:
        """A plain network of its own with the parameters of a sub-network, in evaluation mode.

        Args:
            choices: of the sub-network.
            batches: data that its norms are recalibrated on, as of `recalibrate`; without any they keep the
                slices of the whole network's statistics, which do not fit.
        """
        # where a validation in inference mode asks for it, too, its parameters are to learn afterwards
        with torch.inference_mode(False):
            own = cut(self.model, self.plan(choices))
            return recalibrate(own, () if batches is None else batches)

    def described(self, choices: Choices) -> dict[str, Any]:
        """What `save_model`'s meta says of a sub-network beside the network's own description."""
        found = self.plan(choices)
        place = place_beside(self.model, found.skipped)
        sizes = {
            # under the name that a module of several places has left
            f"{place(path) or path}.{name}".lstrip("."): value
            for variable in self.variables
            if isinstance(variable, Width)
            for path, name, _ in variable.attributes
            if (value := found.attributes.get((path, name))) is not None
        }
        for (path, name), value in found.attributes.items():
            # a norm without weights: no tensor of the state tells how many channels it has
            untold = untold_width(self.model.get_submodule(path))
            if untold and name == untold[0]:
                sizes[f"{place(path) or path}.{name}".lstrip(".")] = (
                    value[0] if isinstance(value, tuple) else value
                )
        # opened first: a block that is skipped may hold one
        replaced = dict.fromkeys(self.opened, "attention")
        return {"replaced": replaced | dict.fromkeys(found.skipped, "skip_connect"), "sizes": sizes}

    def __str__(self) -> str:
        total = 1
        lines = []
        for variable in self.variables:
            total *= len(variable.options)
            values = ", ".join(map(str, variable.options))
            lines.append(f"  {variable.name}: {values} {variable.kind}")
        lines += [f"  {name}: left ({why})" for name, why in self.left.items()]
        head = f"{len(self.variables)} variables, {float(total):.3g} sub-networks:"
        return "\n".join([head, *lines])


@torch.inference_mode(mode=False)
@torch.enable_grad()  # a script may load and call its networks without gradients
def elastic(
    model: nn.Module,
    example_inputs: Tensor,
    *,
    batches: Batches = (),
    task: Task | str | None = None,
    least: float = 0.25,
    step: int | None = None,
    depth: bool = True,
    heads: bool = True,
    orders: Orders | None = None,
) -> Elastic:
    """Make `model` elastic: find what may vary, and sort its channels by importance.

    The network goes on computing what it did, with the same parameter objects, whose channels are moved:
    an optimizer made before has moments of other channels, and a moving average or a saved state has other
    channels, so make them afterwards. What may vary is found by following the network and proven on a copy
    in double precision.

    Args:
        model: a trained network that takes one tensor and gives one in evaluation mode.
        example_inputs: one batch as the network takes it, [B, C, ...], or token numbers [B, T]; two examples
            are enough.
        batches: (inputs, targets) to judge channels and blocks on: Taylor importance and the loss without
            a block; an iterator, or a loader of unknown length, is read into memory. Without any, channels
            are judged by magnitude and the last blocks go first.
        task: whose loss is meant, or its name; classification by default.
        least: share of a group's channels that the smallest width keeps.
        step: widths are multiples of it, where a group is that wide; by default what the device likes.
        depth: whether blocks may be skipped.
        heads: whether heads of attentions may go. An attention whose heads follow from the network's width,
            as those of `nn.MultiheadAttention`, is replaced by one that computes the same of the same
            parameters; in a `state_dict` these have other names then (`qkv.weight` for `in_proj_weight`).
        orders: `Elastic.orders` of an earlier call for the same weights, which a training that goes on
            elsewhere needs: another device, or number of threads, may judge near ties otherwise.

    Raises:
        PruneError: the network cannot be followed, nothing in it may vary, or what was given is no network,
            no batch or no batches.
        ConfigError: there is no such task, or a number is out of range.
    """
    check_network(model)
    check_example(example_inputs)
    check_numbers(least, step, orders)
    check_batches(batches := () if batches is None else batches)
    # an iterator gives once what is looked at several times; whether a stream holds any its length tells not
    if isinstance(batches, Iterator) or not _told_length(batches):
        batches = [*batches]
    aim = (make_task(task) if isinstance(task, str) else task) or Classification()
    # of one alone, norms behind a pooling do not run in training, where more of the network may read
    pair = example_inputs[:2] if len(example_inputs) > 1 else example_inputs.repeat_interleave(2, 0)
    trial = Trial(model, pair)
    attentions, without = find_heads(model, trial)
    if not heads:
        attentions, without = [], dict.fromkeys(without, "heads=False")
    with _given_back_if_refused(model, without):
        opened = open_left(model, trial, without, trained=True) if heads else {}
        if opened:
            attentions, without = find_heads(model, trial)
        without |= {group.root: _SHARED for group in attentions if not moves(trial, group)}
        counts = [of_heads(group) for group in attentions if group.root not in without]
        with evaluating(model):
            home = next(model.parameters()).device
            widths, left = find_widths(
                model, trial, example_inputs.shape[1:], least, step or preferred_step(home)
            )
            depths, always = find_depths(trial) if depth else ([], {})
            left = without | left | always
            for made in counts:
                for member in made.members:
                    left.pop(member.name, None)
            if not (widths or counts or depths):
                reasons = (
                    "; ".join(f"{name}: {why}" for name, why in left.items())
                    or "no layer was found"
                )
                raise PruneError(f"Nothing in {type(model).__name__} may vary ({reasons[:600]}).")
            found_orders = _orders(model, [*widths, *counts], batches, aim, orders)
            sorted_ = [
                by_importance(model, width, found_orders[width.name])
                for width in (*widths, *counts)
            ]
            ordered = [_ordered(model, depth, batches, aim, orders) for depth in depths]
    found_orders |= {depth.name: depth.order for depth in ordered}
    if own := unreached(trial.model, trial.x):
        log.warning(
            "%s: running statistics that are none of torch's norms stay those of the whole network in every "
            "sub-network, also where it is cut out with batches, and do not fit it; build on nn.BatchNorm2d "
            "or its like, or run the cut network over batches in training mode",
            ", ".join(own),
        )
    return Elastic(model, (*sorted_, *ordered), left, opened, found_orders)


def _told_length(batches: Any) -> bool:
    """Whether it can be asked whether it holds anything: a DataLoader of a stream raises."""
    try:
        bool(batches)
    except (TypeError, NotImplementedError):
        return False
    return True


def _orders(
    model: nn.Module,
    widths: Sequence[Width],
    batches: Batches,
    task: Task,
    known: Orders | None,
) -> dict[str, Sequence[Any]]:
    """Width's name -> its channels, the most important first, as they are `known` where they are."""
    fitting = {
        width.name: order
        for width in widths
        if (order := _known_order(known, width.name, range(width.options[-1])))
        and _together(order, width.blocks)
    }
    left = [width for width in widths if width.name not in fitting]
    return {**fitting, **(most_important_first(model, left, batches, task) if left else {})}


def _known_order(known: Orders | None, name: str, of: Sequence[Any]) -> list[Any]:
    """The order that is known of these, empty where none is; what a file holds may be anything."""
    order = (known or {}).get(name)
    if isinstance(order, (list, tuple)) and sorted(order, key=str) == sorted(of, key=str):
        return [*order]
    return []


def _together(order: Sequence[int], blocks: int) -> bool:
    """Whether channels that go or stay together follow one another, as in a width with parts they must."""
    return all(p // blocks == order[at - at % blocks] // blocks for at, p in enumerate(order))


def _ordered(
    model: nn.Module, depth: Depth, batches: Batches, task: Task, known: Orders | None
) -> Depth:
    """The stage with its most needed blocks first, as they are `known` where they are."""
    if order := _known_order(known, depth.name, depth.blocks):
        return replace(depth, order=tuple(order))
    if not batches:
        return depth
    losses = skip_losses(model, depth, batches, task)
    return replace(depth, order=tuple(sorted(depth.blocks, key=lambda block: -losses[block])))


@contextmanager
def _given_back_if_refused(model: nn.Module, paths: Iterable[str]) -> Iterator[None]:
    """A block whose error leaves these modules in the places in which they stood before it."""
    before = {path: model.get_submodule(path) for path in paths if path}
    try:
        yield
    except BaseException:
        for path, module in before.items():
            parent, _, last = path.rpartition(".")
            setattr(model.get_submodule(parent), last, module)
        raise
