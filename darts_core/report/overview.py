"""Sections about the run as a whole: cost, guards, environment, how to do it again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from darts_core.report.blocks import (
    Section,
    callout,
    card,
    details,
    duration,
    pair,
    plain_table,
    value_text,
)
from darts_core.report.charts import Bar, Line, bars, line_chart
from darts_core.report.html import Markup, render
from darts_core.report.read import VersionRun, series
from darts_core.report.rows import finite
from darts_core.report.svg import number

__all__ = ["cost_section", "costs", "environment_section", "guards_section", "spent"]

_COLORS = {
    "search": "sep",
    "searched": "conv",
    "train": "conv",
    "tune": "pool",
    "prune": "dil",
    "shrink": "dil",
}


def costs(run: VersionRun) -> tuple[dict[str, float], float | None]:
    """Device seconds of each stage, and of one training: of the final architecture or the given network.

    The baseline's own tuning and training are not part of the price of the result. The second value
    is None when no training is known, so that nothing can be stated as its multiple.
    """
    seconds = {}
    for name, stage in (*run.stages.items(), *run.extras.items()):
        value = stage.number("device_seconds")
        if value is not None and value >= 0 and not name.startswith("baseline"):
            seconds[name] = value
    made, tuned = ("shrink", "prune"), ("tune", "train")
    steps = (*tuned, *made) if run.reduced is None else (*made, *tuned)
    order = ("search", "searched", *steps, "export", "bench")
    seconds = {name: seconds[name] for name in order if name in seconds}
    unit = seconds.get("train") or _given(run)
    return seconds, unit if unit and unit > 0 else None


def _given(run: VersionRun) -> float | None:
    """Device seconds of the training, in another version, of the network that was shrunk or pruned here."""
    known = (stage.number("given_training_seconds") for stage in run.stages.values())
    return next((seconds for seconds in known if seconds), None)


def spent(run: VersionRun) -> float:
    """Device seconds of all stages, as `costs` counts them."""
    return sum(costs(run)[0].values())


def total_cost(run: VersionRun) -> float | None:
    """Device time of all stages as a multiple of one training, or None."""
    seconds, unit = costs(run)
    return sum(seconds.values()) / unit if unit else None


def cost_section(run: VersionRun) -> Section | None:
    """Each stage's device time, as time and as a multiple of one training."""
    seconds, unit = costs(run)
    if not seconds:
        return None
    items = []
    for name, value in seconds.items():
        multiple = f"{number(value / unit, 2)} × one training, " if unit else ""
        label = "train, untuned" if name == "searched" else name
        items.append(Bar(label, value, _COLORS.get(name, "other"), multiple + duration(value)))
    total = sum(seconds.values())
    if unit:
        whose = "final architecture" if "train" in seconds else "given network"
        note = (
            f"Together {number(total / unit, 2)} times the device time of training the {whose} once "
            f"({duration(unit)})."
        )
    else:
        note = f"Together {duration(total)}; no training has finished to compare with."
    rival = sum(
        stage.number("device_seconds") or 0.0
        for name, stage in run.extras.items()
        if name.startswith("baseline")
    )
    if rival:
        note += f" The baseline's own tuning and training took {duration(rival)} beside that."
    body = card(bars(items, title="Device time of each stage", width=1060, row=34))
    return Section("cost", "Cost", body, note)


def _line(name: object, message: object, after: str = ": ") -> Markup:
    """Who says what, as HTML; `after` stands between them."""
    return render("said", name=name, message=message, after=after)


def _guard(item: Any, stage: str) -> tuple[bool, Markup]:
    """Whether a guard fired, and its line."""
    if not isinstance(item, Mapping):
        return True, _line(stage, item)
    fired = bool(item.get("fired", True))
    name = item.get("guard", item.get("name", "guard"))
    message = item.get("message", item.get("reason"))
    if not message:
        rest = {k: v for k, v in item.items() if k not in ("guard", "name", "fired")}
        message = value_text(rest)
    epoch = finite(item.get("epoch"))
    when = f" (epoch {number(epoch)})" if epoch is not None else ""
    return fired, _line(name, message, f"{when}: ")


def _quiet_guards(run: VersionRun) -> list[Markup]:
    """The guards that the search had and that its result does not mention."""
    stage = run.stages.get("search")
    names = stage.setting("search", "guards") if stage is not None else None
    found = stage.result.get("guards") if stage is not None else None
    if stage is None or not stage.finished or not isinstance(names, Mapping):
        return []
    told = {str(item.get("guard")) for item in found if isinstance(item, Mapping)} if isinstance(
        found, list) else set()  # fmt: skip
    quiet = [str(name) for name, node in names.items() if node and str(name) not in told]
    return [_line(name, "watched the search and did not fire", " ") for name in quiet]


def _measurements(run: VersionRun) -> Markup:
    """What the guards measured after each epoch, one small picture a guard."""
    stage = run.stages.get("search")
    rows = stage.metrics if stage is not None else ()
    names = list(
        dict.fromkeys(str(key) for row in rows for key in row if str(key).startswith("guard/"))
    )
    pictures = []
    for name in names[:6]:
        points, label = series(rows, name), name.removeprefix("guard/").replace("_", " ")
        drawn = line_chart([Line("", points, "sep", dots=len(points) < 30)], x_label="epoch",
                           y_label=label, title=label, height=210)  # fmt: skip
        pictures.append(card(drawn, title=label))
    return pair(*pictures)


def guards_section(run: VersionRun) -> Section | None:
    """Guards that watched the search, warnings of any stage, unfinished or damaged stages."""
    fired: list[Markup] = []
    quiet: list[Markup] = []
    for name, stage in run.stages.items():
        for key in ("doubt", "guards", "warnings", "note"):
            found = stage.result.get(key)
            if isinstance(found, str):
                found = [{"name": name, "message": found}] if found else []
            if isinstance(found, Mapping):
                found = [{"name": k, **v} if isinstance(v, Mapping) else {"name": k, "value": v}
                         for k, v in found.items()]  # fmt: skip
            for item in found if isinstance(found, list) else ():
                alarm, line = _guard(item, name)
                if key == "doubt":
                    line = Markup("<b>The architecture of this search is doubtful.</b> ") + line
                (fired if alarm else quiet).append(line)
        if not stage.finished:
            fired.append(_line(name, "has not finished; its part of the page may grow.", " "))
    if run.reduced is not None and run.reduced.said:
        fired.append(_line(run.reduced.stage, run.reduced.said))
    fired += [_line("", problem) for problem in run.problems]
    quiet += _quiet_guards(run)
    drawn = _measurements(run)
    if not fired and not quiet and not drawn:
        return None
    body = Markup()
    if fired:
        body += callout(render("list", head="Worth a look", lines=fired))
    if quiet:
        body += callout(render("list", head="Watched and quiet", lines=quiet), "ok")
    return Section("guards", "Guards and warnings", body + drawn)


_SECRET = re.compile(r"(password|passwd|secret|token|api_?key|credential)s?", re.I)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """A configuration as `a.b.c` -> value; values under secret-looking names are not shown."""
    items: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            items += _flat(value, f"{name}.")
        else:
            items.append((name, "(hidden)" if _SECRET.search(str(key)) else value))
    return items


def environment_section(run: VersionRun) -> Section:
    """Commands to do it again, versions and hardware, and every setting of every stage."""
    lines = run.commands or tuple(
        f"darts-core {name} job={run.job} version={run.version}" for name in run.stages
    )
    body = render("commands", text="\n".join(lines))
    environment = run.last.environment
    packages = environment.get("packages")
    facts = {key: value for key, value in environment.items() if key != "packages"}
    body += pair(
        card(plain_table(facts), title="Machine"),
        card(plain_table(packages if isinstance(packages, Mapping) else {}), title="Packages"),
    )
    for name, stage in run.stages.items():
        if stage.config:
            body += details(f"Settings of {name}", card(plain_table(_flat(stage.config))))
    return Section("again", "How to do it again", body)
