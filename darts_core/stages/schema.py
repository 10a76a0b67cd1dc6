"""What each stage is given: one frozen dataclass a stage, of the nodes that it reads and no others.

The names at the top are those that are typed: `search.epochs=3` is `SearchStage.search.epochs`. The
pipeline holds the nodes of all stages, and `config.part(TrainStage)` is what it hands to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.errors import ConfigError
from darts_core.settings import (
    SEED_HIGH,
    Bench,
    Data,
    Export,
    Latency,
    Prune,
    Report,
    Search,
    Settings,
    Shrink,
    Space,
    TaskChoice,
    Train,
    Tune,
    setting,
    to_plain,
)
from darts_core.settings.shrink import shrink_as_before
from darts_core.settings.train import as_before

__all__ = [
    "COMMANDS",
    "PLACES",
    "STAGES",
    "UNHASHED",
    "BenchStage",
    "DataStage",
    "ExportStage",
    "Pipeline",
    "PruneStage",
    "RecipeStage",
    "ReportStage",
    "SearchStage",
    "ShrinkStage",
    "Stage",
    "TrainStage",
    "TuneStage",
    "deciding",
]

# decide where results go, how they are computed and what is done with them, not what is computed: they
# are not hashed
PLACES = ("job", "version", "out")
UNHASHED = (*PLACES, "allow_doubtful", "logger")
REDUCE = ("prune", "shrink", "none")
_MAY_LOSE = 0.1
WHAT = ("models", "step", "kernels", "tabular")

_NODE = "chosen by its group"
_NAMES = "package.module:function, timm:NAME, or a registered name"


def deciding(config: Stage) -> dict[str, Any]:
    """All settings as plain values; what folders from before it lack only where it is not as usual."""
    plain: dict[str, Any] = to_plain(config)
    if plain.get("may_lose") == _MAY_LOSE:
        del plain["may_lose"]
    if "train" in plain:
        plain["train"] = as_before(plain["train"])
    if "shrink" in plain:
        plain["shrink"] = shrink_as_before(plain["shrink"])
    nodes = plain.pop("callbacks", {})
    called = {name: node for name, node in nodes.items() if isinstance(node, Mapping)}
    return {**plain, "callbacks": called} if called else plain


@dataclass(frozen=True)
class Stage(Settings):
    """What every stage is given."""

    STAGE: ClassVar[str] = ""

    job: str | None = setting(
        None,
        "names the folder below out; null: <data>-<space> of search and run, else <data>-<architecture or "
        "model>, or <data>-<command> where that is a path or none is given; report needs it",
    )
    version: str | None = setting(
        None, "V001, V002 ...; null: the unfinished one with these settings, else the next"
    )
    out: str = setting("runs", "root of all results")
    seed: int = setting(0, "of every random draw", low=0, high=SEED_HIGH)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1")
    plugins: list[str] = setting([], "modules imported before anything is built, e.g. [my_nas.ops]")
    logger: Mapping[str, Any] = setting({}, _NODE)

    def check(self) -> None:
        """Refuse seeds that run beyond the largest one."""
        last = self.seed + getattr(self, "seeds", 1) - 1
        if last > SEED_HIGH:
            raise ConfigError(f"seed={self.seed} and seeds= end at {last}, above {SEED_HIGH}.")

    def described(self) -> dict[str, Any]:
        """The settings that decide what the stage computes, as plain values."""
        return {k: v for k, v in deciding(self).items() if k not in (*PLACES, "seeds", "logger")}


@dataclass(frozen=True)
class DataStage(Stage):
    """A stage that reads data."""

    data: Data = setting(Data, _NODE)
    task: TaskChoice = setting(TaskChoice, _NODE)


@dataclass(frozen=True)
class RecipeStage(DataStage):
    """A stage that trains a fixed network."""

    augment: Mapping[str, Any] = setting({}, _NODE)
    train: Train = setting(Train, "the recipe")


@dataclass(frozen=True)
class SearchNodes(DataStage):
    """The nodes that a search reads."""

    space: Space = setting(Space, _NODE)
    strategy: Mapping[str, Any] = setting({}, _NODE)
    relax: Mapping[str, Any] = setting({}, _NODE)
    penalty: Mapping[str, Any] = setting({}, _NODE)
    callbacks: Mapping[str, Any] = setting({}, _NODE)
    augment: Mapping[str, Any] = setting({}, _NODE)
    search: Search = setting(Search, "the search")
    latency: Latency = setting(Latency, "what cost is charged for")


@dataclass(frozen=True)
class NamedStage(DataStage):
    """A stage that takes a saved network or a named one."""

    model: str | None = setting(
        None,
        f"a model.pt or the folder of one; or {_NAMES}; null: what prune, shrink or train left here",
    )
    model_args: Mapping[str, Any] = setting({}, "arguments of a named model")
    weights: str | None = setting(None, "the state dict of a named model")


@dataclass(frozen=True)
class ReducingStage(RecipeStage, NamedStage):
    """A stage that makes a trained network smaller."""

    model: str | None = setting(
        None,
        f"a model.pt or the folder of one; or {_NAMES}; null: what train left in this version",
    )


@dataclass(frozen=True)
class SearchStage(SearchNodes):
    """What `search` is given."""

    STAGE: ClassVar[str] = "search"

    model: str | None = setting(
        None, f"instead of space: {_NAMES}; a network with choices in it, which are the space"
    )
    model_args: Mapping[str, Any] = setting({}, "arguments of model=")
    seeds: int = setting(1, "so many searches, with seeds seed, seed+1 ...", low=1, high=10_000)


@dataclass(frozen=True)
class TrainStage(RecipeStage):
    """What `train` is given."""

    STAGE: ClassVar[str] = "train"

    architecture: str | None = setting(
        None,
        "a YAML file, a named one (DARTS_V2), or a genotype text; null: what search found in this "
        "version",
    )
    callbacks: Mapping[str, Any] = setting({}, _NODE)
    model: str | None = setting(
        None,
        "instead of architecture: a model.pt or the folder of one, which is trained on with its widths and "
        f"params; or {_NAMES}",
    )
    model_args: Mapping[str, Any] = setting({}, "arguments of model=")
    weights: str | None = setting(None, "a state dict to start model= from")


@dataclass(frozen=True)
class TuneStage(TrainStage):
    """What `tune` is given."""

    STAGE: ClassVar[str] = "tune"

    tune: Tune = setting(Tune, "the study")


@dataclass(frozen=True)
class PruneStage(ReducingStage):
    """What `prune` is given."""

    STAGE: ClassVar[str] = "prune"

    prune: Prune = setting(Prune, "the pruning")


@dataclass(frozen=True)
class ShrinkStage(ReducingStage):
    """What `shrink` is given."""

    STAGE: ClassVar[str] = "shrink"

    shrink: Shrink = setting(Shrink, "the elastic training and the front")
    export: Export = setting(Export, "of each point")


@dataclass(frozen=True)
class ExportStage(NamedStage):
    """What `export` is given."""

    STAGE: ClassVar[str] = "export"

    export: Export = setting(Export, "the export")


@dataclass(frozen=True)
class BenchStage(RecipeStage):
    """What `bench` is given."""

    STAGE: ClassVar[str] = "bench"

    model: str | None = setting(
        None,
        f"a model.pt, the folder of one, a baseline such as resnet18, or {_NAMES}; null: the models of "
        "this version, or of the job's newest that has one",
    )
    model_args: Mapping[str, Any] = setting({}, "arguments of a named model")
    weights: str | None = setting(
        None,
        "the state dict of a named model, which is then taken as it is; null: it is trained here",
    )
    what: str = setting("models", ", ".join(WHAT), choices=WHAT)
    runtime: str | None = setting(None, "one way to run the models; null: all that apply")
    bench: Bench = setting(Bench, "the comparison")


@dataclass(frozen=True)
class ReportStage(Stage):
    """What `report` is given."""

    STAGE: ClassVar[str] = "report"

    report: Report = setting(Report, "the page")


@dataclass(frozen=True)
class Pipeline(SearchNodes):
    """What `run` is given: the nodes of all stages. Models and architectures are its own stages'."""

    STAGE: ClassVar[str] = "run"

    allow_doubtful: bool = setting(False, "go on with an architecture that the guards doubt")
    aim: float | None = setting(
        0.5,
        "the part of the baseline's time on this device that the network may take, where `latency` says "
        "nothing of cost; null: whatever it takes",
        above=0, high=1000,
    )  # fmt: skip
    reduce: str = setting("prune", f"what makes it faster: {', '.join(REDUCE)}", choices=REDUCE)
    may_lose: float = setting(
        _MAY_LOSE,
        "of a metric that is a share on val: what pruning or shrinking may take; beyond it the whole network "
        "is shipped; 1: whatever it takes",
        low=0, high=1,
    )  # fmt: skip
    seeds: int = setting(
        1, "so many whole pipelines, with seeds seed, seed+1 ...", low=1, high=10_000
    )
    train: Train = setting(Train, "the recipe")
    tune: Tune = setting(Tune, "the study")
    prune: Prune = setting(Prune, "the pruning")
    shrink: Shrink = setting(Shrink, "the elastic training, with reduce=shrink")
    export: Export = setting(Export, "the export")
    bench: Bench = setting(Bench, "the comparison")
    report: Report = setting(Report, "the page")


STAGES: dict[str, type[Stage]] = {
    stage.STAGE: stage
    for stage in (
        SearchStage, TrainStage, TuneStage, ShrinkStage, PruneStage, ExportStage, BenchStage, ReportStage,
        Pipeline,
    )
}  # fmt: skip
COMMANDS = tuple(STAGES)
