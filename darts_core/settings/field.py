"""A setting: a dataclass field that states what it may be, and the check that holds it to that."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from darts_core.errors import ConfigError, unknown_name
from darts_core.reading import is_number

__all__ = [
    "Bounds",
    "Settings",
    "bounds_of",
    "check_value",
    "default_of",
    "kind_words",
    "setting",
    "type_of",
    "type_of_hint",
]

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True)
class Bounds:
    """What a setting may be, and what it means.

    Attributes:
        help: what `--help` says of it.
        low, high: the least and the largest number; None where the value is no number.
        low_open, high_open: the end itself is not allowed.
        choices: the allowed texts; empty where any text is.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()

    def holds(self, number: float) -> bool:
        """Whether `number` is allowed; NaN, the infinities and whole numbers beyond floats never are."""
        try:
            if not math.isfinite(number):
                return False
        except OverflowError:
            return False
        if self.low is not None and (number < self.low or (self.low_open and number == self.low)):
            return False
        return self.high is None or not (
            number > self.high or (self.high_open and number == self.high)
        )

    def words(self, kind: type) -> str:
        """The allowed numbers in words: `a whole number from 1 to 100`."""
        noun = "a whole number" if kind is int else "a number"
        low = "" if self.low is None else f"{self.low:g}" if self.low < 1e6 else f"{self.low}"
        high = "" if self.high is None else f"{self.high}" if kind is int else f"{self.high:g}"
        if self.low_open:
            end = f" and below {high}" if self.high_open else f", at most {high}" if high else ""
            return f"{noun} above {low}{end}"
        if self.high_open:
            return f"{noun} from {low} to below {high}"
        if low and high:
            return f"{noun} from {low} to {high}"
        return f"{noun} of at least {low}" if low else f"{noun} of at most {high}"


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of a `Settings` dataclass.

    Args:
        default: its value; a list or dictionary is copied for each object.
        help: a line for `--help`, with the unit.
        low: the least number; or `above`, which is not allowed itself.
        above: see `low`.
        high: the largest number; or `below`, which is not allowed itself.
        below: see `high`.
        choices: the allowed texts.
    """
    bounds = Bounds(
        help,
        low if above is None else above,
        high if below is None else below,
        above is not None,
        below is not None,
        choices,
    )
    metadata = {"bounds": bounds}
    if isinstance(default, (type, types.FunctionType)):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, (list, dict)):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def bounds_of(field: Field[Any]) -> Bounds | None:
    """What `setting` noted of a field."""
    found: Bounds | None = field.metadata.get("bounds")
    return found


def default_of(field: Field[Any]) -> Any:
    """What a field is when it is not given."""
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


@cache
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls)


def type_of(cls: type, name: str) -> tuple[Any, bool]:
    """(the type of the field `name`, whether None is allowed beside it)."""
    return type_of_hint(_hints(cls)[name])


def type_of_hint(hint: Any) -> tuple[Any, bool]:
    """(the type that an annotation states, whether None is allowed beside it)."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(kinds) == 1:
            return kinds[0], True
        return Any, True
    return hint, hint is Any


_WORDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list: "a list, e.g. [a,b]",
    tuple: "a list, e.g. [a,b]",
    dict: "key: value pairs, e.g. {a: 1}",
}


def kind_words(kind: Any) -> str | None:
    """What a type takes, in words; None for types that take anything."""
    origin = get_origin(kind) or kind
    return _WORDS.get(dict if origin is not dict and _is_mapping(origin) else origin)


def _is_mapping(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Mapping)


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind) or kind
    if kind is Any:
        return True
    if origin is float:
        return is_number(value)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (list, tuple):
        members = get_args(kind)
        return isinstance(value, (list, tuple)) and all(
            _fits(item, members[0]) for item in value if members
        )
    return isinstance(value, origin)


def check_value(key: str, value: Any, kind: Any, optional: bool, bounds: Bounds | None) -> None:
    """Refuse a value that is not of its type or out of its range.

    Raises:
        ConfigError: names `key`, the value and what is allowed.
    """
    if value is None and optional:
        return
    if not _fits(value, kind):
        words = kind_words(kind) or f"a {getattr(kind, '__name__', kind)}"
        raise ConfigError(f"{key}={value!r} is not {words}.")
    if bounds is None:
        return
    for number in _numbers(value):
        if not bounds.holds(number) and (bounds.low is not None or bounds.high is not None):
            raise ConfigError(
                f"{key}={value} is not allowed; give {bounds.words(_number_kind(kind))}"
                + (" or null." if optional else ".")
            )
    for text in _texts(value) if bounds.choices else ():
        if text not in bounds.choices:
            raise ConfigError(unknown_name(key, text, bounds.choices))


class Settings:
    """Base of the dataclasses that hold settings: each field is checked when an object is made.

    A subclass may say in `NODE` what its settings are called before the dot, and check what depends on
    several of them in `check`.
    """

    NODE: ClassVar[str] = ""

    def __post_init__(self) -> None:
        cls: Any = type(self)
        for item in fields(cls):
            value = getattr(self, item.name)
            # callers in Python give numbers of numpy; what is saved, and compared with it, holds Python's own
            if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
                object.__setattr__(self, item.name, value.item())
            self._check_field(item)
        self.check()

    def check(self) -> None:
        """Refuse what no single setting can be refused for.

        Raises:
            ConfigError: settings contradict each other.
        """

    def part(self, base: type[S], **changes: Any) -> S:
        """The settings that `base` has of these, and `changes`, as an object of `base`."""
        own = {item.name for item in fields(self)}  # type: ignore[arg-type]
        shared = [item.name for item in fields(base) if item.name in own]  # type: ignore[arg-type]
        return base(**{**{name: getattr(self, name) for name in shared}, **changes})

    def _check_field(self, item: Field[Any]) -> None:
        kind, optional = type_of(type(self), item.name)
        check_value(self.key(item.name), getattr(self, item.name), kind, optional, bounds_of(item))

    @classmethod
    def key(cls, name: str) -> str:
        """The setting `name` as it is typed."""
        return f"{cls.NODE}.{name}" if cls.NODE else name


def _number_kind(kind: Any) -> type:
    inner = get_args(kind)[0] if get_args(kind) else kind
    return int if inner is int else float


def _numbers(value: Any) -> Iterator[float]:
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if is_number(item):
            yield item


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, str):
            yield item
