"""The sections of a page about the search of a user's script; no inline style, no script, no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from darts_core.report.blocks import Section, callout, card, details, pair, plain_table
from darts_core.report.html import Markup, render
from darts_core.report.job_details import resources_text
from darts_core.report.metric_units import metric_label, unit
from darts_core.report.network_drawing import network_card
from darts_core.report.resource_curves import resource_curves
from darts_core.report.search_view import Search
from darts_core.report.svg_front import front_svg, key_html
from darts_core.report.tables import short
from darts_core.report.trials import best_so_far, importance_bars, parallel, trial_curves
from darts_core.report.trials_front import search_front
from darts_core.report.version_tree import version_tree

__all__ = ["search_sections"]

_MOST_ROWS = 1000


def search_sections(search: Search, versions: Sequence[Mapping[str, Any]] = ()) -> list[Section]:
    """Every section that has something to show.

    Args:
        search: what was found so far.
        versions: all versions of the job, for their tree.
    """
    made = [
        _results(search),
        _network(search),
        _trials(search),
        _table(search),
        _resources(search),
        _versions(search, versions),
        _settings(search),
        _log(search),
    ]
    return [section for section in made if section is not None]


def _label(search: Search) -> str:
    goal = search.goals[0]
    return metric_label(goal["metric"], goal["mode"])


def _results(search: Search) -> Section | None:
    """Best so far and the front, with what makes the timings doubtful."""
    if not search.goals:
        return None
    trials = search.trials()
    drawn = best_so_far(
        trials, maximize=search.maximize, label=_label(search), percent=search.percent
    )
    front = search_front(
        search.rows, search.goals, title="Objectives", gains=search.found.get("gain", ())
    )
    body = _disturbed(search) + pair(
        card(drawn, title="Best so far"),
        card(front_svg(front) + key_html([front]), title="Objectives against each other"),
    )
    return Section("result", "Results", body) if body else None


def _disturbed(search: Search) -> Markup:
    """The warning about timings that other work disturbed, where everybody sees it."""
    flagged = [str(row["#"]) for row in search.table if row.get("latency_flag")]
    if not flagged:
        return Markup()
    named = ", ".join(flagged[:12]) + (" ..." if len(flagged) > 12 else "")
    return callout(
        f"Other work on the machine disturbed the latency of {len(flagged)} of {len(search.table)} trials "
        f"({named}); compare it with care, or search again on a quiet machine.",
    )


def _trials(search: Search) -> Section | None:
    """Every trial's curve, parallel coordinates, importance, the best settings."""
    if not search.goals:
        return None
    best = search.found.get("best")
    place = search.place(best)
    own = search.place(search.found.get("baseline"))
    numbers = {row["trial_id"]: index for index, (_, row) in enumerate(search.ordered)}
    curves = {numbers[k]: points for k, points in search.curves.items() if k in numbers}
    names = [trial.name for trial in search.trials()]
    drawn = trial_curves(curves, place, label=_label(search), percent=search.percent, own=own,
                         maximize=search.maximize, x_label="iteration",
                         name="" if place is None else names[place])  # fmt: skip
    body = pair(
        card(drawn, title="Every trial's curve"),
        card(importance_bars(search.shares), title="Importance of each setting"),
    )
    body += card(
        parallel(search.trials(), maximize=search.maximize, label=search.goals[0]["metric"],
                 percent=search.percent),
        title="Parallel coordinates",
    )  # fmt: skip
    body += card(plain_table(best["config"]) if best else Markup(), title="The best settings")
    note = "Hover over a line of the parallel coordinates for the settings of its trial."
    return Section("trials", "Trials", body, note) if body else None


def _network(search: Search) -> Section | None:
    body = network_card(search.found.get("best"), search.found.get("baseline"))
    note = "What the pick is made of, beside your own configuration."
    return Section("architecture", "Architecture", body, note) if body else None


def _table(search: Search) -> Section | None:
    if not search.table:
        return None
    rows = search.table[:_MOST_ROWS]
    columns = [name + (f" ({found})" if (found := unit(name)) else "") for name in search.columns]
    table = render(
        "trials",
        columns=columns,
        rows=[[short(row.get(name)) for name in search.columns] for row in rows],
    )
    left = len(search.table) - len(rows)
    note = "* is your configuration; c1, c2 ... are the confirming runs on fresh seeds."
    note += f" {left} more trials: darts-core jobs show --limit." if left else ""
    return Section("table", "Every trial", card(table), note)


def _resources(search: Search) -> Section | None:
    body = resource_curves(search.resources)
    text = resources_text(search.details) if search.details["resources"] else ""
    return Section("resources", "Resources", body, f"{text}." if text else "") if body else None


def _versions(search: Search, rows: Sequence[Mapping[str, Any]]) -> Section | None:
    drawn = version_tree(rows, here=str(search.details["version"]))
    return Section("versions", "Versions", card(drawn)) if drawn else None


def _settings(search: Search) -> Section:
    """What the version was made from."""
    found = search.details
    values = {"parent": found["parent"], "description": found["description"], "folder": found["folder"],
              "code hash": found["code_hash"]}  # fmt: skip
    values |= {k.replace("_", " "): v for k, v in found["parameters"].items()}
    kept = {k: short(v) for k, v in values.items() if v not in (None, "", [], {})}
    body = card(plain_table(kept))
    configuration = {
        k.replace("_", " "): short(v) for k, v in (found["configuration"] or {}).items()
    }
    body += (
        card(details("The whole configuration", plain_table(configuration)))
        if configuration
        else ""
    )
    return Section("settings", "Settings", Markup(body))


def _log(search: Search) -> Section | None:
    lines = "\n".join(search.details["log_tail"])
    return Section("log", "Log", card(render("lines", text=lines))) if lines else None
