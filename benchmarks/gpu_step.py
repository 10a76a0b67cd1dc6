"""Everything about the fused step that needs a GPU, behind one command; resumable, in steps of minutes.

    python benchmarks/gpu_step.py [--out FOLDER] [--minutes 9] [--tune]

1. Compile: every kernel of every cell of the DARTS supernet, in parallel processes (the compiler is the
   slow part of a first run). Each process compares its cells with the modules in fp64.
2. Steps: the variants of `darts-core bench what=step`: tf32 and the others, batch 256, second order.
3. Kernels: every launch against its own bytes.
4. With --tune: tiles of every cell shape, kept in the user's cache.

A part that is in FOLDER already is not run again, so call it until it says that nothing is left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]

GROUPS = [[0, 1], [2], [3, 4], [5], [6, 7]]
"""Cells of the eight-cell supernet that share their kernels."""
STEPS: dict[str, dict[str, Any]] = {
    "step-64": {},
    "step-256": {"batch_size": 256, "variants": ["plain graph", "fused tf32", "fused bf16"]},
    "step-partial-channels": {
        "relaxation": "partial_channels",
        "variants": ["plain graph", "fused tf32"],
    },
    "step-gumbel": {
        "relaxation": "gumbel",
        "variants": ["plain graph", "fused tf32"],
    },
    "step-nasbench201": {
        "space": "nasbench201",
        "layers": 5,
        "variants": ["plain graph", "fused tf32"],
    },
}


def cells_with_inputs(precision: str, cells: list[int]) -> Any:
    """(index, module cell, inputs) of the given cells of the whole supernet."""
    import torch

    from darts_core.spaces import get_space
    from darts_core.supernet import Supernet

    torch.manual_seed(0)
    net = Supernet(get_space("darts"), channels=16, layers=8).cuda().train()
    seen: dict[int, Any] = {}
    for index, cell in enumerate(net.cells):
        cell.register_forward_pre_hook(
            lambda _, args, index=index: seen.__setitem__(
                index, ([x.detach().clone() for x in args[0]], args[1].detach().clone())
            )
        )
    with torch.no_grad():
        net(torch.randn(64, 3, 32, 32, device="cuda"))
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
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=autocast):
        out = cell(xs, mix)
    if grad is None:
        generator = torch.Generator("cuda").manual_seed(1)
        grad = torch.randn(out.shape, device="cuda", generator=generator).bfloat16()
    out.backward(grad.to(out.dtype))
    return [out.detach(), *(x.grad for x in xs), mix.grad]


def compile_cells(precision: str, cells: list[int], out: Path) -> None:
    """Run the cells both ways and both with and without weight gradients; write their errors."""
    import copy

    import torch

    from darts_core.supernet.fused import fuse
    from darts_kernels.testing import relative_error

    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    low = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = []
    for index, cell, inputs, weights in cells_with_inputs(precision, cells):
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
    out.write_text(json.dumps(rows))


def tune_cell(precision: str, cells: list[int], out: Path, seconds: float) -> None:
    """Tiles of one cell shape; what was found by then is kept."""
    import torch
    import triton

    from darts_core.supernet.fused import fuse
    from darts_kernels import cell as launches
    from darts_kernels.tiles import shape_key, tiles_for
    from darts_kernels.tune import save_tiles, tune_tiles

    end = time.monotonic() + seconds
    _, cell, inputs, weights = next(cells_with_inputs(precision, cells[:1]))
    holder = torch.nn.ModuleList([cell])
    fuse(holder, precision)
    layout = holder[0].plan.layout
    height, width = layout.output_size(*inputs[-1].shape[-2:])
    args = (layout.channels, height, width, layout.stride, precision, inputs[0].shape[0])
    start = tiles_for(inputs[0].device, *args)
    low = torch.bfloat16 if precision == "bf16" else torch.float32

    grad = torch.randn_like(one_pass(holder[0], inputs, weights, low)[0])

    def time_ms(tiles: Any) -> float:
        launches.tiles_for = lambda *_: tiles
        holder[0].packed.grad = None
        return float(
            triton.testing.do_bench_cudagraph(
                lambda: one_pass(holder[0], inputs, weights, low, grad), rep=60
            )
        )

    before = time_ms(start)
    best, after = tune_tiles(start, time_ms, stop=lambda: time.monotonic() > end)
    key = shape_key(layout.channels, height, layout.stride, precision)
    path = save_tiles(torch.cuda.get_device_name(), key, best)
    print(f"{key}: {before:.3f} -> {after:.3f} ms, kept in {path}", flush=True)
    out.write_text(json.dumps({"key": key, "before": before, "after": after, **best.to_dict()}))


def spawn(tasks: list[tuple[list[str], Path]], end: float) -> None:
    """Run the tasks whose result is missing side by side, until `end`."""
    running = [
        subprocess.Popen([sys.executable, __file__, *task])
        for task, out in tasks
        if not out.exists()
    ]
    for process in running:
        try:
            process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    """Do what is missing in the folder, within the minutes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_step"))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--worker", nargs=4, metavar=("WHAT", "PRECISION", "CELLS", "FILE"))
    args = parser.parse_args()
    if args.worker:
        what, precision, cells, file = args.worker
        if what == "compile":
            compile_cells(precision, json.loads(cells), Path(file))
        else:
            tune_cell(precision, json.loads(cells), Path(file), 60 * args.minutes)
        return
    end = time.monotonic() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)

    def tasks(what: str, precisions: tuple[str, ...]) -> list[tuple[list[str], Path]]:
        found = []
        for precision in precisions:
            for cells in GROUPS:
                file = args.out / f"{what}-{precision}-{cells[0]}.json"
                options = ["--minutes", str(args.minutes / 4), "--worker", what, precision]
                found.append(([*options, json.dumps(cells), str(file)], file))
        return found

    compiles = tasks("compile", ("tf32", "bf16", "fp32"))
    spawn(compiles, end - 120)
    if args.tune:
        # one after the other: two timings at once would measure each other
        for task in tasks("tune", ("tf32", "bf16")):
            if time.monotonic() < end - 60:
                spawn([task], end)
    _benchmarks(args.out, end)
    left = [file.name for _, file in compiles if not file.exists()]
    left += [name for name in (*STEPS, "kernels") if not (args.out / f"{name}.json").exists()]
    print("nothing is left" if not left else f"left: {', '.join(left)}; call again")


def _benchmarks(out: Path, end: float) -> None:
    from darts_core.bench import kernels, step

    cases: list[tuple[str, Any, dict[str, Any]]] = [(n, step, o) for n, o in STEPS.items()]
    cases.insert(1, ("kernels", kernels, {}))
    for name, module, options in cases:
        file = out / f"{name}.json"
        if file.exists() or time.monotonic() > end - 60:
            continue
        config = {
            "device": "cuda",
            "bench": {"options": {**options, "results": str(ROOT / "benchmarks/results")}},
        }
        print(f"-- {name}", flush=True)
        file.write_text(json.dumps(module.run(config, out)))


if __name__ == "__main__":
    main()
