"""`darts-core bench what=kernels`: every kernel launch of a fused cell against its own bytes.

On a GPU the launches of one forward and backward pass of the stem and of each kind of cell are recorded, then
each is timed alone; bytes are those it must move. On a CPU, where no Triton runs, each cell's batched form is
timed beside its modules. A cell whose check is red prints nothing but that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darts_core.bench.floor import copy_bandwidth_gbs
from darts_core.bench.results import write_results
from darts_core.bench.step import StepCase
from darts_core.latency import measure
from darts_core.settings import BenchOptions
from darts_core.supernet.cell import SearchCell

__all__ = ["launch_bytes", "run"]


def launch_bytes(
    name: str, grid: tuple[int, ...], k: Mapping[str, Any], batch: int, item: int
) -> float:
    """Bytes that a launch must move: each input read once, each output written once.

    Args:
        name: of the kernel.
        grid: its programs.
        k: its compile-time arguments; EDGES, the edges that the launch reads, where that is not grid[2].
        batch: samples.
        item: bytes of a stored value.
    """
    if name == "_source_pool_kernel":
        return item * batch * k["C"] * (k["HI"] * k["WI"] + k["H"] * k["W"])
    if name == "_source_flag_kernel":
        return 4.0 * k["E"] * k["SLOTS"]
    if name.startswith("_conv"):
        return conv_bytes(name, k, batch, item)
    if "BLOCK" in k and name.startswith(("_moments", "_source", "_state")):
        return _dense_bytes(name, grid, k, item)
    hw = k["HW"] if "HW" in k else k.get("H", 1) * k.get("W", 1)
    tensor = batch * k.get("C", k.get("CO", 1)) * hw
    z = grid[2] if len(grid) > 2 else 1
    edges = k.get("EDGES", z)
    stride2 = k.get("STRIDE", 1) ** 2
    if name == "_depthwise_kernel":
        return tensor * (min(2, z) * stride2 * item + z * k["COUNT"] * min(item, 2))
    if name == "_stage_kernel":
        inputs = z * grid[1] if k["NORM"] else min(2, z) * stride2
        return tensor * item * (inputs + z * grid[1])
    if name == "_inner_kernel":
        return tensor * z * (item + min(item, 2))
    if name == "_pointwise_kernel":
        return tensor * z * grid[1] * (min(item, 2) + item)
    if name == "_pointwise_backward_kernel":
        return tensor * z * grid[1] * (3 * item + (min(item, 2) if k["WGRAD"] else 0))
    if name == "_inner_backward_kernel":
        return tensor * z * 3 * item
    if name == "_depthwise_backward_kernel":
        own = z * (2 * stride2 + k["NPOOL"]) + edges * (k["COUNT"] + (k["SKIP"] >= 0))
        return tensor * own * item + tensor * z * k["NMAX"]
    if name == "_pool_kernel":
        return tensor * z * (item * (stride2 + k["NPOOL"]) + k["NMAX"])
    if name == "_pool_backward_kernel":
        return tensor * item * (2 * z * k["NPOOL"] + edges)
    if name == "_reduce_kernel":
        return tensor * z * item * (k["F1"] + k["NPOOL"] + 1)
    if name == "_node_sum_kernel":
        return tensor * item * (1 + edges * (k["F1"] + k["NPOOL"] + (k["SKIP"] or k["FR"])))
    if name in ("_halve_kernel", "_join_kernel", "_split_kernel"):
        return _passing_bytes(name, z, edges, k, tensor, item)
    if name in ("_point_kernel", "_point_backward_kernel", "_point_weight_kernel"):
        outs, ins = batch * k["CO"] * hw, batch * k["CI"] * hw * (2 if k["REDUCE"] else 1)
        return item * (ins * (2 if "backward" in name else 1) + 2 * outs)
    return tensor * item * 2


def conv_bytes(name: str, k: Mapping[str, Any], batch: int, item: int) -> float:
    """Bytes of a launch of `darts_kernels.conv_stats`; of drawn operations, as if all were drawn."""
    if name == "_conv_share_kernel":
        return 4 * k["E"] * k["size"] * (k["parts"] + 1)
    x = batch * k["CI"] * k["HI"] * k["WI"]
    y = batch * k["E"] * k["CO"] * k["H"] * k["W"] * (1 + k.get("NORM", 0))
    if name == "_conv_input_kernel":
        return item * (k["J"] * y + x * (1 + k["RELU"]))
    return item * (x + y)


def _passing_bytes(
    name: str, sources: int, edges: int, k: Mapping[str, Any], tensor: int, item: int
) -> float:
    """Bytes of a launch of `darts_kernels.partial`; `tensor` is one of the mixed channels."""
    rest = tensor * (k["GROUPS"] - 1)
    if name == "_halve_kernel":
        whole = rest * k["HI"] * k["WI"] / (k["H"] * k["W"])
        return sources * ((whole + rest) * item + rest)
    if name == "_join_kernel":
        return item * (2 * tensor + rest * (1 + edges))
    whole = k["HI"] * k["WI"] / (k["H"] * k["W"]) if k["POOLED"] else 1
    return item * rest * (edges + sources * (1 + whole))


def edges_read(k: Mapping[str, Any], grid: tuple[int, ...], layout: Any) -> int | None:
    """How many edges a launch of a cell reads, from its run-time arguments; None: as many as grid[2]."""
    if "node" in k:
        target = layout.inputs + k["node"]
        return sum(edge[1] == target for edge in layout.edges)
    if "source0" in k and len(grid) > 2:
        sources = range(k["source0"], k["source0"] + grid[2])
        return sum(edge[0] in sources for edge in layout.edges)
    return None


def _dense_bytes(name: str, grid: tuple[int, ...], k: Mapping[str, Any], item: int) -> float:
    """Bytes of a launch of `darts_kernels.dense`; pixels are rounded up to whole tiles."""
    pixels = grid[0] * k["BLOCK"] * k.get("STEPS", 1)
    if name == "_moments_kernel":
        return pixels * k["WIDTH"] * k["J"] * item
    if name == "_state_gradient_kernel":
        pools = k["P"] * k["H"] * k["W"] / (k["HI"] * k["WI"])
        return pixels * k["C"] * item * (k["J"] + pools + k["SKIP"] + 2)
    branches, shared = k["E"] * k["J"], k["P"] + k["SKIP"]
    tensors = {
        "_source_sum_kernel": branches + shared + k["E"] + k.get("BEFORE", 0).bit_count(),
        "_source_reduce_kernel": branches + shared + k["E"],
        "_source_gradient_kernel": 2 * branches + 2 * k["P"] + k["SKIP"] + k["E"],
    }
    return pixels * k["C"] * item * tensors[name]


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
    item = 2 if precision == "bf16" else 4
    for kernel, grid, constants, again in _recorded(call):
        timing = measure(
            again, device=case.device, warmup_seconds=0.02, max_seconds=0.1, graph=True
        )
        edges = None if layout is None else edges_read(constants, tuple(grid), layout)
        if edges is not None:
            constants["EDGES"] = edges
        moved = launch_bytes(kernel, tuple(grid), constants, case.options["batch_size"], item)
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
    """
    available = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(available if device == "auto" else device)
    case = StepCase(options, place)
    rows: list[dict[str, Any]] = []
    if case.gpu:
        bandwidth = copy_bandwidth_gbs(place)
        for precision in options.precisions or ("tf32",):
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
