"""The plan of a sub-network: what its choices of widths and depths take of every tensor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from darts_core.elastic.variables import Choices, Depth, Variable
from darts_core.prune.slices import Plan, Side, lose, plan_without

__all__ = ["plan"]


def plan(model: nn.Module, variables: Sequence[Variable], choices: Choices) -> Plan:
    """The plan of `choices`; a variable that they leave out has its largest value."""
    lost: dict[Side, set[int]] = {}
    attributes: dict[tuple[str, str], int] = {}
    skipped: list[str] = []
    for variable in variables:
        value = choices.get(variable.name, variable.options[-1])
        if isinstance(variable, Depth):
            skipped += variable.skipped(value)
        elif value < variable.options[-1]:
            lose(lost, (*variable.members, *variable.free), range(value, variable.options[-1]))
            for path, name, unit in variable.attributes:
                attributes[path, name] = value * unit
    return plan_without(model, lost, attributes, skipped)
