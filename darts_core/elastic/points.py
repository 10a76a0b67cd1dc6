"""The points of a front: plain networks, measured end to end, each in a folder of its own."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from darts_core import runlog
from darts_core.elastic.device_clock import DeviceClock
from darts_core.elastic.fit import SPLITS
from darts_core.elastic.shrink import Family
from darts_core.elastic.within import Measured, measure_chosen, taken_alike
from darts_core.latency import Timing
from darts_core.prune.finetune import fine_tune
from darts_core.settings.shrink import Shrink, ShrinkOptions
from darts_core.supernet import count
from darts_core.train.config import TrainConfig
from darts_core.train.evaluation import evaluate
from darts_core.train.save import save_model

__all__ = ["described_point", "given_network", "remove_stale", "write_points"]

log = logging.getLogger("darts_core")
# what a point's folder holds
_HELD = {"model.pt", "point.json", "export"}
# fewer steps of fine-tuning repair little of what a cut costs: 32 left 2 points of it on spoken digits
_FEW_STEPS = 100


def given_network(
    model: nn.Module, bundle: Any, clock: DeviceClock, folder: Path
) -> tuple[dict[str, Any], Timing]:
    """The given network's own row of the front (kept in `base.json`), and its time.

    A row that was timed on another device, in another form or by other versions is timed anew.

    Args:
        model: the network as it was given.
        bundle: with its test split.
        clock: of the device.
        folder: of the front.
    """
    path = folder / "base.json"
    known = runlog.read_mapping(path) if path.is_file() else {}
    if known:
        # what a row does not tell of its time is as here
        told = {key: value for key, value in known["timing"].items() if value not in (None, {})}
        timed = {**clock.described(), **told}
        if clock.fits(timed):
            return known, Timing.from_dict(timed)
        log.warning(
            "%s is of another device, form or version of torch; the given network is timed anew",
            path,
        )
    timing = clock(model)
    row = {**known, **_times(timing)} if known else _row(model, bundle, timing, clock)
    runlog.write_json(path, row)
    log.info(
        "given network: %.3f ms, test %s", timing.median_ms, bundle.task.metric.text(row["metric"])
    )
    if timing.flagged:
        log.warning(
            "the given network was timed beside other work (%s): budgets in per cent, and the front, are as "
            "unsure as that time",
            timing.flag_reason,
        )
    return row, timing


def _times(timing: Timing) -> dict[str, Any]:
    return {
        "latency_ms": timing.median_ms,
        "latency_range_ms": [timing.q05_ms, timing.q95_ms],
        "flagged": timing.flagged,
        "timing": timing.to_dict(),
    }


def _row(model: nn.Module, bundle: Any, timing: Timing, clock: DeviceClock) -> dict[str, Any]:
    size = count(model, clock.input_shape)
    val, test = evaluate(model, bundle, "val"), evaluate(model, bundle, "test")
    row: dict[str, Any] = {
        **_times(timing),
        "metric": test.value,
        "val_metric": val.value,
        "params": size.params,
        "macs": size.macs,
    }
    if bundle.task.metric.share:
        # of a share over n examples; its spread over trainings is another matter
        half = float(np.sqrt(max(test.value * (1 - test.value), 0.0) / test.n))
        row["metric_range"] = [test.value - half, test.value + half]
    return row


def _place(folder: Path, number: int) -> Path:
    return folder / "points" / f"{number:02d}"


def remove_stale(folder: Path, points: Sequence[Mapping[str, Any]]) -> None:
    """Remove the folders of points that an earlier sitting made and that the front no longer lists.

    What holds anything beside a point's own files is left.

    Args:
        folder: of the front.
        points: the rows of front.json.
    """
    listed = {row["folder"] for row in points}
    for at in sorted((folder / "points").glob("*")):
        plain = at.name.isdecimal() and at.is_dir() and not at.is_symlink()
        if not plain or f"points/{at.name}" in listed:
            continue
        if all(entry.name in _HELD for entry in at.iterdir()):
            log.info("%s is no point of the front any more; it is removed", at)
            shutil.rmtree(at)


def _saved(at: Path, one: Measured) -> dict[str, Any] | None:
    """The row of a finished point, where it is of this sub-network: another device chooses others.

    None where somebody has taken its network away.
    """
    path = at / "point.json"
    row = runlog.read_mapping(path) if path.is_file() else {}
    alike = row.get("choices") == one.found.choices and (at / "model.pt").is_file()
    return row if alike else None


def _new(family: Family, chosen: Sequence[Measured], folder: Path) -> dict[int, nn.Module]:
    """The networks of the points that are not there yet, by number, ready to be fine-tuned."""
    found = {}
    for number, one in enumerate(chosen, start=1):
        if _saved(_place(folder, number), one) is None:
            found[number] = family.member(one.found.choices)
    return found


def _say_how_long(tuning: TrainConfig, bundle: Any) -> None:
    """An epoch is few steps on small data, which the number of epochs does not show."""
    examples = bundle.size(SPLITS)
    # an incomplete last batch is left out
    steps = tuning.epochs * int(bundle.steps(SPLITS, tuning.batch_size))
    if steps < _FEW_STEPS:
        log.warning(
            "each point is fine-tuned for %d steps only (%d examples in batches of %d): more epochs cost "
            "little here and may gain much, see %s (now %d)",
            steps, examples, tuning.batch_size, Shrink.key("fine_tuning"), tuning.epochs,
        )  # fmt: skip


def described_point(meta: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What a point's file says of it: what the given network's says, and what was cut since.

    Args:
        meta: of the given network, which may have been cut before.
        found: of the sub-network, as `Elastic.described` gives it.
    """
    replaced = {**dict(meta.get("replaced") or {}), **found["replaced"]}
    sizes = {**dict(meta.get("sizes") or {}), **found["sizes"]}
    # a block that hands on its input has no module any more whose size could be set; an opened attention has
    gone = tuple(f"{path}." for path, name in replaced.items() if name != "attention")
    left = {path: value for path, value in sizes.items() if not path.startswith(gone)}
    return {**meta, "replaced": replaced, "sizes": left}


def _asked(one: Measured) -> dict[str, Any]:
    return {
        "budget_ms": one.budget_ms,
        "within_budget": one.within,
        "predicted_ms": one.found.predicted_ms,
        "found_by": one.found.by,
    }


def _time_anew(at: Path, row: Mapping[str, Any], one: Measured) -> None:
    """Give a finished point the times of this device; its network stays as it was trained."""
    log.info("%s is of another device, form or version of torch; it gets the times of this one", at)
    for made in at.iterdir():
        if made.is_dir():  # exported forms state times, and may be code, of the other device
            shutil.rmtree(made)
    runlog.write_json(at / "point.json", {**row, **_asked(one), **_times(one.timing)})


@dataclass(frozen=True)
class _Maker:
    """What all points share; see `write_points`."""

    family: Family
    teacher: nn.Module
    bundle: Any
    clock: DeviceClock
    meta: Mapping[str, Any]
    tuning: TrainConfig | None
    share: float
    seed: int

    def make(
        self, at: Path, number: int, one: Measured, tuned: nn.Module | None, seconds: float | None
    ) -> None:
        """Cut a point out, fine-tune it unless it is `tuned` already, evaluate and save it."""
        if at.exists():  # of another sub-network, or cut off while it was made
            if (at / "point.json").is_file():
                other = "another sub-network is chosen for its budget now"
                kept = (at / "model.pt").is_file()
                log.warning(
                    "%s is made anew: %s", at, other if kept else "it holds no model.pt any more"
                )
            shutil.rmtree(at)
        at.mkdir(parents=True)
        choices = one.found.choices
        network = self.family.member(choices) if tuned is None else tuned
        if seconds is None:
            seconds = 0.0 if self.tuning is None else self._tune(network, number, self.tuning)
        described = described_point(self.meta, self.family.net.described(choices))
        save_model(at / "model.pt", network, described)
        point = {
            "choices": choices,
            **_asked(one),
            "fine_tuning_seconds": seconds,
            "folder": f"points/{at.name}",
            **_row(network, self.bundle, one.timing, self.clock),
        }
        runlog.write_json(at / "point.json", point)

    def _tune(self, network: nn.Module, number: int, tuning: TrainConfig) -> float:
        return fine_tune(
            network, self.bundle.without_test(), tuning, teacher=self.teacher, distillation=self.share,
            seed=self.seed + number, device=self.clock.device, rate_key=ShrinkOptions.key("fine_tuning_rate"),
        )  # fmt: skip


def write_points(
    family: Family,
    teacher: nn.Module,
    bundle: Any,
    clock: DeviceClock,
    first: Timing,
    folder: Path,
    meta: Mapping[str, Any],
    *,
    wanted: Sequence[str] = (),
    tuning: TrainConfig | None = None,
    share: float = 0.5,
    seed: int = 0,
    elsewhere: Callable[[dict[int, nn.Module]], dict[int, float]] | None = None,
    done: Callable[[Path], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure, cut out, optionally fine-tune and save every chosen sub-network; the rows of front.json.

    A point that is there already is taken as it is; one that was timed on another device, in another form or
    by other versions is timed anew. The same sub-network for two budgets is one point.

    Args:
        family: trained and chosen.
        teacher: the given network.
        bundle: with its test split, which each point reads once.
        clock: of the device.
        first: the given network's time, beside which points are timed.
        folder: receives `points/01`, `points/02` ...
        meta: what `save_model` needs for the given network.
        wanted: budgets as they were asked for, which are met as measured; none where they were spread.
        tuning: recipe of the fine-tuning; None leaves it out.
        share: of the teacher in the fine-tuning.
        seed: of the fine-tuning.
        elsewhere: fine-tunes several points at once, in place (number -> network); the seconds of each. None
            does so here, one after another.
        done: called with a point's folder once its network is there.
    """
    if tuning is not None:
        _say_how_long(tuning, bundle)
    steady = clock.beside(teacher, first)
    chosen = measure_chosen(family, steady, first, folder / "measured.json", wanted)
    members = {} if tuning is None or elsewhere is None else _new(family, chosen, folder)
    took = elsewhere(members) if members and elsewhere is not None else {}
    maker = _Maker(family, teacher, bundle, clock, meta, tuning, share, seed)
    rows = []
    for number, one in enumerate(chosen, start=1):
        at = _place(folder, number)
        row = _saved(at, one)
        if row is None:
            maker.make(at, number, one, members.pop(number, None), took.get(number))
        elif not taken_alike(row["timing"], first):
            _time_anew(at, row, one)
        rows.append(runlog.read_mapping(at / "point.json"))
        log.info(
            "point %d: %.3f ms (predicted %.3f)%s, test %s, by %s",
            number, rows[-1]["latency_ms"], rows[-1]["predicted_ms"],
            " beside other work" if rows[-1]["flagged"] else "",
            bundle.task.metric.text(rows[-1]["metric"]), rows[-1]["found_by"],
        )  # fmt: skip
        if done is not None:
            done(at)
    return sorted(rows, key=lambda row: -row["latency_ms"])
