"""`darts-core bench what=kernels`: every kernel launch of a fused cell against its own bytes.

On a GPU the launches of one forward and backward pass of the stem and of each kind of cell are recorded, then
each is timed alone; bytes are those it must move. On a CPU, where no Triton runs, each cell's batched form is
timed beside its modules. A cell whose check is red prints nothing but that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_core.bench.floor import copy_bandwidth_gbs
from darts_core.bench.moved import edges_read, launch_bytes, stored_bytes
from darts_core.bench.results import write_results
from darts_core.bench.step import StepCase, place_of
from darts_core.errors import ConfigError
from darts_core.export.verify import tf32
from darts_core.latency import measure
from darts_core.settings import BenchOptions
from darts_core.supernet.cell import SearchCell

__all__ = ["run"]

_PRECISIONS = ("fp32", "tf32", "bf16")


def _recorded(
    call: Callable[[], Any],
) -> list[tuple[str, Any, Any, Any]]:
    """(name, grid, its numbers by argument, launch again) of each launch of a forward and backward pass.

    Args:
        call: the forward pass; returns a tensor or several.
    """
    from triton.runtime.jit import JITFunction

    launches: list[tuple[str, Any, Any, Any]] = []
    real = JITFunction.run

    def record(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        named = {**dict(zip(self.arg_names, args, strict=False)), **kwargs}
        launches.append(
            (
                self.__name__,
                grid,
                {k: v for k, v in named.items() if k in self.arg_names and isinstance(v, int)},
                lambda: real(self, *args, grid=grid, warmup=warmup, **kwargs),
            )
        )
        return real(self, *args, grid=grid, warmup=warmup, **kwargs)

    JITFunction.run = record  # type: ignore[method-assign]
    try:
        out = call()
        outs = out if isinstance(out, list) else [out]
        torch.autograd.backward(outs, [torch.randn_like(out) for out in outs])
    finally:
        JITFunction.run = real  # type: ignore[method-assign]
    return launches


def _inputs(case: StepCase, net: Any) -> dict[str, tuple[list[Tensor], Tensor]]:
    """What each searched cell of `net` is called with."""
    seen: dict[str, tuple[list[Tensor], Tensor]] = {}
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, SearchCell):

            def keep(_: Any, args: Any, name: str = name) -> None:
                seen[name] = (
                    [x.detach().clone().requires_grad_() for x in args[0]],
                    args[1].detach().clone().requires_grad_(),
                )

            hooks.append(module.register_forward_pre_hook(keep))
    net(case.batches[0][0])
    for hook in hooks:
        hook.remove()
    return seen


def _gpu_rows(case: StepCase, precision: str, bandwidth: float) -> Iterator[dict[str, Any]]:
    passes, error, usual = case.check(f"fused {precision}")
    if not passes:
        yield {
            "name": f"fused {precision}",
            "check": "FAILED",
            "error": error,
            "plain_error": usual,
        }
        return
    net = copy.deepcopy(case.net)
    net.use_path("fused", precision)
    modules = dict(net.named_modules())
    images = case.batches[0][0]
    yield from _timed(case, "stem", lambda: net.stem(images), None, precision, bandwidth)
    shapes: set[Any] = set()
    for name, (inputs, weights) in _inputs(case, net).items():
        shape = tuple(tuple(x.shape) for x in inputs)
        if shape not in shapes:
            shapes.add(shape)
            call = partial(modules[name], inputs, weights)
            yield from _timed(case, name, call, modules[name].plan.layout, precision, bandwidth)


def _timed(
    case: StepCase,
    name: str,
    call: Callable[[], Any],
    layout: Any,
    precision: str,
    bandwidth: float,
) -> Iterator[dict[str, Any]]:
    """A row for each launch of both passes of `call`; `layout` is that of a cell."""
    item, output = stored_bytes(precision)
    for kernel, grid, constants, again in _recorded(call):
        timing = measure(
            again, device=case.device, warmup_seconds=0.02, max_seconds=0.1, graph=True
        )
        edges = None if layout is None else edges_read(constants, tuple(grid), layout)
        if edges is not None:
            constants["EDGES"] = edges
        moved = launch_bytes(
            kernel, tuple(grid), constants, case.options["batch_size"], item, output
        )
        yield {
            "name": kernel,
            "cell": name,
            "precision": precision,
            "grid": list(grid),
            "check": "passed",
            "bytes": moved,
            "gbs": moved / (timing.median_ms * 1e6),
            "of_floor": moved / (bandwidth * 1e6) / timing.median_ms,
            **timing.to_dict(),
        }


def _cpu_rows(case: StepCase) -> Iterator[dict[str, Any]]:
    passes, error, usual = case.check("batched")
    if not passes:
        yield {"name": "batched", "check": "FAILED", "error": error, "plain_error": usual}
        return
    fast = copy.deepcopy(case.net)
    fast.use_path("batched")
    for net, path in ((copy.deepcopy(case.net), "plain"), (fast, "batched")):
        modules = dict(net.named_modules())
        for name, (inputs, weights) in _inputs(case, net).items():
            timing = measure(
                _both_ways(modules[name], inputs, weights),
                device=case.device,
                warmup_seconds=0.2,
                max_seconds=case.options["seconds"],
            )
            yield {"name": f"cell {path}", "cell": name, "check": "passed", **timing.to_dict()}


def _both_ways(cell: Any, inputs: list[Tensor], weights: Tensor) -> Callable[[], None]:
    def go() -> None:
        out = cell(inputs, weights)
        out.backward(torch.ones_like(out))

    return go


def run(
    options: BenchOptions, folder: Path, *, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Time every launch (GPU) or cell (CPU); prints a table and writes a results file.

    Returns:
        rows, and the results file's path.

    Raises:
        ConfigError: an option is unknown, or a precision is none that the kernels have.
        DeviceError: the device is not there.
    """
    place = place_of(device)
    precisions = options.precisions or ["tf32"]
    unknown = [name for name in precisions if name not in _PRECISIONS]
    if unknown:
        raise ConfigError(
            f"bench.options.precisions={unknown[0]}: the fused kernels have {', '.join(_PRECISIONS)}."
        )
    case = StepCase(options, place)
    rows: list[dict[str, Any]] = []
    # the checks say whether they multiply in TF32; what comes after in this process has its own settings
    with tf32(False):
        if case.gpu:
            bandwidth = copy_bandwidth_gbs(place)
            for precision in precisions:
                rows += list(_gpu_rows(case, precision, bandwidth))
        else:
            rows = list(_cpu_rows(case))
    for row in rows:
        if "median_ms" not in row:
            print(f"{row['name']:28s} check {row['check']}")
            continue
        extra = (
            f"{row['gbs']:8.0f} GB/s {100 * row['of_floor']:5.1f} % of floor"
            if "gbs" in row
            else ""
        )
        print(f"{row['name']:28s} {row['cell']:10s} {row['median_ms']:9.4f} ms {extra}")
    words = torch.cuda.get_device_name(place) if case.gpu else "cpu"
    path = write_results(
        "kernels", rows, device=words, folder=options.results or folder / "results"
    )
    return {"rows": rows, "results": str(path)}
