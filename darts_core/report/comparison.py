"""Versions and elements of multiruns side by side: results of each, and the settings that differ."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.report.columns import Column
from darts_core.report.job_details import stage_settings
from darts_core.report.job_summary import stage_facts
from darts_core.report.read import flatten, read_settings
from darts_core.report.variables import without_variables
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version
from darts_core.study.metric_names import names_of
from darts_core.study.results import figure, objectives, read_rows, summary

__all__ = ["different_settings", "reported", "results_table"]


def settings_of(column: Column) -> dict[str, Any]:
    """The settings of each stage; of a script what its search was asked for."""
    version = column.version
    if version.kind != SCRIPT:
        return stage_settings(column.folder)
    request = version.command().get("request") or {}
    kept = ("code_hash", "boot_file", "arguments", "data", "python", "devices", "budget", "multi")
    content = {k: request.get(k) for k in kept}
    content |= {"entry": request.get("entry") or "train"}
    content |= {k: without_variables(request.get(k)) for k in ("ray", "slurm")}
    found = read_settings(version.path / "autosearch" / "config.yaml")
    return content if found is None else {**content, "config": found}


def reported(row: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a trial has reported, by name."""
    final = {name: row[name] for name in ("acc", "latency") if row.get(name) is not None}
    data = row.get("additional_data") or {}
    return {**row.get("metrics", {}), **data, **final, **row.get("values", {})}


def results_of(column: Column, metrics: Sequence[str]) -> dict[str, Any]:
    version = column.version
    figures: dict[str, Any] = {"state": version.state()}
    if version.description:
        figures["description"] = version.description
    if version.kind != SCRIPT:
        for row in stage_facts(column.folder):
            facts = {k: v for k, v in row.items() if k not in ("stage", "finished")}
            figures |= {f"{row['stage']} {name}": value for name, value in facts.items()}
        return figures
    try:
        found = summary(version.path)
    except JobError:
        return figures
    best = found["best"]
    if best is not None:
        for goal in found["objectives"]:
            figures[f"best {goal['metric']}"] = best["values"].get(goal["metric"])
        told = reported(best)
        for metric in metrics:
            known = (told[name] for name in names_of(metric) if told.get(name) is not None)
            figures[f"best {metric}"] = next(known, None)
        figures["best settings"] = best["config"]
    for item in found["gain"]:
        figures[f"gain {item['metric']}"] = item["difference"]
        figures[f"verdict {item['metric']}"] = f"{item['verdict']} (n={item['best']['n']})"
    for metric, sides in found["test"].items():
        figures |= {f"{side} {metric}": figure(kept) for side, kept in sides.items()}
    figures["trials"] = sum(found["trials"].values())
    figures["cost (trainings)"] = found["cost"]["search"]["trainings"]
    return figures


def results_table(columns: Sequence[Column], metrics: Sequence[str]) -> dict[str, list[Any]]:
    """Name of a figure -> its value in each column; `metrics` are shown of each best trial too.

    Raises:
        JobError: none of the versions knows one of the metrics.
    """
    table = _rows([results_of(column, metrics) for column in columns])
    for metric in metrics:
        # `best loss` of a script, `train test_accuracy` of a pipeline
        shown = [row for name, row in table.items() if f" {name}".endswith(f" {metric}")]
        if all(value is None for row in shown for value in row) and not any(
            _knows(column.version, metric) for column in columns
        ):
            raise JobError(
                f"No trial of these versions has reported {metric[:80]!r}; name another metric that the "
                "script reports (a pipeline's figures all stand there as they are)."
            )
    return table


def _knows(version: Version, metric: str) -> bool:
    """Whether any trial of a script has reported a metric, or its search is for it."""
    names = {*names_of(metric)}
    with contextlib.suppress(JobError):
        if any(goal["metric"] in names for goal in objectives(version.path)):
            return True
    return any(not names.isdisjoint(reported(row)) for row in read_rows(version.path))


def different_settings(columns: Sequence[Column]) -> dict[str, list[Any]]:
    """Name of a setting -> its value in each column, where they are not all the same.

    A stage that only one of them has run is compared with nothing: its results show that it was there.
    """
    settings = [settings_of(column) for column in columns]
    stages = [
        found
        for found, column in zip(settings, columns, strict=True)
        if column.version.kind != SCRIPT
    ]
    ran = Counter(stage for found in stages for stage in found)
    shared = [{name: of for name, of in found.items() if ran[name] != 1} for found in settings]
    table = _rows([flatten(found) for found in shared])
    return {n: values for n, values in table.items() if any(v != values[0] for v in values)}


def _rows(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}
