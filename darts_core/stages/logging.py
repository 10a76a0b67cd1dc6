"""The loggers that `logger=` chooses for a stage."""

from __future__ import annotations

from collections.abc import Mapping

from darts_core.errors import ConfigError
from darts_core.loggers import Logger, Loggers
from darts_core.stages.schema import Stage
from darts_core.stages.targets import instantiate

__all__ = ["make_loggers"]


def make_loggers(config: Stage) -> Loggers:
    """One logger a node of `config.logger`.

    Raises:
        ConfigError: a node makes no logger.
    """
    made = []
    for name, node in config.logger.items():
        if not isinstance(node, Mapping):
            continue
        found = instantiate("logger", node, config.plugins)
        if not isinstance(found, Logger):
            raise ConfigError(
                f"logger.{name} makes a {type(found).__name__}; it must be a darts_core.loggers.Logger."
            )
        made.append(found)
    return Loggers(made)
