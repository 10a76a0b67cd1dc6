"""The sections of a search of a user's script that are words and tables."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from darts_core.report.blocks import Section, callout, card, details, plain_table
from darts_core.report.charts import Bar, bars
from darts_core.report.html import render
from darts_core.report.job_details import resources_text
from darts_core.report.metric_units import headed
from darts_core.report.resource_curves import resource_curves
from darts_core.report.tables import cost_text, short, span
from darts_core.store.version import Version
from darts_core.study.result_table import result_table
from darts_core.study.results import Goals, Row

__all__ = [
    "again_section",
    "cost_section",
    "log_section",
    "resources_section",
    "settings_section",
    "state_section",
    "trials_section",
]

_MOST_ROWS = 300
_PLACE = re.compile(r"[0-9]{1,9}")
_DISTURBED = ("failed", "interrupted", "stopped")


def state_section(facts: Mapping[str, Any]) -> Section | None:
    """What is the matter, where something is."""
    state = facts["state"]
    if state not in _DISTURBED:
        return None
    silent = {"interrupted": "Its process ended before its time: a signal, a crash or a reboot."}
    said = facts["message"] or silent.get(state, f"It is {state}.")
    return Section("state", f"State: {state}", callout(said, "bad" if state == "failed" else ""))


def trials_section(rows: Sequence[Row], goals: Goals) -> Section | None:
    """The result table, best first."""
    if not rows:
        return Section("trials", "Trials", callout("No trial has begun yet."))
    columns, table = result_table(rows, goals, None)
    kept = [c for c in columns if c != "additional_data"]
    body = render(
        "trials",
        columns=[headed(name) for name in kept],
        rows=[[short(row.get(c)) for c in kept] for row in table[:_MOST_ROWS]],
    )
    note = "* is your configuration, c1, c2 … are the confirming runs over fresh seeds."
    if len(table) > _MOST_ROWS:
        note += f" The best {_MOST_ROWS} of {len(table)}."
    return Section("trials", "Trials", card(body), note)


def cost_section(found: Mapping[str, Any]) -> Section | None:
    """Time of the search and of the confirming runs, in trainings of the user's own."""
    if not found:
        return None
    parts = (("search", "search"), ("confirm", "confirming runs"))
    items = []
    for key, label in parts:
        cost = found["cost"][key]
        if cost["seconds"]:
            times = f" = {cost['trainings']:.2f} trainings" if cost["trainings"] is not None else ""
            items.append(Bar(label, cost["seconds"], "searched", span(cost["seconds"]) + times))
    if not items:
        return None
    drawn = bars(items, title="Time of search and confirming runs", width=1060, row=34)
    return Section("cost", "Cost", card(drawn), cost_text(found["cost"]) + ".")


def resources_section(
    facts: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]
) -> Section | None:
    """Processor and memory over time, of samples as `resource_curves` takes them."""
    if not facts["resources"]:
        return None
    body = resource_curves(samples)
    return Section("resources", "Resources", body, resources_text(facts) + ".") if body else None


def log_section(facts: Mapping[str, Any]) -> Section | None:
    """The last lines of the log."""
    if not facts["log_tail"]:
        return None
    return Section("log", "Log", render("log", text="\n".join(facts["log_tail"])))


def settings_section(facts: Mapping[str, Any]) -> Section:
    """What the version was made from."""
    values = {k: facts[k] for k in ("parent", "description", "code_hash") if facts[k]}
    values |= {k: v for k, v in facts["parameters"].items() if v not in (None, [], {})}
    body = card(plain_table(values), title="Parameters")
    body += details("The job file as it was read", card(plain_table(facts["configuration"] or {})))
    return Section("settings", "Settings", body)


def again_section(version: Version, facts: Mapping[str, Any]) -> Section:
    """The exact command and job files that do it again."""
    files = [path for path in (version.path / "config").glob("*") if path.is_file()]
    # by their places in the order: 10-width.yaml comes after 2-depth.yaml
    files.sort(key=lambda path: (int(found[0]) if (found := _PLACE.match(path.name)) else 0, path))
    body = render("commands", text=again_command(version, facts["parameters"], files))
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        body += details(path.name, render("copy", text=text))
    return Section("again", "How to do it again", body)


def again_command(version: Version, given: Mapping[str, Any], files: Sequence[Path]) -> str:
    """`darts-core jobs create ...` with what the version was made from; its job gets another name."""
    words = ["darts-core", "jobs", "create", "--name", f"{version.job}-again"]
    code = given.get("code")
    words += ["--code", str(version.path / "code")] if code else []
    for key, flag in (("boot_file", "--boot-file"), ("entry", "--entry"), ("multi", "--multi"),
                      ("data", "--data"), ("output", "--output"), ("python", "--python")):  # fmt: skip
        if given.get(key):
            words += [flag, str(given[key])]
    for path in files:
        words += ["--config", str(path)]
    for name, value in (given.get("arguments") or {}).items():
        words += ["--arg", f"{name}={value}"]
    for name, value in (given.get("settings") or {}).items():
        words += ["--set", f"{name}={_yaml(value)}"]
    if given.get("devices"):
        words += ["--devices", ",".join(str(d) for d in given["devices"])]
    for key in ("ray", "slurm"):
        # an empty mapping takes the defaults
        if given.get(key) is not None:
            words += [f"--{key}", json.dumps(given[key])]
    budget = given.get("budget") or {}
    if budget.get("trainings"):
        words += ["--budget", f"{_plain(budget['trainings'])}x"]
    if budget.get("seconds"):
        words += ["--budget", f"{_plain(budget['seconds'])}s"]
    return " ".join(shlex.quote(word) for word in words)


def _yaml(value: Any) -> str:
    """A value on one line, as `--set` reads it: a null, a small number or the text "1" come back so."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**9
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(value: float) -> str:
    """A number in full: a budget of 12 days is 1036800 seconds, and no option reads 1.0368e+06."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
