"""What a `--config-dir` may do: add files to our groups, and nothing else.

Its files come from elsewhere: they choose among registered things and set their values. They have no say
in how Hydra itself runs (logging, environment, callbacks, search path, launcher), name no plugins, and
read nothing of the machine through resolvers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, unknown_name
from darts_core.reading_yaml import read_yaml
from darts_core.settings.tree import config_root

__all__ = [
    "GROUPS",
    "LAUNCHERS",
    "SWEEPERS",
    "check_hydra_node",
    "check_resolvers",
    "check_untouched",
    "check_user_tree",
    "group_of",
    "takes_group",
]

GROUPS = (
    "data",
    "task",
    "space",
    "strategy",
    "relax",
    "penalty",
    "guards",
    "callbacks",
    "augment",
    "logger",
    "experiment",
)
# the node that a group's files fill, where it is not called as the group
_NODES: Mapping[str, str] = {"guards": "search.guards"}
LAUNCHERS: Mapping[str, str] = {
    "basic": "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "joblib": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    "slurm": "hydra_plugins.darts_slurm_launcher.slurm_launcher.SlurmLauncher",
    "ray": "hydra_plugins.darts_ray_launcher.ray_launcher.RayLauncher",
}
# launchers that come with a package of their own, and how it is installed
EXTRAS: Mapping[str, str] = {
    "joblib": "'darts-core[joblib]'",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
SWEEPERS: Mapping[str, str] = {
    "basic": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "darts": "hydra_plugins.darts_sweeper.sweeper.DartsSweeper",
}
_LOGGING = {"version": 1, "root": None, "disable_existing_loggers": False}
# Hydra's settings that run code or change the process before a stage is called, and what they must be
_FIXED: Mapping[str, Any] = {
    "job_logging": _LOGGING,
    "hydra_logging": _LOGGING,
    "callbacks": {},
    "job.env_copy": [],  # before what it fills: no value of the environment is shown
    "job.env_set": {},
    "job.chdir": False,
    "output_subdir": None,
    "mode": None,
    # of conf/base.yaml: what stages write goes there whatever Hydra is told
    "run.dir": "${out}/${job}/${version}",
    "sweep.dir": "${out}/${job}/${version}",
    "sweep.subdir": "${hydra.job.num}",
}
# facts about the composition itself
_FACTS = ("runtime", "overrides", "searchpath", "job")
_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")


def takes_group(group: str, nodes: Collection[str]) -> bool:
    """Whether a command with these nodes at its top takes a choice of `group`."""
    return group == "experiment" or _NODES.get(group, group).partition(".")[0] in nodes


def group_of(key: str) -> tuple[str, str] | None:
    """(the group that fills the node in which the setting `key` lies, what remains of `key` below it)."""
    for group in GROUPS:
        node = _NODES.get(group, group)
        if key == node or key.startswith(f"{node}."):
            return group, key[len(node) + 1 :]
    return None


def check_user_tree(folder: Path) -> None:
    """Read every file that `folder` adds to our groups, before Hydra does.

    Raises:
        ConfigError: a file is no plain YAML within limits, has the name of one of ours, uses a
            resolver, or the folder holds settings of Hydra's own.
    """
    for own in (folder / "hydra", folder / "hydra.yaml"):
        if own.exists():
            raise ConfigError(
                f"--config-dir: {own} is refused; such a folder adds to {', '.join(GROUPS)} and has no "
                "say in Hydra's own settings."
            )
    for own in sorted(folder.glob("schema_*.yaml")):
        raise ConfigError(
            f"--config-dir: {own} is refused; it has the name of our settings' declarations, which it would "
            "replace."
        )
    ours = config_root()
    for group in GROUPS:
        for path in sorted((folder / group).glob("*.yaml")):
            if (ours / group / path.name).exists():
                raise ConfigError(
                    f"{path} has the name of one of ours, which would be used in its place; choose "
                    "another."
                )
            _check_values(path, read_yaml(path))


def _check_values(path: Path, content: Any) -> None:
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"{path} must hold key: value pairs.")
    for text in _texts(content):
        if _RESOLVER.search(text):
            raise _resolver_refused(str(path), text)


def _resolver_refused(where: str, text: str) -> ConfigError:
    return ConfigError(
        f"{where}: {text[:80]!r} is refused; files of --config-dir hold plain values, and ${{key}} for "
        "another setting's value, but call no resolver."
    )


def check_resolvers(value: Any, typed: Collection[str], key: str = "") -> None:
    """Refuse a resolver in what was composed: a file of a group may call in others of its folder.

    Args:
        value: the configuration without `hydra`, unresolved; or what `key` is in it.
        typed: the keys that the command line gave itself.
        key: see `value`.

    Raises:
        ConfigError: names the key.
    """
    if key in typed:
        return
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_resolvers(item, typed, f"{key}.{name}" if key else str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            check_resolvers(item, typed, key)
    elif isinstance(value, str) and _RESOLVER.search(value):
        raise _resolver_refused(f"--config-dir: {key}", value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value


def check_hydra_node(node: Mapping[str, Any]) -> None:
    """Refuse settings of Hydra that run code of their own, whoever gave them.

    Args:
        node: the composed node `hydra`, unresolved.

    Raises:
        ConfigError: names the key.
    """
    for key, expected in _FIXED.items():
        given = _at(node, key)
        if given != expected:
            raise ConfigError(
                f"hydra.{key}={str(given)[:100]} is refused: it must stay as it is. Of Hydra's own settings "
                "you may give hydra/launcher, hydra/sweeper, and what is below hydra.launcher and "
                "hydra.sweeper. Results go where out=, job= and version= say."
            )
    choices = _at(node, "runtime.choices") or {}
    for kind, known in (("launcher", LAUNCHERS), ("sweeper", SWEEPERS)):
        name = str(choices.get(f"hydra/{kind}"))
        if name not in known:
            raise ConfigError(unknown_name(f"choice for hydra/{kind}=", name, known))
        if _at(node, f"{kind}._target_") != known[name]:
            raise ConfigError(
                f"hydra.{kind}._target_={_at(node, f'{kind}._target_')!r} is refused; choose one of "
                f"{', '.join(known)} by hydra/{kind}=."
            )
    for key in _targets(node):
        if key not in ("launcher._target_", "sweeper._target_"):
            raise ConfigError(f"hydra.{key} is refused: nothing is made from it here.")


def _at(node: Any, key: str) -> Any:
    for name in key.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _targets(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield f"{prefix}{key}"
            yield from _targets(value, f"{prefix}{key}.")
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield from _targets(value, f"{prefix}{index}.")


def check_untouched(composed: Mapping[str, Any], alone: Mapping[str, Any]) -> None:
    """Refuse a user's tree that changed what only the command line may.

    Args:
        composed: the whole configuration, `hydra` included, unresolved.
        alone: the same without the user's tree and without its choices.

    Raises:
        ConfigError: names the key.
    """
    if composed.get("plugins") != alone.get("plugins"):
        raise ConfigError(
            "--config-dir: plugins= is given by one of its files; modules to import are named on the "
            "command line alone: plugins=[my_nas.ops]."
        )
    one, other = composed["hydra"], alone["hydra"]
    for key in {**one, **other}:
        if key not in _FACTS and one.get(key) != other.get(key):
            raise ConfigError(
                f"--config-dir: hydra.{key} is given by one of its files; it has no say in Hydra's own "
                "settings."
            )
