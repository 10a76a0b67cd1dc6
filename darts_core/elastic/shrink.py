"""A front of plain networks from one elastic training of a given one; every step goes on where it was."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core import runlog
from darts_core.distributed import Group, first_may_fail
from darts_core.elastic.archive import Archive
from darts_core.elastic.choose import Chosen, budgets_of, choose
from darts_core.elastic.cost import NetworkCost
from darts_core.elastic.cost_table import fit_cost, measure_cost
from darts_core.elastic.device_clock import DeviceClock
from darts_core.elastic.fit import check_recipe, fit_elastic, norm_batches
from darts_core.elastic.network import Elastic, elastic
from darts_core.elastic.norms import recalibrate
from darts_core.elastic.sandwich import Sandwich, weights_mark
from darts_core.metric import Metric
from darts_core.prune.finetune import free_if_all_is_frozen
from darts_core.prune.prune import preferred_step
from darts_core.prune.rounds import take_batches
from darts_core.settings.shrink import Shrink
from darts_core.tasks import Task
from darts_core.train.config import TrainConfig
from darts_core.train.evaluation import Evaluation, evaluate

__all__ = ["Family", "grow_family", "measured_cost"]

log = logging.getLogger("darts_core")
Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]
# what the trained weights, or the given ones, decide
_OF_WEIGHTS = ("judged.jsonl", "alphas.json", "measured.json", "base.json")


def _no_bar(title: str) -> AbstractContextManager[None]:
    del title
    return nullcontext()


@dataclass
class Family:
    """A trained elastic network and the sub-networks chosen for the budgets.

    Attributes:
        net: the elastic network, trained.
        chosen: a sub-network a budget.
        archive: all sub-networks that were judged, and their latency by the table.
        norms: what sub-networks' norms are recalibrated on.
        train_seconds: of the elastic training.
        checks: predicted and measured times that the table was fitted to.
    """

    net: Elastic
    chosen: Chosen
    archive: Archive
    norms: list[Any]
    train_seconds: float
    checks: list[dict[str, Any]] = field(default_factory=list)

    def member(self, choices: Mapping[str, int]) -> nn.Module:
        """A sub-network as a plain one, its norms recalibrated."""
        return self.net.cut(choices, self.norms)


def grow_family(
    model: nn.Module,
    bundle: Any,
    settings: Shrink,
    config: TrainConfig,
    clock: DeviceClock,
    folder: Path,
    *,
    seed: int = 0,
    run: runlog.RunFolder | None = None,
    on_epoch: Callable[[], None] | None = None,
    on_judged: Callable[[], None] = lambda: None,
    bar: Bar = _no_bar,
    group: Group | None = None,
) -> Family | None:
    """Make `model` elastic, train it once, and choose a sub-network for every budget.

    Parameters that are frozen beside others are not trained; a network that is frozen as a whole learns
    again.

    Args:
        model: a trained plain network on its device; it becomes the whole network.
        bundle: its data, without the test split.
        settings: of the elastic training and the choice.
        config: the recipe of the elastic training.
        clock: of the device that the budgets are for.
        folder: receives what makes it go on after an interruption.
        seed: of all draws.
        run: logs one row an epoch.
        on_epoch: called after each epoch is safe on disk.
        on_judged: called while sub-networks are chosen, by the process that chooses, whenever all that was
            found is safe on disk.
        bar: title -> a progress bar.
        group: the processes that train together; the first one measures and chooses.

    Returns:
        None in the other processes of a group.

    Raises:
        ConfigError: the recipe is not for the task, the inputs or the processes.
        DataError: the batch is larger than the training splits.
        PruneError: the network cannot be followed, or nothing in it may vary.
        LatencyError: a budget lies below the smallest sub-network.
        NonFiniteLossError: a loss became NaN or infinite.
    """
    options, device = settings.options, clock.device
    free_if_all_is_frozen(model)
    check_recipe(model, bundle, config, device, group)
    processes = group or Group.alone()
    # more than a step takes may not fit into the memory
    most = max(2, config.batch_size // processes.processes)
    batches = take_batches(bundle, device, most)
    primary = group is None or group.primary
    before = evaluate(model, bundle, "val") if primary else None
    net = _made_elastic(model, bundle.task, settings, batches, folder, processes)
    for line in str(net).splitlines():
        log.info("%s", line)
    with first_may_fail(processes):
        if primary:
            # before the training: a budget out of reach must not cost one
            with bar("latency table") as progress:
                cost, checks = measured_cost(net, clock, folder, seed, progress)
            ends = cost.of(net.smallest), cost.of(net.largest)
            budgets = budgets_of(*ends, settings.budgets, settings.points)
            if settings.budgets:
                _say_above(budgets, ends[1])
    sandwich = Sandwich(
        net, drawn=options.drawn, share=options.distillation, others=options.others, seed=seed,
        task=bundle.task, cache_mib=options.cache_mib, group=group,
    )  # fmt: skip
    with bar("elastic training") as progress:
        fitted = fit_elastic(
            net, bundle, config, sandwich, seed=seed, device=device, run=run, folder=folder,
            on_epoch=on_epoch, progress=progress,
        )  # fmt: skip
    if before is None:
        return None
    _say_what_it_cost(before, evaluate(net.model, bundle, "val"), bundle.task.metric, config)
    norms = norm_batches(bundle, options.norm_examples)
    with bar("choosing") as progress:
        chosen, archive = _choose(
            net, cost, bundle, settings, budgets, norms, folder, seed, progress, on_judged, most
        )
    return Family(net, chosen, archive, norms, fitted.train_seconds, checks)


def _forget_other_weights(folder: Path) -> None:
    """Drop what was found of a training whose checkpoint is gone: the next one comes to other weights.

    Somebody moved it away, as a damaged one asks for. A point's network goes when the next one is made.
    """
    if (folder / "checkpoint.pt").exists():
        return
    names = [folder / name for name in _OF_WEIGHTS]
    found = [path for path in (*names, *folder.glob("points/*/point.json")) if path.is_file()]
    if found:
        log.warning(
            "%s holds no checkpoint any more: the elastic training begins afresh, and what was found of the "
            "former one's sub-networks is found anew",
            folder,
        )
    for path in found:
        path.unlink()


def _say_above(budgets_ms: Sequence[float], whole_ms: float) -> None:
    """A warning of budgets that ask for nothing: a per cent sign may have been left out."""
    above = [f"{budget:.4g}" for budget in budgets_ms if budget > whole_ms]
    if above:
        log.warning(
            "%s: budgets of %s ms are above the whole network's %.4g ms, which it meets as it is; a share of "
            "its time is written 50%%",
            Shrink.key("budgets"), ", ".join(above), whole_ms,
        )  # fmt: skip


def _made_elastic(
    model: nn.Module,
    task: Task,
    settings: Shrink,
    batches: Sequence[tuple[Tensor, Any]],
    folder: Path,
    group: Group,
) -> Elastic:
    """`model` made elastic as in the first sitting, which `widths.json` keeps, and alike in all processes.

    Another device may like other multiples for widths, and judge near ties of importance otherwise; but what
    it goes on with has the widths and the orders of the first.

    Raises:
        PruneError: the network cannot be followed, or nothing in it may vary; in all processes.
    """
    path, options = folder / "widths.json", settings.options
    kept = runlog.read_mapping(path) if path.is_file() else {}
    known = kept.get("round_to")
    if not (isinstance(known, int) and known >= 1):
        known = preferred_step(next(model.parameters()).device)
    step = options.round_to or int(group.text(str(known)))

    def made(orders: Mapping[str, Any]) -> Elastic:
        net = elastic(
            model, batches[0][0], batches=batches, task=task, least=options.least, step=step,
            depth=options.depth, orders=orders,
        )  # fmt: skip
        # what an earlier program began goes on, though more may vary by now
        vary = [variable for variable in net.variables if variable.name in orders] or net.variables
        ordered = {variable.name: net.orders[variable.name] for variable in vary}
        return Elastic(net.model, vary, net.left, net.opened, ordered)

    net = None
    with first_may_fail(group):
        if group.primary:
            _forget_other_weights(folder)
            of, orders = weights_mark(model), kept.get("orders")
            if kept.get("of", of) != of and not (folder / "checkpoint.pt").exists():
                # nothing was trained in the orders of other weights; the table may be of their widths
                orders = None
                (folder / "latency.json").unlink(missing_ok=True)
            net = made(orders if isinstance(orders, Mapping) else {})
            about = {"schema_version": 1, "round_to": step, "of": of}
            runlog.write_json(path, {**about, "orders": net.orders})
    told = group.text("" if net is None else json.dumps(net.orders))
    return net or made(json.loads(told))


def _say_what_it_cost(
    before: Evaluation, after: Evaluation, metric: Metric, config: TrainConfig
) -> None:
    """The whole network on val before and after its elastic training; a warning where it lost."""
    log.info(
        "the whole network has %s on val, the given one %s",
        metric.text(after.value),
        metric.text(before.value),
    )
    errors = [
        metric.scale * metric.counting_error(found.value, found.n) for found in (before, after)
    ]
    gain, error = metric.gain(after.value, before.value), math.hypot(*errors)
    if metric.share and gain < -2 * error:
        log.warning(
            "the elastic training cost the whole network %.1f points of val %s (standard error %.1f): "
            "lower shrink.learning_rate (now %g) or raise shrink.epochs (now %d)",
            -gain, metric.words, error, config.learning_rate, config.epochs,
        )  # fmt: skip


def measured_cost(
    net: Elastic,
    clock: DeviceClock,
    folder: Path,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NetworkCost, list[dict[str, Any]]]:
    """The latency table of an elastic network (kept in `latency.json`) and the times it was fitted to.

    Args:
        net: the elastic network.
        clock: of the device.
        folder: of the table.
        seed: of the sub-networks that are timed end to end.
        progress: called with (layers done, layers in all).
    """
    path = folder / "latency.json"
    saved = runlog.read_mapping(path) if path.is_file() else None
    if saved is not None and not clock.fits(saved):
        log.warning(
            "%s is of another device, form or version of torch; the latency is measured anew", path
        )
        saved = None
        # the alphas descended along the other table
        (folder / "alphas.json").unlink(missing_ok=True)
    cost = measure_cost(net, clock.input_shape, clock.batch, clock.layers(), progress, known=saved)
    if saved is not None:
        return cost, list(saved["checks"])
    whole = net.cut(net.largest)
    steady = clock.beside(whole, clock(whole))
    checks = fit_cost(cost, net, lambda network: steady(network).median_ms, seed=seed)
    runlog.write_json(
        path, {"schema_version": 1, **clock.described(), **cost.to_dict(), "checks": checks}
    )
    worst = max(abs(row["predicted_ms"] / row["measured_ms"] - 1.0) for row in checks)
    log.info(
        "latency table of %d layers: %.3f ms whole, %.3f ms smallest; predicted within %.0f%% of measured",
        len(cost.rows), cost.of(net.largest), cost.of(net.smallest), 100 * worst,
    )  # fmt: skip
    return cost, checks


def _to_descend_on(part: Any, count: int, seed: int, most: int = 64) -> list[Any]:
    """The `count` examples of val of which the alphas see the loss, up to 64 a batch, or `most`.

    A single one stands twice: norms take a batch's own statistics here, which one example may not have.
    """
    found = list(part.batches("val", min(64, most, count), seed=seed, epoch=0))
    if count > 1:
        return found
    return [(torch.cat([x, x]), torch.cat([y, y])) for x, y in found]


def _choose(
    net: Elastic,
    cost: NetworkCost,
    bundle: Any,
    settings: Shrink,
    budgets: list[float],
    norms: list[Any],
    folder: Path,
    seed: int,
    progress: Callable[[int, int], None] | None,
    on_judged: Callable[[], None],
    most: int,
) -> tuple[Chosen, Archive]:
    options = settings.options
    few = min(options.val_examples, bundle.size("val"))
    part = bundle.take("val", few) if few < bundle.size("val") else bundle
    rating = bundle.task.metric.rating
    looks = 2 * options.looks + 3 * len(budgets)

    def judge(network: nn.Module) -> tuple[float, float]:
        found = evaluate(recalibrate(network, norms), part, "val")
        return found.loss, found.value

    def final(network: nn.Module) -> float:
        on_judged()
        return float(rating(evaluate(recalibrate(network, norms), bundle, "val").value))

    def seen(done: int) -> None:
        if progress is not None:
            progress(done, looks)
        on_judged()

    def keep(found: dict[str, Any]) -> None:
        runlog.write_json(path, found)
        on_judged()

    archive = Archive(net, cost, judge, folder / "judged.jsonl", seen)
    batches = _to_descend_on(part, few, seed, most)
    path = folder / "alphas.json"
    kept = runlog.read_mapping(path) if path.is_file() else {}
    examples = few + sum(len(x) for x, _ in norms)
    took_at = folder / "choosing.json"
    took = runlog.read_mapping(took_at).get("seconds", {}) if took_at.is_file() else {}
    torch.manual_seed(seed)
    chosen = choose(
        archive, budgets, batches, bundle.task.loss, final, looks=options.looks, examples=examples, seed=seed,
        kept=kept, keep=keep, spent=took,
        note=lambda seconds: runlog.write_json(took_at, {"schema_version": 1, "seconds": seconds}),
    )  # fmt: skip
    return chosen, archive
