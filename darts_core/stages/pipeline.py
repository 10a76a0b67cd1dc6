"""Calling a stage by its command's name, with plugins imported and signals handled."""

from __future__ import annotations

import importlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.runlog import write_json
from darts_core.stages.interrupt import handle_signals
from darts_core.stages.schema import Stage
from darts_core.stages.targets import import_plugins
from darts_core.stages.told import each_told_once

__all__ = ["run_command"]

log = logging.getLogger("darts_core")


def run_command(config: Stage, version: Path) -> dict[str, Any]:
    """The result of the stage that `config` is for, in the version's folder (its own is below it).

    Raises:
        DartsError: the stage fails in an expected way.
        KeyboardInterrupt: a signal arrived; what was saved last is kept.
    """
    import_plugins(config.plugins)
    with handle_signals(), each_told_once():
        count = getattr(config, "seeds", 1)
        return _call(config, version) if count == 1 else _over_seeds(config, version, count)


def _call(config: Stage, version: Path) -> dict[str, Any]:
    name = config.STAGE
    stage = getattr(importlib.import_module(f"darts_core.stages.{name}"), name)
    result: dict[str, Any] = stage(config, version if name == "run" else version / name)
    return result


def _over_seeds(config: Any, version: Path, count: int) -> dict[str, Any]:
    """The same command with seeds seed, seed+1 ...; a page of means, spread and agreement."""
    from darts_core.report import write_seeds_report
    from darts_core.report.seeds import seeds_summary

    folders: list[Path] = []
    last: dict[str, Any] = {}
    for seed in range(config.seed, config.seed + count):
        folders.append(version / f"seed{seed}")
        log.info("seed %d, in %s", seed, folders[-1])
        last = _call(replace(config, seed=seed, seeds=1), folders[-1])
    summary = seeds_summary(folders)
    write_json(version / "seeds.json", summary)
    log.info("report: %s", write_seeds_report(folders, version / "report.html"))
    judged = {
        key: found.get("mean")
        for key, found in summary.items()
        if key.startswith("val_") and isinstance(found, dict)
    }
    # by its name whoever asks for the value finds it
    named = {"metric": last["metric"]} if "metric" in last else {}
    return {"seeds": count, **judged, **named, "summary": summary}
