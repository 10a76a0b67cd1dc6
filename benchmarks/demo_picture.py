"""The picture of what the demo's recipe wins and where it does not, from a file of `benchmarks.demo_folds`.

    python -m benchmarks.demo_picture benchmarks/results/RESULTS.json docs/images/demo-folds.png

Horizontal: the time of the exported network over ResNet-8's, timed in turn, with its range over the folds;
vertical: accuracy pooled over the folds, with the standard error of a share over all images. The line joins
ResNet-8 of several widths: a searched network above it is worth more than scaling.
"""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.demo_folds import HAND, OURS
from benchmarks.picture import finish, run, start
from darts_core.bench.results import read_results
from darts_core.report.palette import hex_color

__all__ = ["draw"]

_NAMES = {OURS: "searched, tuned, exported", HAND: "three convolutions drawn by hand"}
_LOOKS = {OURS: ("accent", "o"), HAND: ("pool", "s")}


def draw(path: Path, to: Path) -> Path:
    """Draw the results file `path` into `to`."""
    results = read_results(path)
    figure, axes = start(7.2, 4.2)
    scaled = sorted(
        (row for row in results.rows if row["network"] not in _LOOKS),
        key=lambda row: row["time_over_resnet8"],
    )
    axes.plot(
        [row["time_over_resnet8"] for row in scaled], [row["accuracy"] for row in scaled],
        color=hex_color("baseline"), linewidth=1, zorder=1,
    )  # fmt: skip
    for row in (*scaled, *(row for row in results.rows if row["network"] in _LOOKS)):
        color, mark = _LOOKS.get(row["network"], ("baseline", "D"))
        time, times = row["time_over_resnet8"], row["time_over_resnet8_by_fold"]
        share = row["accuracy"] / 100
        ours = row["network"] == OURS
        axes.errorbar(
            [time], [row["accuracy"]], xerr=[[time - min(times)], [max(times) - time]],
            yerr=100 * math.sqrt(share * (1 - share) / row["n_images"]), fmt=mark, capsize=2,
            color=hex_color(color), elinewidth=0.8, markersize=8 if ours else 6, zorder=3 if ours else 2,
            label=_NAMES.get(row["network"], "ResNet-8 of width 4, 8, 16, 32" if row is scaled[0] else None),
        )  # fmt: skip
    folds, images = len(results.notes["folds"]), scaled[0]["n_images"]
    return finish(
        figure, to, {tick: f"{tick:g}x" for tick in (0.25, 0.5, 1.0, 2.0, 3.0)},
        time="measured time of the exported network over ResNet-8's (width 16), batch 32",
        metric="accuracy on images that chose nothing (%)",
        title=f"digits, {folds} folds, {images:,} images; rivals tuned for as many device-seconds; "
        f"{results.device}",
    )  # fmt: skip


if __name__ == "__main__":
    run(draw, __doc__)
