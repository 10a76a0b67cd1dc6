"""Calling a stage by its command's name, with plugins imported and signals handled."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError
from darts_core.runlog import write_json
from darts_core.stages.interrupt import handle_signals
from darts_core.stages.settings import import_plugins

__all__ = ["run_command"]

log = logging.getLogger("darts_core")


def run_command(command: str, config: Mapping[str, Any], version: Path) -> dict[str, Any]:
    """The result of `command` run with `config` in the version's folder (the stage's own is below it).

    Raises:
        DartsError: the stage fails in an expected way.
        KeyboardInterrupt: a signal arrived; what was saved last is kept.
    """
    import_plugins(config["plugins"])
    with handle_signals():
        count = config.get("seeds", 1)
        if count == 1:
            return _call(command, config, version)
        if count < 1:
            raise ConfigError(f"seeds={count} must be at least 1.")
        return _over_seeds(command, config, version, count)


def _call(command: str, config: Mapping[str, Any], version: Path) -> dict[str, Any]:
    module = importlib.import_module(f"darts_core.stages.{command}")
    if command == "run":
        result: dict[str, Any] = module.run(config, version)
    else:
        result = getattr(module, command)(config, version / command)
    return result


def _over_seeds(
    command: str, config: Mapping[str, Any], version: Path, count: int
) -> dict[str, Any]:
    """The same command with seeds seed, seed+1 ...; a page of means, spread and agreement."""
    from darts_core.report import write_seeds_report
    from darts_core.report.seeds import seeds_summary

    folders = []
    for seed in range(config["seed"], config["seed"] + count):
        folders.append(version / f"seed{seed}")
        log.info("seed %d, in %s", seed, folders[-1])
        _call(command, {**config, "seed": seed, "seeds": 1}, folders[-1])
    summary = seeds_summary(folders)
    write_json(version / "seeds.json", summary)
    log.info("report: %s", write_seeds_report(folders, version / "report.html"))
    mean = summary.get("val_accuracy") or {}
    return {"seeds": count, "val_accuracy": mean.get("mean"), "summary": summary}
