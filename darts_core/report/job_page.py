"""The page of a version that searched a user's script: self-contained, all text escaped, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.report.blocks import duration
from darts_core.report.html import Markup, render
from darts_core.report.metric_units import unit
from darts_core.report.page import page
from darts_core.report.search_sections import search_sections
from darts_core.report.search_view import Search
from darts_core.report.svg import number
from darts_core.runlog import write_text
from darts_core.store.record import LIVE

__all__ = ["headline", "render_search", "write_page"]


def headline(search: Search) -> tuple[str, str]:
    """The title, with the test accuracy where there is one, and the sentence under it."""
    details, found = search.details, search.found
    name = f"{details['job']}/{details['version']}"
    if not found:
        return f"{name}: {details['state']}", details["message"] or ""
    for metric, sides in found["test"].items():
        if "best" in sides:
            own = f"; yours {_stats(sides['baseline'])}" if "baseline" in sides else ""
            words = metric.replace("_", " ")
            return f"{words[:1].upper()}{words[1:]} {_stats(sides['best'])}{own}", found["verdict"]
    best = found["best"]
    if best is None:
        return f"{name}: {details['state']}", found["verdict"]
    goal = search.goals[0]["metric"]
    return f"{goal} {_figure(best['values'].get(goal), goal)} ({details['state']})", found[
        "verdict"
    ]


def _stats(item: Mapping[str, Any]) -> str:
    """Mean, spread and number of a metric."""
    std = f" ± {number(item['std'])}" if item["n"] > 1 and item["std"] is not None else ""
    return f"{number(item['mean'], 4)}{std} (n={item['n']})"


def _figure(value: Any, metric: str) -> str:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{number(float(value), 4)} {unit(metric)}".strip() if known else "–"


def _tile(value: str, what: str, versus: str = "", tone: str = "") -> dict[str, str]:
    shown, _, measure = value.partition(" ")
    return {"number": shown, "unit": measure, "what": what, "versus": versus, "tone": tone}


def _tiles(search: Search) -> Markup:
    """Each objective of the pick against the user's own, cost, trials."""
    found = search.found
    if not found:
        return Markup()
    parts = []
    for item in found["gain"]:
        metric, best, own = item["metric"], item["best"], item["baseline"]
        seeds = f"{metric.replace('_', ' ')}, {best['n']} seed{'s' if best['n'] > 1 else ''}"
        words = item.get("verdict") or ""
        tone = {"better": "good", "worse": "warn"}.get(words, "")
        versus = f"yours {_figure(own['mean'], metric)}" + (f": {words}" if words else "")
        parts.append(_tile(_figure(best["mean"], metric), seeds, versus, tone))
    cost = found["cost"]["search"]
    if cost["trainings"] is not None:
        parts.append(_tile(f"{number(cost['trainings'])} ×", "your training: cost of the search"))
    parts.append(_tile(duration(cost["seconds"]), "spent on the search"))
    states = ", ".join(f"{n} {state}" for state, n in found["trials"].items() if n)
    parts.append(_tile(str(sum(found["trials"].values())), "trials", states))
    return render("tiles", tiles=parts)


def render_search(search: Search, versions: Sequence[Mapping[str, Any]] = ()) -> str:
    """The page as HTML text."""
    details = search.details
    title, lead = headline(search)
    crumb = [f"{details['job']} · {details['version']} · {details['state']}"]
    crumb += [str(details["description"])] if details["description"] else []
    if details["state"] in LIVE and details["message"]:
        crumb.append(str(details["message"]))
    return page(
        title=title,
        crumb=" · ".join(crumb),
        lead=lead,
        tiles=_tiles(search),
        sections=search_sections(search, versions),
    )


def write_page(path: Path, search: Search, versions: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the page of a version.

    Args:
        path: the file.
        search: what was found so far.
        versions: all versions of the job, as `version_rows` gives them.
    """
    write_text(path, render_search(search, versions))
