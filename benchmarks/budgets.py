"""Twenty searches under latency budgets: does the exported network meet its budget as measured?

    OMP_NUM_THREADS=1 python -m benchmarks.budgets      # some 15 minutes of one core, longer on a busy one

Two spaces, ten budgets each, evenly from the fastest to the median of twelve random networks of the same
size, timed beforehand. Each search is the real command on the 8x8 digits; what it returns is built,
exported to ONNX as a user's model is, and the file is timed in ONNX Runtime at the budget's batch. A
search that ends with the sentence that names the fastest network counts as told. Where other work keeps
the device busy, the fastest of several medians counts, as in the search itself; the rows say so. Finished
rows are kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from darts_core import cli
from darts_core.architecture import Architecture
from darts_core.bench.results import command_line, write_results
from darts_core.export import export_model
from darts_core.latency import device_name, latency_model
from darts_core.latency.check import fit_networks
from darts_core.latency.measure import measure
from darts_core.latency.networks import NetworkTimer
from darts_core.runlog import read_json, write_json
from darts_core.spaces import get_space
from darts_core.stages.cost import make_table
from darts_core.supernet import build, create_supernet

ROOT = Path(__file__).resolve().parent.parent
SHAPE, CLASSES, BATCH = (1, 8, 8), 10, 32
SIZES = {"nasbench201": {"channels": 16, "layers": 1}, "darts": {"channels": 8, "layers": 3}}
EPOCHS = {"nasbench201": 4, "darts": 1}
RANDOM, BUDGETS, TRIES = 12, 10, 5
META = {
    "image_shape": list(SHAPE),
    "class_names": [str(i) for i in range(CLASSES)],
    "mean": [0.0],
    "std": [1.0],
    "data": "digits",
}


def network(architecture: Architecture, space: str) -> torch.nn.Module:
    """The plain network of the size that the budget speaks of."""
    torch.manual_seed(0)
    return build(architecture, num_classes=CLASSES, in_channels=SHAPE[0], **SIZES[space]).eval()


def yardstick(space: str, folder: Path) -> dict[str, Any]:
    """Times of random networks, kept in `folder`."""
    path = folder / f"random-{space}.json"
    if not path.is_file():
        timer = NetworkTimer(lambda a: network(a, space), SHAPE, batch=BATCH, wait_seconds=20)
        rng = np.random.default_rng(0)
        times = [timer(get_space(space).random(rng)).median_ms for _ in range(RANDOM)]
        write_json(path, {"times_ms": sorted(times), "disturbed": timer.disturbed})
    return dict(read_json(path))


def table_of(space: str, folder: Path) -> Path:
    """The latency table of one space with its fit, made once for all ten searches."""
    path = folder / f"table-{space}.json"
    if not path.is_file():
        choices, device = get_space(space), torch.device("cpu")
        target = create_supernet(
            choices, num_classes=CLASSES, in_channels=SHAPE[0], image_size=SHAPE[1], **SIZES[space]
        )
        draft = path.with_suffix(".draft.json")
        table = make_table(choices, target, SHAPE, path=draft, device=device, batch_sizes=(BATCH,))
        model = latency_model(table, choices, target, SHAPE, batch=BATCH, device=device)
        timer = NetworkTimer(lambda a: network(a, space), SHAPE, batch=BATCH)
        table.fits[model.fit_key] = fit_networks(model, timer)
        table.save(path)
    return path


def onnx_file(path: Path, x: torch.Tensor) -> Callable[[], Any]:
    """A call of an exported file in ONNX Runtime, on as many threads as torch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)


def exported_ms(
    architecture: Architecture, space: str, folder: Path
) -> tuple[float, int, list[float]]:
    """Median milliseconds of the exported file, how many tries were disturbed, and all medians."""
    about = {**META, "architecture": architecture.to_dict()}
    net = network(architecture, space)
    export_model(net, folder, about, formats=["onnx"], time_artifacts=False)
    call, medians, disturbed = onnx_file(folder / "model.onnx", torch.randn(BATCH, *SHAPE)), [], 0
    for _ in range(TRIES):
        timing = measure(call, runtime="onnx", batch=BATCH, max_seconds=0.5, warmup_seconds=0.3)
        if not timing.flagged:
            return timing.median_ms, disturbed, [*medians, timing.median_ms]
        medians.append(timing.median_ms)
        disturbed += 1
    return min(medians), disturbed, medians


def one(space: str, index: int, budget: float, out: Path) -> dict[str, Any]:
    """One search under `budget`, and the time of what it found."""
    job = f"{space}-{index}"
    sizes = [f"search.{key}={value}" for key, value in SIZES[space].items()]
    argv = [
        "search", "data=digits", "data.limit=600", f"space={space}", *sizes,
        f"search.epochs={EPOCHS[space]}", f"latency.budget_ms={budget:.4f}", f"latency.batch={BATCH}",
        f"latency.table={table_of(space, out)}", "latency.wait_seconds=2", f"seed={index}",
        f"out={out}", f"job={job}",
    ]  # fmt: skip
    row: dict[str, Any] = {"space": space, "seed": index, "budget_ms": round(budget, 4)}
    said, started = io.StringIO(), time.monotonic()
    with contextlib.redirect_stderr(said):
        status = cli.main(argv)
    row |= {
        "status": status,
        "seconds": round(time.monotonic() - started, 1),
        "overrides": [w for w in argv[1:-3] if not w.startswith("latency.table")],
    }
    if status:
        (sentence,) = [x for x in said.getvalue().splitlines() if x.startswith("darts-core:")]
        if status != 2 or "fastest" not in sentence:
            raise SystemExit(f"{job}: {sentence}")
        return {**row, "told": sentence, "met": None, "kept_promise": True}
    result = read_json(out / job / "V001" / "search" / "result.json")
    found = Architecture.from_dict(result["architecture"])
    median, disturbed, medians = exported_ms(found, space, out / job / "exported")
    met = median <= 1.05 * budget
    return {
        **row,
        "architecture": found.text(),
        "changed": result["text"] != result["cost"]["pick"],
        "measured_in_the_search_ms": result["cost"]["measured"],
        "networks_measured": len(result["cost"]["steps"]),
        "doubt": [doubt["guard"] for doubt in result["doubt"]],
        "exported_median_ms": median,
        "exported_medians_ms": medians,
        "exported_disturbed": disturbed,
        "ratio": median / budget,
        "met": met,
        "kept_promise": met,
    }


def main() -> None:
    """Run what is missing and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/budgets"))
    parser.add_argument("--spaces", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument(
        "--finished", action="store_true", help="search nothing: write the rows that are there"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args()
    out, rows, sticks = args.out.resolve(), [], {}
    out.mkdir(parents=True, exist_ok=True)
    for space in args.spaces:
        sticks[space] = yardstick(space, out)
        times = sticks[space]["times_ms"]
        for index, budget in enumerate(np.linspace(times[0], statistics.median(times), BUDGETS)):
            path = out / f"row-{space}-{index}.json"
            if args.finished and not path.is_file():
                continue
            if not path.is_file():
                write_json(path, one(space, index, float(budget), out))
                print(read_json(path), flush=True)
            rows.append(dict(read_json(path)))
        counts = {
            "searches": len(rows),
            "met": sum(bool(row["met"]) for row in rows),
            "told": sum("told" in row for row in rows),
            "kept_promise": sum(row["kept_promise"] for row in rows),
            "changed": sum(bool(row.get("changed")) for row in rows),
        }
        path = write_results(
            "budgets",
            rows,
            device=device_name("cpu"),
            folder=args.results,
            command=command_line(without=("--out", "--results")),
            notes={
                "counts": counts,
                "random_networks": sticks,
                "threads": torch.get_num_threads(),
                "load_at_end": list(os.getloadavg()),
            },
            name=out.name,
        )
    print(counts, path)


if __name__ == "__main__":
    main()
