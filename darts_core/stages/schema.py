"""The types of every setting. Their values and explanations stand in `conf/`, once.

A field annotated `int` refuses `abc` before any work begins. Nodes whose keys depend on a choice (what
a strategy takes, what a data reader takes) are open dictionaries: their keys are checked against the
YAML file of that choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Optional

__all__ = ["COMMANDS", "NODES", "Config", "command_fields"]

# OmegaConf reads these annotations at run time and knows Optional[...]; `X | None` not in every version
# ruff: noqa: UP045


@dataclass
class Space:
    """What may be chosen: a registered space, and optionally which of its operations."""

    name: str
    ops: Optional[list[str]]
    description: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Search:
    """Training of the supernet and movement of the alphas."""

    epochs: int
    batch_size: int
    max_minutes: Optional[float]
    channels: int
    layers: int
    learning_rate: float
    min_learning_rate: float
    momentum: float
    weight_decay: float
    grad_clip: float
    alpha_learning_rate: Optional[float]
    alpha_beta1: float
    alpha_beta2: float
    alpha_weight_decay: float
    alpha_warmup_epochs: int
    crop_padding: Optional[int]
    flip: Optional[bool]
    cutout: int
    precision: str
    path: str
    kernel_precision: str
    tune_seconds: float
    checkpoint_every: int
    evaluate: bool
    capture: bool
    guards: dict[str, Any]
    sync_batchnorm: bool
    tabular: Optional[str] = None
    tabular_data: Optional[str] = None


@dataclass
class Latency:
    """What the search charges for cost: a soft penalty, a budget, or nothing."""

    cost: str
    strength: float
    target: float
    budget_ms: Optional[float]
    budget: Optional[float]
    rate: float
    batch: Optional[int]
    runtime: Optional[str]
    precision: str
    table: Optional[str]
    channels: Optional[int]
    layers: Optional[int]
    wait_seconds: float


@dataclass
class Train:
    """Training of one fixed network: its size and the recipe."""

    channels: int
    layers: int
    auxiliary: bool
    epochs: int
    batch_size: int
    learning_rate: float
    min_learning_rate: float
    momentum: float
    weight_decay: float
    optimizer: str
    label_smoothing: float
    grad_clip: float
    drop_path: float
    auxiliary_weight: float
    cutout: int
    crop_padding: Optional[int]
    flip: Optional[bool]
    ema: float
    warmup_epochs: float
    precision: str
    compile: bool
    policy: Optional[str]


@dataclass
class Tune:
    """A study over the recipe of one network."""

    trials: Optional[int]
    epochs: Optional[int]
    device_seconds: Optional[float]
    trainings: Optional[float]
    training_seconds: Optional[float]
    workers: int
    sampler: Any
    pruner: Any
    space: dict[str, Any]
    enqueue: list[dict[str, Any]]
    warm_start: Optional[str]
    policy: Optional[str]
    options: dict[str, Any]


@dataclass
class Prune:
    """Shrinking of a trained network to a measured latency."""

    budget: str
    batch: Optional[int]
    epochs: int
    learning_rate: float
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Export:
    """Which deployable forms are written."""

    formats: list[str]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Bench:
    """What is compared, and how long each timing takes."""

    baseline: str
    baseline_width: int
    seconds: float
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Report:
    """The page that a person reads."""

    title: Optional[str]


@dataclass
class Config:
    """Every setting there is; a command has the fields that `command_fields` names."""

    job: Optional[str]
    version: Optional[str]
    out: str
    allow_doubtful: bool
    seed: int
    seeds: int
    device: str
    plugins: list[str]
    data: dict[str, Any]
    space: Space
    strategy: dict[str, Any]
    relax: dict[str, Any]
    augment: dict[str, Any]
    architecture: Optional[str]
    model: Optional[str]
    what: str
    runtime: Optional[str]
    search: Search
    latency: Latency
    train: Train
    tune: Tune
    prune: Prune
    export: Export
    bench: Bench
    report: Report


# decide where results go, how they are computed and what is done with them, not what is computed: they
# are not hashed
PLACES = ("job", "version", "out")
UNHASHED = (*PLACES, "allow_doubtful")
COMMON = ("job", "version", "out", "seed", "device", "plugins")

# the nodes that each stage reads, beside COMMON
NODES: dict[str, tuple[str, ...]] = {
    "search": ("seeds", "data", "space", "strategy", "relax", "augment", "search", "latency"),
    "train": ("data", "augment", "architecture", "train"),
    "tune": ("data", "augment", "architecture", "train", "tune"),
    "prune": ("data", "augment", "model", "train", "prune"),
    "export": ("data", "model", "export"),
    "bench": ("what", "data", "augment", "model", "runtime", "train", "bench"),
    "report": ("report",),
    "run": (
        "allow_doubtful", "seeds", "data", "space", "strategy", "relax", "augment",
        "search", "latency", "train", "tune", "prune", "export", "bench", "report",
    ),
}  # fmt: skip
COMMANDS = tuple(NODES)


def command_fields(command: str) -> tuple[str, ...]:
    """The top-level settings of `command`, in the order of `Config`."""
    wanted = {*COMMON, *NODES[command]}
    return tuple(f.name for f in fields(Config) if f.name in wanted)
