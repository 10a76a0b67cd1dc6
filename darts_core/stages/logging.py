"""The loggers that `logger=` chooses for a stage."""

from __future__ import annotations

from darts_core.loggers import Logger, Loggers
from darts_core.stages.schema import Stage
from darts_core.stages.targets import instantiate_each

__all__ = ["make_loggers"]


def make_loggers(config: Stage) -> Loggers:
    """One logger a node of `config.logger`.

    Raises:
        ConfigError: a node makes no logger.
    """
    made = instantiate_each("logger", config.logger, config.plugins, Logger, where="logger")
    return Loggers(list(made.values()))
