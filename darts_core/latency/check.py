"""Is the table right? Random architectures, predicted and measured end to end, rank against rank."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core import runlog
from darts_core.architecture import Architecture
from darts_core.device import require_device
from darts_core.errors import LatencyError
from darts_core.latency import device as _device
from darts_core.latency.choice_cost import ChoiceCost
from darts_core.latency.deployed import (
    as_deployed,
    in_runtime,
    onnx_bytes,
    onnx_call,
    without_norms,
)
from darts_core.latency.expected import CostModel, fit_overhead
from darts_core.latency.measure import measure
from darts_core.latency.timing import Timing
from darts_core.runlog import config_hash
from darts_core.sample_inputs import draw_inputs
from darts_core.spaces import SearchSpace

__all__ = [
    "check_predictions",
    "draw_scatter",
    "fit_networks",
    "random_architectures",
    "spearman",
    "write_networks",
]

log = logging.getLogger("darts_core")
_TURNS = ("measured_ms", "again_ms")
_FEWEST = 8


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation of two equally long lists; ties share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def check_predictions(
    model: CostModel | ChoiceCost,
    make: Callable[[Architecture], nn.Module],
    input_shape: Sequence[int],
    *,
    batch: int,
    count: int = 60,
    device: str | torch.device = "cpu",
    runtime: str = "onnx",
    dtype: torch.dtype = torch.float32,
    seconds: float = 0.5,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predicted and measured times of `count` random architectures of the model's space.

    Each network is loaded and timed twice, the second round after the first, so that the
    measurement's own test-retest correlation stands beside the prediction's. Half of the networks fit
    overhead and slope, the correlation is of the other half. Networks with a time taken under foreign
    load are counted (`flagged`) and left out of everything else.

    Args:
        model: from `latency_model` or `choice_latency_model`.
        make: builds the plain network of an architecture.
        input_shape: (C, H, W).
        batch: images a call.
        count: architectures, at least 8.
        device: where.
        runtime: how networks run; the table's.
        dtype: their number format on a GPU; the table's.
        seconds: longest time for one timing.
        folder: keeps networks written by `write_networks` and times: an interrupted check goes on,
            and times taken under foreign load, or with other versions of torch or the runtime, are
            taken anew.
        progress: called with (timings done, timings in all).

    Returns:
        correlation, correlation_all, test_retest, n, flagged, fit and fit_key (for
        `LatencyTable.fits`), points ({architecture, sum_ms, predicted_ms, measured_ms, again_ms}).

    Raises:
        LatencyError: too few architectures, or too few of them were timed undisturbed.
    """
    home = require_device(device)
    architectures = random_architectures(model.space, count)
    kept = _Kept(folder, batch, _device.versions(runtime))
    x = draw_inputs(input_shape, batch, device=home)
    with _device.device_lock(home):
        for turn, name in enumerate(_TURNS):
            for number, architecture in enumerate(architectures):
                text = architecture.text()
                if kept.wants(text, name):
                    # loaded anew each time: where a network's memory lies is part of its spread
                    call = _call(make, architecture, x, runtime, dtype, folder)
                    timing = measure(
                        call, device=home, runtime=runtime, batch=batch,
                        graph=runtime == "graph", max_seconds=seconds, warmup_seconds=seconds / 2,
                    )  # fmt: skip
                    kept.add(text, name, timing.median_ms, flagged=timing.flagged)
                if progress is not None:
                    progress(turn * count + number + 1, 2 * count)
    rows = [
        {"architecture": text, "sum_ms": model.sum_of(architecture), **kept.times(text)}
        for architecture in architectures
        if kept.clean(text := architecture.text())
    ]
    if len(rows) < _FEWEST:
        raise LatencyError(
            f"Only {len(rows)} of {count} networks were timed without foreign load; check again "
            "while the device is quiet."
        )
    return {**_judged(rows, batch), "flagged": count - len(rows), "fit_key": model.fit_key}


def fit_networks(
    model: CostModel | ChoiceCost,
    timer: Callable[[Architecture], Timing],
    *,
    count: int = _FEWEST,
) -> dict[str, Any]:
    """Overhead and slope from `count` random networks timed once: a budget then speaks of networks.

    Times taken beside other work count only where too few others are there: they say more of networks
    than a sum of operations does.

    Args:
        model: of the networks' space.
        timer: a `NetworkTimer`, as patient as it is to be.
        count: networks.

    Returns:
        what `LatencyTable.fits` keeps under the model's `fit_key`, and `disturbed`, how many of the times
        that count were taken beside other work.

    Raises:
        LatencyError: too few architectures, or all of one sum.
    """
    taken = [(model.sum_of(a), timer(a)) for a in random_architectures(model.space, count, seed=1)]
    quiet = [(total, timing) for total, timing in taken if not timing.flagged]
    used = quiet if len(quiet) >= max(3, count // 2) else taken
    fit = fit_overhead([total for total, _ in used], [timing.median_ms for _, timing in used])
    return {**fit, "disturbed": sum(timing.flagged for _, timing in used)}


def random_architectures(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    """`count` architectures drawn from `space`.

    Raises:
        LatencyError: too few for a rank correlation.
    """
    if count < _FEWEST:
        raise LatencyError(
            f"count={count} is too few for a rank correlation; take at least {_FEWEST}."
        )
    rng = np.random.default_rng(seed)
    return [space.random(rng) for _ in range(count)]


def write_networks(
    space: SearchSpace,
    make: Callable[[Architecture], nn.Module],
    input_shape: Sequence[int],
    folder: str | Path,
    *,
    count: int = 60,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the ONNX files that `check_predictions` times, which needs no quiet device."""
    x = draw_inputs(input_shape, 2)
    for number, architecture in enumerate(random_architectures(space, count)):
        _written(make, architecture, x, Path(folder))
        if progress is not None:
            progress(number + 1, count)


def _written(
    make: Callable[[Architecture], nn.Module], architecture: Architecture, x: torch.Tensor,
    folder: Path,
) -> bytes:  # fmt: skip
    """The ONNX file of an architecture's network, read from `folder` where it is there."""
    path = folder / f"{config_hash(architecture.to_dict())}.onnx"
    if not path.is_file():
        # two commands write the same networks in the same order
        runlog.write_bytes(
            path, onnx_bytes(without_norms(make(architecture), x), x, any_batch=True)
        )
    return path.read_bytes()


def _call(
    make: Callable[[Architecture], nn.Module],
    architecture: Architecture,
    x: torch.Tensor,
    runtime: str,
    dtype: torch.dtype,
    folder: str | Path | None,
) -> Callable[[], Any]:
    if runtime == "onnx" and folder is not None:
        return onnx_call(_written(make, architecture, x, Path(folder)), x)
    return in_runtime(*as_deployed(without_norms(make(architecture), x), x, dtype), runtime)


class _Kept:
    """The times taken so far, in a file of `folder`."""

    def __init__(self, folder: str | Path | None, batch: int, versions: Mapping[str, str]) -> None:
        self._path = Path(folder) / f"times-b{batch}.json" if folder is not None else None
        found = runlog.read_mapping(self._path) if self._path and self._path.is_file() else {}
        if not all(isinstance(row, dict) for row in found.values()):
            raise LatencyError(
                f"{self._path} holds other than times; use another folder, or move the file away to "
                "measure again."
            )
        # files of an older program do not say what they were measured with
        self._versions = dict(versions)
        rows = {text: row for text, row in found.items() if row.get("versions") == self._versions}
        if len(rows) < len(found):
            log.info(
                "%s: times of %d networks are of other or unknown versions of torch or the runtime, and are "
                "taken anew",
                self._path,
                len(found) - len(rows),
            )
        self._rows: dict[str, dict[str, Any]] = rows

    def wants(self, text: str, turn: str) -> bool:
        entry = self._rows.get(text, {})
        return turn not in entry or bool(entry.get(f"{turn}_flagged"))

    def add(self, text: str, turn: str, time_ms: float, *, flagged: bool) -> None:
        entry = self._rows.setdefault(text, {"versions": self._versions})
        entry[turn], entry[f"{turn}_flagged"] = time_ms, flagged
        if self._path is not None:
            runlog.write_json(self._path, self._rows)

    def clean(self, text: str) -> bool:
        return not any(self._rows[text][f"{turn}_flagged"] for turn in _TURNS)

    def times(self, text: str) -> dict[str, float]:
        return {turn: float(self._rows[text][turn]) for turn in _TURNS}


def _judged(rows: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    half = len(rows) // 2
    fit = fit_overhead(
        [row["sum_ms"] for row in rows[:half]], [row["measured_ms"] for row in rows[:half]]
    )
    for row in rows:
        row["predicted_ms"] = fit["overhead_ms"] + fit["slope"] * row["sum_ms"]
    held = rows[half:]

    def column(part: list[dict[str, Any]], name: str) -> list[float]:
        return [row[name] for row in part]

    return {
        "batch": batch,
        "n": len(held),
        "correlation": spearman(column(held, "sum_ms"), column(held, "measured_ms")),
        "correlation_all": spearman(column(rows, "sum_ms"), column(rows, "measured_ms")),
        "test_retest": spearman(column(rows, "measured_ms"), column(rows, "again_ms")),
        "fit": fit,
        "points": rows,
    }


def draw_scatter(record: Mapping[str, Any], path: str | Path) -> None:
    """Draw predicted against measured times of `check_predictions` into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5))
    points = record["points"]
    axes.scatter([p["predicted_ms"] for p in points], [p["measured_ms"] for p in points], s=14)
    low = min(min(p["predicted_ms"], p["measured_ms"]) for p in points)
    high = max(max(p["predicted_ms"], p["measured_ms"]) for p in points)
    axes.plot([low, high], [low, high], linewidth=1, color="0.6")
    axes.set_xlabel("predicted ms")
    axes.set_ylabel("measured ms")
    axes.set_title(
        f"batch {record['batch']}: Spearman {record['correlation']:.3f} on {record['n']} held "
        f"networks\n(test-retest {record['test_retest']:.3f})",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
