"""What the plain networks of a choice space are made of, and on which choices each part depends.

The networks themselves are asked, whatever made them: a base network (the largest options), the
networks that differ from it in one choice, some random ones (what decides a part in the base may be
another choice elsewhere: the width before a classifier, where the depth is chosen), and as many more as it
takes to see every part under every combination of the choices that it depends on. A part is a module,
named by its path in the plain network; a choice of layer or depth makes parts differ or disappear.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError
from darts_core.ops.macs import macs_by_module
from darts_core.reading import is_number
from darts_core.sample_inputs import number_format
from darts_core.spaces.choices import ChoiceSpace, Option

__all__ = ["Network", "Part", "Survey", "bare", "base_options", "digest"]

_MOST_COMBINATIONS = 512
_LEARNT = 16  # random networks from which further dependencies are learnt
_CHECKS = 4  # others, which are compared with what is expected of them
Combination = tuple[Option, ...]


@dataclass(frozen=True)
class Part:
    """One module of one plain network.

    Attributes:
        kind: its type and settings.
        macs: multiply-accumulates a sample, without its children.
        params: parameters of its own, without its children's; tied ones are the first part's that holds them.
        inputs: shapes of the tensors that it gets, without the batch.
        calls: how often it runs.
    """

    kind: str
    macs: int
    params: int
    inputs: tuple[Any, ...]
    calls: int


Network = dict[str, Part]


def base_options(space: ChoiceSpace) -> dict[str, Option]:
    """The largest option of every choice of numbers, the first of any other: nothing is cut away."""
    return {label: _largest(options) for label, options in space.choices}


def _largest(options: Sequence[Option]) -> Option:
    numbers = [o for o in options if is_number(o)]
    return max(numbers) if len(numbers) == len(options) else options[0]


@dataclass
class Survey:
    """The plain networks of a space, looked at as needed.

    Args:
        space: of the choices.
        make: the plain network of an architecture.
        sample: [2, ...], an input of two samples.
        settle: makes the network that is looked at of a plain one (without batch norms, say).
    """

    space: ChoiceSpace
    make: Callable[[Architecture], nn.Module]
    sample: torch.Tensor
    settle: Callable[[nn.Module], nn.Module] = field(default=lambda network: network)

    def __post_init__(self) -> None:
        self.base = base_options(self.space)
        self._seen: dict[Combination, Network] = {}
        self._last: tuple[Architecture, nn.Module] | None = None
        self._depends = self._dependencies()

    def network(self, architecture: Architecture) -> nn.Module:
        """The settled network of `architecture`, in eval mode; the last one is kept."""
        if self._last is None or self._last[0] != architecture:
            self._last = (architecture, self.settle(self.make(architecture).eval()))
        return self._last[1]

    def architecture(self, changes: dict[str, Option]) -> Architecture:
        """The base with some choices made otherwise."""
        made = {**self.base, **changes}
        return Architecture(self.space.name, choices=tuple(made.items()))

    def look(self, changes: dict[str, Option]) -> Network:
        """The parts of the base network with some choices made otherwise."""
        architecture = self.architecture(changes)
        key = tuple(value for _, value in architecture.choices)
        if key not in self._seen:
            self._seen[key] = _parts_of(self.network(architecture), self.sample)
        return self._seen[key]

    def paths(self) -> list[str]:
        """Every path that was seen, the outer before the inner."""
        return sorted({path for network in self._seen.values() for path in network})

    def ever_bare(self, path: str) -> bool:
        """Whether it is bare in one of the networks that were seen."""
        return any(bare(network, path) for network in self._seen.values())

    def labels(self, path: str, *, whole: bool) -> tuple[str, ...]:
        """The choices on which the part depends; `whole`: or anything inside it."""
        if not whole:
            return self._ordered(self._depends.get(path, set()))
        inside = [labels for other, labels in self._depends.items() if _within(other, path)]
        return self._ordered(set().union(*inside))

    def combinations(self, labels: Sequence[str]) -> Iterator[Combination]:
        """Every combination of the options of `labels`.

        Raises:
            LatencyError: there are too many.
        """
        options = [self.space.options(label) for label in labels]
        count = int(np.prod([len(o) for o in options], dtype=np.int64))
        if count > _MOST_COMBINATIONS:
            raise LatencyError(
                f"The cost of one layer depends on {len(labels)} choices together ({', '.join(labels)}: "
                f"{count} combinations; {_MOST_COMBINATIONS} are looked at). Give choices that decide "
                "the same width one label, or fewer options."
            )
        return itertools.product(*options)

    def cover(self, wanted: Sequence[tuple[str, ...]]) -> list[dict[str, Option]]:
        """Few changes of the base that hold every combination of each group of labels in `wanted`."""
        open_groups = {
            labels: set(self.combinations(labels)) for labels in dict.fromkeys(wanted) if labels
        }
        plans: list[dict[str, Option]] = [{}]
        while any(open_groups.values()):
            plan: dict[str, Option] = {}
            for labels, left in open_groups.items():
                fits = [
                    c
                    for c in left
                    if all(plan.get(n, v) == v for n, v in zip(labels, c, strict=True))
                ]
                if fits:
                    first = min(fits, key=repr)  # the same plans on every run
                    plan.update(zip(labels, first, strict=True))
            made = {**self.base, **plan}
            for labels, left in open_groups.items():
                left.discard(tuple(made[label] for label in labels))
            plans.append(plan)
        return plans

    def tabulate(
        self, units: dict[str, tuple[str, ...]], key: Callable[[Network, str], Any]
    ) -> dict[str, dict[Combination, tuple[Any, dict[str, Option]]]]:
        """What each unit is under each combination of its choices, and in which network it was seen.

        Args:
            units: path -> the choices on which the unit depends.
            key: names what stands at a path of a network.

        Raises:
            LatencyError: a unit of a random network is not what the table says.
        """
        found: dict[str, dict[Combination, tuple[Any, dict[str, Option]]]] = {p: {} for p in units}
        for plan in self.cover(list(units.values())):
            network, made = self.look(plan), {**self.base, **plan}
            for path, labels in units.items():
                combination = tuple(made[label] for label in labels)
                found[path].setdefault(combination, (key(network, path), plan))
        rng = np.random.default_rng(0)
        for _ in range(_CHECKS):
            made = dict(self.space.random(rng).choices)
            network = self.look(made)
            for path, labels in units.items():
                expected = found[path][tuple(made[label] for label in labels)][0]
                if key(network, path) != expected:
                    raise LatencyError(
                        f"The part {path or 'root'!r} of the network depends on more choices than "
                        f"{', '.join(labels) or 'none'} in a way that changing one at a time does not "
                        "show; its cost cannot be expected. Give the choices that decide it one label."
                    )
        return found

    def _ordered(self, labels: set[str]) -> tuple[str, ...]:
        return tuple(label for label, _ in self.space.choices if label in labels)

    def _dependencies(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        hidden = []
        for label, options in self.space.choices:
            if not self._note(found, {}, label, options, set()):
                hidden.append(label)
        for label in hidden:  # inside a layer that the base does not choose
            self._note_hidden(found, label)
        largest = self.look({})
        for path in found:
            # a part that the base lacks depends on whatever stands there instead
            outer = path
            while outer not in largest:
                outer = outer.rpartition(".")[0]
            found[path] = found[path] | found.get(outer, set())
        rng = np.random.default_rng(1)
        for _ in range(_LEARNT):
            self._learn(found, dict(self.space.random(rng).choices))
        return found

    def _learn(self, found: dict[str, set[str]], made: dict[str, Option]) -> None:
        """Add the choices that make a part of the network of `made` other than what is expected of it."""
        network = self.look(made)
        for path in {*network, *found}:
            labels = found.setdefault(path, set())
            known = {label: made[label] for label in self._ordered(labels)}
            while self.look(known).get(path) != network.get(path):
                # from what is expected to what is there, choice by choice: the first that matters
                before, plan = self.look(known).get(path), dict(known)
                for label in made:
                    plan[label] = made[label]
                    if self.look(plan).get(path) != before:
                        break
                labels.add(label)
                known[label] = made[label]

    def _note_hidden(self, found: dict[str, set[str]], label: str) -> None:
        for outer, options in self.space.choices:
            for option in options:
                if outer != label and option != self.base[outer]:
                    start = {outer: option}
                    if self._note(found, start, label, self.space.options(label), {outer}):
                        return

    def _note(
        self,
        found: dict[str, set[str]],
        start: dict[str, Option],
        label: str,
        options: Sequence[Option],
        besides: set[str],
    ) -> bool:
        """Note the parts that `label` changes in the network of `start`; whether it changes any."""
        before, changed = self.look(start), False
        for option in options:
            now = self.look({**start, label: option})
            for path in {*before, *now}:
                if before.get(path) != now.get(path):
                    found.setdefault(path, set()).update({label}, besides)
                    changed = True
        return changed


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")


@torch.no_grad()
def _parts_of(network: nn.Module, sample: torch.Tensor) -> Network:
    """The modules of `network` that run on `sample`, by path."""
    modules = dict(network.named_modules())
    inputs: dict[str, list[Any]] = {path: [] for path in modules}
    hooks = []
    for path, module in modules.items():

        def note(_: Any, args: Any, kwargs: Any, path: str = path) -> None:
            tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
            inputs[path].append(tuple(tuple(t.shape[1:]) for t in tensors))

        hooks.append(module.register_forward_pre_hook(note, with_kwargs=True))
    x = sample[:1].to(next(network.parameters(), sample).device, copy=True)
    if x.is_floating_point():
        x = x.to(number_format(network))
    try:
        macs = macs_by_module(network, x)
    finally:
        for hook in hooks:
            hook.remove()
    found: Network = {}
    counted: set[int] = set()
    for path, count in macs.items():
        module = modules[path]
        params = list(module.parameters(recurse=False))
        shapes = ",".join(str(tuple(p.shape)) for p in params)
        leaf = not any(True for _ in module.children())
        kind = f"{type(module).__qualname__}({module.extra_repr() if leaf else ''})[{shapes}]"
        size = sum(p.numel() for p in params if id(p) not in counted)
        counted.update(map(id, params))
        found[path] = Part(kind, count, size, tuple(inputs[path]), len(inputs[path]))
    return found


def bare(network: Network, path: str) -> bool:
    """Whether the part is there, works itself and has no parts inside it."""
    part, inside = network.get(path), f"{path}." if path else ""
    works = part is not None and part.macs + part.params > 0
    return works and not any(o != path and o.startswith(inside) for o in network)


def digest(network: Network, path: str) -> str:
    """Names the work of the part at `path` and of all inside it; "" where there is none."""
    inside = {
        other.removeprefix(path).strip("."): part
        for other, part in network.items()
        if _within(other, path)
    }
    if not inside:
        return ""
    text = repr(sorted((name, repr(part)) for name, part in inside.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
