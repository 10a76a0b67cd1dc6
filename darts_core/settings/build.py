"""Settings from plain values and back: what Hydra composes, what a folder's `config.yaml` holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass, make_dataclass
from dataclasses import field as plain_field
from typing import Any, Optional, TypeVar, get_args, get_origin

from darts_core.errors import ConfigError, unknown_name
from darts_core.settings.field import Settings, default_of, type_of

__all__ = ["from_plain", "schema", "to_plain"]

S = TypeVar("S", bound=Settings)


def from_plain(cls: type[S], values: Mapping[str, Any]) -> S:
    """An object of `cls`, its inner nodes included, from plain values; missing ones keep their defaults.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    known = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    inside = getattr(cls, "OPEN", None)
    given: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in values.items():
        if name == inside or name not in known:
            if inside is None:
                raise ConfigError(unknown_name("setting", cls.key(str(name)), map(cls.key, known)))
            rest[str(name)] = value
            continue
        node = _node_of(cls, name)
        if node is not None and isinstance(value, Mapping):
            value = from_plain(node, value)
        given[name] = value
    return cls(**given, **({inside: rest} if inside is not None else {}))


def to_plain(settings: Any) -> Any:
    """`settings` as dictionaries, lists and plain values, as they stand in `config.yaml`."""
    if is_dataclass(settings) and not isinstance(settings, type):
        inside = getattr(settings, "OPEN", None)
        plain = {
            item.name: to_plain(getattr(settings, item.name))
            for item in fields(settings)
            if item.name != inside
        }
        return plain if inside is None else {**plain, **to_plain(getattr(settings, inside))}
    if isinstance(settings, Mapping):
        return {key: to_plain(value) for key, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [to_plain(value) for value in settings]
    return settings


def schema(cls: type[Settings]) -> type:
    """A dataclass with the names, types and defaults of `cls`, as OmegaConf takes it.

    OmegaConf makes a frozen dataclass read-only and knows no `Mapping`; a node with an `OPEN` field
    becomes a dictionary that holds its defaults, as OmegaConf has no node that is both.
    """
    made = [(item.name, *_schema_field(cls, item)) for item in fields(cls)]  # type: ignore[arg-type]
    return make_dataclass(cls.__name__, made)


def _node_of(cls: type[Settings], name: str) -> type[Settings] | None:
    """The class of the inner node `name`; None where it is a single setting."""
    kind, _ = type_of(cls, name)
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def _schema_field(cls: type[Settings], item: Field[Any]) -> tuple[Any, Any]:
    kind, optional = type_of(cls, item.name)
    node = _node_of(cls, item.name)
    if node is not None and hasattr(node, "OPEN"):
        return dict[str, Any], plain_field(default_factory=lambda: to_plain(node()))
    if node is not None:
        inner = schema(node)
        return inner, plain_field(default_factory=inner)
    origin = get_origin(kind) or kind
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    if is_mapping and optional and default_of(item) is None:
        # OmegaConf cannot merge a mapping into an absent one; `from_plain` checks the kind
        return Any, plain_field(default=None)
    if is_mapping:
        # values of any type: text for a number is refused where the node is used
        kind = dict[str, Any]
    elif origin is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
    hint = Optional[kind] if optional and kind is not Any else kind  # noqa: UP045
    return hint, plain_field(default_factory=lambda: to_plain(default_of(item)))
