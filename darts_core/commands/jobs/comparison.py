"""`jobs compare`: versions of one job or of several side by side, and of the configuration what differs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import JobError
from darts_core.report.comparison import different_settings, reported, results_table
from darts_core.report.tables import render
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

__all__ = ["named_versions", "run_compare"]


def named_versions(store: Store, names: Sequence[str]) -> list[Version]:
    """The versions that `JOB V001 V003`, `JOB/V001 OTHER/V002` or `JOB OTHER` name.

    A name without a slash is a version of the job named last, where it has one of that name; else it is
    a job, which stands for its newest version unless versions of it follow; a job named alone stands for
    all its versions.

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
    if alone and len(names) == 1:
        found = list(store.versions(job))
    elif alone:
        found.append(store.version(job))
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
    found = {**results_table(versions, args.metric), **different_settings(versions)}
    table = [{"row": name, **_cells(labels, values)} for name, values in found.items()]
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
