"""`darts-core explain`: how a supernet's cells run: waves, kernel launches, bytes, FLOPs, floor."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from darts_core.commands.arguments import add_plugins
from darts_core.commands.keyvalue import parse
from darts_core.errors import ConfigError, unknown_name
from darts_core.reading_yaml import read_yaml

__all__ = ["configure", "run"]

_KNOWN: dict[str, type] = {
    "space": str,
    "channels": int,
    "layers": int,
    "batch_size": int,
    "size": int,
    "bandwidth": float,
    "relax": str,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="space=darts channels=16 layers=8 batch_size=64 size=32 (height and width of the images) "
        "bandwidth=3000 (GB/s of the device; measured by default) relax=partial_channels",
    )
    add_plugins(parser)


def run(args: argparse.Namespace) -> int:
    """Print the plan of every kind of cell of the supernet."""
    from darts_core.stages.targets import import_plugins

    given = parse(args.settings, _KNOWN)
    import_plugins(args.plugins)

    import torch

    from darts_core.bench.floor import copy_bandwidth_gbs
    from darts_core.spaces import get_space
    from darts_core.supernet import Supernet
    from darts_core.supernet.shapes import cell_sizes

    space = get_space(given.get("space", "darts"))
    sizes = {"channels": given.get("channels", 16), "layers": given.get("layers", 8)}
    batch, side = given.get("batch_size", 64), given.get("size", 32)
    if min(batch, side, *sizes.values()) < 1:
        raise ConfigError("channels, layers, batch_size and size must each be at least 1.")
    supernet = Supernet(space, relaxation=_relaxation(given.get("relax", "softmax")), **sizes)
    cells = cell_sizes(supernet, side)
    bandwidth = given.get("bandwidth") or copy_bandwidth_gbs(
        torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    print(
        f"{space.name}: {len(cells)} cells, {sizes['channels']} channels, batch {batch}, {side}x{side}"
    )
    stem = _print_stem(supernet.stem, side, batch)
    totals = [_print_cell(i, cell, size, batch) for i, (cell, *size) in enumerate(cells)]
    done = [total for total in (stem, *totals) if total is not None]
    if done:
        bytes_all, flops_all, moved_tf32 = (sum(part) for part in zip(*done, strict=True))
        floor_ms = bytes_all / (bandwidth * 1e9) * 1e3
        print(
            f"stem and fused cells together: {bytes_all / 2**20:.0f} MiB and {flops_all / 1e9:.1f} GFLOP "
            f"forward and backward; floor {floor_ms:.2f} ms at {bandwidth:.0f} GB/s of this device"
        )
        _print_estimate(space.name, given.get("relax", "softmax"), batch, side, moved_tf32, sizes)
    return 0


def _print_estimate(
    space: str, relax: str, batch: int, side: int, floor_bytes: float, sizes: Mapping[str, int]
) -> None:
    """Print what a first-order step on a GPU launches and moves, and how long a model says it takes."""
    import os

    from darts_core.bench import model
    from darts_core.bench.offline import RELAXATIONS, OfflineCase

    if relax not in RELAXATIONS:
        print(f"no estimate of a GPU's step: it knows the relaxations {', '.join(RELAXATIONS)}")
        return
    if importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1":
        print("no estimate of a GPU's step: it needs Triton's compiler")
        return
    case = OfflineCase(space, relax, "tf32", batch, size=side, **sizes)
    step = model.estimate_case(case)
    moved, floor = step.total("gigabytes"), 2 * floor_bytes / 1e9
    print(
        f"a first-order step on an H100 at TF32, estimated and not measured: "
        f"{step.total('launches'):.0f} launches of kernels, {moved:.1f} GB moved "
        f"(floor {floor:.1f} GB, {floor / (model.COPY_GBS * 1e-3):.1f} ms), "
        f"{step.total('estimated_ms'):.1f} ms"
    )
    for line in step.lines():
        print(line)


def _relaxation(name: str) -> Any:
    """The relaxation of conf/relax/<name>.yaml.

    Raises:
        ConfigError: there is no such file.
    """
    from darts_core.settings.tree import config_root
    from darts_core.stages.targets import instantiate

    files = {path.stem: path for path in (config_root() / "relax").glob("*.yaml")}
    if name not in files:
        raise ConfigError(unknown_name("relaxation", name, sorted(files)))
    return instantiate("relax", read_yaml(files[name]))


def _print_stem(stem: Any, side: int, batch: int) -> tuple[float, float, float] | None:
    """Print the stem's launches on a GPU; its bytes and operations when it is fused."""
    from darts_core.supernet.describe import describe_stem

    rows = describe_stem(stem, batch, side, side)
    if rows is None:
        print("stem: module by module")
        return None
    print(f"stem, {side}x{side} (a GPU; on a CPU the library's):")
    for row in rows:
        print(
            f"  {row['launches_forward']} + {row['launches_backward']} launches, "
            f"{row['bytes'] / 2**20:.1f} MiB, {row['flops'] / 1e9:.2f} GFLOP"
        )
        print(f"    forward:  {_in_a_row(row['kernels_forward'])}")
        print(f"    backward: {_in_a_row(row['kernels_backward'])}")
    return _sums(rows)


def _print_cell(
    index: int, cell: Any, size: Sequence[int], batch: int
) -> tuple[float, float, float] | None:
    """Print one cell; its bytes and operations when it is fused."""
    from darts_core.supernet.describe import describe_plan
    from darts_core.supernet.plan import plan_cell

    plan = plan_cell(cell, cell.channels)
    beside = plan_cell(cell, cell.channels, modules=True).loose
    print(f"cell {index}, {cell.kind}, {size[0]}x{size[1]}:")
    if plan.layout is None:
        where = " on a GPU" if beside else ""
        print(f"  module by module{where}: {'; '.join(plan.reasons)}")
        if beside:
            names = ", ".join(cell.mixed[0].names[k] for k in beside)
            print(f"  batched on a CPU, as modules in the same node sums: {names}")
        return None
    if plan.layout.groups > 1:
        print(
            f"  partial: operations see {plan.layout.channels} of {plan.layout.width} channels, "
            "the others pass by"
        )
    if cell.sparse:
        print("  sparse: upper bounds; operations that are not drawn are skipped on the device")
    rows = describe_plan(plan.layout, batch, *size, sparse=cell.sparse)
    said: tuple[Any, Any] = (None, None)
    for row in rows:
        print(
            f"  wave {row['wave']}: from states {row['sources']}, {row['edges']} edges, "
            f"{row['launches_forward']} + {row['launches_backward']} launches, "
            f"{row['bytes'] / 2**20:.1f} MiB, {row['flops'] / 1e9:.2f} GFLOP"
        )
        kernels = (row["kernels_forward"], row["kernels_backward"])
        if kernels != said:
            print(f"    forward:  {_in_a_row(kernels[0])}")
            print(f"    backward: {_in_a_row(kernels[1])}")
        else:
            print("    the same kernels")
        said = kernels
    loose = [cell.mixed[0].names[k] for k in getattr(plan.layout, "loose", ())]
    if loose:
        print(f"  as modules, into the same node sums: {', '.join(loose)}")
    return _sums(rows)


def _sums(rows: Iterable[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Bytes in fp32, operations, and bytes as TF32 stores them."""
    from darts_core.bench.floor import floor_bytes

    rows = list(rows)
    bytes_all, flops = (sum(row[key] for row in rows) for key in ("bytes", "flops"))
    return bytes_all, flops, floor_bytes(rows, "tf32")


def _in_a_row(names: Sequence[str]) -> str:
    """The names with an arrow between, repetitions counted."""
    words = []
    for name, group in itertools.groupby(names):
        count = len(list(group))
        words.append(name if count == 1 else f"{count} x {name}")
    return " > ".join(words)
