"""Plugins, and objects made from `_target_` without running foreign code.

A `_target_` names a class or function that is registered for its group: one that our own files of that
group name, or one that a module in `plugins=` defines; below such a node, an optimizer of torch.optim.
Everything else is refused, though it may lie in this package: not each of its functions is meant to be
called by a file.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from darts_core.errors import ConfigError, nearest_names
from darts_core.models.trust import trust
from darts_core.settings.tree import config_root

__all__ = [
    "TARGET_GROUPS",
    "check_targets",
    "import_plugins",
    "instantiate",
    "instantiate_each",
    "registered",
]

log = logging.getLogger("darts_core")
Made = TypeVar("Made")

# group -> the files of ours whose `_target_`s it may name
TARGET_GROUPS: Mapping[str, str] = {
    "data": "data/*.yaml",
    "strategy": "strategy/*.yaml",
    "relax": "relax/*.yaml",
    "penalty": "penalty/*.yaml",
    "augment": "augment/*.yaml",
    "guards": "guards/*.yaml",
    "logger": "logger/*.yaml",
    "callbacks": "callbacks/*.yaml",
}
_TARGET = re.compile(r"^\s*_target_:\s*([\w.]+)\s*$", re.MULTILINE)
_OPTIMIZERS = "torch.optim"


def import_plugins(names: Iterable[str]) -> None:
    """Import each module, so that its names register; the current folder is searched too.

    Raises:
        ConfigError: a module is missing or fails while it is imported.
    """
    names = list(names)
    if names and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        trust(name)
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # a package that it lies in, or itself; timm_ops may lack timm
            if error.name is not None and _under(name, (error.name,)):
                raise ConfigError(
                    f"plugins={name!r}: there is no such module; it must be importable from the "
                    "current folder or be installed."
                ) from error
            raise ConfigError(
                f"plugins={name!r} needs the missing module {error.name!r}."
            ) from error
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"plugins={name!r} fails while it is imported: {type(error).__name__}: {error}"
            ) from error
        _say_another(name.partition(".")[0], Path.cwd())


@cache
def _say_another(name: str, folder: Path) -> None:
    """Warn, once, where a module of the current folder is passed over for one that is found before it."""
    own = [
        path for path in (folder / f"{name}.py", folder / name / "__init__.py") if path.is_file()
    ]
    found = getattr(sys.modules[name], "__file__", None)
    if own and (found is None or Path(found).resolve() not in [path.resolve() for path in own]):
        log.warning(
            "plugins=%s is %s, not %s, which has the same name: give yours another", name,
            found or "a module of Python's own", own[0],
        )  # fmt: skip


@cache
def registered(group: str) -> tuple[str, ...]:
    """The `_target_`s that our own files of `group` name, sorted."""
    found: set[str] = set()
    for path in config_root().glob(TARGET_GROUPS[group]):
        found.update(_TARGET.findall(path.read_text(encoding="utf-8")))
    return tuple(sorted(found))


def check_targets(
    group: str | None, node: Any, plugins: Iterable[str] = (), *, where: str = ""
) -> None:
    """Refuse any `_target_` in `node` that is not registered for `group`, at any depth.

    Args:
        group: of `TARGET_GROUPS`, for the node itself; below it, and with None, only plugins and
            optimizers may be named.
        node: plain values.
        plugins: modules that the user named on the command line.
        where: the node's own key.

    Raises:
        ConfigError: names the key and the target.
    """
    plugins = list(plugins)
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_name(group, node["_target_"], plugins, where)
        for key, value in node.items():
            check_targets(None, value, plugins, where=f"{where}.{key}" if where else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_targets(None, value, plugins, where=f"{where}[{index}]")


def _under(name: str, roots: Iterable[str]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def _check_name(group: str | None, target: Any, plugins: list[str], where: str) -> None:
    """Whether `target` may be looked at; what it is when it is imported is `_require_registered`'s."""
    name = str(target)
    if _under(name, plugins) or (group is None and _under(name, (_OPTIMIZERS,))):
        return
    known = registered(group) if group is not None else ()
    # a class may be named by its package or by its module
    if name.startswith("darts_core.") and name.rpartition(".")[2] in {
        one.rpartition(".")[2] for one in known
    }:
        return
    raise ConfigError(_refusal(group, name, known, where))


def _refusal(group: str | None, name: str, known: Iterable[str], where: str) -> str:
    place = f"{where or 'The configuration'}: _target_={name!r} is refused"
    names = list(known)
    close = nearest_names(name, names, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    takes = f"an optimizer of {_OPTIMIZERS}" if group is None else ", ".join(names)
    return (
        f"{place}; {'here' if group is None else group} takes {takes}, or what a module named in "
        f"plugins=[...] defines.{hint}"
    )


def instantiate(
    group: str | None,
    node: Mapping[str, Any],
    plugins: Iterable[str] = (),
    kind: type[Any] | None = None,
    **more: Any,
) -> Any:
    """Call what `node["_target_"]` names with the other keys of `node` (but `description`).

    Args:
        group: of `TARGET_GROUPS`; None for a node below one: an optimizer.
        node: `_target_` and its settings.
        plugins: modules that the user named on the command line.
        kind: what it must make; None: anything.
        more: further arguments.

    Raises:
        ConfigError: the target is missing, not registered for `group`, does not take these settings, or
            makes no `kind`.
    """
    plugins = list(plugins)
    check_targets(group, node, plugins, where=group or "")
    target = str(node.get("_target_", ""))
    factory = _imported(target)
    _require_registered(group, target, factory, plugins)
    settings = {k: v for k, v in node.items() if k not in ("_target_", "description")}
    try:
        inspect.signature(factory).bind(**settings, **more)
    except TypeError as error:
        raise ConfigError(f"{target} does not take these settings: {error}.") from error
    made = factory(**settings, **more)
    if kind is not None and not isinstance(made, kind):
        raise ConfigError(
            f"{group}: {target} makes a {type(made).__name__}; it must be a "
            f"{kind.__module__}.{kind.__name__}."
        )
    return made


def instantiate_each(
    group: str, nodes: Mapping[str, Any], plugins: Iterable[str], kind: type[Made], *, where: str
) -> dict[str, Made]:
    """What each node of a group's mapping makes, by its name; one set to null is left out.

    Args:
        group: of `TARGET_GROUPS`.
        nodes: name -> `_target_` and its settings.
        plugins: modules that the user named on the command line.
        kind: what each must make.
        where: the mapping's place among the settings, for errors.

    Raises:
        ConfigError: as `instantiate`, or what a node makes is no `kind`.
    """
    made = {}
    for name, node in nodes.items():
        if not isinstance(node, Mapping):
            continue
        found = instantiate(group, node, plugins)
        if not isinstance(found, kind):
            raise ConfigError(
                f"{where}.{name} makes a {type(found).__name__}; it must be a "
                f"{kind.__module__}.{kind.__name__}."
            )
        made[name] = found
    return made


def _imported(target: str) -> Any:
    module_name, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"_target_={target!r} names nothing that can be imported ({error})."
        ) from error


def _require_registered(group: str | None, target: str, factory: Any, plugins: list[str]) -> None:
    """Refuse what is spelt like something registered and is something else.

    `my_plugin.os.system` begins like a plugin's name: what counts is the module that defines it.
    """
    defined = getattr(factory, "__module__", None) or ""
    if callable(factory):
        if _under(defined, plugins):
            return
        if group is None and _is_optimizer(factory):
            return
        if group is not None and any(factory is _imported(name) for name in registered(group)):
            return
    raise ConfigError(
        f"_target_={target!r} is refused: it is defined in {defined or 'no module'!r} and is not "
        f"{'an optimizer' if group is None else f'registered for {group}'}."
    )


def _is_optimizer(factory: Any) -> bool:
    from torch.optim import Optimizer

    return isinstance(factory, type) and issubclass(factory, Optimizer)
