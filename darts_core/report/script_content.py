"""What is told of the search of a user's script: headline, tiles and sections, for report and live page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from darts_core.report.blocks import Section, card
from darts_core.report.html import Markup, render
from darts_core.report.job_details import version_details
from darts_core.report.job_rows import version_rows
from darts_core.report.metric_units import unit
from darts_core.report.network_drawing import network_card
from darts_core.report.page import Content
from darts_core.report.resource_curves import pauses
from darts_core.report.script_pictures import pictures_section
from darts_core.report.script_sections import (
    again_section,
    cost_section,
    log_section,
    resources_section,
    settings_section,
    state_section,
    trials_section,
)
from darts_core.report.svg import number
from darts_core.report.tables import cost_text
from darts_core.report.version_tree import version_tree
from darts_core.runlog import read_jsonl
from darts_core.store.jobs import Store
from darts_core.store.version import Version
from darts_core.study.importance import Shares, importance, row_importance
from darts_core.study.results import Row, figure, objectives, read_rows

__all__ = ["Curves", "Search", "read_search", "script_content"]

Curves = Callable[[Sequence[Row], str], Mapping[str, Sequence[tuple[int, float]]]]


@dataclass(frozen=True)
class Search:
    """All that is known of a search of a user's script, read once for every section.

    `curves` holds the first objective at each iteration by trial id, `shares` the importance by setting.
    """

    version: Version
    details: Mapping[str, Any]
    rows: Sequence[Row]
    goals: Sequence[Mapping[str, Any]]
    shares: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)

    @property
    def found(self) -> Mapping[str, Any]:
        """Best trial, gain, verdict, cost; empty before the search was prepared."""
        return self.details["summary"] or {}


def read_search(
    version: Version, curves: Curves | None = None, shares: Shares = importance
) -> Search:
    """Read a version's folder (see `darts_core.report.versions.content_of`)."""
    details = version_details(version)
    rows = read_rows(version.path)
    goals = objectives(version.path) if details["summary"] is not None else []
    weights = row_importance(rows, goals, by=shares) if goals else {}
    found = curves(rows, goals[0]["metric"]) if curves is not None and goals else {}
    return Search(version, details, rows, goals, weights, found)


def script_content(search: Search, *, title: str | None = None) -> Content:
    """The page of a search: sections appear for what is there."""
    details, found = search.details, search.found
    samples = read_jsonl(search.version.path / "autosearch" / "resources.jsonl")
    sections: list[Section | None] = [
        state_section(details),
        pictures_section(
            search.rows, search.goals, found, search.curves, search.shares, pauses(samples)
        ),
        _network_section(found),
        trials_section(search.rows, search.goals),
        cost_section(found),
        resources_section(details, samples),
        _versions_section(search.version),
        log_section(details),
        settings_section(details),
        again_section(search.version, details),
    ]
    label = f"{details['job']} · {details['version']}"
    return Content(
        title=_headline(details, found),
        crumb=" · ".join(
            w for w in (title or label, details["state"], details["description"]) if w
        ),
        lead=_lead(details, found),
        sections=[section for section in sections if section is not None],
        tiles=_tiles(found),
    )


def _network_section(found: Mapping[str, Any]) -> Section | None:
    body = network_card(found.get("best"), found.get("baseline"))
    note = (
        "What the pick is made of, beside your own configuration. A block is as tall as it has channels, "
        "compared within its row; a colour is a stage."
    )
    return Section("architecture", "Architecture", body, note) if body else None


def _versions_section(version: Version) -> Section | None:
    """The job's versions as a tree, where there are several or one was described."""
    rows = list(version_rows(Store(version.path.parent.parent), version.job))
    drawn = version_tree(rows, here=version.name)
    return Section("versions", "Versions", card(drawn)) if drawn else None


def _headline(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What was won, or how far the search is."""
    for metric, sides in found.get("test", {}).items():
        if "best" in sides:
            words = metric.replace("_", " ")
            shown = f"{words[:1].upper()}{words[1:]} {_spread(sides['best'])}"
            if "baseline" in sides:
                shown += f", {_spread(sides['baseline'])} with your own configuration"
            return shown
    better = [item for item in found.get("gain", ()) if item["better"]]
    if better:
        item = better[0]
        name, best, own = str(item["metric"]), figure(item["best"]), figure(item["baseline"])
        return f"{name.replace('_', ' ')} {best} against {own} with your own configuration"
    if found.get("gain") and details["state"] == "succeeded":
        return "No gain over your own configuration is shown"
    ended = sum(found.get("trials", {}).get(s, 0) for s in ("done", "stopped", "failed"))
    trials = f"{ended} trial{'' if ended == 1 else 's'}"
    words = {
        "queued": "Waiting for its device",
        "running": f"Searching: {trials} ended",
        "failed": "The search failed",
        "stopped": f"Stopped after {trials}",
        "interrupted": f"Interrupted after {trials}",
    }
    return words.get(details["state"], f"{details['state']}: {trials}")


def _spread(side: Mapping[str, Any]) -> str:
    """Mean, spread and number of seeds."""
    std = f" ± {number(side['std'])}" if side["std"] is not None else ""
    return f"{number(side['mean'], 4)}{std} (n={side['n']})"


def _lead(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if found:
        return f"{found['verdict']} Cost: {cost_text(found['cost'])}."
    return str(details["message"] or "The search has not been prepared yet.")


def _tiles(found: Mapping[str, Any]) -> Markup:
    """The figures at the top: each objective's best, trials, cost."""
    tiles = []
    for goal in found.get("objectives", ()):
        metric = goal["metric"]
        gain = next((g for g in found["gain"] if g["metric"] == metric), None)
        best = (found["best"] or {}).get("values", {}).get(metric)
        if not isinstance(best, (int, float)):
            continue
        versus = f"yours {figure(gain['baseline'])}, {gain['verdict']}" if gain else ""
        shown = figure(gain["best"]) if gain else f"{best:.4g}"
        seeds = (
            f"best, over {(n := gain['best']['n'])} fresh seed{'s' if n > 1 else ''}"
            if gain and gain["fresh_seeds"]
            else "best"
        )
        tone = "good" if gain and gain["better"] else ""
        tiles.append(
            _tile(shown, unit(metric), f"{seeds}: {metric.replace('_', ' ')}", versus, tone)
        )
    counts = found.get("trials", {})
    if counts:
        rest = ", ".join(f"{n} {state}" for state, n in counts.items() if n and state != "done")
        tiles.append(_tile(str(counts.get("done", 0)), "", "trials done", rest, ""))
        spent = found["cost"]["search"]
        if spent["trainings"] is not None:
            tiles.append(_tile(f"{spent['trainings']:.2f}", "×", "one training of yours", "", ""))
    return render("tiles", tiles=tiles) if tiles else Markup()


def _tile(number: str, unit: str, what: str, versus: str, tone: str) -> dict[str, str]:
    return {"number": number, "unit": unit, "what": what, "versus": versus, "tone": tone}
