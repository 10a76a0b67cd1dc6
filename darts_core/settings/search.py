"""The settings of a search: what its strategy, its loop and its stage read, each in a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from darts_core.errors import ConfigError
from darts_core.settings.field import Settings, setting
from darts_core.settings.rates import alpha_learning_rate
from darts_core.settings.shared import PRECISIONS, Descent, RandomChanges

__all__ = ["Latency", "Search", "SearchConfig", "SearchSettings", "Space"]

COSTS = ("latency", "macs", "params")
RUNTIMES = ("eager", "onnx", "compile", "graph")


@dataclass(frozen=True)
class SearchSettings(Descent):
    """Optimizer settings of a search; the defaults are those of DARTS (arXiv:1806.09055, A.1)."""

    NODE: ClassVar[str] = "search"

    min_learning_rate: float = setting(0.001, "at the end of the cosine", low=0, high=100)
    momentum: float = setting(0.9, "of the params' SGD", low=0, below=1)
    alpha_learning_rate: float | None = setting(
        None,
        "of Adam on the alphas; null: by the number of steps, the paper's 3e-4 at its 19,500, up to "
        "0.02 for fewer",
        above=0, high=100,
    )  # fmt: skip
    alpha_beta1: float = setting(0.5, "of Adam on the alphas", low=0, below=1)
    alpha_beta2: float = setting(0.999, "of Adam on the alphas", low=0, below=1)
    alpha_weight_decay: float = setting(1e-3, "of the alphas", low=0, high=10)
    precision: str = setting("fp32", "fp32, or bf16 for bfloat16 activations", choices=PRECISIONS)


@dataclass(frozen=True)
class SearchConfig(SearchSettings):
    """How long and on what a search runs; see `SearchSettings` for the optimizers."""

    epochs: int = setting(50, "passes over the params split", low=1, high=1_000_000)
    batch_size: int = setting(
        64, "images a step; the alpha batch has as many again", low=1, high=1_000_000
    )
    alpha_warmup_epochs: int = setting(
        0, "epochs at the start in which the alphas rest", low=0, high=1_000_000
    )
    max_minutes: float | None = setting(
        None, "end after the epoch in which so many minutes are over; null: none", above=0, high=1e7
    )
    checkpoint_every: int = setting(
        0, "steps between checkpoints within an epoch; 0: at epoch ends", low=0, high=1_000_000_000
    )
    evaluate: bool = setting(True, "the supernet on the val split after each epoch")
    capture: bool = setting(True, "one CUDA graph a step, where the device and strategy allow it")

    def settled(self, steps: int) -> SearchConfig:
        """These settings with the learning rate of alpha that epochs of `steps` steps call for."""
        if self.alpha_learning_rate is not None:
            return self
        moving = max(self.epochs - self.alpha_warmup_epochs, 0) * steps
        return replace(self, alpha_learning_rate=alpha_learning_rate(moving))


@dataclass(frozen=True)
class Search(RandomChanges, SearchConfig):
    """The node `search`: beside the loop's own settings, the supernet's size and how it runs."""

    channels: int = setting(16, "of the first cell", low=1, high=4096)
    layers: int = setting(
        8, "cells (darts) or cells per stage (nasbench201); spaces of choices choose their depth",
        low=1, high=1000,
    )  # fmt: skip
    path: str = setting(
        "auto", "of spaces of cells: auto, the device's fast path; plain; fused (GPU); batched (CPU)",
        choices=("auto", "plain", "fused", "batched"),
    )  # fmt: skip
    kernel_precision: str = setting("tf32", "of the fused path", choices=("fp32", "tf32", "bf16"))
    tune_seconds: float = setting(
        300.0, "search so long for tiles on a GPU met for the first time; 0: never", low=0, high=1e6
    )
    sync_batchnorm: bool = setting(
        False, "under torchrun: batch norms see the whole batch, not each process's part"
    )
    guards: Mapping[str, Any] = setting(
        {}, "watchers after each epoch, chosen by guards=; e.g. search.guards.skips.stop=false"
    )
    finalists: int = setting(
        8,
        "candidates trained briefly and halved on val, which decides; 1: the alphas' pick, untrained",
        low=1,
        high=1000,
    )
    finalist_epochs: int = setting(
        8, "of a finalist that is trained to the end; the worse halves end at a quarter and a half",
        low=1, high=1_000_000,
    )  # fmt: skip
    finalist_seeds: int = setting(
        1, "trainings of each finalist, whose mean counts", low=1, high=100
    )
    finalist_fill: float = setting(
        0.5,
        "part of a budget that random finalists are expected to take at least, where there are such",
        low=0, high=1,
    )  # fmt: skip
    ray: Mapping[str, Any] | None = setting(
        None, "trainings of finalists on a Ray cluster; keys as of tune.options.ray"
    )
    slurm: Mapping[str, Any] | None = setting(
        None, "trainings of finalists as jobs of Slurm; keys as of tune.options.slurm"
    )
    tabular: str | None = setting(
        None, "a table (.npz, .csv, NATS-Bench files) in which the result is ranked"
    )
    tabular_data: str | None = setting(
        None, "the table's data set that judges, for example cifar10:test"
    )


@dataclass(frozen=True)
class Space(Settings):
    """The node `space`: a registered space, and optionally which of its operations."""

    NODE: ClassVar[str] = "space"

    name: str = setting("darts", "a registered space; auto: one that suits the data")
    ops: list[str] | None = setting(
        None, "names of the candidate operations; null: all that the space has"
    )
    description: str = setting("", "a line for `darts-core list`")
    options: Mapping[str, Any] = setting(
        {}, "read by no space; stands in the files of older versions"
    )

    def check(self) -> None:
        """Refuse an empty list, which could be taken for all operations, and what no space reads."""
        if self.options:
            raise ConfigError(
                f"space.options={dict(self.options)} is read by no space; leave it out, and register one "
                "space for each variant of your own (docs/extending/space.md)."
            )
        if self.ops is not None and len(self.ops) == 0:
            raise ConfigError(
                "space.ops=[] names no operation; give their names, or null for all of the space."
            )


@dataclass(frozen=True)
class Latency(Settings):
    """The node `latency`: what the search charges for cost, a soft penalty, a budget, or nothing."""

    NODE: ClassVar[str] = "latency"

    cost: str = setting(
        "latency", "latency (measured ms), macs (millions) or params (thousands)", choices=COSTS
    )
    strength: float = setting(
        0.0, "soft penalty: strength * expected cost / target; 0: off", low=0, high=1e6
    )
    target: float = setting(
        1.0, "what the soft penalty divides by, in the cost's unit", above=0, high=1e12
    )
    budget_ms: float | None = setting(
        None, "hard budget of the found network in ms, for cost=latency", above=0, high=1e9
    )
    budget: float | None = setting(None, "the same in the unit of another cost", above=0, high=1e12)
    share: float | None = setting(
        None, "the same as a part of what a hand-designed network takes here", above=0, high=1000
    )
    firm: bool = setting(
        True,
        "a budget that no network is found within ends the command; false: it is aimed at, and told where "
        "it is missed",
    )
    baseline: str = setting("resnet8", "that network; run takes bench.baseline")
    baseline_width: int | None = setting(
        None, "its first channels; null: as published", low=1, high=100_000
    )
    baseline_ms: float | None = setting(
        None,
        "what it takes, where known: beside other work, networks are timed in turn with it; null: timed for "
        "latency.share",
        above=0,
        high=1e9,
    )
    rate: float = setting(0.05, "of the multiplier that enforces a budget", above=0, high=1e3)
    batch: int | None = setting(
        None, "images a call; null: 32 on a CPU, 256 on a GPU", low=1, high=1_000_000
    )
    runtime: str | None = setting(
        None, "how the network will run; null: onnx on a CPU, graph on a GPU", choices=RUNTIMES
    )
    precision: str = setting(
        "fp32", "of the built network; bf16 and fp16 on a GPU", choices=("fp32", "bf16", "fp16")
    )
    table: str | None = setting(
        None, "a latency table; null: runs/latency/, built here where rows are missing"
    )
    channels: int | None = setting(
        None, "of the network that will be built; null: search.channels", low=1, high=4096
    )
    layers: int | None = setting(None, "likewise; null: search.layers", low=1, high=1000)
    wait_seconds: float = setting(
        60.0,
        "for other work to leave the device before a network is timed beside it",
        low=0,
        high=1e6,
    )

    @property
    def charges(self) -> bool:
        """Whether it says anything of cost."""
        given = (self.share, self.budget_ms, self.budget, self.strength or None)
        return self.cost != "latency" or any(value is not None for value in given)

    def check(self) -> None:
        """Refuse a budget under the wrong key."""
        if self.budget is not None and self.cost == "latency":
            raise ConfigError(
                "latency.budget is for cost=macs and cost=params; give latency.budget_ms."
            )
        if self.share is not None and (self.budget_ms is not None or self.cost != "latency"):
            raise ConfigError(
                "latency.share is a budget of time of its own: it goes with cost=latency and without "
                "latency.budget_ms."
            )
        if self.budget_ms is not None and self.cost != "latency":
            raise ConfigError(
                f"latency.budget_ms needs cost=latency, not {self.cost!r}; give budget."
            )
