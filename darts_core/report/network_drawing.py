"""The architecture that a search of a script found, drawn beside the user's own.

Backbone codes and shapes are rows of blocks, a block as tall as it is wide in channels; choices inside a
module are rows of options with the chosen one filled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darts_core.errors import DartsError
from darts_core.reading import read_json
from darts_core.report.blocks import card, count_text, details, plain_table
from darts_core.report.html import Markup, render
from darts_core.report.svg import drawing, line, rect, text, text_width

__all__ = ["backbone_stages", "choices_drawing", "network_card", "stages_drawing"]

_CODE = re.compile(r"[12]{1,200}(-[12]{1,200}){0,15}")
_SHAPE = re.compile(r"\d{1,3}x\d{1,5}(-\d{1,3}x\d{1,5}){0,15}")
_MOST_BLOCKS, _MOST_CHOICES, _WIDTH = 200, 1000, 1060
_FAMILY = ("sep", "conv", "skip", "pool", "dil", "other")


def backbone_stages(value: Any) -> list[list[float]] | None:
    """The relative widths of the blocks of each stage; None for what is no backbone's code or shape."""
    if not isinstance(value, str):
        return None
    if _SHAPE.fullmatch(value):
        pairs = [part.split("x") for part in value.split("-")]
        stages = [[float(width)] * min(int(count), _MOST_BLOCKS) for count, width in pairs]
    elif _CODE.fullmatch(value):
        width, stages = 1.0, []
        for part in value.split("-"):
            stages.append([width := width * (2 if digit == "2" else 1) for digit in part])
    else:
        return None
    blocks = sum(len(stage) for stage in stages)
    return stages if 0 < blocks <= _MOST_BLOCKS and all(all(stage) for stage in stages) else None


def stages_drawing(networks: Mapping[str, str]) -> Markup:
    """Backbones below each other: one row a network, one box a block, a colour a stage.

    A code says how widths grow, a shape says them: heights compare within a row of one kind.
    """
    known = {name: s for name, value in networks.items() if (s := backbone_stages(value))}
    if not known:
        return Markup()
    most = max(sum(len(stage) for stage in stages) + len(stages) for stages in known.values())
    left = max(text_width(name, 12) for name in known) + 24
    step = min((_WIDTH - left - 10) / most, 34.0)
    body, top = [], 8.0
    for name, stages in known.items():
        tallest = max(max(stage) for stage in stages)
        base = top + 74
        body.append(text(left - 12, base - 8, name, class_="bar-label end"))
        x = left
        for index, stage in enumerate(stages):
            for block in stage:
                tall = 14 + 56 * math.log2(1 + block) / math.log2(1 + tallest)
                tip = f"{name}, stage {index + 1}: {len(stage)} blocks, width {block:g}"
                body.append(rect(x, base - tall, step - 3, tall, rx=3, tip=tip,
                                 class_=f"fill-{_FAMILY[index % len(_FAMILY)]}"))  # fmt: skip
                x += step
            x += step
        body.append(line(left, base + 1, x - step, base + 1, class_="axis"))
        body.append(text(left, base + 17, networks[name], class_="tick"))
        top = base + 28
    return drawing(_WIDTH, top, "".join(body), label="The found backbone beside yours")


def choices_drawing(choices: Mapping[str, Any]) -> Markup:
    """Each choice, `{"options": [...], "chosen": ...}` by label, as a row of options, one filled."""
    rows = []
    for label, item in list(choices.items())[:_MOST_CHOICES]:
        options = item.get("options") if isinstance(item, Mapping) else None
        if isinstance(options, list) and options:
            rows.append((str(label), [str(o) for o in options], str(item.get("chosen"))))
    if not rows:
        return Markup()
    left = min(max(text_width(label, 12) for label, _, _ in rows), _WIDTH * 0.4) + 24
    body, y = [], 6.0
    for label, options, chosen in rows:
        x = left
        body.append(text(left - 12, y + 15, label, class_="bar-label end"))
        for option in options:
            wide = text_width(option, 12) + 18
            # any of them may be the chosen one: what has no room stands in the next line
            if x > left and x + wide > _WIDTH:
                x, y = left, y + 26.0
            look = "fill-searched" if option == chosen else "hollow s-none"
            body.append(rect(x, y, wide, 22, rx=6, class_=look, tip=f"{label}: {option}"))
            mark = "state-text t-paper" if option == chosen else "tick mid"
            body.append(text(x + wide / 2, y + 15.5, option, class_=mark))
            x += wide + 8
        y += 30.0
    return drawing(_WIDTH, y, "".join(body), label="What was chosen in the network")


def _kept(row: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What a trial noted of the network that it built."""
    if row is None or not row.get("folder"):
        return {}
    try:
        content = read_json(Path(str(row["folder"])) / "network.json")
    except DartsError:
        return {}
    return content if isinstance(content, dict) else {}


def _choices(kept: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The choices of a network with their options; older notes know the chosen alone."""
    found = kept.get("choices")
    if isinstance(found, dict):
        return found
    value = row["config"].get(kept.get("searchable"))
    try:
        content = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    content = content if isinstance(content, dict) else {}
    return {label: {"options": [option], "chosen": option} for label, option in content.items()}


def network_card(best: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> Markup:
    """The best trial's network beside the user's own, "" where neither says what it built."""
    if best is None:
        return Markup()
    names: Sequence[tuple[str, Mapping[str, Any] | None]] = (("the pick", best), ("yours", own))
    body = Markup()
    for setting, value in best["config"].items():
        if backbone_stages(value):
            known = {name: row["config"].get(setting) for name, row in names if row is not None}
            body += stages_drawing({name: v for name, v in known.items() if isinstance(v, str)})
    kept, yours = _kept(best), _kept(own)
    body += choices_drawing(_choices(kept, best))
    sizes = {
        name: count_text(found["parameters"])
        for name, found in (("parameters of the pick", kept), ("parameters of yours", yours))
        if isinstance(found.get("parameters"), int)
    }
    if sizes:
        body += plain_table(sizes)
    if isinstance(kept.get("text"), str):
        body += details("The network as text", render("log", text=kept["text"]))
    return card(body)
