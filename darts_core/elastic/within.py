"""Sub-networks that meet their budgets as measured: one that does not gives way to a faster one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from darts_core import runlog
from darts_core.elastic.archive import Judged
from darts_core.elastic.choose import budgets_of
from darts_core.elastic.shrink import Family
from darts_core.latency import Timing

__all__ = ["Measured", "measure_chosen", "taken_alike"]

log = logging.getLogger("darts_core")
_TRIES = 8
Clock = Callable[[nn.Module], Timing]


@dataclass(frozen=True)
class Measured:
    """A sub-network for a budget.

    Attributes:
        found: the sub-network.
        timing: its time, end to end.
        budget_ms: what was allowed.
        within: whether the median meets it; None where no budget was asked for.
    """

    found: Judged
    timing: Timing
    budget_ms: float
    within: bool | None = None


def taken_alike(saved: Mapping[str, Any], first: Timing) -> bool:
    """Whether a saved time is of `first`'s device, runtime, batch, threads and versions, where it tells."""
    return all(
        saved.get(key) in (None, {}, getattr(first, key))
        for key in ("device", "runtime", "batch", "threads", "versions")
    )


def measure_chosen(
    family: Family,
    clock: Clock,
    first: Timing,
    path: Path,
    wanted: Sequence[str] = (),
) -> list[Measured]:
    """The sub-networks of the front with their times, the largest budget first; none of them twice.

    A table predicts; where budgets were asked for, what counts is the measured median. A sub-network
    above its budget gives way to the best judged one that should take as much less, which is measured
    again. Where none meets it, the fastest that was measured stands for it, and the log says so.

    Args:
        family: trained and chosen.
        clock: times a plain network.
        first: the given network's time by that clock, which budgets in percent are of; kept times of another
            device, form or version are taken anew.
        path: keeps the times, so that an interrupted command measures none twice.
        wanted: budgets as they were asked for; none where they were spread evenly.
    """
    known, given_ms = _kept(path, first), first.median_ms

    def timed(found: Judged) -> Timing:
        key = ",".join(str(value) for value in found.choices.values())
        if key not in known:
            known[key] = clock(family.member(found.choices))
            runlog.write_json(path, {name: row.to_dict() for name, row in known.items()})
        return known[key]

    limits = budgets_of(0.0, given_ms, wanted, 0) if wanted else family.chosen.budgets_ms
    rows = []
    for found, limit in zip(family.chosen.rows, limits, strict=True):
        if wanted:
            rows.append(_within(family, found, limit, given_ms, timed))
        else:
            rows.append(Measured(found, timed(found), limit))
    # one that serves several budgets stands for the tightest
    points = list({tuple(row.found.choices.values()): row for row in rows}.values())
    if len(points) < len(rows):
        log.info(
            "%d budgets, %d points: some are served best by the same sub-network",
            len(rows),
            len(points),
        )
    return points


def _kept(path: Path, first: Timing) -> dict[str, Timing]:
    rows = dict(runlog.read_mapping(path)) if path.is_file() else {}
    fitting = {key: Timing.from_dict(row) for key, row in rows.items() if taken_alike(row, first)}
    if len(fitting) < len(rows):
        log.warning(
            "%s holds times of another device, form or version of torch; these sub-networks are measured "
            "anew",
            path,
        )
    return fitting


def _within(
    family: Family,
    found: Judged,
    limit_ms: float,
    given_ms: float,
    timed: Callable[[Judged], Timing],
) -> Measured:
    tried: list[tuple[Judged, Timing]] = []
    while len(tried) < _TRIES:
        timing = timed(found)
        tried.append((found, timing))
        # the whole network is the given one, whatever the clock says of it now
        same = found.choices == family.net.largest and limit_ms >= given_ms
        if timing.median_ms <= limit_ms or same:
            return Measured(found, timing, limit_ms, True)
        log.info(
            "%.3f ms measured for a budget of %.3f ms (predicted %.3f): a faster sub-network is tried",
            timing.median_ms, limit_ms, found.predicted_ms,
        )  # fmt: skip
        smaller = _faster(family, found, limit_ms / timing.median_ms)
        if smaller is None:
            break
        found = smaller
    fastest, timing = min(tried, key=lambda pair: pair[1].median_ms)
    log.warning(
        "no sub-network was measured within %.3f ms; the fastest of %d tried takes %.3f ms and stands for it",
        limit_ms, len(tried), timing.median_ms,
    )  # fmt: skip
    return Measured(fastest, timing, limit_ms, False)


def _faster(family: Family, found: Judged, ratio: float) -> Judged | None:
    """The best judged one of at most `ratio` of the predicted time; the smallest where none is."""
    archive = family.archive
    able = archive.best(ratio * found.predicted_ms)
    if able:
        return able[0]
    if found.choices == family.net.smallest:
        return None
    return archive(family.net.smallest, "smallest")
