"""The rate at which processes decode a streamed image folder, against the training process alone.

    python -m benchmarks.decode --images 400 --workers 1 2 --rounds 10

JPEGs of 500x375 are made, about what ImageNet holds, which a stream cuts to 224x224. Every round takes one
epoch of batches with each number of processes, in turn, and nothing is trained: what is measured is decoding,
the start of the processes included. Stated is the median over the rounds of the ratio (images a second and
process) / (images a second of the single process), by the clock and by the time of the processor (of all
processes); on a busy machine the clock says little. More processes than free cores only share them.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from darts_core.bench.results import command_line, write_results
from darts_core.data import DataBundle, load_data
from darts_core.runlog import processor_name


def make(root: Path, images: int) -> None:
    """Pictures as smooth as photographs are: noise of two scales, enlarged."""
    rng = np.random.default_rng(0)
    for number in range(images):
        folder = root / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8))
        fine = Image.fromarray(rng.integers(0, 256, (188, 250, 3)).astype(np.uint8))
        size = (500, 375)
        whole = Image.blend(coarse.resize(size, Image.Resampling.BICUBIC), fine.resize(size), 0.15)
        whole.save(folder / f"{number:05}.jpg", quality=90)


def epoch_seconds(bundle: DataBundle, epoch: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor that one epoch of batches takes."""
    started, before = time.perf_counter(), sum(os.times()[:4])
    for _ in bundle.batches("params", 32, epoch=epoch, pixels=True):
        pass
    gc.collect()  # the processes have ended, so that their time is counted
    return time.perf_counter() - started, sum(os.times()[:4]) - before


def main() -> None:
    """Measure, print and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), given.images)
        bundles = {
            count: load_data(
                "image_folder", folder, image_size=224, stream=True, workers=count,
                val_fraction=0.05, test_fraction=0.05, alpha_fraction=0.05,
            )
            for count in (0, *given.workers)
        }  # fmt: skip
        taken: dict[int, list[tuple[float, float]]] = {count: [] for count in bundles}
        for number in range(given.rounds + 1):
            for count, bundle in bundles.items():
                found = epoch_seconds(bundle, number)
                if number:  # the first round warms up
                    taken[count].append(found)
        images = bundles[0].steps("params", 32) * 32
    rows = []
    for count, own in taken.items():
        clock = [a[0] / b[0] / max(count, 1) for a, b in zip(taken[0], own, strict=True)]
        processor = [a[1] / b[1] for a, b in zip(taken[0], own, strict=True)]
        rows.append(
            {
                "name": f"{count} processes" if count else "the training process alone",
                "workers": count,
                "images_a_second": round(images / statistics.median(o[0] for o in own), 1),
                "rate_a_worker_over_single": round(statistics.median(clock), 3),
                "lowest": round(min(clock), 3),
                "highest": round(max(clock), 3),
                "images_a_processor_second_over_single": round(statistics.median(processor), 3),
                "processor_lowest": round(min(processor), 3),
                "processor_highest": round(max(processor), 3),
                "n": len(own),
            }
        )
        print(rows[-1])
    cores = len(os.sched_getaffinity(0))
    path = write_results(
        "decode",
        rows,
        device=f"{processor_name()}, {cores} of {os.cpu_count()} cores",
        folder=given.out,
        notes={**vars(given), "load_before": load, "images_an_epoch": images},
        command=command_line(without=("--out",)),
    )
    print(path)


if __name__ == "__main__":
    main()
