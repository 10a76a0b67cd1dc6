"""The search space of a study: dimensions from YAML, conditions between them, Optuna distributions.

learning_rate: {low: 1.0e-3, high: 0.3, log: true}
batch_size:    {choices: [16, 32, 64]}
optimizer:     {choices: [sgd, adamw]}
momentum:      {low: 0.5, high: 0.99, when: {optimizer: sgd}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import combinations
from typing import Any

from darts_core.errors import TuneError, unknown_name
from darts_core.reading import is_number
from darts_core.study.trial import unboxed

__all__ = [
    "SearchDimension",
    "check_params",
    "parse_space",
    "space_size",
    "space_to_dict",
    "suggest",
]

_KEYS = ("low", "high", "log", "step", "integer", "choices", "when")


@dataclass(frozen=True)
class SearchDimension:
    """One thing to tune: a range (`low`..`high`, both included) or a list of `choices`.

    `when` holds (other dimension, its admitted values): the dimension exists only if all hold. `near`
    gives, for choices, the positions of those most like each one, for samplers that move in small steps.
    """

    name: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    integer: bool = False
    choices: tuple[Any, ...] = ()
    when: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    near: tuple[tuple[int, ...], ...] = ()

    def active(self, params: Mapping[str, Any]) -> bool:
        """Whether the conditions hold under `params`."""
        return all(name in params and params[name] in admitted for name, admitted in self.when)

    def contains(self, value: Any) -> bool:
        """Whether `value` may be taken."""
        if self.choices:
            return any(value == c and type(value) is type(c) for c in self.choices)
        if not is_number(value):
            return False
        if not math.isfinite(value):
            return False
        if self.integer and int(value) != value:
            return False
        assert self.low is not None
        assert self.high is not None
        # a bound computed as a power of a base carries a rounding error
        if not self.low <= value <= self.high and not any(
            math.isclose(value, bound, rel_tol=1e-12) for bound in (self.low, self.high)
        ):
            return False
        if self.step is None:
            return True
        ticks = (value - self.low) / self.step
        return abs(ticks - round(ticks)) < 1e-8

    @property
    def size(self) -> int | None:
        """How many values there are, or None for a continuous dimension."""
        if self.choices:
            return len(self.choices)
        assert self.low is not None
        assert self.high is not None
        step = self.step or (1 if self.integer else None)
        return None if step is None else math.floor((self.high - self.low) / step + 1e-8) + 1

    def centre(self) -> Any:
        """The first choice, or the middle of the range (of its logarithm where it is logarithmic)."""
        if self.choices:
            return self.choices[0]
        assert self.low is not None
        assert self.high is not None
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        if self.step is not None:
            middle = self.low + round((middle - self.low) / self.step) * self.step
        return round(middle) if self.integer else middle

    def values(self) -> list[Any]:
        """Every value of a finite dimension, for a grid.

        Raises:
            TuneError: the dimension is continuous.
        """
        if self.choices:
            return list(self.choices)
        step = self.step or (1 if self.integer else None)
        if step is None or self.log:
            raise TuneError(
                f"A grid needs finitely many values, but {self.name} runs from {self.low} to "
                f"{self.high}; give it choices or a step."
            )
        assert self.low is not None
        assert self.high is not None
        count = math.floor((self.high - self.low) / step + 1e-8) + 1
        found = [self.low + index * step for index in range(count)]
        return [int(v) for v in found] if self.integer else found

    def stored_values(self) -> list[Any]:
        """Every value in the form that Optuna stores."""
        return [self.encode(value) for value in self.values()]

    def distribution(self) -> Any:
        """The Optuna distribution; choices that are no scalars travel as JSON text."""
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.stored_values())
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            step = int(self.step or 1)
            return distributions.IntDistribution(int(self.low), int(self.high), self.log, step)
        apart = None if self.step is None else self._even(self.step)
        return distributions.FloatDistribution(self.low, self.high, self.log, apart)

    def _even(self, step: float) -> float:
        """A step without the rounding error of a difference, for which Optuna leaves out the last value;
        unchanged where the range is no multiple of that either.
        """
        short = float(f"{step:.12g}")
        left = (Decimal(str(self.high)) - Decimal(str(self.low))) % Decimal(str(short))
        return step if left else short

    @cached_property  # it looks at each pair, and is asked for each choice
    def _alike(self) -> bool:
        """Whether two choices are equal to Python though not to the user, as 1, 1.0 and True are."""
        return any(a == b for a, b in combinations(self.choices, 2))

    def encode(self, value: Any) -> Any:
        """The form in which Optuna holds a value: scalars as they are, other choices as JSON text."""
        if not self.choices:
            # a value within rounding of a bound is that bound
            low, high = self.low, self.high
            return min(max(value, low), high) if low is not None and high is not None else value
        plain = value is None or isinstance(value, (bool, int, float, str))
        return value if plain and not self._alike else json.dumps(value, sort_keys=True)

    def decode(self, value: Any) -> Any:
        """The caller's value for the one that Optuna holds."""
        if self.choices:
            return next((c for c in self.choices if self.encode(c) == value), value)
        return value

    def to_dict(self) -> dict[str, Any]:
        """The YAML form; `parse_space` reads it back."""
        if self.choices:
            found: dict[str, Any] = {"choices": list(self.choices)}
        else:
            found = {"low": self.low, "high": self.high, "integer": self.integer}
            found |= {"log": True} if self.log else {}
            found |= {"step": self.step} if self.step is not None else {}
        if self.when:
            found["when"] = {name: list(admitted) for name, admitted in self.when}
        return found

    def describe(self) -> str:
        """The admitted values in words."""
        if self.choices:
            return ", ".join(map(repr, self.choices))
        tail = f" in steps of {self.step}" if self.step is not None else ""
        return f"{self.low} to {self.high}{tail}{' (whole numbers)' if self.integer else ''}"


def parse_space(space: Mapping[str, Any]) -> dict[str, SearchDimension]:
    """The dimensions of `space`, conditions after what they depend on.

    Args:
        space: name -> `SearchDimension` or its YAML form (see the head of this file).

    Raises:
        TuneError: empty or malformed space, empty interval, a step that leaves one value, unknown or circular
            condition.
    """
    if not space:
        raise TuneError("The search space is empty; name at least one setting to tune.")
    found: dict[str, SearchDimension] = {}
    for name, entry in space.items():
        found[str(name)] = entry if isinstance(entry, SearchDimension) else _parse(str(name), entry)
    for dimension in found.values():
        _check_conditions(dimension, found)
    return {dimension.name: dimension for dimension in _ordered(found)}


def _parse(name: str, entry: Any) -> SearchDimension:
    if (isinstance(entry, Sequence) and not isinstance(entry, str)) or bool(
        getattr(entry, "ndim", False)
    ):
        entry = {"choices": entry}
    if not isinstance(entry, Mapping):
        raise TuneError(
            f"The dimension {name} is {entry!r}; write {{low: ..., high: ...}} or {{choices: [...]}}."
        )
    for key in entry:
        if key not in _KEYS:
            raise TuneError(f"{unknown_name('key', str(key), _KEYS)} (in the dimension {name})")
    when = entry.get("when") or {}
    if not isinstance(when, Mapping):
        raise TuneError(
            f"The dimension {name} has when: {when!r}; name the other dimension and its values, as in "
            "when: {NAME: [VALUE, VALUE]}."
        )
    conditions = tuple((str(k), _listed(v)) for k, v in when.items())
    if entry.get("choices") is not None:
        ends = [key for key in ("low", "high", "step") if entry.get(key) is not None]
        if ends:
            raise TuneError(
                f"The dimension {name} has both choices and {', '.join(ends)}; give choices, or low and high."
            )
        choices = _listed(entry["choices"])
        if not choices:
            raise TuneError(f"The dimension {name} has no choices; give at least one.")
        made = SearchDimension(name, choices=choices, when=conditions)
        _check_kept(made)
        return made
    return _parse_range(name, entry, conditions)


def _check_kept(dimension: SearchDimension) -> None:
    """Refuse a choice that no file can hold, such as a class or a set."""
    for choice in dimension.choices:
        try:
            dimension.encode(choice)
        except (TypeError, ValueError):
            raise TuneError(
                f"The dimension {dimension.name} has the choice {str(choice)[:80]}, a "
                f"{type(choice).__name__}, which the study's files cannot hold; give numbers, texts, or "
                "lists and mappings of them, such as the names of what is meant."
            ) from None


def _parse_range(
    name: str, entry: Mapping[str, Any], when: tuple[tuple[str, tuple[Any, ...]], ...]
) -> SearchDimension:
    low, high, step = (unboxed(entry.get(key)) for key in ("low", "high", "step"))
    for key, value in (("low", low), ("high", high)):
        if not is_number(value):
            raise TuneError(f"The dimension {name} has {key}: {value!r}; give a number.")
        if isinstance(value, float) and not math.isfinite(value):
            raise TuneError(f"The dimension {name} has {key}: {value}; give a finite number.")
    if not _is_held(low, high):
        raise TuneError(f"The range of {name} is wider than a number can hold; narrow it.")
    log = _flag(name, entry, "log", False)
    whole = all(isinstance(v, int) for v in (low, high)) and isinstance(step, (int, type(None)))
    integer = _flag(name, entry, "integer", whole)
    if low >= high:
        raise TuneError(
            f"The interval of {name} is empty: low {low} is not below high {high}; swap or widen them."
        )
    if log and low <= 0:
        raise TuneError(f"The dimension {name} is logarithmic, so low must be above 0, not {low}.")
    # not NaN either
    if step is not None and (not is_number(step) or not step > 0 or log):
        reason = "cannot have a step, being logarithmic" if log else f"has step: {step!r}"
        raise TuneError(f"The dimension {name} {reason}; use a step above 0 without log.")
    for key, value in (("low", low), ("high", high), ("step", step)):
        if integer and value is not None and value % 1:
            raise TuneError(
                f"The dimension {name} takes whole numbers (integer: true), but has {key}: {value}; give a "
                "whole number, or leave integer out."
            )
    made = SearchDimension(name, low=low, high=high, log=log, step=step, integer=integer, when=when)
    if step is not None and made.size == 1:
        raise TuneError(
            f"The dimension {name} has step: {step}, which is more than lies between low {low} and high "
            f"{high}, so {low} would be its only value; give a smaller step or a wider range."
        )
    return made


def _is_held(low: float, high: float) -> bool:
    """Whether both ends, and what lies between them, are numbers that a float can hold."""
    try:
        return math.isfinite(float(high) - float(low))
    except OverflowError:  # of a whole number
        return False


def _flag(name: str, entry: Mapping[str, Any], key: str, usual: bool) -> bool:
    """A truth value of a dimension; a text is none, as `no` on a command line would count as true."""
    value = unboxed(entry.get(key, usual))
    if value not in (True, False, None):
        raise TuneError(f"The dimension {name} has {key}: {value!r}; give true or false.")
    return bool(value)


def _listed(value: Any) -> tuple[Any, ...]:
    """The members of a list, a range or an array, numbers of numpy as Python's own; else the value alone."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(unboxed, value)) if isinstance(value, (list, tuple, range)) else (value,)


def _check_conditions(dimension: SearchDimension, space: Mapping[str, SearchDimension]) -> None:
    for name, admitted in dimension.when:
        if name not in space:
            text = unknown_name("dimension", name, space)
            raise TuneError(f"The dimension {dimension.name} depends on another: {text}")
        for value in admitted:
            if not space[name].contains(value):
                raise TuneError(
                    f"The dimension {dimension.name} waits for {name} = {value!r}, which never "
                    f"happens; {name} takes {space[name].describe()}."
                )


def _ordered(space: Mapping[str, SearchDimension]) -> Iterable[SearchDimension]:
    placed: dict[str, SearchDimension] = {}
    waiting = dict(space)
    while waiting:
        ready = [d for d in waiting.values() if all(name in placed for name, _ in d.when)]
        if not ready:
            names = ", ".join(sorted(waiting))
            raise TuneError(f"The conditions of {names} wait for each other; break the circle.")
        for dimension in ready:
            placed[dimension.name] = waiting.pop(dimension.name)
    return placed.values()


def space_to_dict(space: Mapping[str, SearchDimension]) -> dict[str, Any]:
    """The YAML form of a whole space."""
    return {name: dimension.to_dict() for name, dimension in space.items()}


def space_size(space: Mapping[str, SearchDimension]) -> int | None:
    """The number of points of a space without conditions, or None when it is infinite."""
    sizes = [dimension.size for dimension in space.values()]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


_MISSING = object()


def suggest(trial: Any, space: Mapping[str, SearchDimension]) -> dict[str, Any]:
    """Values for every active dimension, drawn through an Optuna trial (stored ones are kept).

    Of a trial that was cut off while it was drawn, the stored values are drawn once more and not used, so
    that those which follow are what they would have been.
    """
    from darts_core.study.optuna_private import draw_again, draw_value, in_one_write, is_settled

    stored = trial.params
    params = _taken(space, lambda name, _: stored.get(name, _MISSING))
    if params is not None:
        return params

    def drawn(name: str, distribution: Any) -> Any:
        again = name in stored and not distribution.single()
        if again and not is_settled(trial, name, distribution):
            draw_again(trial, name, distribution)
        return draw_value(trial, name, distribution)

    with in_one_write(trial.study):
        return _taken(space, drawn) or {}


def _taken(
    space: Mapping[str, SearchDimension], take: Callable[[str, Any], Any]
) -> dict[str, Any] | None:
    """Each active dimension's value; None where one is missing."""
    params: dict[str, Any] = {}
    for name, dimension in space.items():
        if dimension.active(params):
            value = take(name, dimension.distribution())
            if value is _MISSING:
                return None
            params[name] = dimension.decode(value)
    return params


def check_params(params: Mapping[str, Any], space: Mapping[str, SearchDimension]) -> dict[str, Any]:
    """`params` in the form that Optuna stores, after checking names and values.

    Raises:
        TuneError: an unknown name or a value outside its dimension.
    """
    stored = {}
    for name, value in params.items():
        if name not in space:
            raise TuneError(f"Cannot enqueue: {unknown_name('dimension', name, space)}")
        if not space[name].contains(value):
            raise TuneError(
                f"Cannot enqueue {name} = {value!r}; it takes {space[name].describe()}."
            )
        stored[name] = space[name].encode(value)
    return stored
