"""Successive halving of finalists: all are trained a little, the better half a little more.

Every training has the learning rate of its full length from the start and stops at rungs, so that a later
rung goes on where an earlier one stopped. What is known of a finalist lies in its folder, epoch by
epoch; a killed halving reads it there. One that diverges is left out, and its folder says why.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification", arXiv:1502.07943, Algorithm 1.
"""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import NonFiniteLossError
from darts_core.metric import ACCURACY, Metric
from darts_core.runlog import RunFolder, read_mapping, write_json
from darts_core.search.finalists import Finalist
from darts_core.settings import TrainConfig
from darts_core.train import fit

__all__ = ["Bracket", "Halving", "Standing", "Training", "best_first"]

SPLITS = ("params", "alpha")
log = logging.getLogger("darts_core")
# beside the rows of a training that did not come to its end
_DIVERGED = "diverged.json"


class _Reached(Exception):
    """A training is where its rung wants it."""


@dataclass
class Standing:
    """A finalist in the bracket.

    Attributes:
        finalist: the candidate.
        place: its number in the pool.
        accuracies: mean over seeds of the metric on val, by epochs trained.
        losses: likewise of the loss.
        metric: the task's.
        diverged: why it was left out of the comparison; None: it was not.
    """

    finalist: Finalist
    place: int = 0
    accuracies: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    metric: Metric = ACCURACY
    diverged: str | None = None

    def rating(self, epochs: int) -> float:
        """The metric after so many epochs; larger is better, and NaN the worst."""
        return self.metric.worth(self.accuracies[epochs])


def best_first(standings: Sequence[Standing], epochs: int, examples: int) -> list[Standing]:
    """Finalists in the order of what they reached after `epochs`.

    The metric decides, but those that it cannot tell from the best one, as they lie within its standard
    error, are told apart by the loss, which says more of few examples.

    Args:
        standings: of finalists that were trained so far.
        epochs: of the rung.
        examples: on which the metric was counted; all starts see the same ones, so that more of these make
            their choice no smaller a chance.
    """
    best = max(standings, key=lambda standing: standing.rating(epochs))
    value = best.accuracies[epochs]
    # one error and one success more: a share of 1 has an error, too
    error = best.metric.counting_error((value * examples + 1) / (examples + 2), examples)

    def key(standing: Standing) -> tuple[float, float]:
        return max(0.0, best.rating(epochs) - error - standing.rating(epochs)), standing.losses[
            epochs
        ]

    return sorted(standings, key=key)


@dataclass
class Bracket:
    """How a halving went.

    Attributes:
        standings: of all finalists, in the pool's order.
        winner: the place of the best one.
        rungs: epochs after which finalists were compared.
        seeds: trainings of each finalist.
        epochs: trained, of all finalists and seeds.
        seconds: of these, on the device.
    """

    standings: list[Standing]
    winner: int
    rungs: list[int]
    seeds: int
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Training:
    """One training of a finalist, up to a rung.

    Attributes:
        architecture: of the network.
        folder: of the training.
        seed: of its start.
        rung: epochs.
    """

    architecture: Architecture
    folder: Path
    seed: int
    rung: int


@dataclass
class Halving:
    """Trains finalists and halves them.

    Args:
        make: the plain network of an architecture.
        bundle: the data; val decides.
        recipe: of a finalist that is trained to the end.
        seeds: each finalist is trained from so many starts, and their mean counts.
        seed: the first of these.
        folder: of the trainings.
        on_epoch: called after every epoch; may raise, what was saved is kept.
        progress: called with (epochs trained, epochs in all).
        ahead: called with the trainings that a rung still takes; does them elsewhere, several at once, so
            that their rows are in their folders when they are asked for.
    """

    make: Callable[[Architecture], nn.Module]
    bundle: Any
    recipe: TrainConfig
    seeds: int
    seed: int
    folder: Path
    on_epoch: Callable[[], None] = lambda: None
    progress: Callable[[int, int], None] | None = None
    ahead: Callable[[list[Training]], None] = lambda _: None

    def rungs(self) -> list[int]:
        """Epochs after which finalists are compared: a quarter, a half and all of the recipe's."""
        epochs = self.recipe.epochs
        return sorted({max(1, epochs // 4), max(1, epochs // 2), epochs})

    def __call__(self, finalists: Sequence[Finalist]) -> Bracket:
        """The bracket of these finalists; the better half, rounded up, passes each rung but the last.

        Raises:
            NonFiniteLossError: all of them diverged.
        """
        metric = self.bundle.task.metric
        standings = [Standing(f, place, metric=metric) for place, f in enumerate(finalists)]
        examples = self.bundle.size("val")
        left, rungs, done, before = standings, self.rungs(), 0, 0
        out: list[Standing] = []
        planned = self._planned(len(left), rungs)
        for rung in rungs:
            trainings = [t for standing in left for t in self._trainings(standing, rung)]
            self.ahead([t for t in trainings if not self._known(t)])
            for standing in left:
                self._train(standing, rung)
                done += (rung - before) * self.seeds
                if self.progress is not None:
                    self.progress(done, planned)
            left = best_first(self._sound(left, out, rung), rung, examples)
            if rung != rungs[-1] and len(left) > 2:
                half = -(-len(left) // 2)
                left, out = left[:half], left[half:] + out
            before = rung
        rows = [row for path in self._folders(len(standings)) for row in RunFolder(path).metrics()]
        seconds = sum(float(row["seconds"]) for row in rows)
        return Bracket(standings, left[0].place, rungs, self.seeds, len(rows), seconds)

    def _sound(self, left: Sequence[Standing], out: list[Standing], rung: int) -> list[Standing]:
        """Those that did not diverge on the way to `rung`; where all did, the best that went out before.

        Args:
            left: finalists that were trained up to `rung`.
            out: those that went out at earlier rungs, the best first; what is tried is taken away.
            rung: epochs.

        Raises:
            NonFiniteLossError: there is none.
        """
        sound = [standing for standing in left if standing.diverged is None]
        while not sound and out:
            best = out.pop(0)
            self._train(best, rung)
            if best.diverged is None:
                sound.append(best)
        if not sound:
            raise NonFiniteLossError(
                "No finalist is left: all diverged while they were trained to be compared (one of them: "
                f"{left[0].diverged}). Try a smaller search.learning_rate (now "
                f"{self.recipe.learning_rate}), or take the pick of the alphas as it is: search.finalists=1."
            )
        return sound

    def _planned(self, count: int, rungs: Sequence[int]) -> int:
        total, before = 0, 0
        for rung in rungs:
            total += count * (rung - before) * self.seeds
            count, before = (count if count <= 2 else -(-count // 2)), rung
        return total

    def _folders(self, count: int) -> list[Path]:
        return [self._folder(place, k) for place in range(count) for k in range(self.seeds)]

    def _folder(self, place: int, number: int) -> Path:
        return self.folder / f"{place:02d}" / f"seed{self.seed + number}"

    def _train(self, standing: Standing, rung: int) -> None:
        """Train the finalist up to `rung` epochs from every start, and note how it stands, or why not."""
        rows: list[dict[str, Any]] = []
        for training in self._trainings(standing, rung):
            row = self.up_to(training)
            reason = self._diverged(training) if row is None else _lost(row)
            if row is not None and reason is None:
                rows.append(row)
            elif standing.diverged is None:
                standing.diverged = f"{reason} (seed {training.seed})"
        if standing.diverged is not None:
            log.warning(
                "finalist %d, from %s, is left out of the comparison: %s",
                standing.place + 1,
                standing.finalist.source,
                standing.diverged,
            )
            return
        name = f"val_{standing.metric.name}"
        standing.accuracies[rung] = statistics.mean(_number(row[name]) for row in rows)
        standing.losses[rung] = statistics.mean(float(row["val_loss"]) for row in rows)

    def _trainings(self, standing: Standing, rung: int) -> list[Training]:
        return [
            Training(
                standing.finalist.architecture,
                self._folder(standing.place, k),
                self.seed + k,
                rung,
            )
            for k in range(self.seeds)
        ]

    def _row(self, training: Training) -> dict[str, Any] | None:
        """The row of the epoch that ends at the rung, where it is known."""
        for row in RunFolder(training.folder, tensorboard=False).metrics():
            if int(row["epoch"]) + 1 == training.rung:
                return dict(row)
        return None

    def _diverged(self, training: Training) -> str | None:
        """Why the training did not come to its end, where that is known."""
        path = training.folder / _DIVERGED
        return str(read_mapping(path)["reason"]) if path.is_file() else None

    def _known(self, training: Training) -> bool:
        """Whether nothing is left to be done for it."""
        return self._row(training) is not None or self._diverged(training) is not None

    def up_to(self, training: Training) -> dict[str, Any] | None:
        """Train as far as the rung, from what the folder holds; the row of the epoch that ends there.

        None where the loss became NaN or infinite, of which the folder then tells.
        """
        known = self._row(training)
        if known is not None or self._diverged(training) is not None:
            return known
        folder, rung = training.folder, training.rung
        run = RunFolder(folder, tensorboard=False)
        folder.mkdir(parents=True, exist_ok=True)
        last: dict[str, Any] = {}

        def after(epoch: int, row: dict[str, Any]) -> None:
            last.update(row)
            self.on_epoch()
            if epoch + 1 >= rung:
                raise _Reached

        torch.manual_seed(training.seed)
        try:
            with contextlib.suppress(_Reached):
                fit(
                    self.make(training.architecture),
                    self.bundle,
                    self.recipe,
                    train_on=SPLITS,
                    select_on="val",
                    seed=training.seed,
                    device=self.bundle.device,
                    run=run,
                    checkpoint=folder / "checkpoint.pt",
                    on_epoch=after,
                    verbose=False,
                )
        except NonFiniteLossError as error:
            # what follows is advice about a training's own settings
            reason = str(error).partition(";")[0]
            write_json(folder / _DIVERGED, {"schema_version": 1, "reason": reason})
            return None
        return last


def _lost(row: Mapping[str, Any]) -> str | None:
    """Why a training that came to the end of the row's epoch cannot be compared; None: it can."""
    if math.isfinite(_number(row["val_loss"])):
        return None
    return f"Its loss on val is not finite after epoch {int(row['epoch']) + 1}"


def _number(value: float | None) -> float:
    """A number of a row; files know no NaN and hold nothing in its place."""
    return math.nan if value is None else float(value)
