"""Calling a stage by its command's name, with plugins imported and signals handled."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.stages.interrupt import handle_signals
from darts_core.stages.settings import import_plugins

__all__ = ["run_command"]


def run_command(command: str, config: Mapping[str, Any], version: Path) -> dict[str, Any]:
    """The result of `command` run with `config` in the version's folder (the stage's own is below it).

    Raises:
        DartsError: the stage fails in an expected way.
        KeyboardInterrupt: a signal arrived; what was saved last is kept.
    """
    import_plugins(config["plugins"])
    module = importlib.import_module(f"darts_core.stages.{command}")
    with handle_signals():
        if command == "run":
            result: dict[str, Any] = module.run(config, version)
        else:
            result = getattr(module, command)(config, version / command)
    return result
