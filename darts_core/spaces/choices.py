"""`ChoiceSpace`: labelled choices, each with its list of options. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from darts_core.architecture import Architecture
from darts_core.errors import ArchitectureError, ConfigError, unknown_name
from darts_core.spaces.base import SearchSpace, Weights

__all__ = ["ChoiceSpace", "Option"]

Option = str | int | float | bool


@dataclass(frozen=True)
class ChoiceSpace(SearchSpace):
    """A space without cells: every label chooses one of its options.

    Labels play the part of cell kinds, so that alphas are [1, K] by label and all strategies,
    relaxations and logs work unchanged.

    Attributes:
        choices: (label, options) in order.
    """

    choices: tuple[tuple[str, tuple[Option, ...]], ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        choices: Mapping[str, Sequence[Option]],
        *,
        skeleton: str = "module",
        **further: Any,
    ) -> Self:
        """A space called `name` of the given choices; `further` fields are a subclass's own.

        Raises:
            ConfigError: there is no choice, or one has no options, names one twice or has one that is no
                text, number or truth value.
        """
        return cls(
            name=name,
            ops=(),
            cell_kinds=tuple(choices),
            inputs=0,
            nodes=0,
            skeleton=skeleton,
            choices=tuple((label, tuple(options)) for label, options in choices.items()),
            **further,
        )

    def __post_init__(self) -> None:
        if not self.choices:
            raise ConfigError(f"Space {self.name!r} needs at least one choice.")
        self._check_reads()
        for label, options in self.choices:
            for option in options:
                # what else there is cannot be read back from a saved architecture
                if not isinstance(option, (str, int, float, np.generic)):
                    raise ConfigError(
                        f"Choice {label!r} of space {self.name!r} has the option {option!r}; an option is a "
                        "text, a number or a truth value."
                    )
            if not options or len(set(options)) != len(options):
                raise ConfigError(
                    f"Choice {label!r} of space {self.name!r} needs different options, not "
                    f"{list(options)}."
                )

    def options(self, label: str) -> tuple[Option, ...]:
        """The options of `label`.

        Raises:
            ArchitectureError: there is no such label.
        """
        for name, options in self.choices:
            if name == label:
                return options
        raise ArchitectureError(unknown_name("choice", label, [name for name, _ in self.choices]))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """None: the space has no cells."""
        return ()

    @property
    def output_states(self) -> tuple[int, ...]:
        """None: the space has no cells."""
        return ()

    def alpha_shapes(self) -> dict[str, tuple[int, int]]:
        """(1, number of options) for every label."""
        return {label: (1, len(options)) for label, options in self.choices}

    def allowed(self, kind: str) -> npt.NDArray[np.bool_]:
        """[1, K], all True."""
        return np.ones((1, len(self.options(kind))), dtype=bool)

    def with_ops(self, ops: Sequence[str]) -> SearchSpace:
        """Refused: options belong to their labels.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"Space {self.name!r} has choices, not operations; leave space.ops=null.")

    def discretize(self, weights: Weights) -> Architecture:
        """For every label the option with the largest weight; ties go to the earlier one.

        Raises:
            ConfigError: a label is missing, or an array has another shape.
        """
        picked: list[tuple[str, Option]] = []
        for label, options in self.choices:
            if label not in weights:
                raise ConfigError(unknown_name("choice", label, weights))
            weight_1K = np.asarray(weights[label])
            if weight_1K.shape != (1, len(options)):
                raise ConfigError(
                    f"Weights of {label!r} have shape {weight_1K.shape}; it has {len(options)} "
                    f"options and needs (1, {len(options)})."
                )
            picked.append((label, options[int(weight_1K[0].argmax())]))
        return Architecture(self.name, choices=tuple(picked))

    def index(self, architecture: Architecture) -> dict[str, int]:
        """The column of the chosen option for every label.

        Raises:
            ArchitectureError: a label or its value is not of this space, or a label is missing.
        """
        labels = [label for label, _ in self.choices]
        for name, _ in architecture.choices:
            if name not in labels:
                raise ArchitectureError(unknown_name("choice", name, labels))
        found = {}
        for label, options in self.choices:
            value = architecture.choice(label)
            if value not in options:
                raise ArchitectureError(
                    f"Choice {label!r} cannot be {value!r}; its options are {list(options)}."
                )
            found[label] = options.index(value)
        return found
