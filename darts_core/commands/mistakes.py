"""What was wrong with overrides that do not compose, in one sentence with the nearest valid names.

Nothing here runs while all is well: a mistake may cost a second look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from darts_core.commands.overrides import key_of, parse
from darts_core.commands.user_tree import EXTRAS, GROUPS, group_of, takes_group
from darts_core.errors import ConfigError, first_line, nearest_names, unknown_name
from darts_core.reading_yaml import read_yaml
from darts_core.settings import Settings, kind_words, type_of
from darts_core.settings.tree import config_root
from darts_core.stages.schema import PLACES, STAGES

__all__ = [
    "check_choices",
    "check_open_nodes",
    "explained",
    "field_type",
    "group_options",
    "refuse_several_places",
]

_ABSENT = object()


def group_options(group: str, user: Path | None = None) -> list[str]:
    """The choices of one of our groups, the user's included; of Hydra's own groups, Hydra's."""
    if group.startswith("hydra/"):
        from hydra.core.global_hydra import GlobalHydra

        return sorted(GlobalHydra.instance().config_loader().get_group_options(group))
    if group not in GROUPS:
        return []
    folders = [config_root() / group, *([user / group] if user is not None else [])]
    return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def check_choices(choices: Any, user: Path | None) -> None:
    """Refuse a group's choice that is no file: an optional group leaves it out without a word.

    Raises:
        ConfigError: with the nearest names.
    """
    for group in GROUPS:
        choice = choices.get(group)
        options = group_options(group, user)
        if choice is not None and str(choice) not in options:
            raise ConfigError(unknown_name(f"choice for {group}=", str(choice), options))


def check_open_nodes(
    command: str, overrides: Sequence[str], composed: Any, choices: Any, user: Path | None
) -> None:
    """Refuse text for a number and the like in nodes whose keys depend on a choice.

    What the file of the choice holds is the example: no declaration types these.

    Raises:
        ConfigError: names the key, the value and what it is by default.
    """
    from omegaconf import OmegaConf

    for text in overrides:
        key = key_of(text)
        if text.startswith("~") or field_type(STAGES[command], key) is not None:
            continue
        usual = _usual(key, choices, user)
        value = OmegaConf.select(composed, key)
        for kinds, words in (((bool,), "true or false"), ((int, float), "a number")):
            if isinstance(usual, kinds):
                fits = isinstance(value, kinds) and isinstance(value, bool) == isinstance(
                    usual, bool
                )
                if not fits and value is not None:
                    raise ConfigError(f"{key}={value} is not {words}; it is {usual} by default.")
                break


def _usual(key: str, choices: Any, user: Path | None) -> Any:
    """The value of `key` in the file that was chosen for its group; None where there is none."""
    found = group_of(key)
    if found is None:
        return None
    group, rest = found
    name = f"{choices.get(group)}.yaml"
    ours = config_root() / group / name
    path = ours if user is None or ours.is_file() else user / group / name
    node: Any = read_yaml(path) if path.is_file() else {}
    for part in rest.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def explained(
    command: str,
    overrides: Sequence[str],
    extra: Sequence[str],
    user: Path | None,
    error: Exception,
) -> ConfigError:
    """The sentence for `error`, which composing raised."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        _look_for_names(command, [parse(text) for text in overrides], extra, user)
    except ConfigError as found:
        return found
    except (HydraException, OmegaConfBaseException):
        pass  # the choices themselves do not compose: `error` says why
    if isinstance(error, OverflowError):
        named = re.search(r"full_key: (\S+)", str(error))
        key = named[1] if named else "A setting"
        return ConfigError(f"{key} is a number too large for any setting; give a smaller one.")
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if cause is not None and getattr(cause, "full_key", None):
        return ConfigError(_value_sentence(command, cause))
    return ConfigError(f"The settings do not fit together: {first_line(error).rstrip('.')}.")


def refuse_several_places(line: str, key: str) -> None:
    """Nothing, unless the sweep `line` is over a setting that says where results go.

    Raises:
        ConfigError: it is: all elements of a multirun lie in one version.
    """
    if key in PLACES:
        raise ConfigError(
            f"{line!r} gives {key} several values, and a command has one {key}, with -m too; give one "
            "command for each."
        )


def _look_for_names(
    command: str, parsed: Sequence[Any], extra: Sequence[str], user: Path | None
) -> None:
    """Refuse sweeps that cannot be meant, unknown groups' choices and unknown keys."""
    from hydra import compose as hydra_compose
    from omegaconf import OmegaConf

    values, chosen = [], []
    for override in parsed:
        key, line = override.key_or_group, override.input_line
        if override.is_sweep_override():
            refuse_several_places(line, key)
            raise ConfigError(
                f"{line!r} gives {key} several values; add -m to run each of them, or write one list "
                f"as {key}=[a,b]."
            )
        options = group_options(key, user)
        if options:
            _refuse_foreign_group(command, key)
            choice = override.value()
            if not isinstance(choice, (str, list)) and not override.is_delete():
                raise ConfigError(f"{line} chooses no file; choose one of {', '.join(options)}.")
            if isinstance(choice, str) and choice not in options:
                if key == "hydra/launcher" and choice in EXTRAS:
                    raise ConfigError(
                        f"{line} is not installed here: pip install {EXTRAS[choice]}."
                    )
                raise ConfigError(unknown_name(f"choice for {key}=", choice, options))
            chosen.append(line)
        elif not key.startswith("hydra."):
            values.append(override)
    base = hydra_compose(command, [*extra, *chosen])
    known = [*_flatten(OmegaConf.to_container(base, resolve=False))]
    for override in values:
        key = override.key_or_group
        if key in known or OmegaConf.select(base, key, default=_ABSENT) is not _ABSENT:
            continue
        closed = is_dataclass(field_type(STAGES[command], key.rpartition(".")[0] or ""))
        added = override.is_add() or override.is_force_add()
        if not added or closed or "." not in key:
            elsewhere = _of_another_choice(key, user)
            raise ConfigError(elsewhere or unknown_key(command, key, known))


def _refuse_foreign_group(command: str, group: str) -> None:
    """Nothing, unless `group` is one of ours that the command does not read."""
    nodes = {item.name for item in fields(STAGES[command])}
    if group in GROUPS and not takes_group(group, nodes):
        taken = [name for name in GROUPS if takes_group(name, nodes)]
        raise ConfigError(f"`darts-core {command}` reads no {group}=; it takes {', '.join(taken)}.")


def _of_another_choice(key: str, user: Path | None) -> str | None:
    """A sentence where `key` is a setting of a choice of its group that was not chosen."""
    group, rest = group_of(key) or ("", "")
    holders = []
    for option in group_options(group, user) if rest else ():
        ours = config_root() / group / f"{option}.yaml"
        path = ours if user is None or ours.is_file() else user / group / f"{option}.yaml"
        node: Any = read_yaml(path)
        for part in rest.split("."):
            node = node.get(part, _ABSENT) if isinstance(node, dict) else _ABSENT
        if node is not _ABSENT:
            holders.append(f"{group}={option}")
    return f"{key} is a setting of {' and '.join(holders)}; choose that too." if holders else None


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of every key in the dictionary `node`, inner nodes included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{prefix}{key}"
            yield from _flatten(value, f"{prefix}{key}.")


def unknown_key(command: str, key: str, known: Sequence[str]) -> str:
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


def _value_sentence(command: str, error: Any) -> str:
    """One sentence for a value that does not fit its key's type."""
    key, said = str(error.full_key), first_line(error).rstrip(".")
    kind = _kind(command, key)
    if "is not in struct" in said:
        return f"{key}: {said} (a new key of such a node is added with + before it: +{key}=value)."
    return f"{key}: {said}." + (f" It takes {kind}." if kind else "")


def _kind(command: str, key: str) -> str | None:
    """What is declared that `key` takes, in words; None where nothing is."""
    kind = field_type(STAGES[command], key.partition("[")[0])
    if is_dataclass(kind):
        return f"settings of its own, e.g. {key}.{fields(kind)[0].name}=..."
    return kind_words(kind)


def field_type(cls: type[Settings], key: str) -> Any:
    """The type of the setting `key` below `cls` ('' is `cls` itself); None where it has none."""
    kind: Any = cls
    for name in key.split(".") if key else ():
        if not is_dataclass(kind) or name not in {item.name for item in fields(kind)}:
            return None
        kind, _ = type_of(kind, name)  # type: ignore[arg-type]
    return kind
