"""The state of a running search: what a checkpoint holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darts_core.architecture import Architecture
from darts_core.checkpoint import check_data, load_checkpoint, save_checkpoint, taking_over
from darts_core.errors import ResumeError
from darts_core.runlog import config_hash
from darts_core.search.described import differences, settings_of
from darts_core.search.record import Candidate, Record
from darts_core.search.types import Guard, GuardFinding, SearchConfig
from darts_core.strategies import StepStats, Strategy
from darts_core.supernet import Supernet

__all__ = ["SearchState"]

log = logging.getLogger("darts_core")
# these change how long or how a search runs, not which steps it takes
_FREE = ("max_minutes", "checkpoint_every", "capture")


class SearchState:
    """Position, sums and history of a search, with the objects whose state belongs to it.

    `data` is the mark of what is searched on (`DataBundle.mark`); None: not known.
    """

    def __init__(
        self,
        supernet: Supernet,
        strategy: Strategy,
        guards: Sequence[Guard],
        config: SearchConfig,
        seed: int,
        data: str | None = None,
    ) -> None:
        self.supernet, self.strategy, self.guards = supernet, strategy, guards
        settings = {k: v for k, v in asdict(config).items() if k not in _FREE}
        described = {
            "config": settings,
            "seed": seed,
            "space": asdict(supernet.space) if hasattr(supernet, "space") else None,
            "strategy": type(strategy).__name__,
            "relaxation": type(supernet.relaxation).__name__,
        }
        self.stamp, self.data = config_hash(described), data
        # beside the stamp, so that a difference can be named and older checkpoints have none
        self.settings = {
            "strategy": settings_of(strategy),
            "relax": settings_of(supernet.relaxation),
        }
        self.device = next(iter(supernet.alphas())).device
        self._on_gpu = self.device.type == "cuda"
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        metric = strategy.task.metric.name
        self._names = ("train_loss", f"train_{metric}", "alpha_loss", f"alpha_{metric}")
        self.sums = torch.zeros(len(self._names), device=self.device)
        # first step of the epoch whose loss was not finite, -1 if none; stays on the device
        self.bad_step = torch.full((), -1, device=self.device)
        self.history: list[dict[str, Any]] = []
        self.findings: list[GuardFinding] = []
        self.record = Record()
        self.stopped: str | None = None
        self.stopped_by_guard = False

    def add(self, stats: StepStats) -> None:
        """Add one step's scalars, without waiting for the device."""
        values = torch.stack(
            [stats.params_loss, stats.params_score, stats.alpha_loss, stats.alpha_score]
        ).to(self.sums.dtype)
        self.sums += values
        # of a batch in which nothing varies a metric may be NaN; a loss may not
        bad = ~torch.isfinite(values[::2]).all() & (self.bad_step < 0)
        self.bad_step.masked_fill_(bad, self.step)
        self.step += 1

    def first_bad_step(self) -> int | None:
        """The first step of this epoch with a loss that is not finite; waits for the device."""
        step = int(self.bad_step)
        return None if step < 0 else step

    def averages(self, alpha_active: bool) -> dict[str, Any]:
        """Means over the epoch's steps; alpha's are None while it rests."""
        means = (self.sums / max(self.step, 1)).tolist()
        row: dict[str, Any] = dict(zip(self._names, means, strict=True))
        if not alpha_active:
            row[self._names[2]] = row[self._names[3]] = None
        return row

    def next_epoch(self, row: dict[str, Any]) -> None:
        """Close the epoch whose metrics are `row`."""
        self.history.append(row)
        self.epoch += 1
        self.step = 0
        self.sums.zero_()

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        generator = self.supernet.generator
        save_checkpoint(
            path,
            {
                "kind": "search",
                "stamp": self.stamp,
                "settings": self.settings,
                "data": self.data,
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "sums": self.sums,
                "history": self.history,
                "findings": [asdict(finding) for finding in self.findings],
                "record": self.record.state(),
                "stopped": self.stopped if self.stopped_by_guard else None,
                "supernet": self.supernet.state_dict(),
                "strategy": self.strategy.state_dict(),
                "penalties": [
                    p.state_dict() for p in self.strategy.penalties if isinstance(p, nn.Module)
                ],
                "guards": {guard.name: guard.state_dict() for guard in self.guards},
                "random": torch.get_rng_state(),
                "random_gpu": torch.cuda.get_rng_state(self.device) if self._on_gpu else None,
                "generator": generator.get_state() if generator is not None else None,
            },
        )

    def load(self, path: Path) -> None:
        """Restore a checkpoint.

        Raises:
            ResumeError: it belongs to another configuration, to other settings of the strategy or the
                relaxation, or to other data.
        """
        content = load_checkpoint(path, device=self.device)
        if content.get("kind") != "search" or content.get("stamp") != self.stamp:
            raise ResumeError(
                f"The checkpoint {path} belongs to another search configuration (its stamp is "
                f"{content.get('stamp')!r}, this one's {self.stamp!r}); use another version=, "
                "or move the file away to start afresh."
            )
        other = differences(content.get("settings"), self.settings)
        if other:
            raise ResumeError(
                f"The checkpoint {path} was written by a search with other settings: {'; '.join(other)}. "
                "Give the same ones, use another version=, or move the file away to start afresh."
            )
        check_data(path, content.get("data"), self.data)
        with taking_over(path):
            self._take_over(content)

    def _take_over(self, content: dict[str, Any]) -> None:
        self.epoch, self.step = content["epoch"], content["step"]
        self.seconds = content["seconds"]
        self.sums = content["sums"].to(self.device)
        self.history = content["history"]
        known = {f.name for f in fields(GuardFinding)}
        self.findings = [
            GuardFinding(**{k: v for k, v in finding.items() if k in known})
            for finding in content["findings"]
        ]
        if "record" in content:
            self.record.load(content["record"])
        elif content.get("last_good") is not None:  # of a version that kept no more
            kept = Architecture.from_dict(content["last_good"])
            self.record.candidates = [Candidate(self.epoch - 1, kept)]
        self.stopped = content["stopped"]
        self.stopped_by_guard = self.stopped is not None
        # the strategy first: it may give the supernet another form
        self.strategy.load_state_dict(content["strategy"])
        # a budget's multiplier moves while the search runs
        modules = [p for p in self.strategy.penalties if isinstance(p, nn.Module)]
        for penalty, state in zip(modules, content.get("penalties", ()), strict=False):
            penalty.load_state_dict(state)
        self.supernet.load_state_dict(content["supernet"])
        for guard in self.guards:
            guard.load_state_dict(content["guards"].get(guard.name, {}))
        torch.set_rng_state(_on_host(content["random"]))
        on_gpu = content.get("random_gpu")  # which older files lack
        if self._on_gpu and on_gpu is not None:
            torch.cuda.set_rng_state(_on_host(on_gpu), self.device)
        if content["generator"] is not None and self.supernet.generator is not None:
            _restore(self.supernet.generator, _on_host(content["generator"]))


def _restore(generator: torch.Generator, state: Tensor) -> None:
    """Go on where `state` stood; one of a GPU says nothing to a generator of a CPU, nor the other way."""
    if state.numel() == generator.get_state().numel():
        generator.set_state(state)
    else:
        log.info(
            "the checkpoint comes from another kind of device, whose random numbers are others; they begin "
            "anew here"
        )


def _on_host(state: Tensor) -> Tensor:
    return state.cpu()
