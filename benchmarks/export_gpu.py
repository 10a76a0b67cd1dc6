"""The fused export path against plain CUDA graphs: DARTS_V2 (and ResNet-18) at batch 1 and 256.

    python -m benchmarks.export_gpu --out benchmarks/results
    python -m benchmarks.export_gpu --rehearse        # small network on the CPU, no timing claims

Each row: warm-up, synchronised, median with 5 and 95 % quantiles (darts_core.latency). Before it is
timed, the fused path is compared with eager fp32; a path that is off by more than 2 % of the largest
logit is reported red and not timed. `--tune SECONDS` tries further tile sizes for every stage shape.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from darts_core.architecture import Architecture
from darts_core.bench.results import command_line, write_results
from darts_core.export.fold import fold_batch_norms, trace
from darts_core.export.fused import FusedProgram, stage_key
from darts_core.latency import measure, quick_ms
from darts_core.models.baselines import baseline
from darts_core.supernet import build
from darts_kernels.infer_stage import choose_blocks, infer_stage

_RED = 0.02


def network(name: str, small: bool) -> nn.Module:
    """The network with running statistics away from their start, in eval mode."""
    torch.manual_seed(0)
    if name == "resnet18":
        model = baseline(name, 10, 3, 8 if small else 64)
    else:
        size = (8, 3) if small else (36, 20)
        model = build(Architecture.named(name), channels=size[0], layers=size[1])
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(16, 3, 32, 32))
    return model.eval()


def plain_rows(model: nn.Module, batch: int, device: torch.device, seconds: float) -> list[Any]:
    """Eager in TF32 and bf16 channels-last, in a CUDA graph on a GPU."""
    rows = []
    for precision, dtype in (("tf32", torch.float32), ("bf16", torch.bfloat16)):
        layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
        own = fold_batch_norms(model, (3, 32, 32)).to(device, dtype).to(memory_format=layout)
        x = torch.randn(batch, 3, 32, 32, device=device, dtype=dtype)
        x = x.contiguous(memory_format=layout)
        with torch.inference_mode():
            row = measure(
                lambda own=own, x=x: own(x), device=device, batch=batch,
                runtime=f"plain graph {precision}" if device.type == "cuda" else "eager",
                graph=device.type == "cuda", max_seconds=seconds,
            )  # fmt: skip
        rows.append(row.to_dict())
    return rows


def tuned_blocks(
    program: Any, batch: int, device: torch.device, dtype: torch.dtype, seconds: float
) -> dict[Any, Any]:
    """The fastest tile sizes for each stage shape, most frequent shapes first, while time lasts."""
    shapes: dict[Any, list[Any]] = collections.defaultdict(list)
    spied = FusedProgram(program, device, dtype)
    original = spied._stage

    def spy(step: Any, values: Any, buffers: Any) -> Any:
        x = values[step.source]
        shapes[stage_key(step, x)].append((step, x.shape))
        return original(step, values, buffers)

    spied._stage = spy  # type: ignore[method-assign]
    with torch.inference_mode():
        spied._run(torch.randn(batch, 3, 32, 32, device=device, dtype=dtype), side_by_side=False)
    end = time.monotonic() + seconds
    best: dict[Any, Any] = {}
    for key, found in sorted(shapes.items(), key=lambda item: -len(item[1])):
        channels, outputs, kernel, stride, size, _ = key
        pixels = batch * (size // stride) ** 2
        usual = choose_blocks(channels, outputs, pixels, deep=bool(kernel))
        times = {}
        for blocks in [usual, *candidates(usual, batch)]:
            if time.monotonic() > end and blocks != usual:
                break
            try:
                times[blocks] = _stage_ms(key, *found[0], blocks, device, dtype)
            except RuntimeError as error:  # a tile that does not fit the multiprocessor
                print(f"  {blocks}: {str(error)[:80]}")
        if times:
            best[key] = min(times, key=times.__getitem__)
            print(
                f"  {key} x{len(found)}: usual {usual} {times.get(usual, 0) * 1e3:.1f} us, best "
                f"{best[key]} {times[best[key]] * 1e3:.1f} us",
                flush=True,
            )
    return best


def _stage_ms(
    key: Any, step: Any, shape: Any, blocks: Any, device: torch.device, dtype: torch.dtype
) -> float:
    channels, outputs, kernel, _, _, _ = key
    x = torch.randn(shape, device=device, dtype=dtype)
    deep = torch.randn(channels, kernel, kernel, device=device, dtype=dtype) if kernel else None
    point = torch.randn(outputs, channels, device=device, dtype=dtype)
    bias = torch.randn(outputs, device=device, dtype=dtype)

    def call() -> None:
        infer_stage(
            x, deep, point, bias, relu=step.relu, stride=step.stride, dilation=step.dilation,
            padding=step.padding, blocks=blocks,
        )  # fmt: skip

    return quick_ms(call, device=device)


def candidates(usual: tuple[int, ...], batch: int) -> list[tuple[int, int, int, int]]:
    """Tile sizes around the usual ones."""
    _, wide, _, _ = usual
    if batch <= 8:
        return list(itertools.product((16, 32), (16, 32, 64), (32, 64), (2, 4)))
    return [
        (pixels, wide, step, warps)
        for pixels, step, warps in (
            (32, 16, 4), (64, 16, 4), (128, 16, 4), (128, 16, 8), (64, 32, 4), (128, 32, 8),
            (64, 64, 8), (256, 16, 8),
        )
    ]  # fmt: skip


def fused_rows(
    model: nn.Module, batch: int, device: torch.device, seconds: float, tune: float
) -> list[Any]:
    """The fused path in fp16 and bf16: compared with eager, then timed as a graph replay."""
    program = trace(fold_batch_norms(model, (3, 32, 32)), (3, 32, 32))
    x = torch.randn(batch, 3, 32, 32, device=device)
    with torch.inference_mode():
        wanted = model(x).double()
    rows = []
    blocks = None
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        if tune > 0 and blocks is None:
            blocks = tuned_blocks(program, batch, device, dtype, tune)
        fused = FusedProgram(program, device, dtype, blocks=blocks)
        with torch.inference_mode():
            found = fused(x).double()
        error = float((found - wanted).abs().max() / wanted.abs().max())
        if not error <= _RED * (1 if name == "fp16" else 4):
            print(f"fused {name} batch {batch}: RED, relative error {error:.2e}; not timed")
            continue
        call = fused.replay(batch) if device.type == "cuda" else (lambda f=fused: f(x))
        row = measure(call, device=device, runtime=f"fused graph {name}", batch=batch,
                      max_seconds=seconds).to_dict()  # fmt: skip
        rows.append(row | {"relative_error": error, "stages": fused.fused})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--tune", type=float, default=0.0, help="seconds of tile search a batch")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 256])
    parser.add_argument("--models", nargs="+", default=["DARTS_V2", "resnet18"])
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if options.rehearse else "cuda")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rows = []
    for name in options.models:
        model = network(name, options.rehearse).to(device)
        for batch in options.batches:
            found = plain_rows(model, batch, device, options.seconds)
            if name != "resnet18":
                found += fused_rows(model, batch, device, options.seconds, options.tune)
            for row in found:
                print(
                    f"{name} batch {batch} {row['runtime']}: {row['median_ms']:.3f} ms "
                    f"({row['q05_ms']:.3f}-{row['q95_ms']:.3f}, n={row['n']}) "
                    f"{row.get('relative_error', '')}",
                    flush=True,
                )
            rows += [{"model": name, **row} for row in found]
    if options.out is not None:
        command = command_line(without=("--out",))
        print(
            write_results(
                "export", rows, device=rows[0]["device"], folder=options.out, command=command
            )
        )


if __name__ == "__main__":
    main()
