"""An estimate of a search step's kernel time on an H100, from its launches and their binaries.

For every launch, with B the bytes it moves, I the instructions its warps issue and P its programs,

    t = max(B / (share_of_copy x copy x fill),  I / (share_of_issue x issue rate x fill)) + launch,
    fill = min(1, P / multiprocessors)

Bytes are those of `bench.moved.launch_bytes`: each input read once, each output written once, whatever the
caches do. Instructions are those of the golden file's binary (`darts_kernels.variants`), its loops counted
as often as they run, and of a text with a body for each filter, of which a program runs one, its share; a
variant without a row there is estimated by its bytes alone, and counted as unknown.

Three constants, none of them from these kernels, which no GPU has run yet. The launch is measured (the
smallest dependent kernel of a graph on an H100). The two shares are fitted on the kernels of a prototype of
the same plan at TF32 (batch 64, C=16, whole step): 6 GB of pointwise forward in 2.5 ms, 12 GB of its backward
in 5.7 ms, 3.6 GB of node sums in 1.8 ms, 3.5 GB of reductions in 1.5 ms; depthwise forward, 190 instructions
an element of four filters, 2.7 ms. With the same shares the prototype's single cells, which were not fitted,
come out too fast, by (C=16, 32, 64) 14, 17 and 32 % at TF32, 24, 21 and 35 % with bf16 storage, and 18, 9 and
20 % with bf16 at batch 256 (`tests/unit/test_bench_model.py`): an estimate is a lower end. torch's launches
(optimizers, loss, sums of shares) are not in the sum.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darts_core.bench.moved import edges_read, launch_bytes, stored_bytes
from darts_core.bench.offline import OfflineCase, step_launches, step_layout

if TYPE_CHECKING:
    from darts_kernels.standin import Launch

__all__ = ["KernelEstimate", "StepEstimate", "estimate_case", "estimate_launch", "estimate_step"]

COPY_GBS = 3020.0
"""Read plus written by a large copy on an H100 SXM, measured."""
SHARE_OF_COPY = 0.75
SHARE_OF_ISSUE = 0.6
LAUNCH_MS = 1.14e-3
MULTIPROCESSORS = 132
ISSUE_PER_MS = MULTIPROCESSORS * 4 * 1.755e6
"""Instructions of warps: four a clock and multiprocessor."""

ONE_BODY = ("_inner_kernel", "_inner_backward_kernel")
"""Kernels whose text has COUNT bodies, one for each filter, of which a program runs one."""


@dataclass
class KernelEstimate:
    """All launches of one kernel in a step."""

    launches: int = 0
    gigabytes: float = 0.0
    instructions: float = 0.0
    estimated_ms: float = 0.0
    unknown: int = 0


@dataclass
class StepEstimate:
    """A step by kernel; everything in it is estimated, nothing measured."""

    kernels: dict[str, KernelEstimate]

    def total(self, what: str) -> float:
        """The sum of a field over all kernels."""
        return sum(getattr(kernel, what) for kernel in self.kernels.values())

    def lines(self) -> list[str]:
        """A table, the longest kernels first; marked as an estimate."""
        ordered = sorted(self.kernels.items(), key=lambda item: -item[1].estimated_ms)
        rows = [
            f"  {name:28s} {k.launches:5d} {k.gigabytes:8.2f} {k.estimated_ms:8.2f}"
            for name, k in [*ordered, ("sum", self._sum())]
        ]
        head = f"  {'kernel (estimated for an H100)':28s} launches    GB    estimated ms"
        unknown = int(self.total("unknown"))
        note = f"  {unknown} launches by their bytes alone: the golden file lacks their binaries"
        return [head, *rows, *([note] if unknown else [])]

    def _sum(self) -> KernelEstimate:
        return KernelEstimate(
            int(self.total("launches")), self.total("gigabytes"), self.total("instructions"),
            self.total("estimated_ms"),
        )  # fmt: skip


def estimate_launch(
    moved: float, programs: int, warps: int, row: Mapping[str, Any] | None, trips: float
) -> tuple[float, float]:
    """(estimated ms, instructions of warps) of one launch.

    Args:
        moved: bytes.
        programs: of the grid.
        warps: of a program.
        row: facts of the binary, or None where they are not known.
        trips: how often its loops run.
    """
    fill = min(1.0, programs / MULTIPROCESSORS)
    ms = moved / (COPY_GBS * 1e6 * SHARE_OF_COPY * fill)
    issued = 0.0
    if row is not None:
        once = row["instructions"] + row["looped"] * (trips - 1)
        issued = once * warps * programs
        ms = max(ms, issued / (ISSUE_PER_MS * SHARE_OF_ISSUE * fill))
    return ms + LAUNCH_MS, issued


def estimate_step(
    passes: Iterable[Iterable[Launch]],
    case: OfflineCase,
    layout: Any,
    rows: Mapping[str, Mapping[str, Any]],
) -> StepEstimate:
    """The estimate of a first-order step.

    Args:
        passes: launches of its passes (`offline.step_launches`).
        case: what was launched.
        layout: of the step's cells, for their edges.
        rows: of the golden file.
    """
    found: dict[str, KernelEstimate] = defaultdict(KernelEstimate)
    item, output = stored_bytes(case.precision)
    for launch in (one for launches in passes for one in launches):
        variant = launch.variant
        numbers: dict[str, Any] = {**variant.constants, **launch.numbers}
        edges = edges_read(numbers, launch.grid, layout) if hasattr(layout, "waves") else None
        if edges is not None:
            numbers["EDGES"] = edges
        moved = float(launch_bytes(variant.kernel, launch.grid, numbers, case.batch, item, output))
        trips = numbers.get("STEPS") or _edges_a_program(edges, numbers, launch.grid)
        row = rows.get(variant.name)
        if row is not None and variant.kernel in ONE_BODY:
            row = {**row, "instructions": row["instructions"] / numbers["COUNT"]}
        ms, issued = estimate_launch(
            moved, launch.programs, variant.options["num_warps"], row, trips
        )
        kernel = found[variant.kernel.strip("_").removesuffix("_kernel")]
        kernel.launches += 1
        kernel.gigabytes += moved / 1e9
        kernel.instructions += issued
        kernel.estimated_ms += ms
        kernel.unknown += row is None
    return StepEstimate(dict(found))


def estimate_case(case: OfflineCase) -> StepEstimate:
    """The estimate of a case's step with the binaries of the golden file."""
    from darts_kernels.variants import read_golden

    return estimate_step(step_launches(case).values(), case, step_layout(case), read_golden())


def _edges_a_program(edges: int | None, numbers: Mapping[str, Any], grid: tuple[int, ...]) -> float:
    """How many edges a program goes over: those of a node, or of one of the grid's sources."""
    if edges is None:
        return 1.0
    return float(edges) if "node" in numbers else edges / max(1, grid[2])
