"""`jobs compare`: versions side by side, any metric, and of the configuration only what differs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.report.comparison import different_settings, reported, results_table
from darts_core.report.tables import render
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version
from darts_core.study.results import figure, objectives, read_rows, row_values, summary

__all__ = ["run_compare"]


def run_compare(store: Store, args: argparse.Namespace) -> int:
    """`jobs compare`."""
    versions = [store.version(args.job, name) for name in args.versions]
    if len(versions) < 2:
        raise JobError(f"compare needs two versions; name another one of {args.job!r}.")
    found = {**results_table(versions, args.metric), **different_settings(versions)}
    table = [{"row": name, **_cells(versions, values)} for name, values in found.items()]
    if args.picture:
        _picture(versions, args)
    print(render(("row", *(version.name for version in versions)), table, args.form))
    return 0


def _cells(versions: Sequence[Version], values: Sequence[Any]) -> dict[str, Any]:
    return {version.name: value for version, value in zip(versions, values, strict=True)}


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
    if any(version.kind != SCRIPT for version in versions):
        raise JobError(
            "--picture compares the trials of scripts; for a pipeline see darts-core report."
        )
    metric = args.metric[0] if args.metric else objectives(versions[0].path)[0]["metric"]
    for version in versions:
        goals = [{"metric": metric, "mode": "max"}]
        columns[version.name] = []
        for row in read_rows(version.path):
            values = row_values({**row, "values": reported(row)}, goals)
            if values is not None:
                columns[version.name].append(values[0])
                if row.get("is_baseline"):
                    baselines[version.name] = values[0]
    title = "; ".join(f"{version.name}: {_gain_text(version, metric)}" for version in versions)
    if draw_comparison(columns, baselines, metric, Path(args.picture), title=title) is None:
        raise JobError(
            f"No trial of these versions has reported {metric!r}; name another --metric."
        )
