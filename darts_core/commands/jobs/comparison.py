"""`jobs compare`: versions of one job or of several side by side, and of the configuration what differs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.report.job_details import stage_settings
from darts_core.report.job_summary import stage_facts
from darts_core.report.tables import render
from darts_core.runlog import read_yaml
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version
from darts_core.study.results import (
    figure,
    objectives,
    read_rows,
    row_values,
    search_rows,
    summary,
)

__all__ = ["flatten", "named_versions", "reported", "run_compare"]


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _parameters(version: Version) -> dict[str, Any]:
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


def _column(version: Version, metrics: Sequence[str]) -> dict[str, Any]:
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


def named_versions(store: Store, names: Sequence[str]) -> list[Version]:
    """The versions that `JOB V001 V003`, `JOB/V001 OTHER/V002` or `JOB OTHER` name.

    A name without a slash is a version of the job named last, where it has one of that name; else it is
    a job, which stands for its newest version unless versions of it follow.

    Raises:
        JobError: there is no such job or version, or fewer than two are named.
    """
    found: list[Version] = []
    job, alone = "", False
    for name in names:
        known = {version.name: version for version in store.versions(job)} if job else {}
        if name in known:
            found.append(known[name])
            alone = False
            continue
        found += [store.version(job)] if alone else []
        job, alone = name.partition("/")[0], "/" not in name
        if not alone:
            found.append(store.version(name))
        elif known and re.fullmatch(r"V\d+", name):
            store.version(found[-1].job if found else names[0], name)  # says which there are
        else:
            store.job_record(name)
    found += [store.version(job)] if alone else []
    if len(found) < 2:
        raise JobError(
            f"compare needs two versions; name another one, of {found[0].job!r} or of another job "
            "(jobs compare a/V001 b/V003)."
        )
    return found


def run_compare(store: Store, args: argparse.Namespace) -> int:
    """`jobs compare`."""
    versions = named_versions(store, [args.job, *args.versions])
    labels = _labels(versions)
    table = []
    results = [_column(version, args.metric) for version in versions]
    names = list(dict.fromkeys(name for column in results for name in column))
    for name in names:
        table.append({"row": name, **_cells(labels, [c.get(name) for c in results])})
    settings = [_parameters(version) for version in versions]
    for name in dict.fromkeys(key for column in settings for key in column):
        values = [column.get(name) for column in settings]
        if any(value != values[0] for value in values):
            table.append({"row": name, **_cells(labels, values)})
    if args.picture:
        _picture(versions, args)
    print(render(("row", *labels), table, args.form))
    return 0


def _labels(versions: Sequence[Version]) -> list[str]:
    """`V001` within one job, `job/V001` across several."""
    several = len({version.job for version in versions}) > 1
    return [version.label if several else version.name for version in versions]


def _cells(labels: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(labels, values, strict=True))


def _gain_text(version: Version, metric: str) -> str:
    """The gain of a version in a metric, or its verdict."""
    try:
        found = summary(version.path)
    except JobError:
        return version.state()
    for item in found["gain"]:
        if item["metric"] == metric and item["better"]:
            return f"{figure(item['best'])} against yours {figure(item['baseline'])}"
    return str(found["verdict"])


def _picture(versions: Sequence[Version], args: argparse.Namespace) -> None:
    from darts_core.report.job_pictures import draw_comparison

    columns: dict[str, list[float]] = {}
    baselines: dict[str, float] = {}
    labels = _labels(versions)
    if any(version.kind != SCRIPT for version in versions):
        raise JobError(
            "--picture compares the trials of scripts; for a pipeline see darts-core report."
        )
    metric = args.metric[0] if args.metric else objectives(versions[0].path)[0]["metric"]
    for version, label in zip(versions, labels, strict=True):
        goals = [{"metric": metric, "mode": "max"}]
        columns[label] = []
        for row in search_rows(read_rows(version.path)):
            values = row_values({**row, "values": reported(row)}, goals)
            if values is not None:
                columns[label].append(values[0])
                if row.get("is_baseline"):
                    baselines[label] = values[0]
    pairs = zip(versions, labels, strict=True)
    title = "; ".join(f"{label}: {_gain_text(version, metric)}" for version, label in pairs)
    if draw_comparison(columns, baselines, metric, Path(args.picture), title=title) is None:
        raise JobError(
            f"No trial of these versions has reported {metric!r}; name another --metric."
        )
