"""Rivals of the pipeline: the hand-designed network at other widths, networks drawn by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from darts_core.bench.results import slug
from darts_core.errors import ConfigError
from darts_core.models.baselines import default_baseline, is_baseline, reads
from darts_core.spaces import get_space
from darts_core.stages.given import find_architecture
from darts_core.stages.schema import Pipeline, TrainStage, TuneStage
from darts_core.stages.train import train
from darts_core.stages.tune import tune

__all__ = ["check_rivals", "rival_name", "train_like_the_network", "train_rivals"]

MOST_WIDTH = 4096


def train_like_the_network(
    config: Pipeline,
    architecture: str,
    folder: Path,
    *,
    seconds: float,
    beside: Path,
    width: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Tune and train another network over the epochs and splits of the searched one.

    It is tuned over as many trials, or with `bench.equal_cost` for as many seconds, whatever else bounds
    the study of ours.

    Args:
        config: of the pipeline.
        architecture: a hand-designed network, a name, or an architecture's file or text.
        folder: receives `tune/` and `train/`.
        seconds: on the device, of everything that was spent on the searched one before its training.
        beside: folder of the searched one's study.
        width: first channels of a hand-designed network; None: `train.channels`, as the searched one.
    """
    study = config.tune
    if config.bench.equal_cost:
        # any other limit would end the study before it has cost as much
        study = replace(study, trials=None, epochs=None, trainings=None, device_seconds=seconds)
    recipe = config.train if width is None else replace(config.train, channels=width)
    base = config.part(TuneStage, architecture=architecture, train=recipe, tune=study)
    tuned = tune(base, folder / "tune", beside=beside)
    best = base.part(TrainStage, train=replace(base.train, **tuned["best"]))
    return {"tune": tuned, "train": train(best, folder / "train")}


def rival_baseline(config: Pipeline) -> str:
    """The hand-designed network of `bench.baseline`, or the one for what the space's networks read.

    Raises:
        ConfigError: it reads something else than they do.
    """
    kind, given = get_space(config.space.name, config.space.ops).reads, config.bench.baseline
    if given is not None and reads(given) != kind:
        raise ConfigError(
            f"bench.baseline={given} reads {reads(given)}, the networks of space={config.space.name} read "
            f"{kind}; leave it out for {default_baseline(kind)}."
        )
    return given or default_baseline(kind)


def rival_name(config: Pipeline, rival: str) -> str:
    """What tables call a rival: the baseline with its width, or the file's or architecture's name."""
    if rival.isdecimal():
        return f"{rival_baseline(config)} w{int(rival)}"
    return Path(rival).stem if rival.endswith((".yaml", ".yml")) else rival


def check_rivals(config: Pipeline, version: Path) -> None:
    """Look at `bench.baseline` and `bench.rivals` before any work.

    Raises:
        ConfigError: a network reads something else, a width is none, or one rival is named twice.
        ArchitectureError: there is no such architecture.
    """
    rival_baseline(config)
    kind = get_space(config.space.name, config.space.ops).reads
    names = [slug(rival_name(config, rival)) for rival in config.bench.rivals]
    for rival, name in zip(config.bench.rivals, names, strict=True):
        if names.count(name) > 1:
            raise ConfigError(f"bench.rivals names {rival!r} twice; each needs a name of its own.")
        if rival.isdecimal() and not 1 <= int(rival) <= MOST_WIDTH:
            raise ConfigError(
                f"bench.rivals={rival} is no width; give 1 to {MOST_WIDTH}, or an architecture's file."
            )
        if not rival.isdecimal() and not is_baseline(rival):
            find_architecture(rival, version)
        elif not rival.isdecimal() and reads(rival) != kind:
            raise ConfigError(
                f"bench.rivals names {rival}, which reads {reads(rival)}; the networks of space="
                f"{config.space.name} read {kind}. Leave it out, or name one that reads these."
            )


def train_rivals(
    config: Pipeline, version: Path, *, seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name and step, result) of every network of `bench.rivals`, in `rivals/<name>/`."""
    for rival in config.bench.rivals:
        name = rival_name(config, rival)
        folder, ours = version / "rivals" / slug(name), version / "tune"
        width = int(rival) if rival.isdecimal() else None
        network = rival if width is None else rival_baseline(config)
        found = train_like_the_network(
            config, network, folder, seconds=seconds, beside=ours, width=width
        )
        for step, result in found.items():
            yield f"rival {name} {step}", result
