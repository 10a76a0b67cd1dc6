"""Pruning a trained network to a latency that is measured on the user's own device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.errors import PruneError, first_line, is_memory_shortage
from darts_core.latency import Timing, default_batch_sizes, default_runtime
from darts_core.latency.clock import ModelClock
from darts_core.latency.steady import ALIKE, SteadyClock
from darts_core.modes import in_evaluation
from darts_core.prune.auxiliary import drop_auxiliary
from darts_core.prune.budget import Budget, budget_ms
from darts_core.prune.cost import LayerCosts
from darts_core.prune.finetune import fine_tune, free_if_all_is_frozen, share_of_epochs
from darts_core.prune.graph import let_go
from darts_core.prune.groups import copied
from darts_core.prune.heads import open_attentions
from darts_core.prune.rounds import TOLERANCE, Pruner, Round, take_batches
from darts_core.prune.store import PruneResult, Store, named
from darts_core.prune.trial import one_tensor
from darts_core.sample_inputs import draw_inputs, number_format
from darts_core.supernet.tied import tied, untied
from darts_core.train.config import TrainConfig

__all__ = ["PruneResult", "preferred_step", "prune_to_budget"]

log = logging.getLogger("darts_core")
_GRACE = 1.05
_LOOSE = 0.85
_EXTRA_ROUNDS = 2
FineTune = Callable[[nn.Module, int, int], float | None]


def prune_to_budget(
    model: nn.Module,
    bundle: Any,
    *,
    budget: Budget,
    batch: int | None = None,
    device: str | torch.device = "cpu",
    fit_config: TrainConfig | None = None,
    tune: FineTune | None = None,
    folder: str | Path | None = None,
    meta: Mapping[str, Any] | None = None,
    importance: str = "taylor",
    rounds: int = 2,
    structure: bool = True,
    distillation: float = 0.0,
    least: float = 0.125,
    round_to: int | None = None,
    runtime: str | None = None,
    timer: Callable[[nn.Module], Timing] | None = None,
    seconds: float = 1.0,
    seed: int = 0,
) -> PruneResult:
    """Shrink `model` until its measured time meets `budget`, fine-tuning between the rounds.

    The model itself is left as it is. The auxiliary head of a network from `build` is dropped. Parameters
    that are frozen beside others are not trained; a network that is frozen as a whole learns again.

    Args:
        model: a trained plain network.
        bundle: its data; importance and fine-tuning use the params and alpha splits only.
        budget: milliseconds, "50%", "as fast as resnet18", a `Timing` or a model.
        batch: images a call; the throughput batch of the device by default.
        device: where everything runs.
        fit_config: recipe of the fine-tuning; its epochs are shared out over the rounds. Importance is
            computed on batches of 64, or of its batch size where that is smaller.
        tune: fine-tunes instead: called with (network, round, rounds), may return device seconds.
        folder: receives pruning.json, model.pt (given `meta`) and one file a round; an
            interrupted pruning goes on behind its last finished round.
        meta: what `save_model` needs to rebuild the unpruned network.
        importance: "taylor", "magnitude" or "bn_scale".
        rounds: steps towards the budget, each followed by fine-tuning.
        structure: whether operations, edges and cells may go too.
        distillation: share of the unpruned model's soft labels in the loss of the fine-tuning.
        least: the smallest share of channels that a group keeps.
        round_to: widths of wide groups are multiples of it; by default `preferred_step`.
        runtime: what the default timer runs: "onnx", "eager", "compile" or "graph". By default the
            form in which the network will be deployed: ONNX Runtime on a CPU, a CUDA graph on a GPU.
        timer: times a network instead, for example in an exported form.
        seconds: longest time for one timing.
        seed: of the fine-tuning.

    Raises:
        PruneError: the budget is not understood, or below the fastest that can be reached; the network gives
            no single tensor, or does not run on the data.
        ResumeError: the folder holds an unfinished pruning of another network, or to another budget.
    """
    home = torch.device(device)
    size = batch or max(default_batch_sizes(home))
    shape = tuple(int(value) for value in bundle.input_shape)
    if rounds < 1:
        raise PruneError(f"rounds={rounds} must be at least 1.")
    form = runtime or default_runtime(home)

    store = Store(folder, meta, "" if folder is None else named(model, budget))
    clock = timer or ModelClock(shape, home, batch=size, runtime=form, seconds=seconds)
    work = in_evaluation(copied(model).to(home))
    drop_auxiliary(work, meta)
    if tune is None:
        free_if_all_is_frozen(work)
    pruner = Pruner(
        shape, size, clock,
        LayerCosts(home, runtime=form, folded=form == "onnx" or timer is not None), importance, least,
        round_to or preferred_step(home), structure, bundle.task,
    )  # fmt: skip
    _check_output(work, shape, home)
    before = clock(work)
    pruner.timer = _steady(clock, work, before)
    wanted = budget_ms(budget, before, pruner.timer, bundle)
    result = PruneResult(copied(work), before, before, wanted)
    _open(result, shape)
    teacher = work if distillation > 0.0 else None
    tuner = tune or _tuner(bundle, fit_config, teacher, distillation, seed, home)
    first = store.resume(result, home)
    if first:
        result.after = pruner.timer(result.model)
    elif before.median_ms > wanted:
        _check_reachable(pruner, result.model, wanted)
    # more than a step of the fine-tuning takes may not fit into the memory
    most = 64 if fit_config is None else max(2, fit_config.batch_size)
    _go(pruner, result, bundle, rounds, first, tuner, store, most)
    for names in untied(result.model, tied(work)):
        log.warning(
            "%s were one weight; their places were cut in different ways, and have weights of their own now",
            ", ".join(names),
        )
    # side by side, so that the speed-up stands even if the device's speed has drifted
    first_ms = result.before.median_ms
    result.before = clock(work)
    last = _steady(clock, work, result.before) if timer is None else clock
    result.after = last(result.model)
    result.note = _note(result, result.before.median_ms / first_ms)
    if result.note:
        log.warning("%s", result.note)
    store.finish(result)
    return result


def _steady(
    clock: Callable[[nn.Module], Timing], reference: nn.Module, first: Timing
) -> Callable[[nn.Module], Timing]:
    if isinstance(clock, ModelClock):
        return clock.beside(reference, first)
    return SteadyClock(clock, reference, first)


def _open(result: PruneResult, shape: tuple[int, ...]) -> None:
    result.replaced, left = open_attentions(result.model, shape)
    for name, why in left.items():
        log.warning("the heads of %s stay: %s", name, why)


def preferred_step(device: torch.device) -> int:
    """Channels that a device handles together: 8 for tensor cores, a vector's floats on a CPU.

    ONNX Runtime and oneDNN block channels by that many; a width between costs as the next one.
    """
    if device.type == "cuda":
        return 8
    return 16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 8


def _go(
    pruner: Pruner,
    result: PruneResult,
    bundle: Any,
    rounds: int,
    first: int,
    tuner: FineTune,
    store: Store,
    most: int,
) -> None:
    for number in range(first, rounds + _EXTRA_ROUNDS):
        now = result.after
        if now.median_ms <= result.budget_ms * _GRACE:
            break
        left = max(rounds - number, 1)
        # equal factors, so that every round asks for the same share
        target = result.budget_ms * (now.median_ms / result.budget_ms) ** ((left - 1) / left)
        if left > 1 and now.median_ms <= target * TOLERANCE:
            continue  # less than the clock can tell: left to the rounds that follow
        batches = take_batches(bundle, pruner.costs.device, most)
        if number == first and pruner.importance == "taylor":  # the others look at weights alone
            _check_takes(result.model, batches)
        done = pruner.shrink(result.model, now, target, batches)
        seconds = tuner(done.model, min(number, rounds - 1), rounds)
        let_go(in_evaluation(done.model))
        result.device_seconds += float(seconds or 0.0)
        result.model, result.after = done.model, pruner.timer(done.model)
        result.replaced |= done.replaced
        result.sizes |= done.sizes
        result.rounds.append(_row(number, target, done, result.after))
        store.save(result, number)
        stuck = not done.replaced and not done.widths
        if stuck:
            break


def _row(number: int, target_ms: float, done: Round, after: Timing) -> dict[str, Any]:
    return {
        "round": number,
        "target_ms": target_ms,
        "median_ms": after.median_ms,
        "replaced": done.replaced,
        "widths": {root: list(pair) for root, pair in done.widths.items()},
    }


@torch.no_grad()
def _check_output(model: nn.Module, shape: tuple[int, ...], home: torch.device) -> None:
    """Raise where the network gives something else than one tensor, of which no loss is known."""
    one_tensor(model(draw_inputs(shape, 2, device=home, dtype=number_format(model))), model)


@torch.no_grad()
def _check_takes(model: nn.Module, batches: Sequence[tuple[Tensor, Any]]) -> None:
    """Raise where the network does not run on the data, whose numbers may be of another format."""
    for x, _ in batches[:1]:
        try:
            in_evaluation(model)(x.clone())
        except Exception as error:  # whatever a foreign network raises
            if is_memory_shortage(error):
                raise
            kinds = [str(kind).removeprefix("torch.") for kind in (number_format(model), x.dtype)]
            raise PruneError(
                f"{type(model).__name__} does not run on the data ({type(error).__name__}: "
                f"{first_line(error)[:200]}); its weights are {kinds[0]}, the data {kinds[1]}: where these "
                "differ, prune model.float()."
            ) from error


def _check_reachable(pruner: Pruner, model: nn.Module, wanted_ms: float) -> None:
    fastest = pruner.fastest(model)
    if fastest.median_ms > _GRACE * wanted_ms:
        raise PruneError(
            f"The budget of {wanted_ms:.3f} ms is below the fastest that pruning can reach, "
            f"{fastest.median_ms:.3f} ms with every group at {pruner.least:.0%} of its channels"
            f"{' and every operation cut that may be' if pruner.structure else ''}; "
            "raise the budget, lower `least`, or start from a smaller network."
        )


def _tuner(
    bundle: Any,
    config: TrainConfig | None,
    teacher: nn.Module | None,
    distillation: float,
    seed: int,
    device: torch.device,
) -> FineTune:
    if config is None:
        raise PruneError("Pruning needs fit_config (a TrainConfig) or tune (a function).")
    recipe = config

    def run(network: nn.Module, part: int, parts: int) -> float:
        return fine_tune(
            network, bundle, share_of_epochs(recipe, part, parts), teacher=teacher,
            distillation=distillation, seed=seed + part, device=device,
        )  # fmt: skip

    return run


def _note(result: PruneResult, drift: float) -> str:
    """What to tell about the outcome; `drift` is the unpruned network's time, last over first."""
    disturbed = abs(drift - 1.0) > ALIKE
    ratio = result.after.median_ms / (result.budget_ms * (drift if disturbed else 1.0))
    what = f"{result.after.median_ms:.3f} ms for a budget of {result.budget_ms:.3f} ms"
    note = ""
    if not result.rounds:
        note = f"Nothing was pruned: the network takes {what}."
    elif ratio > _GRACE and result.rounds[-1]["median_ms"] <= result.budget_ms * _GRACE:
        note = (
            f"The pruned network takes {what}, measured beside the unpruned one; its last round took "
            f"{result.rounds[-1]['median_ms']:.3f} ms and met it. Times vary by so much here: ask for "
            "a smaller budget, or prune again while the device is quiet."
        )
    elif ratio > _GRACE:
        note = (
            f"The pruned network takes {what}: after {len(result.rounds)} rounds no further cut "
            "saved time. Raise the budget or allow smaller widths (`least`)."
        )
    elif ratio < _LOOSE:
        note = (
            f"The pruned network takes {what}: the next larger plan measured above the budget, as "
            "time falls in steps here."
        )
    if disturbed:
        note += (
            f" The unpruned network's time changed by {drift - 1.0:+.0%} meanwhile: other work "
            "disturbs this device; prune again while it is quiet."
        )
    return note.strip()
