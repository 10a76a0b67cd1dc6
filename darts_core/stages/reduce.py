"""Of `run`: the found network is pruned or shrunk before it is tuned: tuning is spent on what is shipped.

A version that an older program began to tune before pruning goes on in that order.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from darts_core.errors import (
    ExportError,
    LatencyError,
    NonFiniteLossError,
    NotInstalledError,
    PruneError,
)
from darts_core.metric import metric_of
from darts_core.report.reduced import Reduced, read_reduced, write_reduced
from darts_core.runlog import read_yaml
from darts_core.settings import Prune, Shrink
from darts_core.stages.prune import prune
from darts_core.stages.schema import Pipeline, PruneStage, ShrinkStage
from darts_core.stages.shrink import shrink

__all__ = ["reduced", "ships", "tuned_first", "what_it_lost"]

Reducing = TypeVar("Reducing", Prune, Shrink)
log = logging.getLogger("darts_core")
# of the network's time, left where what is aimed at is far off
_MOST_PRUNED = 0.5
_WHOLE = "the network before it is tuned and shipped"
_ROUNDING = 1e-9


def tuned_first(version: Path) -> bool:
    """Whether an older program tuned the whole network here before it was to be reduced."""
    return (version / "tune" / "config.yaml").is_file() and read_reduced(version) is None


def ships(
    config: Pipeline, found: Mapping[str, Mapping[str, Any]], version: Path
) -> tuple[str | None, dict[str, Any]]:
    """(the stage whose network is tuned, None for the architecture itself; {stage: result} of reducing).

    A network that lost more than `may_lose` of val is left where it is, and the whole one goes on: a fast
    network that does not do its task is of no use.
    """
    stage, said, kept = config.reduce, "", read_reduced(version)
    if kept is not None and kept.said and kept.stage == stage and not (version / stage).exists():
        # timed again, what was out of reach may seem within it; what was tuned since is of the whole network
        log.warning("%s", kept.said)
        return None, {}
    try:
        result = reduced(config, found["search"], version, model="searched")
    except PruneError as error:
        if stage != "prune" or config.prune.budget is not None:
            raise PruneError(f"{error} {_kept_words(stage, version)}") from error
        # what is only aimed at ends nothing
        shutil.rmtree(version / stage)
        result, said = {}, f"{error} So {_WHOLE}."
    except NotInstalledError:  # once it is there the same command goes on
        raise
    except (ExportError, LatencyError, NonFiniteLossError) as error:
        # with the settings that it asks for, `run` would search anew
        raise type(error)(f"{error} {_kept_words(stage, version)}") from error
    if result:
        said = what_it_lost(found["searched"], result[stage], stage, config.may_lose)
        said = f"{said}, so {_WHOLE}." if said else ""
    if said:
        log.warning("%s", said)
    if said or result:
        write_reduced(version, Reduced(stage, not said, said))
    return (stage if result and not said else None), result


def _kept_words(stage: str, version: Path) -> str:
    return (
        f"What was searched and trained is kept: with other settings, darts-core {stage} "
        f"model={version / 'searched'} goes on from it on the same data."
    )


def reduced(
    config: Pipeline, search: Mapping[str, Any], version: Path, model: str | None = None
) -> dict[str, Any]:
    """The trained network pruned or shrunk, {stage: result}: no further than the search aimed at.

    It is timed as the search timed its networks, unless the stage's own settings say otherwise.

    Nothing is pruned where the network found meets that already; where it is far off, pruning halves its
    time. What is set in `prune.budget` or `shrink.pick` is done in any case.

    Args:
        config: of the pipeline.
        search: result of the search.
        version: its folder.
        model: the stage that left the trained network; None: `train`.

    Raises:
        PruneError: the budget is below the fastest that pruning can reach.
    """
    aim = search.get("aim") or {}
    budget, taken = aim.get("budget_ms"), aim.get("found_ms")
    if config.reduce == "shrink":
        if config.shrink.pick is None and budget is not None:
            shrunk, pick = _asked(config, config.shrink, budget, taken, version)
            config = replace(config, shrink=replace(shrunk, pick=pick))
        return {"shrink": shrink(config.part(ShrinkStage, model=model), version / "shrink")}
    if config.reduce != "prune":
        return {}
    if config.prune.budget is None and budget is not None and taken is not None:
        if aim["met"]:
            log.info(
                "nothing is pruned: the network found takes %.3g ms, %.3g ms are aimed at",
                taken,
                budget,
            )
            return {}
        ms = max(budget, _MOST_PRUNED * taken)
        pruned, wanted = _asked(config, config.prune, ms, taken, version)
        config = replace(config, prune=replace(pruned, budget=wanted))
    return {"prune": prune(config.part(PruneStage, model=model), version / "prune")}


def _asked(
    config: Pipeline, node: Reducing, ms: float, whole_ms: float | None, version: Path
) -> tuple[Reducing, str | None]:
    """(the node, timing as the search did; a budget of `ms` in its words).

    Where the node says itself how it times, milliseconds of the search are none of its own: it is asked for
    the same part of the network's time, or for nothing where that is not known.

    Args:
        config: of the pipeline.
        node: `prune` or `shrink`.
        ms: as the search timed networks.
        whole_ms: what the network found takes, likewise.
        version: its folder.
    """
    if _begun_in_ms(node, version / node.NODE):
        return node, f"{ms:.6g} ms"
    latency, options = config.latency, node.options
    whole = (latency.channels in (None, config.train.channels)) and (
        latency.layers in (None, config.train.layers)
    )
    alike = node.batch in (None, latency.batch) and options.runtime in (None, latency.runtime)
    if whole and alike and latency.precision == "fp32":
        timed: Any = replace(options, runtime=latency.runtime)
        return replace(node, batch=latency.batch, options=timed), f"{ms:.6g} ms"
    return node, None if whole_ms is None else f"{min(100.0, 100 * ms / whole_ms):.6g}%"


def _begun_in_ms(node: Prune | Shrink, folder: Path) -> bool:
    """Whether `folder` was begun with milliseconds and timed as `node` alone says: by an older program."""
    begun = folder / "config.yaml"
    known = (read_yaml(begun) or {}).get(node.NODE) if begun.is_file() else None
    if not known:
        return False
    asked = known.get("budget" if isinstance(node, Prune) else "pick")
    timed = known.get("batch"), (known.get("options") or {}).get("runtime")
    return str(asked).endswith(" ms") and timed == (node.batch, node.options.runtime)


def what_it_lost(
    before: Mapping[str, Any], after: Mapping[str, Any], stage: str, may_lose: float
) -> str:
    """What a network lost of val in `stage`, if that is more than `may_lose`, or no number; else "".

    How much may be lost is known of a metric that is a share alone.
    """
    metric = metric_of(after)
    key = f"val_{metric.name}"
    if key not in after or before.get(key) is None:
        return ""
    if after[key] is None:  # NaN, as files keep it: of outputs that are all alike, say
        return f"{stage} left a network whose val {metric.name} is no number"
    if not metric.share:
        return ""
    lost = metric.rating(float(before[key])) - metric.rating(float(after[key]))
    # decimals leave a rounding error: 0.8 - 0.7 is above 0.1
    if lost <= may_lose + _ROUNDING:
        return ""
    # of an error rate what is lost is added
    how = ("took", "of") if metric.direction == "maximize" else ("added", "to")
    told = f"{stage} {how[0]} {100 * lost:.1f} points {how[1]} val {metric.name}"
    return f"{told} (may_lose={may_lose:g})"
