"""The configuration tree, plugins, and objects made from `_target_` without running foreign code."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError
from darts_core.models.trust import trust

__all__ = ["check_targets", "config_root", "import_plugins", "instantiate"]

_ALLOWED = ("darts_core", "torch.optim")


def config_root() -> Path:
    """The folder of our YAML files: inside the installed package, else beside it in a checkout.

    Raises:
        ConfigError: neither is there.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "search.yaml").is_file():
            return folder
    raise ConfigError(
        f"The configuration files are missing: neither {package / 'conf'} nor "
        f"{package.parent / 'conf'} holds search.yaml; install darts-core again."
    )


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
            if error.name is not None and name.startswith(error.name):
                raise ConfigError(
                    f"plugins={name!r}: there is no such module; it must be importable from the "
                    "current folder or be installed."
                ) from error
            raise ConfigError(
                f"plugins={name!r} needs the missing module {error.name!r}."
            ) from error
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                f"plugins={name!r} fails while it is imported: {type(error).__name__}: {error}"
            ) from error


def _under(name: str, roots: Iterable[str]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def check_targets(node: Any, plugins: Iterable[str] = (), *, where: str = "") -> None:
    """Refuse any `_target_` in `node` that is not ours, torch.optim's or a named plugin's.

    Raises:
        ConfigError: names the key and the target.
    """
    roots = (*_ALLOWED, *plugins)
    if isinstance(node, Mapping):
        if "_target_" in node and not _under(str(node["_target_"]), roots):
            raise ConfigError(
                f"{where or 'The configuration'}: _target_={str(node['_target_'])!r} is refused; "
                f"allowed are names under {', '.join(roots)}. Name its module in plugins=[...] to "
                "allow it."
            )
        for key, value in node.items():
            check_targets(value, plugins, where=f"{where}.{key}" if where else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            check_targets(value, plugins, where=f"{where}[{index}]")


def instantiate(node: Mapping[str, Any], plugins: Iterable[str] = (), **more: Any) -> Any:
    """Call what `node["_target_"]` names with the other keys of `node` (but `description`).

    The found object itself must be defined under an allowed module: `darts_core.runlog.os.system`
    is spelt like one of ours and is refused.

    Raises:
        ConfigError: the target is missing, not allowed, or does not take these settings.
    """
    plugins = list(plugins)
    check_targets(node, plugins)
    target = str(node.get("_target_", ""))
    module_name, _, attribute = target.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"_target_={target!r} names nothing that can be imported ({error})."
        ) from error
    defined = getattr(factory, "__module__", None) or ""
    if not callable(factory) or not _under(defined, (*_ALLOWED, *plugins)):
        raise ConfigError(
            f"_target_={target!r} is refused: it is defined in {defined or 'no module'!r}."
        )
    settings = {k: v for k, v in node.items() if k not in ("_target_", "description")}
    try:
        inspect.signature(factory).bind(**settings, **more)
    except TypeError as error:
        raise ConfigError(f"{target} does not take these settings: {error}.") from error
    return factory(**settings, **more)
