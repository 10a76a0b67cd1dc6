"""Is the table right? Random architectures, predicted and measured end to end, rank against rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.errors import LatencyError
from darts_core.latency import device as _device
from darts_core.latency.expected import CostModel, fit_overhead
from darts_core.latency.forms import in_runtime, without_norms
from darts_core.latency.measure import measure

__all__ = ["check_predictions", "draw_scatter", "spearman"]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation of two equally long lists; ties share their mean rank."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def check_predictions(
    model: CostModel,
    make: Callable[[Architecture], nn.Module],
    input_shape: Sequence[int],
    *,
    batch: int,
    count: int = 60,
    device: str | torch.device = "cpu",
    runtime: str = "onnx",
    seed: int = 0,
    seconds: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Predicted and measured times of `count` random architectures of the model's space.

    Each network is timed twice, the second round after the first, so that the measurement's own
    test-retest correlation stands beside the prediction's. Half of the networks fit overhead and
    slope, the correlation is of the other half.

    Args:
        model: from `latency_model`.
        make: builds the plain network of an architecture.
        input_shape: (C, H, W).
        batch: images a call.
        count: architectures, at least 8.
        device: where.
        runtime: how networks run; the table's.
        seed: of the architectures.
        seconds: longest time for one timing.
        progress: called with (timings done, timings in all).

    Returns:
        correlation, correlation_all, test_retest, n, fit and fit_key (for `LatencyTable.fits`),
        points ({architecture, sum_ms, predicted_ms, measured_ms, again_ms, flagged}).

    Raises:
        LatencyError: too few architectures.
    """
    if count < 8:
        raise LatencyError(f"count={count} is too few for a rank correlation; take at least 8.")
    home = _device.require_device(device)
    rng = np.random.default_rng(seed)
    architectures = [model.space.random(rng) for _ in range(count)]
    rows: list[dict[str, Any]] = []
    calls = []
    for architecture in architectures:
        network = without_norms(make(architecture)).to(home)
        x = torch.randn(batch, *input_shape, device=home)
        calls.append(in_runtime(network, x, runtime))
        rows.append({"architecture": architecture.text(), "sum_ms": model.sum_of(architecture)})
    with _device.device_lock(home):
        for turn, name in enumerate(("measured_ms", "again_ms")):
            for number, (row, call) in enumerate(zip(rows, calls, strict=True)):
                timing = measure(
                    call, device=home, runtime=runtime, batch=batch, graph=runtime == "graph",
                    max_seconds=seconds, warmup_seconds=seconds / 2,
                )  # fmt: skip
                row[name] = timing.median_ms
                row["flagged"] = row.get("flagged", False) or timing.flagged
                if progress is not None:
                    progress(turn * count + number + 1, 2 * count)
    return {**_judged(rows, batch), "fit_key": model.fit_key}


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
