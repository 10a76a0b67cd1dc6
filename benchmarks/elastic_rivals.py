"""Rivals of one elastic training, at common budgets and at its cost: each gives a network a budget.

* `prune`: our own pruning of the base, a run a budget.
* `taylor`: the base cut by Torch-Pruning's `BasePruner` with its `GroupTaylorImportance`, as wide as the
  budget allows as measured, fine-tuned with the recipe of `prune`.
* `scaled`: the base's architecture at smaller widths, trained from scratch with the base's recipe.

The seconds on the device that the front took are shared out evenly over the budgets; `scaled`, which needs
no base, is given the seconds of the base's training, too. They become epochs by the time that a training step
of that network takes beside one of the base: a network of a quarter of the latency takes more than a quarter
of a step. What each rival really took is written beside its points.
"""

from __future__ import annotations

import copy
import statistics
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.elastic_case import Case, kept
from darts_core.latency.turns import ratios_in_turn
from darts_core.models.baselines import baseline
from darts_core.prune.finetune import fine_tune
from darts_core.prune.rounds import take_batches
from darts_core.runlog import read_json
from darts_core.settings import Prune, TrainConfig
from darts_core.train import evaluate, load_model

__all__ = ["RIVALS", "epochs_for", "least_cut", "rival", "rival_networks", "step_share"]

_HALVINGS = 7


def epochs_for(allowed_s: float, epoch_s: float, share: float) -> int:
    """Epochs that fit into `allowed_s` for a network of `share` of the base's time; at least one.

    Args:
        allowed_s: seconds.
        epoch_s: of one epoch of the base.
        share: its training step's time over the base's.
    """
    return max(1, round(allowed_s / (epoch_s * share)))


def planned(
    case: Case, which: str, budget: float, make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `make` measured for a rival's training, kept: one that was stopped goes on with it alone."""
    return kept(case.folder / which / f"{budget:g}-plan.json", make)


def allowance(case: Case, which: str, model: nn.Module) -> int:
    """The epochs of a rival's training for one budget.

    Args:
        case: of the seed.
        which: the rival.
        model: what it trains, or a network of the same latency; its weights are left as they are.
    """
    seconds = case.seconds()
    allowed = seconds["front"] + (seconds["base"] if which == "scaled" else 0.0)
    base, _ = load_model(case.base() / "model.pt")
    batches = list(islice(case.bundle().batches("params", 64), 4))
    share = step_share(model, base, batches)
    return epochs_for(allowed / len(case.budgets), seconds["base"] / case.epochs, share)


def step_share(
    model: nn.Module, base: nn.Module, batches: Sequence[Any], rounds: int = 12
) -> float:
    """The time of a training step of `model` over one of `base`: the median of ratios taken in turn.

    Args:
        model: a network; a copy is trained.
        base: the one that it is held against, alike.
        batches: `(x, y)` of classes, taken in turn.
        rounds: ratios, of two steps each; two more come first and are not counted.
    """
    ours, other = _training_step(model, batches), _training_step(base, batches)
    for step in (ours, other) * 2:
        step()
    [shares] = ratios_in_turn([ours], other, rounds=rounds, seconds=0.0, least=2)
    return statistics.median(shares)


def _training_step(network: nn.Module, batches: Sequence[Any]) -> Callable[[], None]:
    """A call that trains a copy of `network` by one more batch."""
    own = copy.deepcopy(network).requires_grad_(True).train()
    optimizer = torch.optim.SGD(own.parameters(), lr=0.01, momentum=0.9)
    drawn = cycle(batches)

    def step() -> None:
        x, y = next(drawn)
        optimizer.zero_grad()
        nn.functional.cross_entropy(own(x), y).backward()
        optimizer.step()

    return step


def by_prune(case: Case, budget: float) -> dict[str, Any]:
    """Our pruning; what it will leave is not known before, so Taylor's cut stands in for its steps."""

    def plan() -> dict[str, Any]:
        base, _ = load_model(case.base() / "model.pt")
        batches = take_batches(case.bundle().without_test(), torch.device("cpu"))
        cut = taylor_cut(base, taylor_ratio(case, base, batches, budget), batches)
        return {"epochs": allowance(case, "prune", cut)}

    epochs = planned(case, "prune", budget, plan)["epochs"]
    at = case.run("prune", f"prune{budget:g}", f"model={case.base()}", f"prune.epochs={epochs}",
                  f"prune.budget={100 * budget:g}%",
                  f"prune.options.seconds={case.timing_seconds:g}")  # fmt: skip
    found = read_json(at / "result.json")
    return {
        "share": case.share_of(at),
        "metric": found["test_accuracy"],
        "epochs": epochs,
        "seconds": found["fine_tuning_seconds"],
    }


def by_scaled(case: Case, budget: float) -> dict[str, Any]:
    """The widest network of the same kind that the budget allows as measured."""
    bundle = case.bundle()

    def narrower(lost: int) -> nn.Module:
        return baseline(
            case.architecture, bundle.num_outputs, bundle.in_channels, case.width - lost
        ).eval()

    def plan() -> dict[str, Any]:
        lost = bisect_left(
            range(case.width - 1), True, key=lambda lost: case.share(narrower(lost), 5) <= budget
        )
        return {
            "width": case.width - lost, "epochs": allowance(case, "scaled", narrower(lost)),
        }  # fmt: skip

    known = planned(case, "scaled", budget, plan)
    width, epochs = known["width"], known["epochs"]
    at = case.trained(f"scaled{budget:g}", width, epochs)
    found = read_json(at / "result.json")
    return {
        "share": case.share_of(at),
        "metric": found["test_accuracy"],
        "epochs": epochs,
        "seconds": found["device_seconds"],
        "width": width,
    }


def by_taylor(case: Case, budget: float) -> dict[str, Any]:
    """Torch-Pruning's Taylor importance, one cut, then fine-tuning."""
    base, _ = load_model(case.base() / "model.pt")
    bundle, cpu = case.bundle(), torch.device("cpu")
    batches = take_batches(bundle.without_test(), cpu)
    ratio = taylor_ratio(case, base, batches, budget)
    model = taylor_cut(base, ratio, batches)
    epochs = allowance(case, "taylor", model)
    config = TrainConfig(
        epochs=epochs, batch_size=64, drop_path=0.0, learning_rate=Prune().learning_rate
    )
    seconds = fine_tune(model, bundle.without_test(), config, seed=case.seed, device=cpu)
    return {
        "share": case.share(model),
        "metric": evaluate(model, bundle, "test").value,
        "epochs": epochs,
        "seconds": seconds,
        "ratio": ratio,
    }


def taylor_ratio(case: Case, base: nn.Module, batches: Sequence[Any], budget: float) -> float:
    """The least cut of `taylor_cut` that fits a budget as measured."""
    return least_cut(lambda cut: case.share(taylor_cut(base, cut, batches), 5) <= budget)


def taylor_cut(base: nn.Module, ratio: float, batches: Sequence[Any]) -> nn.Module:
    """A copy of `base` that lost `ratio` of each group's channels, by Torch-Pruning."""
    import torch_pruning

    model = copy.deepcopy(base).eval().requires_grad_(True)
    if ratio <= 0.0:
        return model
    outputs = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    pruner = torch_pruning.pruner.BasePruner(
        model, batches[0][0][:2], importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=ratio, ignored_layers=outputs,
    )  # fmt: skip
    model.zero_grad()
    for x, y in batches:
        nn.functional.cross_entropy(model(x), y).backward()
    pruner.step()
    model.zero_grad()
    return model.eval()


def least_cut(fits: Callable[[float], bool], most: float = 0.95) -> float:
    """The smallest share to cut, up to `most`, at which the network fits; halving finds it."""
    if fits(0.0):
        return 0.0
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


RIVALS: dict[str, Callable[[Case, float], dict[str, Any]]] = {
    "prune": by_prune,
    "taylor": by_taylor,
    "scaled": by_scaled,
}


def rival(case: Case, which: str) -> dict[str, Any]:
    """A rival's points, one a budget, each kept as soon as it is there; and what they took."""
    points = []
    for budget in case.budgets:
        path: Path = case.folder / which / f"{budget:g}.json"
        points.append(kept(path, lambda b=budget: {"budget": b, **RIVALS[which](case, b)}))
    seconds = case.seconds()
    ours = seconds["front"] + (seconds["base"] if which == "scaled" else 0.0)
    return {"points": points, "seconds_over_ours": sum(p["seconds"] for p in points) / ours}


def rival_networks(case: Case, which: str) -> list[nn.Module]:
    """The networks of `rival`'s points, in their order; Taylor's are cut anew, as only sizes take time."""
    points = read_json(case.folder / f"{which}.json")["points"]
    if which == "taylor":
        base, _ = load_model(case.base() / "model.pt")
        batches = take_batches(case.bundle().without_test(), torch.device("cpu"))
        return [taylor_cut(base, point["ratio"], batches) for point in points]
    command = "prune" if which == "prune" else "train"
    runs = [case.folder / f"{which}{point['budget']:g}" / "V001" / command for point in points]
    return [load_model(run / "model.pt")[0] for run in runs]
