"""Composing a command's configuration, once, into the object that its stage takes.

Every mistake is one sentence. What was wrong is looked for only when composing fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, nearest_names, unknown_name
from darts_core.settings import Settings, from_plain, kind_words, schema, type_of
from darts_core.stages.schema import STAGES, Stage
from darts_core.stages.settings import check_targets, config_root

__all__ = [
    "compose",
    "expand",
    "group_options",
    "open_arguments",
    "register_schemas",
    "session",
    "typed",
]

_HYDRA_TARGETS = ("hydra", "hydra_plugins")


@contextmanager
def session(config_dir: str | None = None) -> Iterator[list[str]]:
    """Hydra, initialised on our configuration tree; yields the overrides that add the user's tree.

    Raises:
        ConfigError: `config_dir` is not a folder.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    extra: list[str] = []
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(
                f"--config-dir {config_dir!r} is not a folder; name one with YAML groups."
            )
        extra = [f"hydra.searchpath=[file://{folder}]"]
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_root()), version_base="1.3"):
        yield extra


def register_schemas() -> None:
    """Make the settings' names, types and defaults known to Hydra, as `schema_<command>`."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    for command, stage in STAGES.items():
        full = OmegaConf.structured(schema(stage))
        # an untyped root: a file under experiment/ may hold nodes of other commands
        node = OmegaConf.create({key: full._get_node(key) for key in full})
        ConfigStore.instance().store(f"schema_{command}", node)


def group_options(group: str, extra: Sequence[str] = ()) -> list[str]:
    """The choices of a configuration group, ours and the user's; empty when it is none."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    names = set(loader.get_group_options(group))
    for entry in extra:
        for folder in entry.partition("=[")[2].rstrip("]").split(","):
            place = Path(folder.removeprefix("file://")) / group
            names |= {p.stem for p in place.glob("*.yaml")}
    return sorted(names)


def expand(overrides: Sequence[str], *, multirun: bool) -> tuple[list[str], list[list[str]]]:
    """What to check of possibly swept overrides: each sweep at its first value, then each other value.

    An interval or range stands for its two ends: whatever lies between has the same type.

    Returns:
        The overrides with every sweep at its first value, and variants with one sweep at another value.

    Raises:
        ConfigError: an override is not written as key=value, or is a sweep without `-m`.
    """
    base: list[str] = []
    values: dict[int, list[str]] = {}
    for index, override in enumerate(_parse(overrides)):
        base.append(overrides[index])
        if override.is_sweep_override():
            key = override.input_line.partition("=")[0]
            if not multirun:
                raise ConfigError(
                    f"{overrides[index]!r} gives {key} several values; add -m to run each of them, "
                    f"or write one list as {key}=[a,b]."
                )
            values[index] = [f"{key}={_spell(element)}" for element in _ends(override)]
            base[index] = values[index][0]
    variants = [
        [*base[:index], text, *base[index + 1 :]]
        for index, texts in values.items()
        for text in texts[1:]
    ]
    return base, variants


def _ends(override: Any) -> list[Any]:
    """The values of a sweep that are worth checking."""
    from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep

    value = override.value()
    if isinstance(value, IntervalSweep):
        return [value.start, value.end]
    if isinstance(value, RangeSweep):
        return [value.start, value.stop]
    if isinstance(value, ChoiceSweep):
        return list(value.list)
    return list(override.sweep_iterator())


def _spell(element: Any) -> str:
    from hydra.core.override_parser.types import Override

    return str(Override._get_value_element_as_str(element))


def _parse(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise ConfigError(
                f"{text!r} is not a setting; write key=value, and put values with commas, blanks "
                f"or brackets in inner quotes, e.g. \"architecture='...'\" ({_first_line(error)})."
            ) from None
    return parsed


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split("\n")[0].split()).rstrip(".")


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of every key in the dictionary `node`, inner nodes included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def _check_names(command: str, parsed: Sequence[Any], extra: Sequence[str]) -> None:
    """Refuse unknown groups' choices and unknown keys, with the nearest valid names."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    values, chosen = [], []
    for override in parsed:
        options = group_options(override.key_or_group, extra)
        if options:
            choice = override.value()
            if isinstance(choice, str) and choice not in options:
                raise ConfigError(
                    unknown_name(f"choice for {override.key_or_group}=", choice, options)
                )
            chosen.append(override.input_line)
        elif (
            not override.is_add()
            and not override.key_or_group.startswith("hydra.")
            and not _is_argument(override.key_or_group)
        ):
            values.append(override)
    base = hydra_compose(command, [*extra, *chosen])
    known = [*_flatten(OmegaConf.to_container(base, resolve=False))]
    for override in values:
        key = override.key_or_group
        current = OmegaConf.select(base, key, default=_ABSENT)
        if key not in known and current is _ABSENT:
            raise ConfigError(_unknown_key(command, key, known))
        _check_kind(command, key, current, override)


def _check_kind(command: str, key: str, current: Any, override: Any) -> None:
    """Refuse text for a number and the like in the open nodes, which the schema does not type."""
    if expected_kind(command, key) is not None or override.is_delete():
        return
    value = override.value()
    for kinds, words in (((bool,), "true or false"), ((int, float), "a number"), ((str,), "text")):
        if isinstance(current, kinds) and not isinstance(value, kinds) and value is not None:
            if kinds == (str,):  # a quoted string arrives as its own type, numbers are text enough
                return
            raise ConfigError(f"{key}={value!s} is not {words}; it is {current} by default.")
        if isinstance(current, kinds):
            return


_ABSENT = object()


def _unknown_key(command: str, key: str, known: Sequence[str]) -> str:
    """The sentence for a setting that `command` does not have."""
    parent, _, leaf = key.rpartition(".")
    siblings = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == parent]
    prefix = f"{parent}." if parent else ""
    close = [prefix + name for name in nearest_names(leaf, siblings, 2)]
    close = close or nearest_names(key, known, 2)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    if parent and siblings:
        where = f"{parent} has {', '.join(siblings)}."
    else:
        top = sorted({name.split(".")[0] for name in known} - {"hydra"})
        where = f"`darts-core {command}` has {', '.join(top)}."
    return f"Unknown setting {key!r}.{hint} Here {where}"


def compose(command: str, overrides: Sequence[str], extra: Sequence[str] = ()) -> Any:
    """The checked settings of `command`, as the object that its stage takes.

    Args:
        command: one of the Hydra commands.
        overrides: as typed, without sweeps.
        extra: what `session` yielded.

    Raises:
        ConfigError: a key, choice, type, value or `_target_` is wrong.
    """
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

    overrides = [_forced(command, text) for text in overrides]
    parsed = _parse(overrides)
    try:
        _check_names(command, parsed, extra)
        node = hydra_compose(command, [*extra, *overrides], return_hydra_config=True)
        hydra_node = OmegaConf.to_container(node.get("hydra"), resolve=False)
        OmegaConf.set_struct(node, False)
        node.pop("hydra")
        config = typed(command, node)
        check_targets(hydra_node, [*config.plugins, *_HYDRA_TARGETS], where="hydra")
        return config
    except ConfigKeyError as error:  # a key added with + to a node that admits no others
        base = hydra_compose(command, [*extra])
        known = [*_flatten(OmegaConf.to_container(base, resolve=False))]
        raise ConfigError(_unknown_key(command, str(error.full_key), known)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_type_sentence(command, error)) from error
    except HydraException as error:
        cause = error.__cause__
        if isinstance(cause, OmegaConfBaseException) and cause.full_key is not None:
            raise ConfigError(_type_sentence(command, cause)) from error
        detail = f": {_first_line(cause)}" if isinstance(cause, OmegaConfBaseException) else ""
        raise ConfigError(
            f"The settings do not fit together: {_first_line(error)}{detail}."
        ) from error


def _forced(command: str, text: str) -> str:
    """`+key=value` with one more `+` where `key` is a setting of ours: it may then be set as well."""
    text = open_arguments(text)
    if text.startswith("+") and not text.startswith("++"):
        key = text[1:].partition("=")[0]
        if _field(STAGES[command], key) is not None:
            return f"+{text}"
    return text


def open_arguments(text: str) -> str:
    """An override of `model_args`, which takes any key, so that Hydra lets it add one."""
    return f"++{text}" if _is_argument(text) else text


def _is_argument(key: str) -> bool:
    return key.partition("=")[0].partition(".")[0] == "model_args"


def typed(command: str, node: Any) -> Any:
    """The composed `node` as the object that the stage of `command` takes; other commands' nodes go.

    Raises:
        ConfigError: a top-level key is foreign, a value is missing or wrong, or a `_target_` is refused.
    """
    from omegaconf import OmegaConf

    stage = STAGES[command]
    wanted = [item.name for item in fields(stage)]
    known = {item.name for each in STAGES.values() for item in fields(each)}
    foreign = [str(key) for key in node if key not in known]
    if foreign:
        raise ConfigError(
            unknown_name("setting", foreign[0], wanted)
            + " (A file under experiment/ begins with the line '# @package _global_'.)"
        )
    picked = OmegaConf.create({key: node._get_node(key) for key in wanted if key in node})
    lacking = sorted(OmegaConf.missing_keys(picked))
    if lacking:
        raise ConfigError(
            f"The setting {lacking[0]!r} has no value; give it as {lacking[0]}=VALUE."
        )
    plain: Any = OmegaConf.to_container(picked, resolve=True)
    config: Stage = from_plain(stage, plain)
    check_targets(plain, config.plugins)
    return config


def _type_sentence(command: str, error: Any) -> str:
    """One sentence for a value that does not fit its key's type."""
    key = str(getattr(error, "full_key", None) or "a setting")
    kind, said = expected_kind(command, key), _first_line(error)
    if "is not in struct" in said:
        return f"{key}: {said} (a new key of such a node is added with + before it: +{key}=value)."
    return f"{key}: {said}." + (f" It takes {kind}." if kind else "")


def expected_kind(command: str, key: str) -> str | None:
    """What the schema says that `key` takes, in words; None where it does not say."""
    kind = _field(STAGES[command], key.partition("[")[0])
    if is_dataclass(kind):
        return "settings of its own, e.g. " + f"{key}.{fields(kind)[0].name}=..."
    return kind_words(kind)


def _field(cls: type[Settings], key: str) -> Any:
    """The type of the setting `key` below `cls`; None where it has none of its own."""
    kind: Any = cls
    for name in key.split("."):
        if not is_dataclass(kind) or name not in {item.name for item in fields(kind)}:
            return None
        kind, _ = type_of(kind, name)  # type: ignore[arg-type]
    return kind
