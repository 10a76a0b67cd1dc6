"""What may vary in an elastic network: widths of coupled channels, depths of stages. Data, no weights.

A sub-network is a mapping from a variable's name to the value that it has: channels (or heads) of a width,
blocks of a depth. What it leaves out has its largest value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from darts_core.errors import ConfigError, unknown_name
from darts_core.prune.groups import Member

__all__ = [
    "Choices",
    "Depth",
    "Variable",
    "Width",
    "check_choices",
    "draw",
    "largest",
    "middle",
    "options_of",
    "smallest",
]

Choices = Mapping[str, int]
_MOST = 6


@dataclass(frozen=True)
class Width:
    """How many of its coupled channels a group keeps: the first ones, as they are sorted.

    Attributes:
        name: path of the layer that the channels are numbered by.
        options: the widths, rising; the last one is all.
        members: the layers' shares.
        free: those of parameters that belong to no layer.
        kind: "channels", or "heads" of an attention.
        attributes: (module, attribute, unit): whole numbers that are the width times a unit.
        blocks: so many channels that follow one another go together, one of each part that keeps as many as
            the others: a norm's or a convolution's groups, a gate's halves. Widths are multiples of it.
    """

    name: str
    options: tuple[int, ...]
    members: tuple[Member, ...]
    free: tuple[Member, ...] = ()
    kind: str = "channels"
    attributes: tuple[tuple[str, str, int], ...] = ()
    blocks: int = 1


@dataclass(frozen=True)
class Depth:
    """How many blocks of a stage run; the others hand on their input.

    Attributes:
        name: of the stage.
        options: numbers of blocks, rising; the last one is all.
        blocks: paths, in the network's order.
        order: the same, the one whose loss would hurt most first; a depth keeps the first of these.
    """

    name: str
    options: tuple[int, ...]
    blocks: tuple[str, ...]
    order: tuple[str, ...] = field(default=())
    kind: str = "blocks"

    def skipped(self, depth: int) -> tuple[str, ...]:
        """The blocks that do not run."""
        return (self.order or self.blocks)[depth:]


Variable = Width | Depth


def largest(variables: Iterable[Variable]) -> dict[str, int]:
    """The choices of the whole network."""
    return {variable.name: variable.options[-1] for variable in variables}


def smallest(variables: Iterable[Variable]) -> dict[str, int]:
    """The choices of the smallest sub-network."""
    return {variable.name: variable.options[0] for variable in variables}


def middle(variables: Iterable[Variable]) -> dict[str, int]:
    """The choices of a sub-network half-way: every variable's middle option."""
    return {v.name: v.options[len(v.options) // 2] for v in variables}


def draw(variables: Iterable[Variable], generator: np.random.Generator) -> dict[str, int]:
    """Each variable's value drawn evenly."""
    return {v.name: int(v.options[generator.integers(len(v.options))]) for v in variables}


def check_choices(variables: Sequence[Variable], choices: Choices) -> dict[str, int]:
    """`choices` with the largest value where a variable is left out; all of them plain whole numbers.

    Raises:
        ConfigError: no mapping, an unknown name, or a value that is no option.
    """
    known = {variable.name: variable for variable in variables}
    if not isinstance(choices, Mapping):
        raise ConfigError(
            f"The choices of a sub-network are a mapping from names to values, as `smallest` is, not a "
            f"{type(choices).__name__}."
        )
    found = largest(variables)
    for name, value in choices.items():
        if name not in known:
            raise ConfigError(unknown_name("elastic variable", name, known))
        if value not in known[name].options:
            raise ConfigError(
                f"{name}={value} is no option of this elastic network; it has "
                f"{', '.join(map(str, known[name].options))}."
            )
        found[name] = int(value)  # 8.0 as a file may have it, or numpy's 8
    return found


def options_of(count: int, least: int, step: int) -> tuple[int, ...]:
    """Up to six widths up to `count`: multiples of `step` from `least` on, and all.

    A step that leaves fewer than two of them below `count` is halved until it does not.
    """
    least = max(1, min(least, count))

    def below(step: int) -> range:
        return range(-(-least // step) * step, count, step)

    while step > 1 and len(below(step)) < min(2, count - least):
        step //= 2
    grid = [*below(step), count]
    if len(grid) > _MOST:
        places = np.unique(np.linspace(0, len(grid) - 1, _MOST).round().astype(int))
        grid = [grid[place] for place in places]
    return tuple(grid)
