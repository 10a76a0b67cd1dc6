"""The settings of what is done with a trained network: prune, export, bench, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from darts_core.settings.field import Settings, setting
from darts_core.settings.search import RUNTIMES

__all__ = ["Bench", "BenchOptions", "Export", "ExportOptions", "Prune", "PruneOptions", "Report"]


@dataclass(frozen=True)
class PruneOptions(Settings):
    """The node `prune.options`."""

    NODE: ClassVar[str] = "prune.options"

    importance: str = setting(
        "taylor", "taylor, magnitude, bn_scale", choices=("taylor", "magnitude", "bn_scale")
    )
    rounds: int = setting(
        2, "steps to the budget, each fine-tuned; up to two more if it is missed", low=1, high=100
    )
    structure: bool = setting(True, "whether operations, edges and cells may go too")
    distillation: float = setting(
        0.0, "share of the unpruned model's soft labels in the fine-tuning's loss", low=0, high=1
    )
    least: float = setting(0.125, "smallest share of channels that a group keeps", above=0, high=1)
    round_to: int | None = setting(
        None, "widths of wide groups are multiples of it; null: what the device likes",
        low=1, high=4096,
    )  # fmt: skip
    runtime: str | None = setting(
        None, "what is timed; null: onnx on a CPU, graph on a GPU", choices=RUNTIMES
    )
    seconds: float = setting(1.0, "longest time for one timing", above=0, high=3600)


@dataclass(frozen=True)
class Prune(Settings):
    """The node `prune`: shrinking a trained network to a measured latency."""

    NODE: ClassVar[str] = "prune"

    budget: str | None = setting(
        None,
        "of the unpruned latency, e.g. 50%; or milliseconds, e.g. 2.5ms; or as fast as resnet18; null: 50%, "
        "in `run` no further than it aims at",
    )
    batch: int | None = setting(
        None, "images a call of the budget; null: 32 on a CPU, 256 on a GPU", low=1, high=1_000_000
    )
    epochs: int = setting(10, "of fine-tuning", low=1, high=1_000_000)
    learning_rate: float = setting(0.01, "of fine-tuning", above=0, high=100)
    options: PruneOptions = setting(PruneOptions, "what is rarely changed")


@dataclass(frozen=True)
class ExportOptions(Settings):
    """The node `export.options`."""

    NODE: ClassVar[str] = "export.options"

    allow_accuracy_loss: bool = setting(
        False, "write low-precision files even if they lose more than allowed"
    )
    time_artifacts: bool = setting(True, "time each file and state it in the manifest")
    batch_sizes: list[int] | None = setting(
        None, "images a call of the timings; null: 1 and the throughput batch",
        low=1, high=1_000_000,
    )  # fmt: skip
    channels_last: bool | None = setting(
        None, "layout of the torch files; null: the faster one, measured"
    )
    max_seconds: float = setting(2.0, "longest time for one timing", above=0, high=3600)


@dataclass(frozen=True)
class Export(Settings):
    """The node `export`: which deployable forms are written."""

    NODE: ClassVar[str] = "export"

    formats: list[str] = setting(["pt2", "onnx"], "names of file formats")
    options: ExportOptions = setting(ExportOptions, "what is rarely changed")


@dataclass(frozen=True)
class BenchOptions(Settings):
    """The node `bench.options`: what only some of `what=` read; null where the default depends on it."""

    NODE: ClassVar[str] = "bench.options"

    seeds: int = setting(3, "networks trained for the accuracy, from seed on", low=1, high=10_000)
    precisions: list[str] = setting(
        ["fp32"], "of models in memory", choices=("fp32", "tf32", "bf16", "fp16")
    )
    batch_sizes: list[int] | None = setting(
        None, "images a call; null: 1 and 256 (GPU) or 32 (CPU)", low=1, high=1_000_000
    )
    width: int | None = setting(
        None, "first channels of a hand-designed network; null: as published", low=1, high=4096
    )
    name: str | None = setting(None, "in the table; null: from model=")
    kind: str | None = setting(None, "baseline, searched, tuned, pruned ...; null: from model=")
    results: str | None = setting(None, "a folder that also gets a dated results file")
    table: str | None = setting(None, "of tabular: an .npz of ours, a .csv, or NATS-Bench files")
    column: str | None = setting(None, "of tabular: data set that judges, e.g. cifar10:test")
    select: str | None = setting(
        None,
        "of tabular: data set by which random search and evolution choose; null: the :val of column",
    )
    runs: list[str] = setting([], "of tabular: folders of finished searches to look up")
    budget: int = setting(
        100, "of tabular: architectures that random search and evolution may see; 0: none of these",
        low=0, high=10_000_000,
    )  # fmt: skip
    population: int = setting(20, "of tabular: evolution's", low=1, high=1_000_000)
    tournament: int = setting(5, "of tabular: evolution's", low=1, high=1_000_000)
    space: str | None = setting(None, "of step and kernels: darts, nasbench201 ...")
    channels: int | None = setting(None, "of step and kernels", low=1, high=4096)
    layers: int | None = setting(None, "of step and kernels", low=1, high=1000)
    batch_size: int | None = setting(None, "of step and kernels", low=1, high=1_000_000)
    size: int | None = setting(
        None, "of step and kernels: height and width of the images", low=1, high=4096
    )
    relaxation: str | None = setting(
        None, "of step and kernels", choices=("softmax", "partial_channels", "gumbel")
    )
    seconds: float | None = setting(
        None, "of step and kernels: of timing per variant", above=0, high=3600
    )
    variants: list[str] | None = setting(None, "of step: names of rows; null: all of the device")
    cases: list[str] | None = setting(
        None, "of step: darts, nasbench201 ...; null: all on a CPU, darts on a GPU"
    )


@dataclass(frozen=True)
class Bench(Settings):
    """The node `bench`: what is compared, and how long each timing takes."""

    NODE: ClassVar[str] = "bench"

    baseline: str | None = setting(
        None,
        "hand-designed network trained beside ours in `run`; null: resnet8 for images, dscnn for series, "
        "transformer for tokens",
    )
    baseline_width: int = setting(16, "its first channels", low=1, high=4096)
    equal_cost: bool = setting(
        False,
        "of `run`: the baseline and the rivals are tuned for the device-seconds that our search and tuning "
        "took; false: over as many trials",
    )
    rivals: list[str] = setting(
        [],
        "of `run`, tuned and trained as the baseline is: other widths of it (8), or architecture files",
    )
    seconds: float = setting(1.0, "of timing per model and batch", above=0, high=3600)
    options: BenchOptions = setting(BenchOptions, "what only some of what= read")


@dataclass(frozen=True)
class Report(Settings):
    """The node `report`: the page that a person reads."""

    NODE: ClassVar[str] = "report"

    title: str | None = setting(None, "of the page; null: job and version")
