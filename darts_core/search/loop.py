"""The search loop: epochs of strategy steps with checkpoints, guards and metrics.

Batches derive from (seed, epoch, step) alone, so a search resumed from any checkpoint takes the same
steps as an uninterrupted one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from darts_core.architecture import Architecture
from darts_core.device import wait_for
from darts_core.distributed import Group
from darts_core.errors import NonFiniteLossError, is_memory_shortage
from darts_core.runlog import RunFolder
from darts_core.search.measure import metric_on
from darts_core.search.outcome import outcome
from darts_core.search.record import Candidate, doubts_about
from darts_core.search.state import SearchState
from darts_core.search.stepping import Stepper
from darts_core.search.types import (
    Doubt,
    Guard,
    GuardContext,
    GuardFinding,
    SearchConfig,
    SearchResult,
    told,
)
from darts_core.strategies import Strategy
from darts_core.strategies.base import Batch, Forward, Penalty
from darts_core.supernet import Supernet
from darts_core.supernet.finite import all_finite
from darts_core.supernet.memory import memory_sentence, shared_memory_sentence

if TYPE_CHECKING:
    from darts_core.data import DataBundle

__all__ = ["search"]

log = logging.getLogger("darts_core")

OnEpoch = Callable[[int, dict[str, Any]], None]
Ends = Callable[[Sequence[dict[str, Any]]], str | None]
Progress = Callable[[int, int], None]
# steps between looks at the loss on a GPU: each look waits for the device
_CHECK_EVERY = 100


def search(
    supernet: Supernet,
    strategy: Strategy,
    bundle: DataBundle,
    config: SearchConfig,
    *,
    seed: int = 0,
    run: RunFolder | None = None,
    checkpoint: Path | None = None,
    augment: Any = None,
    guards: Sequence[Guard] = (),
    penalties: Iterable[Penalty] = (),
    on_epoch: OnEpoch | None = None,
    should_end: Ends | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
    group: Group | None = None,
) -> SearchResult:
    """Search an architecture on the params and alpha splits; the val split only measures.

    Args:
        supernet: already on the bundle's device.
        strategy: how alpha and params move; set up here.
        bundle: the data.
        config: length and optimizer settings.
        seed: of order, augmentation and sampling. The supernet's initial values are the caller's.
        run: logs one row an epoch into this folder.
        checkpoint: written at epoch ends (and every `checkpoint_every` steps); when it exists the search
            goes on from it.
        augment: see `DataBundle.batches`.
        guards: watchers called after each epoch.
        penalties: functions of the mixing weights added to the alpha loss, for example latency.
        on_epoch: called with (epoch, row) after each epoch is safe on disk.
        should_end: called with the rows of all epochs after each one, and when a resumed search goes on;
            gives the reason to end with what has been found, or None.
        progress: called with (steps done, steps in all) after every step.
        should_stop: asked after every step; when true a checkpoint is written and the search ends.
        group: the processes of a data-parallel search; see `search_distributed`.

    Raises:
        NonFiniteLossError: a loss became NaN or infinite; the last checkpoint is kept.
        MemoryShortageError: states the largest batch that fits.
        DataError: the batch is larger than a split.
        ResumeError: the checkpoint belongs to another configuration.
    """
    if config.alpha_learning_rate is None:
        config = config.settled(bundle.steps("params", config.batch_size))
        log.info("alpha_learning_rate %.3g, by the number of steps", config.alpha_learning_rate)
    strategy.task = bundle.task
    loop = _Loop(supernet, strategy, bundle, config, seed, run, checkpoint, augment, guards, group)
    strategy.setup(supernet, config, penalties)
    strategy.evaluator = loop.rating_on_alpha
    state = loop.state
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
        log.info("resumed from %s at epoch %d, step %d", checkpoint, state.epoch, state.step)
    if run is not None:
        run.rewind(state.epoch)
        # a kill between an epoch's checkpoint and its row leaves the row in the checkpoint alone
        logged = {row["epoch"] for row in run.metrics()}
        for kept in state.history:
            if kept["epoch"] not in logged:
                run.log_metrics(**kept)
    if state.epoch:
        loop.ask_to_end(should_end)
        loop.end_where_time_was_up()
    while state.epoch < config.epochs and state.stopped is None and not strategy.finished:
        row = loop.epoch(progress, should_stop)
        if row is None:
            break
        if on_epoch is not None:
            on_epoch(row["epoch"], row)
        loop.ask_to_end(should_end)
    # the strategy outlives the search, and with it the loop: a graph keeps the memory of a whole step
    loop.stepper.forget()
    return loop.result()


class _Loop:
    """One search in progress."""

    def __init__(
        self,
        supernet: Supernet,
        strategy: Strategy,
        bundle: DataBundle,
        config: SearchConfig,
        seed: int,
        run: RunFolder | None,
        checkpoint: Path | None,
        augment: Any,
        guards: Sequence[Guard],
        group: Group | None,
    ) -> None:
        self.supernet, self.strategy, self.bundle, self.config = supernet, strategy, bundle, config
        self.seed, self.run, self.checkpoint = seed, run, checkpoint
        self.guards = guards
        self.metric = bundle.task.metric
        self.device = bundle.device
        if supernet.generator is None:
            supernet.generator = torch.Generator(device=self.device).manual_seed(seed)
        self.steps = bundle.steps("params", config.batch_size)
        mark = getattr(bundle, "mark", None)
        self.state = SearchState(supernet, strategy, guards, config, seed, mark)
        self.group = group
        self.stepper = Stepper(strategy, bundle, config, seed, augment)
        self.stepper.alone = group is None

    def epoch(
        self, progress: Progress | None, should_stop: Callable[[], bool] | None
    ) -> dict[str, Any] | None:
        """Run (the rest of) one epoch; returns its row, or None when asked to stop inside it."""
        state, config = self.state, self.config
        epoch = state.epoch
        self.supernet.train()
        self.strategy.alpha_active = epoch >= config.alpha_warmup_epochs
        self.strategy.set_learning_rate(self._learning_rate(epoch))
        # what a strategy measures before an epoch is part of what the search costs
        started, shortage = time.perf_counter(), ""
        params_batch: Batch | None = None
        self.strategy.start_epoch(epoch, config.epochs)
        try:
            for step, params_batch, alpha_batch in self.stepper.batches(epoch, state.step):
                self._set_progress(epoch, step)
                stats = self.stepper(params_batch, alpha_batch)
                state.add(stats)
                self._check_finite(epoch, step)
                if progress is not None:
                    progress(epoch * self.steps + step + 1, config.epochs * self.steps)
                if should_stop is not None and should_stop():
                    state.stopped = "asked to stop"
                if state.stopped or self._checkpoint_due(step):
                    self._check_state(epoch, step)
                    started = self._save(started)
                if state.stopped:
                    return None
                if self.strategy.finished:
                    break
        except (RuntimeError, MemoryError) as error:
            # where the first batch itself does not fit there is none of which a part could be tried
            if params_batch is None or not is_memory_shortage(error):
                raise
            shortage = type(error).__name__
        if shortage and params_batch is not None:
            # outside the handler: the traceback would keep the failed step's tensors alive
            raise self._memory_error(params_batch, shortage)
        self._check_finite(epoch, self.steps - 1, now=True)
        self._check_state(epoch, self.steps - 1)
        self.strategy.end_epoch(epoch, config.epochs)
        return self._finish_epoch(epoch, started)

    def ask_to_end(self, should_end: Ends | None) -> None:
        """Stop where somebody gives a reason, in whichever process."""
        state = self.state
        reason = should_end(state.history) if should_end is not None else None
        if self.group is not None and self.group.agree(reason is not None):
            reason = reason or "a callback in another process"
        # behind the last epoch there is nothing to end
        if reason is not None and state.stopped is None and state.epoch < self.config.epochs:
            state.stopped = reason
            log.info("the search ends after epoch %d: %s", state.epoch, reason)

    def end_where_time_was_up(self) -> None:
        """Stop a resumed search whose time was used up when its last epoch ended, as it stopped then."""
        state = self.state
        # within an epoch the search goes on to its end, as it does without a stop
        if state.step == 0 and self._time_is_up(state.seconds) and state.stopped is None:
            state.stopped = f"search.max_minutes={self.config.max_minutes} used up"
            log.info("the search ends after epoch %d: %s", state.epoch, state.stopped)

    def _learning_rate(self, epoch: int) -> float:
        """Cosine decay by epoch (arXiv:1806.09055, A.1); the strategy says how far it has come."""
        position = self.strategy.schedule_position(epoch, self.config.epochs)
        low, high = self.config.min_learning_rate, self.config.learning_rate
        return low + (high - low) * (1 + math.cos(math.pi * position)) / 2

    def _set_progress(self, epoch: int, step: int) -> None:
        done = (epoch * self.steps + step) / (self.config.epochs * self.steps)
        self.supernet.progress.fill_(done)

    def _check_finite(self, epoch: int, step: int, *, now: bool = False) -> None:
        """Stop on a NaN loss. A look at the loss waits for a GPU, so there it is rare."""
        rare = self.device.type == "cuda" and (step + 1) % _CHECK_EVERY
        if rare and not now:
            return
        bad = self.state.first_bad_step()
        if bad is not None:
            raise self._not_finite("search loss", epoch, bad)

    def _not_finite(self, what: str, epoch: int, step: int) -> NonFiniteLossError:
        """The sentence for a NaN or infinity; epochs and steps count from 1, as in the log."""
        kept = ""
        if self.checkpoint is not None and self.checkpoint.exists():
            kept = f" The last good checkpoint is kept in {self.checkpoint}."
        return NonFiniteLossError(
            f"The {what} became NaN or infinite at epoch {epoch + 1} of {self.config.epochs}, step "
            f"{step + 1} of {self.steps}.{kept} Try a smaller search.learning_rate (now "
            f"{self.config.learning_rate}) or search.alpha_learning_rate (now "
            f"{self.config.alpha_learning_rate}), or search.precision=fp32."
        )

    def _checkpoint_due(self, step: int) -> bool:
        every = self.config.checkpoint_every
        return every > 0 and (step + 1) % every == 0 and step + 1 < self.steps

    def _check_state(self, epoch: int, step: int) -> None:
        """The last update may have gone astray after a finite loss; it must not be saved as good."""
        if not all_finite(self.supernet, self.supernet.alphas()):
            raise self._not_finite("params or alphas", epoch, step)

    def _save(self, started: float) -> float:
        """Write a checkpoint; returns the new start of the clock."""
        wait_for(self.device)
        now = time.perf_counter()
        self.state.seconds += now - started
        if self.checkpoint is not None and (self.group is None or self.group.primary):
            self.state.save(self.checkpoint)
        return now

    def _finish_epoch(self, epoch: int, started: float) -> dict[str, Any]:
        """Evaluate, ask the guards, log the row, write the checkpoint."""
        state, config = self.state, self.config
        row = state.averages(self.strategy.alpha_active)
        row["learning_rate"], row["steps"] = self._learning_rate(epoch), state.step
        if config.evaluate and self.bundle.size("val"):
            row[f"val_{self.metric.name}"] = self._measure(self.strategy.predictor(), "val")
        architecture = self.strategy.current()
        self._ask_guards(epoch, architecture, row)
        wait_for(self.device)
        now = time.perf_counter()
        row["seconds"] = state.seconds + now - started
        weights = self.supernet.final_weights()
        row.update(self._costs())
        row["alphas"] = {kind: weight.round(6).tolist() for kind, weight in weights.items()}
        row["architecture"] = architecture.text()
        state.next_epoch({"epoch": epoch, **row})
        if state.stopped is None and self._time_is_up(row["seconds"]):
            state.stopped = f"search.max_minutes={config.max_minutes} used up"
        self._save(started)
        if self.run is not None:
            self.run.log_metrics(epoch, **row)
        log.info(_summary(epoch, config.epochs, row, self.metric.name))
        return {"epoch": epoch, **row}

    def _costs(self) -> dict[str, float]:
        """What the penalties say of the mixture: its expected cost, a budget's multiplier."""
        found: dict[str, float] = {}
        with torch.no_grad():
            weights = self.supernet.expected_weights()
        for penalty in self.strategy.penalties:
            told = getattr(penalty, "measurements", None)
            if told is not None:
                found |= {f"cost/{name}": value for name, value in told(weights).items()}
        return found

    def _time_is_up(self, seconds: float) -> bool:
        if self.config.max_minutes is None:
            return False
        over = seconds / 60 >= self.config.max_minutes
        return over if self.group is None else self.group.agree(over)

    def _context(self, epoch: int, architecture: Architecture) -> GuardContext:
        return GuardContext(
            self.supernet, self.strategy, self.bundle, self.config, epoch, self.seed, architecture
        )

    def _ask_guards(self, epoch: int, architecture: Architecture, row: dict[str, Any]) -> None:
        state, context = self.state, self._context(epoch, architecture)
        candidate = Candidate(epoch, architecture, doubts_about(self.guards, context))
        state.record.candidates.append(candidate)
        stops = []
        for guard in self.guards:
            finding = told(guard, "after_epoch", guard.after_epoch(context), GuardFinding)
            row.update({f"guard/{name}": value for name, value in guard.measurements().items()})
            if finding is None:
                continue
            state.findings.append(finding)
            log.warning("guard %s after epoch %d: %s", finding.guard, epoch, finding.message)
            if finding.stop:
                since = epoch if finding.since is None else finding.since
                state.record.doubt_since(
                    since, Doubt(finding.guard, finding.message, of_search=True)
                )
                stops.append(finding)
        # without a good architecture to go back to there is nothing to gain from stopping
        if stops and state.record.good() is not None:
            state.stopped = f"guard {stops[0].guard}: {stops[0].message}"
            state.stopped_by_guard = True
        if self.group is not None and self.group.agree(state.stopped is not None):
            # rounding may let one process's guard fire and another's not
            state.stopped = state.stopped or "a guard in another process"

    def rating_on_alpha(self, forward: Forward, batches: int | None = None) -> float:
        """The `Evaluator` that strategies are given."""
        return self.metric.worth(self._measure(forward, "alpha", batches))

    def _measure(self, forward: Forward, split: str, batches: int | None = None) -> float:
        was_training = self.supernet.training
        self.supernet.eval()
        result = metric_on(forward, self.bundle, self.config.batch_size, split, batches)
        self.supernet.train(was_training)
        return result if self.group is None else self.group.share(result)

    def _memory_error(self, batch: Batch, cause: str) -> Exception:
        """The sentence with the batch size that fits."""
        self.stepper.forget()
        if self.group is not None and self.group.processes > 1:  # the others would not try along
            size = self.config.batch_size
            return shared_memory_sentence(size, self.group.processes, self.device, cause)

        def loss_of(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return self.strategy.loss((images, labels), self.supernet.mixing_weights())

        shown = self.stepper.prepared(batch)
        return memory_sentence(loss_of, self.supernet, *shown, self.device, cause)

    def result(self) -> SearchResult:
        """What the search found so far."""
        state = self.state
        context = self._context(state.epoch - 1, self.strategy.architecture())
        steps = sum(row.get("steps", self.steps) for row in state.history) + state.step
        return outcome(state, self.guards, context, steps)


def _summary(epoch: int, epochs: int, row: dict[str, Any], metric: str) -> str:
    parts = [f"search epoch {epoch + 1}/{epochs}"]
    for name in ("train_loss", f"train_{metric}", "alpha_loss", f"alpha_{metric}", f"val_{metric}"):
        if row.get(name) is not None:
            parts.append(f"{name} {row[name]:.4f}")
    return ", ".join([*parts, f"{row['seconds']:.1f} s"])
