"""The end of a search by finalists: who they are, and the one that their brief trainings choose."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.data import DataBundle
from darts_core.errors import ConfigError
from darts_core.latency.within import TOLERANCE, meets
from darts_core.runlog import read_json, write_json
from darts_core.search import Doubt, SearchResult
from darts_core.search.finalists import (
    PICK,
    Finalist,
    Limits,
    choose_pool,
    prior_of,
    shared_weights_of,
)
from darts_core.search.halving import Bracket, Halving, Standing
from darts_core.spaces import ChoiceSpace, SearchSpace
from darts_core.stages.finalist_training import Sizes, finalist_recipe, trained_elsewhere
from darts_core.stages.interrupt import check_stop, deferred_stop
from darts_core.stages.progress import progress_bar
from darts_core.stages.schema import SearchStage
from darts_core.stages.timing import Stopwatch, busy

__all__ = ["choose_among_finalists"]

log = logging.getLogger("darts_core")
# zero-cost proxies mislead on networks of one cell a stage
_LEAST_LAYERS = 3
_RANKED_ON = 4


def choose_among_finalists(
    config: SearchStage,
    found: SearchResult,
    space: SearchSpace,
    supernet: Any,
    bundle: DataBundle,
    penalties: Sequence[nn.Module],
    timer: Any,
    judge: Callable[[Architecture], list[Doubt]],
    folder: Path,
) -> tuple[SearchResult, dict[str, Any]]:
    """`found` with the architecture that wins among its finalists, and the facts for `result.json`.

    With `search.finalists=1` both are as they were. The trainings lie in `folder`, and so does the pool:
    a search that is called again goes on with the same finalists.

    Args:
        config: of the stage.
        found: what the search ended with, within its budget.
        space: of the architectures.
        supernet: as the search left it.
        bundle: without its test split.
        penalties: those of the search; the last one may have a budget.
        timer: of networks; None where the cost is a count.
        judge: what the guards say of an architecture.
        folder: of the trainings.

    Raises:
        NonFiniteLossError: all finalists diverged.
    """
    node = config.search
    if node.finalists == 1:
        return found, {}
    sizes = Sizes(config, bundle)
    pool, choosing = _pool(
        folder / "pool.json",
        lambda: _choose(config, found, space, supernet, sizes, penalties, timer, judge),
        lambda: busy(bundle.device, timer),
    )
    # one alone decides where it is another than the pick, which then is doubted or too dear
    if [finalist.source for finalist in pool] in ([], [PICK]):
        log.warning("there are no finalists beside the pick of the alphas")
        return replace(found, seconds=found.seconds + choosing), {}
    with progress_bar("finalists") as progress, deferred_stop():
        bracket = Halving(
            sizes.make,
            bundle,
            finalist_recipe(config, bundle),
            seeds=node.finalist_seeds,
            seed=config.seed,
            folder=folder,
            on_epoch=check_stop,
            progress=progress,
            ahead=trained_elsewhere(config, folder),
        )(pool)
    best = pool[bracket.winner]
    facts, metric = _facts(bracket, choosing), bundle.task.metric
    log.info(
        "of %d finalists the one from %s wins, val %s after %d epochs (mean of %d); %.1f s in all",
        len(pool), best.source, metric.text(facts[f"val_{metric.name}"]), bracket.rungs[-1],
        bracket.seeds, facts["device_seconds"],
    )  # fmt: skip
    if best.architecture != found.architecture:
        found = replace(
            found, architecture=best.architecture, doubts=judge(best.architecture), epoch=None
        )
    found = replace(found, seconds=found.seconds + facts["device_seconds"])
    return found, {"finalists": facts, "warnings": _warnings(bracket.standings)}


def _warnings(standings: Sequence[Standing]) -> list[dict[str, str]]:
    """A warning that names the finalists which diverged, if any did."""
    lost = [
        f"no. {standing.place + 1}, from {standing.finalist.source}: {standing.diverged}"
        for standing in standings
        if standing.diverged is not None
    ]
    if not lost:
        return []
    message = (
        f"{len(lost)} of {len(standings)} finalists diverged and were left out: {'; '.join(lost)}."
    )
    return [{"name": "finalists", "message": message}]


def _pool(
    path: Path,
    choose: Callable[[], list[Finalist]],
    clock: Callable[[], AbstractContextManager[Stopwatch]],
) -> tuple[list[Finalist], float]:
    """(the pool in `path`, or what `choose` gives, written there; device seconds of choosing it)."""
    if path.is_file():
        known = read_json(path)
        pool = [
            Finalist(Architecture.from_dict(r["architecture"]), r["source"], r["cost"])
            for r in known["finalists"]
        ]
        return pool, float(known.get("device_seconds", 0.0))
    with clock() as watch:
        pool = choose()
    rows = [{**asdict(f), "architecture": f.architecture.to_dict()} for f in pool]
    write_json(path, {"schema_version": 1, "device_seconds": watch.seconds, "finalists": rows})
    return pool, watch.seconds


def _choose(
    config: SearchStage,
    found: SearchResult,
    space: SearchSpace,
    supernet: Any,
    sizes: Sizes,
    penalties: Sequence[nn.Module],
    timer: Any,
    judge: Callable[[Architecture], list[Doubt]],
) -> list[Finalist]:
    node = config.search
    least = _layers_of_prior(sizes, found.architecture, space)
    data = sizes.bundle.batches("alpha", node.batch_size, seed=config.seed, epoch=0)
    batches = [batch for batch, _ in zip(data, range(_RANKED_ON), strict=False)]
    task = sizes.bundle.task
    prior = prior_of(lambda a: sizes.make(a, least_layers=least), batches[0], task)
    rankings = {
        "a zero-cost prior": prior,
        "the shared weights": shared_weights_of(supernet, batches, task),
    }
    limits = _limits(penalties, timer, lambda a: not judge(a), node.finalist_fill)
    if isinstance(space, ChoiceSpace):
        limits = replace(limits, identity=sizes.text)
    return choose_pool(found, space, limits, rankings, count=node.finalists, seed=config.seed)


def _layers_of_prior(sizes: Sizes, architecture: Architecture, space: SearchSpace) -> int:
    """Cells at least of the networks that the zero-cost prior sees; 1 where a network has no more."""
    if isinstance(space, ChoiceSpace):
        return 1
    try:
        with torch.random.fork_rng(devices=[]):
            sizes.make(architecture, least_layers=_LEAST_LAYERS)
    except ConfigError:
        return 1
    return _LEAST_LAYERS


def _limits(
    penalties: Sequence[nn.Module],
    timer: Any,
    sound: Callable[[Architecture], bool],
    fill: float,
) -> Limits:
    """What the budget, if there is one, lets pass: as expected for a draw, as measured for a place.

    A random draw is to be expected to take at least `fill` of it.
    """
    penalty: Any = penalties[-1] if penalties else None
    budget = getattr(penalty, "budget", None)
    if budget is None:
        return Limits(sound)
    take = penalty.cost.of if timer is None else (lambda a: timer(a).median_ms)

    def measured(architecture: Architecture) -> float | None:
        cost = float(take(architecture))
        return cost if cost <= TOLERANCE * budget else None

    return Limits(
        sound,
        lambda a: meets(penalty.cost.of(a), budget),
        lambda a: fill * budget <= penalty.cost.of(a),
        measured,
    )


def _facts(bracket: Bracket, choosing: float) -> dict[str, Any]:
    """The bracket for `result.json`; `choosing` its pool took so many seconds."""
    last, name = bracket.rungs[-1], bracket.standings[bracket.winner].metric.name
    return {
        "rungs": bracket.rungs,
        "seeds": bracket.seeds,
        "epochs": bracket.epochs,
        "device_seconds": bracket.seconds + choosing,
        "choosing_seconds": choosing,
        f"val_{name}": bracket.standings[bracket.winner].accuracies[last],
        "winner": bracket.winner,
        "bracket": [
            {
                "source": standing.finalist.source,
                "architecture": standing.finalist.architecture.text(),
                "cost": standing.finalist.cost,
                f"val_{name}": {str(k): v for k, v in standing.accuracies.items()},
                "val_loss": {str(k): v for k, v in standing.losses.items()},
                **({"diverged": standing.diverged} if standing.diverged is not None else {}),
            }
            for standing in bracket.standings
        ],
    }
