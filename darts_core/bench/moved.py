"""The bytes that a kernel's launch must move: each input read once, each output written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["edges_read", "launch_bytes", "stored_bytes"]


def stored_bytes(precision: str) -> tuple[int, int]:
    """(bytes of a state or gradient, bytes of a depthwise or pointwise output) at a precision."""
    return {"fp32": (4, 4), "tf32": (4, 2), "bf16": (2, 2)}[precision]


def launch_bytes(
    name: str,
    grid: tuple[int, ...],
    k: Mapping[str, Any],
    batch: int,
    item: int,
    output: int | None = None,
) -> float:
    """Bytes that a launch must move: each input read once, each output written once.

    Args:
        name: of the kernel.
        grid: its programs.
        k: its compile-time arguments; EDGES, the edges that the launch reads, where that is not grid[2].
        batch: samples.
        item: bytes of a stored value.
        output: bytes of a depthwise or pointwise output, where they are others.
    """
    low = item if output is None else output
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
        return tensor * (min(2, z) * stride2 * item + z * k["COUNT"] * low)
    if name == "_inner_kernel":
        return tensor * z * 2 * low
    if name == "_pointwise_kernel":
        return tensor * z * grid[1] * 2 * low
    if name == "_pointwise_backward_kernel":
        return tensor * z * grid[1] * (2 * item + low * (1 + k["WGRAD"]))
    if name == "_inner_backward_kernel":
        return tensor * z * (2 * item + low)
    if name == "_depthwise_backward_kernel":
        own = z * (2 * stride2 + k["NPOOL"]) + edges * (k["COUNT"] + (k["SKIP"] >= 0))
        return tensor * own * item + tensor * z * k["NMAX"]
    if name == "_pool_kernel":
        return tensor * z * (item * (stride2 + k["NPOOL"]) + k["NMAX"])
    if name == "_pool_backward_kernel":
        return tensor * item * (2 * z * k["NPOOL"] + edges)
    if name == "_reduce_kernel":
        outputs = edges * (k["F1"] + k["FR"])
        return tensor * (low * outputs + item * (edges + z * (k["NPOOL"] + k["SKIP"])))
    if name == "_node_sum_kernel":
        skips = k["SKIP"] and not k["FR"]
        outputs = edges * (k["F1"] + k["FR"])
        return tensor * (low * outputs + item * (1 + edges * (k["NPOOL"] + skips)))
    if name in ("_halve_kernel", "_join_kernel", "_split_kernel"):
        return _passing_bytes(name, z, edges, k, tensor, item)
    if name == "_reduction_backward_kernel":
        # of four pixels two are read and all written, for each source; y and its gradient for each edge
        return tensor * (z * (2 + 4) * item + edges * (item + low))
    if name in ("_point_kernel", "_point_backward_kernel"):
        outs, ins = batch * k["CO"] * hw, batch * k["CI"] * hw * (2 if k["REDUCE"] else 1)
        wide = batch * k["CI"] * hw * (4 if k["REDUCE"] else 1)
        if name == "_point_kernel":
            # that of several edges is a reduction, whose outputs are a branch's
            return item * min(2, grid[1]) * ins + (low if grid[1] > 1 else item) * grid[1] * outs
        own = low if k["STRIDED"] else item
        return item * min(2, z) * (ins + wide * k["DX"]) + z * outs * (item + own)
    return tensor * z * item * 2


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
