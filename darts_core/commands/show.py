"""`--cfg` and `--info`: what a command would run with, printed instead of running."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from darts_core.commands.compose import Session, compose_node, forced, typed
from darts_core.errors import ConfigError

__all__ = ["show_config", "show_info"]

_ABSENT = object()


def show_config(command: str, args: argparse.Namespace, place: Session) -> None:
    """Print the composed configuration as YAML: our settings, Hydra's, or both.

    Raises:
        ConfigError: a setting is wrong, or `--package` names nothing.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    node = compose_node(command, args.overrides, place)
    typed(command, node)
    HydraConfig.instance().set_config(node)
    plain: Any = OmegaConf.to_container(node, resolve=False, enum_to_str=True)
    for text in ("help", "hydra_help"):
        plain["hydra"].pop(text)
    own = [key for key in plain if key != "hydra"]
    whole: Any = OmegaConf.create({**{key: plain[key] for key in own}, "hydra": plain["hydra"]})
    if args.resolve:  # all at once: Hydra's settings refer to ours
        OmegaConf.resolve(whole)
    kept = {"job": own, "hydra": ["hydra"], "all": [*own, "hydra"]}[args.cfg]
    shown: Any = OmegaConf.masked_copy(whole, kept)
    if args.package and args.package != "_global_":
        shown = _ABSENT
        if args.package.partition(".")[0] in kept:
            shown = OmegaConf.select(whole, args.package, default=_ABSENT)
        if shown is _ABSENT:
            raise ConfigError(
                f"--package {args.package!r} names nothing in this configuration; it has "
                f"{', '.join(kept)}."
            )
        print(f"# @package {args.package}")
    if not OmegaConf.is_config(shown):
        print("null" if shown is None else shown)
        return
    print(OmegaConf.to_yaml(shown), end="")


def show_info(command: str, args: argparse.Namespace, place: Session) -> None:
    """Print how the configuration comes about: files, defaults, plugins, search path.

    Raises:
        ConfigError: a setting is wrong.
    """
    from hydra.core.global_hydra import GlobalHydra

    compose_node(command, args.overrides, place)
    hydra: Any = GlobalHydra.instance().hydra
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:  # Hydra prints through the root logger, which it sets up for good
        overrides = [*place.overrides, *(forced(command, text) for text in args.overrides)]
        hydra.show_info(args.info, config_name=command, overrides=overrides)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
