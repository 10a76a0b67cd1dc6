"""Whole search steps and exported networks without a device: their launches, as a GPU would get them.

    python -m darts_core.bench.offline            # compare the golden file with what would be compiled
    python -m darts_core.bench.offline --renew    # compile what changed and write the file

The networks lie on the meta device, so a step takes a second; every kernel goes Triton's own launch path
under a driver that stands in for an H100's (`darts_kernels.standin`).
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from darts_core.errors import ConfigError
from darts_core.processors import usable_processors
from darts_core.relax import Relaxation, Softmax, gumbel, partial_channels
from darts_core.spaces import get_space
from darts_core.supernet import Supernet
from darts_core.supernet.packed import PackedCell
from darts_core.supernet.paths import fuse

if TYPE_CHECKING:
    from darts_kernels.standin import Launch, Variant

__all__ = [
    "NETS",
    "RELAXATIONS",
    "STEPS",
    "OfflineCase",
    "all_variants",
    "export_launches",
    "golden_variants",
    "step_launches",
    "step_layout",
    "variants_by_value",
]

RELAXATIONS: dict[str, type[Relaxation]] = {
    "softmax": Softmax,
    "partial_channels": partial_channels.PartialChannels,
    "gumbel": gumbel.GumbelStraightThrough,
}


@dataclass(frozen=True)
class OfflineCase:
    """A supernet, a precision and a batch."""

    space: str = "darts"
    relaxation: str = "softmax"
    precision: str = "tf32"
    batch: int = 64
    channels: int = 16
    layers: int = 8
    size: int = 32


_SPACES = (
    OfflineCase(),
    OfflineCase("nasbench201", layers=5),
    OfflineCase(relaxation="partial_channels"),
    OfflineCase(relaxation="gumbel"),
    OfflineCase("nasbench201", "gumbel", layers=5),
)
_PRECISIONS = ("tf32", "bf16", "fp32")
STEPS: tuple[OfflineCase, ...] = (
    *(replace(case, precision=p) for case in _SPACES for p in _PRECISIONS),
    *(OfflineCase(precision=p, batch=256) for p in _PRECISIONS),
)
"""The steps that a GPU is to run."""
NETS: tuple[OfflineCase, ...] = (
    *(OfflineCase(precision=p, layers=3) for p in _PRECISIONS),
    OfflineCase("nasbench201", precision="fp32", layers=1),
)
"""The networks of the GPU's tests (`tests/gpu/places.py`)."""
EXPORTS = tuple((dtype, batch) for dtype in (torch.float32, torch.bfloat16) for batch in (1, 256))
"""Storage and batch of the exported DARTS_V2 that a GPU is to run."""


def _network(case: OfflineCase) -> Any:
    if case.relaxation not in RELAXATIONS:
        raise ConfigError(
            f"Unknown relaxation {case.relaxation!r}; choose {', '.join(RELAXATIONS)}."
        )
    net = Supernet(
        get_space(case.space), channels=case.channels, layers=case.layers,
        relaxation=RELAXATIONS[case.relaxation](),
    )  # fmt: skip
    net = net.to("meta").train()
    fuse(net, case.precision)
    return net


def step_launches(case: OfflineCase) -> dict[str, list[Launch]]:
    """The kernels of a first-order step by pass: "params" and "alpha", forward and backward."""
    from darts_kernels.standin import recorded

    net = _network(case)
    images = torch.empty(case.batch, 3, case.size, case.size, device="meta")
    alphas = {id(alpha) for alpha in net.alphas()}
    found = {}
    for name in ("params", "alpha"):
        for parameter in net.parameters():
            parameter.requires_grad_((id(parameter) in alphas) == (name == "alpha"))
        found[name] = recorded(lambda: _both_ways(net, images))
    return found


def step_layout(case: OfflineCase) -> Any:
    """The layout of the first searched cell: all of a network have the same edges. None without a plan."""
    cells = [module for module in _network(case).modules() if isinstance(module, PackedCell)]
    return cells[0].plan.layout if cells else None


def _both_ways(net: Any, images: torch.Tensor) -> None:
    out = net(images)
    out = out[0] if isinstance(out, tuple) else out
    out.backward(torch.empty_like(out))


@functools.lru_cache(maxsize=1)
def _exported() -> Any:
    from darts_core.architecture import Architecture
    from darts_core.export.fold import trace
    from darts_core.supernet import build

    # six cells hold every kind that twenty do
    model = build(Architecture.named("DARTS_V2"), channels=36, layers=6)
    return trace(model.eval(), (3, 32, 32))


def export_launches(dtype: torch.dtype, batch: int) -> list[Launch]:
    """The stages of an exported DARTS_V2 of 36 channels."""
    from darts_core.export.fused import FusedProgram
    from darts_kernels.standin import recorded

    program = FusedProgram(_exported(), torch.device("meta"), dtype)
    images = torch.empty(batch, 3, 32, 32, device="meta")
    with torch.inference_mode():
        return recorded(lambda: program(images))


def all_variants(cases: Iterable[OfflineCase], *, exports: bool = False) -> dict[str, Variant]:
    """Every variant of the cases, and of the exported networks if asked for, by name."""
    found: dict[str, Variant] = {}

    def add(launches: Iterable[Launch]) -> None:
        for launch in launches:
            found.setdefault(launch.variant.name, launch.variant)

    for case in cases:
        for launches in step_launches(case).values():
            add(launches)
    for dtype, batch in EXPORTS if exports else ():
        add(export_launches(dtype, batch))
    return found


def variants_by_value() -> Iterator[list[Variant]]:
    """What is launched and no earlier list had, the most valuable first, recorded when it is asked for.

    The DARTS step at TF32 and bf16, the networks of the GPU's tests, exported networks, the other steps.
    """
    first = [case for case in STEPS[:3] if case.precision != "fp32"]
    rest = sorted(
        (case for case in STEPS if case not in first), key=lambda c: c.precision == "fp32"
    )

    def parts() -> Iterator[dict[str, Variant]]:
        yield all_variants(first)
        yield all_variants(NETS)
        # what `benchmarks.export_gpu` times beside those
        half = [launch for batch in (1, 256) for launch in export_launches(torch.float16, batch)]
        yield all_variants((), exports=True) | {x.variant.name: x.variant for x in half}
        for case in rest:
            yield all_variants((case,))

    seen: set[str] = set()
    for found in parts():
        yield [variant for name, variant in found.items() if name not in seen]
        seen |= set(found)


def golden_variants() -> dict[str, Variant]:
    """What the golden file holds: all that the steps and the exported networks launch, by name."""
    return all_variants(STEPS, exports=True)


def missing(
    rows: Mapping[str, Mapping[str, Any]], variants: Mapping[str, Variant]
) -> Iterator[str]:
    """A sentence for every way in which the golden file differs from what is launched."""
    from darts_kernels.variants import changed

    for variant in changed(variants.values(), rows):
        word = "changed" if variant.name in rows else "new"
        yield f"{variant.name} is {word}"
    for name in rows:
        if name not in variants:
            yield f"{name} is launched no more"


def renew(processes: int) -> Path:
    """Bring the golden file up to date: compile what changed, keep the rest; stopped, it goes on there."""
    from darts_kernels.variants import changed, compiled, read_golden, write_golden

    old, variants = read_golden(), golden_variants()
    todo = changed(variants.values(), old)
    print(f"{len(todo)} of {len(variants)} variants to compile", flush=True)
    stale = {variant.name for variant in todo}
    rows = {name: row for name, row in old.items() if name in variants and name not in stale}
    path = write_golden(rows)
    for number, (name, row) in enumerate(compiled(todo, processes), 1):
        rows[name] = row
        # a compilation takes seconds, and a stopped run goes on here
        path = write_golden(rows)
        if number % 25 == 0:
            print(f"{number} of {len(todo)}", flush=True)
    return path


def main() -> int:
    """Compare or renew; status 1 where the file is not true any more."""
    parser = argparse.ArgumentParser(description="the golden file of binaries (sm_90)")
    parser.add_argument("--renew", action="store_true", help="compile what changed, write the file")
    parser.add_argument("--processes", type=int, default=min(2, usable_processors()))
    args = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("TRITON_INTERPRET=1 replaces the compiler; unset it.", file=sys.stderr)
        return 2
    from darts_kernels.variants import read_golden

    if args.renew:
        print(f"written: {renew(args.processes)}")
        return 0
    differences = list(missing(read_golden(), golden_variants()))
    print("\n".join(differences) or "the golden file is true")
    return int(bool(differences))


if __name__ == "__main__":
    raise SystemExit(main())
