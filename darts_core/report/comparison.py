"""Versions beside each other: results of each, and of the settings only what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.errors import JobError
from darts_core.report.job_details import stage_settings
from darts_core.report.job_summary import stage_facts
from darts_core.report.read import flatten
from darts_core.runlog import read_yaml
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version
from darts_core.study.results import figure, summary

__all__ = ["different_settings", "reported", "results_table"]


def parameters_of(version: Version) -> dict[str, Any]:
    if version.kind != SCRIPT:
        return flatten(stage_settings(version.path))
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


def results_of(version: Version, metrics: Sequence[str]) -> dict[str, Any]:
    column: dict[str, Any] = {"state": version.state()}
    if version.description:
        column["description"] = version.description
    if version.kind != SCRIPT:
        for row in stage_facts(version.path):
            facts = {k: v for k, v in row.items() if k not in ("stage", "finished")}
            column |= {f"{row['stage']} {name}": value for name, value in facts.items()}
        return column
    try:
        found = summary(version.path)
    except JobError:
        return column
    best = found["best"]
    if best is not None:
        for goal in found["objectives"]:
            column[f"best {goal['metric']}"] = best["values"].get(goal["metric"])
        for metric in metrics:
            column[f"best {metric}"] = reported(best).get(metric)
        column["best settings"] = best["config"]
    for item in found["gain"]:
        column[f"gain {item['metric']}"] = item["difference"]
        column[f"verdict {item['metric']}"] = f"{item['verdict']} (n={item['best']['n']})"
    for metric, sides in found["test"].items():
        column |= {f"{side} {metric}": figure(kept) for side, kept in sides.items()}
    column["trials"] = sum(found["trials"].values())
    column["cost (trainings)"] = found["cost"]["search"]["trainings"]
    return column


def results_table(versions: Sequence[Version], metrics: Sequence[str]) -> dict[str, list[Any]]:
    """Name of a figure -> its value in each version; `metrics` are shown of each best trial too."""
    columns = [results_of(version, metrics) for version in versions]
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [column.get(name) for column in columns] for name in names}


def different_settings(versions: Sequence[Version]) -> dict[str, list[Any]]:
    """Name of a setting -> its value in each version, where they are not all the same."""
    columns = [parameters_of(version) for version in versions]
    names = dict.fromkeys(name for column in columns for name in column)
    table = {name: [column.get(name) for column in columns] for name in names}
    return {n: values for n, values in table.items() if any(v != values[0] for v in values)}
