"""The settings of `shrink`: one elastic training of a given network, and its front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from darts_core.settings.field import Settings, setting
from darts_core.settings.search import RUNTIMES

__all__ = ["Shrink", "ShrinkOptions", "shrink_as_before"]


@dataclass(frozen=True)
class ShrinkOptions(Settings):
    """The node `shrink.options`."""

    NODE: ClassVar[str] = "shrink.options"

    drawn: int = setting(
        2, "sub-networks drawn a step, beside the whole and the smallest", low=0, high=64
    )
    distillation: float = setting(
        0.5,
        "share of the given network's outputs in each loss; of sub-networks, of their mean with the whole "
        "one's",
        low=0,
        high=1,
    )
    others: float = setting(
        0.25,
        "how much each sub-network's loss counts beside the whole network's 1",
        above=0,
        high=100,
    )
    fine_tuning_rate: float | None = setting(
        None,
        "learning rate of the fine-tuning; null: a third of shrink.learning_rate for one epoch, and the more "
        "the longer it is (with the root of the epochs), up to all of it",
        above=0,
        high=100,
    )
    least: float = setting(0.25, "smallest share of channels that a group keeps", above=0, high=1)
    round_to: int | None = setting(
        None, "widths of wide groups are multiples of it; null: what the device likes",
        low=1, high=4096,
    )  # fmt: skip
    depth: bool = setting(True, "whether residual blocks may be skipped")
    looks: int = setting(
        100, "sub-networks judged by greedy descent, and by evolution; the alphas' steps cost as much",
        low=8, high=1_000_000,
    )  # fmt: skip
    val_examples: int = setting(
        500, "of val, on which they are judged and the alphas descend", low=16, high=10_000_000
    )
    norm_examples: int = setting(
        512, "of the training splits, on which norms are recalibrated", low=16, high=10_000_000
    )
    cache_mib: float = setting(
        64.0, "memory for the given network's outputs; 0: asked anew at every step", low=0, high=1e6
    )
    runtime: str | None = setting(
        None, "what is timed; null: onnx on a CPU, graph on a GPU", choices=RUNTIMES
    )
    seconds: float = setting(1.0, "longest time for one timing", above=0, high=3600)
    ray: Mapping[str, Any] | None = setting(
        None, "fine-tuning of points on a Ray cluster; keys as of tune.options.ray"
    )
    slurm: Mapping[str, Any] | None = setting(
        None, "fine-tuning of points as jobs of Slurm; keys as of tune.options.slurm"
    )


@dataclass(frozen=True)
class Shrink(Settings):
    """The node `shrink`: a front of sub-networks from one training of a given network."""

    NODE: ClassVar[str] = "shrink"

    budgets: list[str] = setting(
        [], "of the whole network's latency, e.g. [75%,50%], or milliseconds; []: evenly spread"
    )
    points: int = setting(8, "of the front, where no budgets are given", low=2, high=200)
    pick: str | None = setting(
        None,
        "the budget whose point export, bench and predict take as shrink's; null: 50%, in `run` what it aims "
        "at",
    )
    batch: int | None = setting(
        None,
        "examples a call of the latency; null: 32 on a CPU, 256 on a GPU",
        low=1,
        high=1_000_000,
    )
    epochs: int = setting(20, "of the elastic training", low=1, high=1_000_000)
    learning_rate: float = setting(0.05, "of the elastic training", above=0, high=100)
    fine_tuning: int = setting(0, "epochs of fine-tuning of each point", low=0, high=1_000_000)
    export: bool = setting(True, "write each point's deployable forms")
    options: ShrinkOptions = setting(ShrinkOptions, "what is rarely changed")


def shrink_as_before(node: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a node `shrink`; what folders from before it lack only where it counts.

    Where points are fine-tuned it does count, also as usual: they were with the whole rate.
    """
    options = dict(node["options"])
    if options.get("fine_tuning_rate") is None and not node["fine_tuning"]:
        options.pop("fine_tuning_rate", None)
    return {**node, "options": options}
