"""Stage `bench`: accuracy against latency of the models of a version, one table and one picture."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from darts_core.errors import ConfigError, unknown_name
from darts_core.report import ModelRow, front_png
from darts_core.runlog import RunFolder, environment, write_json
from darts_core.stages.inputs import find_device, find_model, load_bundle, stage_config
from darts_core.stages.models import Entry, entries_of, model_row
from darts_core.stages.table import print_table
from darts_core.stages.timing import stopwatch

__all__ = ["bench"]

log = logging.getLogger("darts_core")
WHAT = ("models", "step", "kernels", "tabular")


def bench(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Compare the models of `model=`, or those that the version holds; other `what=` go to `bench/`.

    Returns:
        rows (as in results.json), device_seconds.
    """
    what = config.get("what", "models")
    if what not in WHAT:
        raise ConfigError(unknown_name("what=", what, WHAT))
    run = RunFolder.create(folder, stage_config(config, "bench"))
    if run.finished:
        return run.result()
    if what != "models":
        module = importlib.import_module(f"darts_core.bench.{what}")
        run.finish(**module.run(config, folder))
        return run.result()
    device = find_device(config["device"])
    bundle = load_bundle(config, device)
    rows: list[ModelRow] = []
    with stopwatch(device) as watch:
        for entry in _entries(config, folder.parent):
            rows.append(model_row(entry, bundle, device, seconds=config["bench"]["seconds"]))
    content = {
        "schema_version": 1,
        "theme": "models",
        "environment": environment(),
        "rows": [row.to_dict() for row in rows],
    }
    write_json(folder / "results.json", content)
    _picture(rows, folder / "front.png")
    print_table(rows)
    run.finish(rows=content["rows"], device_seconds=watch.seconds)
    return run.result()


def _entries(config: Mapping[str, Any], version: Path) -> list[Entry]:
    if config.get("model") is None:
        return entries_of(version, config["bench"]["baseline"])
    path = find_model(config, version, ())
    return [Entry(path.parent.name, "", path.parent)]


def _picture(rows: list[ModelRow], path: Path) -> None:
    """The front as a PNG; where no row can be drawn (all flagged), a line says why instead."""
    try:
        front_png(rows, path)
    except ConfigError as error:
        log.warning("no picture: %s", error)
