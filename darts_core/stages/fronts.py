"""Pictures of a sweep: what each element of a multirun found, in one accuracy-against-cost front."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.bench.results import slug
from darts_core.errors import DartsError
from darts_core.metric import metric_of
from darts_core.report import ModelRow, front_png, scatter_png
from darts_core.report.read import read_rows
from darts_core.runlog import read_mapping, read_yaml
from darts_core.store.record import RECORD

__all__ = ["draw_together", "is_element", "run_front", "search_front"]

log = logging.getLogger("darts_core")
# what decides how a baseline is trained, and what of its study does not
_DECIDES = ("architecture", "data", "task", "augment", "train", "seed", "tune")
_BY_THE_WAY = ("device_seconds", "workers", "options")


def is_element(folder: Path) -> bool:
    """Whether `folder` is an element of a multirun; a version may bear a number for its name, too."""
    return folder.name.isdigit() and not (folder / RECORD).is_file()


def _elements(folder: Path) -> list[Path]:
    """The elements of the multirun that `folder` is one of; none elsewhere."""
    if not is_element(folder):
        return []
    return sorted(
        (p for p in folder.parent.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
    )


def search_front(folder: Path) -> Path | None:
    """After a search in an element of a multirun: cost and val metric of all that have ended.

    The metric is the supernet's, as found networks are not trained by a search.
    """
    points = []
    for element in _elements(folder.parent):
        path = element / "search" / "result.json"
        result: Mapping[str, Any] = read_mapping(path) if path.is_file() else {}
        cost = result.get("cost") or {}
        metric = metric_of(result)
        value = result.get(f"val_{metric.name}")
        if cost and value is not None:
            key = f"expected {cost['unit']} of the network found"
            name = f"budget {cost['budget']:g}" if cost["budget"] is not None else element.name
            y = f"supernet's val {metric.words}" + (", %" if metric.share else "")
            better = "min" if metric.direction == "minimize" else "max"
            points.append(
                {"name": name, key: cost["found"], y: 100 * value if metric.share else value}
            )
    if len(points) < 2:
        return None
    (x,) = {key for key in points[-1] if key.startswith("expected")}
    picture = scatter_png(
        points, folder.parent.parent / "search_front.png", x=x, y=y,
        y_direction=better, title="a search for each budget",
    )  # fmt: skip
    log.info("front of the sweep: %s", picture)
    return picture


def _baseline_of(element: Path) -> Any:
    """The settings that an element's baseline was tuned and trained with; None where they are not known."""
    try:
        found = read_yaml(element / "baseline" / "tune" / "config.yaml")
    except DartsError:
        return None
    if not isinstance(found, Mapping):
        return None
    kept = {key: found.get(key) for key in _DECIDES}
    study = kept["tune"]
    if isinstance(study, Mapping):
        kept["tune"] = {key: v for key, v in study.items() if key not in _BY_THE_WAY}
    return kept


def _in_the_sweep(row: ModelRow, element: Path, taken: set[str]) -> ModelRow:
    """`row` under the name that it has among the rows of all elements."""
    plain = row.baseline and row.name not in taken
    return row if plain else replace(row, name=f"{row.name} {element.name}")


def draw_together(rows: Sequence[ModelRow], version: Path) -> Path | None:
    """The rows of all elements as `models.png`; of several devices a picture each, `models_<device>.png`.

    Returns:
        the one picture; None where there is none, and none stays from when fewer elements had ended.
    """
    path = version / "models.png"
    devices = dict.fromkeys(row.device for row in rows)
    if len(devices) > 1:
        path.unlink(missing_ok=True)
        for device in devices:
            own = [row for row in rows if row.device == device]
            _draw(own, version / f"models_{slug(device)}.png")
        return None
    return _draw(rows, path)


def _draw(rows: Sequence[ModelRow], path: Path) -> Path | None:
    try:
        return front_png(rows, path)
    except DartsError as error:
        path.unlink(missing_ok=True)
        log.warning("no picture %s: %s", path.name, error)
        return None


def run_front(version: Path) -> Path | None:
    """After `run` in an element of a multirun: measured rows of all elements in one picture.

    A baseline that several elements trained alike is drawn once on a device.
    """
    rows: list[ModelRow] = []
    drawn: list[Any] = []
    for element in _elements(version):
        path = element / "bench" / "results.json"
        if not path.is_file():
            continue
        try:
            found = read_rows(path)
        except DartsError as error:
            log.warning("left out: %s", error)
            continue
        names = {(row.name, row.device) for row in found if row.baseline}
        baseline = (names, _baseline_of(element))
        taken, again = {row.name for row in rows}, baseline in drawn
        drawn.append(baseline)
        rows += [
            _in_the_sweep(row, element, taken) for row in found if not (again and row.baseline)
        ]
    picture = draw_together(rows, version.parent) if rows else None
    if picture is not None:
        log.info("front of the sweep: %s", picture)
    return picture
