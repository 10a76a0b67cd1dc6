"""Versions and elements of multiruns side by side: results of each, and the settings that differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.report.columns import Column
from darts_core.report.job_details import stage_settings
from darts_core.report.job_summary import stage_facts
from darts_core.report.read import flatten
from darts_core.runlog import read_yaml
from darts_core.store.record import SCRIPT
from darts_core.study.results import figure, summary

__all__ = ["different_settings", "reported", "results_table"]


def parameters_of(column: Column) -> dict[str, Any]:
    version = column.version
    if version.kind != SCRIPT:
        return flatten(stage_settings(column.folder))
    request = version.command().get("request") or {}
    kept = ("code_hash", "boot_file", "arguments", "data", "python", "devices", "budget", "multi")
    content = {k: request.get(k) for k in kept}
    path = version.path / "autosearch" / "config.yaml"
    if path.exists():
        content["config"] = read_yaml(path)
    return flatten(content)


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
        for metric in metrics:
            figures[f"best {metric}"] = reported(best).get(metric)
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
    """Name of a figure -> its value in each column; `metrics` are shown of each best trial too."""
    return _rows([results_of(column, metrics) for column in columns])


def different_settings(columns: Sequence[Column]) -> dict[str, list[Any]]:
    """Name of a setting -> its value in each column, where they are not all the same.

    A stage that only one of them has run is compared with nothing: its results show that it was there.
    """
    ran = Counter(
        stage
        for column in columns
        if column.version.kind != SCRIPT
        for stage in stage_settings(column.folder)
    )
    alone = tuple(f"{stage}." for stage, count in ran.items() if count == 1)
    table = _rows([parameters_of(column) for column in columns])
    return {
        name: values
        for name, values in table.items()
        if any(v != values[0] for v in values) and not name.startswith(alone)
    }


def _rows(columns: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}
