"""`jobs compare`: versions of one job or of several side by side, and of the configuration what differs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from darts_core.commands.jobs.options import place_of
from darts_core.errors import JobError
from darts_core.report.columns import Column, columns_named, columns_of
from darts_core.report.comparison import different_settings, reported, results_table
from darts_core.report.tables import render
from darts_core.store.jobs import Store
from darts_core.store.record import SCRIPT
from darts_core.store.version import Version
from darts_core.study.metric_names import under_names
from darts_core.study.results import (
    figure,
    objectives,
    read_rows,
    row_values,
    search_rows,
    summary,
)

__all__ = ["named_columns", "run_compare"]


def named_columns(store: Store, names: Sequence[str]) -> list[Column]:
    """What `JOB V001 V003`, `JOB/V001 OTHER/V002`, `JOB OTHER` or `JOB/V001/0 JOB/V001/1` name.

    A name without a slash is a version of the job named last, where it has one of that name; else it is
    a job, which stands for its newest version unless versions of it follow; a job named alone stands for
    all its versions, a multirun for its elements.

    Raises:
        JobError: there is no such job, version or element, or fewer than two are named.
    """
    found: list[Column] = []
    job, alone = "", False
    for name in names:
        known = {version.name: version for version in store.versions(job)} if job else {}
        if name in known:
            found += columns_of([known[name]])
            alone = False
            continue
        found += columns_named(store, job) if alone else []
        job, alone = name.partition("/")[0], "/" not in name
        if not alone:
            found += columns_named(store, name)
        elif known and re.fullmatch(r"V\d+", name):
            # says which there are
            store.version(found[-1].version.job if found else names[0], name)
        else:
            store.job_record(name)
    if alone and len(names) == 1:
        found = columns_of(store.versions(job))
    elif alone:
        found += columns_named(store, job)
    if len(found) < 2:
        raise JobError(
            f"compare needs two versions; name another one, of {job!r} or of another job "
            "(jobs compare a/V001 b/V003)."
        )
    return found


def run_compare(store: Store, args: argparse.Namespace) -> int:
    """`jobs compare`."""
    columns = named_columns(store, [args.job, *args.versions])
    labels = _labels(columns)
    found = {**results_table(columns, args.metric), **different_settings(columns)}
    table = [
        {"row": name, **dict(zip(labels, values, strict=True))} for name, values in found.items()
    ]
    if args.picture:
        _picture(columns, args)
    print(render(("row", *labels), table, args.form))
    return 0


def _labels(columns: Sequence[Column]) -> list[str]:
    """`V001` within one job, `job/V001` across several."""
    several = len({column.version.job for column in columns}) > 1
    return [column.label if several else column.name for column in columns]


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


def _picture(compared: Sequence[Column], args: argparse.Namespace) -> None:
    from darts_core.report.job_pictures import draw_comparison

    columns: dict[str, list[float]] = {}
    baselines: dict[str, float] = {}
    versions, labels = [column.version for column in compared], _labels(compared)
    if any(version.kind != SCRIPT for version in versions):
        raise JobError(
            "--picture compares the trials of scripts; for a pipeline see darts-core report."
        )
    metric = args.metric[0] if args.metric else objectives(versions[0].path)[0]["metric"]
    for version, label in zip(versions, labels, strict=True):
        goals = [{"metric": metric, "mode": "max"}]
        columns[label] = []
        for row in search_rows(read_rows(version.path)):
            told = under_names(reported(row), (metric,))
            values = row_values({**row, "values": told}, goals)
            if values is not None:
                columns[label].append(values[0])
                if row.get("is_baseline"):
                    baselines[label] = values[0]
    pairs = zip(versions, labels, strict=True)
    title = "; ".join(f"{label}: {_gain_text(version, metric)}" for version, label in pairs)
    target = place_of(args.picture, "--picture")
    if draw_comparison(columns, baselines, metric, target, title=title) is None:
        raise JobError(
            f"No trial of these versions has reported {metric!r}; name another --metric."
        )
