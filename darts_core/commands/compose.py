"""Composing a command's configuration, once, into the object that its stage takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from darts_core.commands.mistakes import (
    check_choices,
    check_open_nodes,
    explained,
    field_type,
    group_options,
)
from darts_core.commands.overrides import as_text, key_of, quoted
from darts_core.commands.user_tree import (
    GROUPS,
    check_hydra_node,
    check_resolvers,
    check_untouched,
    check_user_tree,
)
from darts_core.errors import ConfigError, unknown_name
from darts_core.settings import from_plain, schema
from darts_core.settings.tree import config_root
from darts_core.stages.schema import STAGES, Stage
from darts_core.stages.targets import TARGET_GROUPS, check_targets

__all__ = ["Session", "compose", "compose_node", "forced", "session", "typed"]


@dataclass(frozen=True)
class Session:
    """Hydra, initialised on our configuration tree and the user's.

    Attributes:
        user: the folder of `--config-dir`.
        overrides: those that add it.
    """

    user: Path | None = None
    overrides: tuple[str, ...] = ()


@contextmanager
def session(config_dir: str | None = None, *, name: str = "darts-core") -> Iterator[Session]:
    """Initialise Hydra, with what `config_dir` adds to our groups.

    Raises:
        ConfigError: `config_dir` is not a folder, or holds what it must not.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    found = Session()
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise ConfigError(
                f"--config-dir {config_dir!r} is not a folder; name one with YAML groups."
            )
        check_user_tree(folder)
        found = Session(folder, (f"hydra.searchpath=[{quoted(f'file://{folder}')}]",))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_root()), job_name=name, version_base="1.3"):
        yield found


def _register_schema(command: str) -> None:
    """Make the settings' names, types and defaults known to Hydra, as `schema_<command>`, once a process."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store, name = ConfigStore.instance(), f"schema_{command}"
    if f"{name}.yaml" in store.repo:
        return
    full = OmegaConf.structured(schema(STAGES[command]))
    # an untyped root: a file under experiment/ may hold nodes of other commands
    store.store(name, OmegaConf.create({key: full._get_node(key) for key in full}))


def compose(command: str, overrides: Sequence[str], place: Session | None = None) -> Any:
    """The checked settings of `command`, as the object that its stage takes.

    Args:
        command: one of the Hydra commands.
        overrides: as typed, without sweeps.
        place: what `session` yielded.

    Raises:
        ConfigError: a key, choice, type, value or `_target_` is wrong.
    """
    return typed(command, compose_node(command, overrides, place))


def compose_node(command: str, overrides: Sequence[str], place: Session | None = None) -> Any:
    """What Hydra composes for `command`, its own node included; see `compose`.

    Raises:
        ConfigError: a key, choice or type is wrong, or the user's tree goes beyond our groups.
    """
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    place = place or Session()
    _register_schema(command)
    overrides = [forced(command, text) for text in overrides]
    try:
        node = hydra_compose(command, [*place.overrides, *overrides], return_hydra_config=True)
    # Hydra has no error of its own for a group that is set to a number or null
    except (HydraException, OmegaConfBaseException, ValueError, OverflowError) as error:
        raise explained(command, overrides, place.overrides, place.user, error) from error
    except YAMLError as error:  # Hydra's loader knows fewer tags than the reader of the user's tree
        where = f" of --config-dir {place.user}" if place.user is not None else ""
        said = " ".join(str(error).split())
        raise ConfigError(f"A file{where} is not valid YAML: {said}; correct it.") from error
    choices = node.hydra.runtime.choices
    plain: Any = OmegaConf.to_container(node, resolve=False)
    check_hydra_node(plain["hydra"])
    check_choices(choices, place.user)
    if place.user is not None:
        own = [text for text in overrides if key_of(text).startswith(("hydra", "plugins"))]
        alone: Any = OmegaConf.to_container(
            hydra_compose(command, own, return_hydra_config=True), resolve=False
        )
        check_untouched(plain, alone)
        given = {key_of(text) for text in overrides}.difference(GROUPS)
        check_resolvers({k: v for k, v in plain.items() if k != "hydra"}, given)
    check_open_nodes(command, overrides, node, choices, place.user)
    return node


def forced(command: str, text: str) -> str:
    """The override as Hydra is given it.

    `+key=value` has one more `+` where `key` is a setting of ours: it may then be set as well. The value of a
    text is what was typed, also where the bare word would be a number (`job=2026_11_30`, `job=1.50`).
    """
    key = key_of(text)
    if field_type(STAGES[command], key) is str:
        text = as_text(text)
    # any key may be added to a model's own arguments
    if key.partition(".")[0] == "model_args" and not text.startswith(("+", "~")):
        return f"++{text}"
    once = text.startswith("+") and not text.startswith("++")
    known = once and field_type(STAGES[command], key) is not None
    return f"+{text}" if known else text


def typed(command: str, node: Any) -> Any:
    """The composed `node` as the object that the stage of `command` takes; other commands' nodes go.

    Raises:
        ConfigError: a top-level key is foreign, a value is missing or wrong, or a `_target_` is refused.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    stage = STAGES[command]
    wanted = [item.name for item in fields(stage)]
    known = {item.name for each in STAGES.values() for item in fields(each)} | {"hydra"}
    foreign = [str(key) for key in node if key not in known]
    if foreign:
        package = "search.guards" if foreign[0] == "guards" else "_global_"
        group = "guards" if foreign[0] == "guards" else "experiment"
        raise ConfigError(
            unknown_name("setting", foreign[0], wanted)
            + f" (A file under {group}/ begins with the line '# @package {package}'.)"
        )
    picked = OmegaConf.create({key: node._get_node(key) for key in wanted if key in node})
    lacking = sorted(OmegaConf.missing_keys(picked))
    if lacking:
        raise ConfigError(
            f"The setting {lacking[0]!r} has no value; give it as {lacking[0]}=VALUE."
        )
    try:
        plain: Any = OmegaConf.to_container(picked, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'A setting'}: {error.msg}.") from error
    for group in ("data", "strategy", "relax"):
        if group in plain and "_target_" not in (plain[group] or {}):
            raise ConfigError(
                f"{group}= chooses nothing; choose one of {', '.join(group_options(group))}."
            )
    config: Stage = from_plain(stage, plain)
    _check_every_target(plain, config.plugins)
    return config


def _check_every_target(plain: Mapping[str, Any], plugins: Sequence[str]) -> None:
    """Hold every `_target_` to its group: that of its node, or of the node whose parts have names."""
    parts = {key: (key, plain[key]) for key in ("logger", "callbacks") if key in plain}
    rest = {key: value for key, value in plain.items() if key not in parts}
    if "search" in rest:
        parts["search.guards"] = ("guards", rest["search"]["guards"])
        rest["search"] = {**rest["search"], "guards": None}
    for where, (group, node) in parts.items():
        for name, part in node.items():
            check_targets(group, part, plugins, where=f"{where}.{name}")
    for key, value in rest.items():
        check_targets(key if key in TARGET_GROUPS else None, value, plugins, where=key)
