"""Everything about the fused step that needs a GPU, behind one command; resumable, in steps of minutes.

    python benchmarks/gpu_step.py [--out FOLDER] [--results FOLDER] [--minutes 9] [--tune] [--ship]
    python benchmarks/gpu_step.py --rehearse      # the same parts at toy size on the CPU: no result is kept

1. Compile: every kernel of every cell of the DARTS supernet, in parallel processes (the compiler is the
   slow part of a first run). Each process compares its cells with the modules in fp64.
2. With --tune: tiles of every cell shape, kept in the user's cache; with --ship in the package's own table.
3. Steps: the variants of `darts-core bench what=step` for DARTS (batch 64 and 256, compiled rivals, second
   order), NAS-Bench-201, PC-DARTS and GDAS.
4. Kernels: every launch against its own bytes, at each precision.

Each part is a process of its own. A part that is in FOLDER already is not run again, and one that time cuts
off begins anew; call it until it says that nothing is left (status 0; 3 when something is; 1 when nothing but
parts that failed).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

GROUPS = [[0, 1], [2], [3, 4], [5], [6, 7]]
"""Cells of the eight-cell supernet that share their kernels."""
PRECISIONS = ("tf32", "bf16", "fp32")
FUSED = ["fused fp32", "fused tf32", "fused bf16"]
SECOND = ["plain second order", "fused tf32 second order"]
STEPS: dict[str, dict[str, Any]] = {
    "step-64": {"variants": ["plain", "plain graph", "plain bf16 graph", *FUSED]},
    "step-64-compiled": {
        "variants": ["plain graph", "plain compiled", "plain compiled graph", "fused tf32"]
    },
    "step-64-second-order": {"variants": ["plain graph", "fused tf32", *SECOND]},
    "step-256": {
        "batch_size": 256,
        "variants": ["plain graph", "plain bf16 graph", *FUSED],
    },
    "step-256-compiled": {
        "batch_size": 256,
        "variants": ["plain graph", "plain compiled graph", "fused tf32"],
    },
    "step-nasbench201": {
        "space": "nasbench201",
        "layers": 5,
        "variants": ["plain", "plain graph", *FUSED, *SECOND],
    },
    "step-partial-channels": {
        "relaxation": "partial_channels",
        "variants": ["plain", "plain graph", *FUSED, *SECOND],
    },
    "step-gumbel": {
        "relaxation": "gumbel",
        "variants": ["plain", "plain graph", *FUSED, *SECOND],
    },
    "step-gumbel-nasbench201": {
        "space": "nasbench201",
        "layers": 5,
        "relaxation": "gumbel",
        "variants": ["plain", "plain graph", *FUSED, *SECOND],
    },
    "kernels": {"precisions": list(PRECISIONS)},
    "kernels-nasbench201": {"space": "nasbench201", "layers": 5, "precisions": ["tf32"]},
    "kernels-gumbel-nasbench201": {
        "space": "nasbench201",
        "layers": 5,
        "relaxation": "gumbel",
        "precisions": ["tf32"],
    },
}
"""Benchmark parts and their options."""


Task = tuple[list[str], Path]
"""Words for a worker, and the file that it leaves."""


@dataclass(frozen=True)
class Scale:
    """What is measured: the whole supernet on a GPU, or a toy on the CPU."""

    device: str = "cuda"
    channels: int = 16
    layers: int = 8
    batch: int = 64
    side: int = 32
    groups: tuple[tuple[int, ...], ...] = tuple(map(tuple, GROUPS))
    precisions: tuple[str, ...] = PRECISIONS

    @property
    def net(self) -> Any:
        """The supernet on the module path."""
        import torch

        from darts_core.spaces import get_space
        from darts_core.supernet import Supernet

        torch.manual_seed(0)
        net = Supernet(get_space("darts"), channels=self.channels, layers=self.layers)
        return net.to(self.device).train()


TOY = Scale("cpu", channels=2, layers=2, batch=2, side=6, groups=((0, 1),), precisions=("fp32",))
TOY_OPTIONS = {
    "channels": 4,
    "layers": 1,
    "batch_size": 2,
    "size": 6,
    "seconds": 0.001,
    "variants": ["plain", "batched"],
    "precisions": ["fp32"],
}


def cells_with_inputs(scale: Scale, cells: list[int]) -> Any:
    """(index, module cell, inputs) of the given cells of the whole supernet."""
    import torch

    net = scale.net
    seen: dict[int, Any] = {}
    for index, cell in enumerate(net.cells):
        cell.register_forward_pre_hook(
            lambda _, args, index=index: seen.__setitem__(
                index, ([x.detach().clone() for x in args[0]], args[1].detach().clone())
            )
        )
    with torch.no_grad():
        net(torch.randn(scale.batch, 3, scale.side, scale.side, device=scale.device))
    for index in cells:
        yield index, net.cells[index], *seen[index]


def one_pass(
    cell: Any, inputs: Any, weights: Any, dtype: Any, grad: Any = None, *, autocast: bool = False
) -> list[Any]:
    """Output, input gradients, mixing-weight gradients; a fixed random output gradient if none is given."""
    import torch

    xs = [x.detach().to(dtype, copy=True).requires_grad_() for x in inputs]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    mix = weights.detach().to(wide, copy=True).requires_grad_()
    device = weights.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
        out = cell(xs, mix)
    if grad is None:
        generator = torch.Generator(device).manual_seed(1)
        grad = torch.randn(out.shape, device=device, generator=generator).bfloat16()
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(x.grad for x in xs), mix.grad]


def compile_cells(scale: Scale, precision: str, cells: list[int], out: Path) -> None:
    """Run the cells both ways and both with and without weight gradients; write their errors."""
    import copy

    import torch

    from darts_core.supernet.paths import fuse
    from darts_kernels.testing import relative_error

    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    low = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = []
    for index, cell, inputs, weights in cells_with_inputs(scale, cells):
        exact = one_pass(copy.deepcopy(cell).double(), inputs, weights, torch.float64)
        plain = one_pass(
            copy.deepcopy(cell), inputs, weights, torch.float32, autocast=precision == "bf16"
        )
        holder = torch.nn.ModuleList([copy.deepcopy(cell)])
        fuse(holder, precision)
        fused = holder[0]
        fused.cast_output = False
        found = one_pass(fused, inputs, weights, low)
        packed = fused.packed.grad.clone()
        fused.packed.grad = None
        again = one_pass(fused, inputs, weights, low)
        fused.packed.requires_grad_(False)
        alpha = one_pass(fused, inputs, weights, low)
        names = ["output", *(f"input {i}" for i in range(len(inputs))), "weights"]
        rows.append(
            {
                "cell": index,
                "precision": precision,
                "bit_equal": all(torch.equal(a, b) for a, b in zip(found, again, strict=True)),
                "alpha_pass_equal": torch.equal(alpha[-1], found[-1]),
                "finite": bool(torch.isfinite(packed).all()),
                "error": {
                    n: relative_error(f, e) for n, f, e in zip(names, found, exact, strict=True)
                },
                "plain": {
                    n: relative_error(p, e) for n, p, e in zip(names, plain, exact, strict=True)
                },
            }
        )
    write(out, rows)


def tune(scale: Scale, precision: str, out: Path, seconds: float, ship: bool) -> None:
    """Tiles of every cell shape at one precision; shapes that a table knows are passed over."""
    import logging

    from darts_core.latency.measure import quick_ms
    from darts_core.supernet.tiles import cells_to_tune, tune_supernet
    from darts_kernels.tiles import SHIPPED

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    net = scale.net
    net.use_path("auto", precision)
    image = (3, scale.side, scale.side)
    path = SHIPPED if ship else None
    if scale is TOY:
        path = out.with_name("tiles.json")
    found = tune_supernet(
        net, image, scale.batch, lambda call: quick_ms(call, device=scale.device),
        seconds=seconds, path=path,
    )  # fmt: skip
    if scale is TOY or not cells_to_tune(net, image, scale.batch):
        write(out, found)


def options_of(scale: Scale, name: str) -> dict[str, Any]:
    """What a part is measured with; in toy size one of all supernets' steps, and one of kernels."""
    if scale is not TOY:
        return dict(STEPS[name])
    from darts_core.bench.step import CASES

    own = {"cases": list(CASES)} if name.startswith("step") else {}
    return {**TOY_OPTIONS, **own}


def parts_of(scale: Scale) -> list[str]:
    """The names of the parts to measure."""
    return ["step-64", "kernels"] if scale is TOY else list(STEPS)


def bench(scale: Scale, name: str, out: Path, results: Path) -> None:
    """One part of STEPS, with its results file."""
    from darts_core.bench import kernels, step
    from darts_core.settings import BenchOptions

    module = kernels if name.startswith("kernels") else step
    options = BenchOptions(**options_of(scale, name), results=str(results))
    found = module.run(options, out.parent, device=scale.device)
    write(out, found)


def write(out: Path, found: Any) -> None:
    """The file appears whole: a part that was cut off has none."""
    temporary = out.with_suffix(".tmp")
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.replace(out)


def spawn(tasks: list[Task], end: float, *, together: bool) -> set[str]:
    """Run the tasks whose result is missing, until `end`: side by side, or one after the other.

    Returns:
        names of the files of those that failed: they are not to be waited for.
    """
    missing = [(words, out) for words, out in tasks if not out.exists()]
    failed = set()
    for batch in [missing] if together else [[task] for task in missing]:
        if time.monotonic() > end - 10:
            break
        running = [
            (subprocess.Popen([sys.executable, __file__, *words]), out) for words, out in batch
        ]
        for process, out in running:
            try:
                if process.wait(max(1.0, end - time.monotonic())):
                    failed.add(out.name)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return failed


def main() -> None:
    """Do what is missing in the folder, within the minutes."""
    from benchmarks.resumable import UNFINISHED

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_step"))
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument(
        "--ship", action="store_true", help="keep tiles in the package, not the cache"
    )
    parser.add_argument("--rehearse", action="store_true", help="toy size on the CPU")
    parser.add_argument("--worker", nargs=4, metavar=("WHAT", "NAME", "CELLS", "FILE"))
    args = parser.parse_args()
    scale = TOY if args.rehearse else Scale()
    if args.worker:
        what, name, cells, file = args.worker
        if what == "compile":
            compile_cells(scale, name, json.loads(cells), Path(file))
        elif what == "tune":
            tune(scale, name, Path(file), 60 * args.minutes, args.ship)
        else:
            bench(scale, name, Path(file), args.results)
        return
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["--results", str(args.results), *(["--rehearse"] if args.rehearse else [])]

    def task(what: str, name: str, cells: Any = None, minutes: float = 9.0) -> Task:
        suffix = f"-{cells[0]}" if cells else ""
        file = args.out / (f"{name}.json" if what == "bench" else f"{what}-{name}{suffix}.json")
        own = [*common, *(["--ship"] if args.ship else []), "--minutes", str(minutes)]
        return [*own, "--worker", what, name, json.dumps(cells), str(file)], file

    compiles = [task("compile", p, list(group)) for p in scale.precisions for group in scale.groups]
    failed = spawn(compiles, end, together=True)
    tunes = []
    if args.tune:
        left = 0.02 if args.rehearse else max(0.1, (end - time.monotonic()) / 60 - 1)
        tunes = [task("tune", precision, None, left) for precision in scale.precisions]
        # one after the other: two timings at once would measure each other
        failed |= spawn(tunes, end, together=False)
    benches = [task("bench", name) for name in parts_of(scale)]
    failed |= spawn(benches, end, together=False)
    missing = {file.name for _, file in (*compiles, *tunes, *benches) if not file.exists()}
    failed &= missing
    if failed:
        print(f"failed: {', '.join(sorted(failed))}")
    left_over = sorted(missing - failed)
    print(f"left: {', '.join(left_over)}; call again" if left_over else "nothing else is left")
    raise SystemExit(UNFINISHED if left_over else int(bool(failed)))


if __name__ == "__main__":
    main()
