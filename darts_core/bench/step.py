"""`darts-core bench what=step`: the search step on every path of this device, side by side in one process.

On a GPU: the plain path eager, as one CUDA graph, compiled per mixed operation, compiled inside a graph,
and the fused path at its three precisions, first and second order. On a CPU: the plain and the batched
path. Each fast path is checked against the plain path in fp64 first; a row whose check fails carries no
time. Figures are medians with quantiles, and the floor is the bytes of the plan at the device's own copy
bandwidth.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from darts_core.bench.results import write_results
from darts_core.errors import ConfigError, DartsError
from darts_core.latency import measure
from darts_core.relax import Relaxation, Softmax
from darts_core.search.captured import CapturedStep
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Strategy, Unrolled
from darts_core.supernet import Supernet

__all__ = ["StepCase", "copy_bandwidth_gbs", "floor_ms", "run"]

log = logging.getLogger("darts_core")

_BUDGET = {"fp32": 2.0, "tf32": 2.0, "bf16": 2.0, "batched": 2.0}
_FLOOR = {"fp32": 5e-3, "tf32": 5e-2, "bf16": 2e-1, "batched": 1e-4}


OPTIONS = (
    "space",
    "channels",
    "layers",
    "batch_size",
    "size",
    "relaxation",
    "seconds",
    "variants",
)


class StepCase:
    """One supernet and batch size whose step is timed.

    Args:
        options: space, channels, layers, batch_size, size, relaxation ("softmax", "partial_channels" or
            "gumbel"), seconds, variants; missing ones have the device's defaults: the whole DARTS
            supernet on a GPU, the size of the demo on a CPU.
        device: where it runs.
    """

    def __init__(self, options: Mapping[str, Any], device: torch.device) -> None:
        gpu = device.type == "cuda"
        usual: dict[str, Any] = {
            "space": "darts",
            "channels": 16 if gpu else 8,
            "layers": 8 if gpu else 3,
            "batch_size": 64,
            "size": 32 if gpu else 8,
            "relaxation": "softmax",
            "seconds": 2.0,
            "variants": None,
        }
        given = {key: options[key] for key in OPTIONS if options.get(key) is not None}
        self.options = {**usual, **given}
        for key in ("channels", "layers", "batch_size", "size"):
            if not isinstance(self.options[key], int) or self.options[key] < 1:
                raise ConfigError(
                    f"bench.options.{key}={self.options[key]!r}; give a whole number >= 1."
                )
        self.device, self.gpu = device, gpu
        torch.manual_seed(0)
        self.net = self._supernet()
        size, batch = self.options["size"], self.options["batch_size"]
        self.batches = [
            (
                torch.randn(batch, 3, size, size, device=device),
                torch.randint(10, (batch,), device=device),
            )
            for _ in range(2)
        ]

    def _supernet(self) -> Supernet:
        relaxations: dict[str, Callable[[], Relaxation]] = {"softmax": Softmax}
        from darts_core.relax import gumbel, partial_channels

        relaxations["partial_channels"] = partial_channels.PartialChannels
        relaxations["gumbel"] = gumbel.GumbelStraightThrough
        name = self.options["relaxation"]
        if name not in relaxations:
            raise ConfigError(f"Unknown relaxation {name!r}; choose {', '.join(relaxations)}.")
        net = Supernet(
            get_space(self.options["space"]),
            channels=self.options["channels"],
            layers=self.options["layers"],
            relaxation=relaxations[name](),
        )
        return net.to(self.device).train()

    def variants(self) -> list[str]:
        """The names of all variants of this device, slowest kind first."""
        if not self.gpu:
            names = ["plain", "batched", "batched second order"]
        else:
            names = [
                "plain", "plain graph", "plain compiled", "plain compiled graph", "plain bf16 graph",
                "fused fp32", "fused tf32", "fused bf16", "fused tf32 second order",
            ]  # fmt: skip
        wanted = self.options["variants"]
        if wanted is None:
            return names
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ConfigError(f"Unknown variants {unknown}; choose from {', '.join(names)}.")
        return [name for name in names if name in wanted]

    def step(self, name: str) -> Callable[[], Any]:
        """A callable that makes one step of variant `name`."""
        net = copy.deepcopy(self.net)
        tf32 = self.gpu and "fp32" not in name
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        params, alpha = self.batches
        if name.startswith("plain"):
            step = _plain_step_class()(
                net, (*params, *alpha), autocast="bf16" in name, compiled="compiled" in name
            )
            captured: Callable[[], Any] = step.captured() if "graph" in name else step
            return captured
        precision = name.split()[1] if self.gpu else "tf32"
        net.use_path("auto", precision)
        strategy: Strategy = Unrolled() if "second" in name else FirstOrder()
        strategy.setup(net, SearchSettings(), [])
        whole = CapturedStep(strategy, (params, alpha))
        return lambda: whole(params, alpha)

    def check(self, name: str) -> tuple[bool, float, float]:
        """(passes, error of the alpha gradients against fp64, error of the plain path)."""
        if name.startswith("plain"):
            return True, 0.0, 0.0
        precision = name.split()[1] if self.gpu else "batched"
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        x, y = self.batches[1][0][:16], self.batches[1][1][:16]
        # a sampling relaxation draws other numbers in fp64: all nets get one draw
        weights = self.net.mixing_weights()
        exact = _alpha_gradients(copy.deepcopy(self.net).double(), self.net, weights, x.double(), y)
        usual = _alpha_gradients(
            copy.deepcopy(self.net), self.net, weights, x, y, autocast=precision == "bf16"
        )
        fast = copy.deepcopy(self.net)
        fast.use_path("auto", precision if self.gpu else "tf32")
        found = _alpha_gradients(fast, self.net, weights, x, y)
        error, plain = _distance(found, exact), _distance(usual, exact)
        return error <= _BUDGET[precision] * plain + _FLOOR[precision], error, plain


def _alpha_gradients(
    net: Supernet,
    owner: Supernet,
    weights: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    *,
    autocast: bool = False,
) -> list[Tensor]:
    """Gradients for the alphas of `owner`, who drew `weights`, through a pass of `net` under them."""
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    leaves = {k: w.detach().to(wide, copy=True).requires_grad_() for k, w in weights.items()}
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=autocast):
        logits = net(x, leaves)
    loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), y)
    upstream = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    drawn = [w for w, g in zip(weights.values(), upstream, strict=True) if g is not None]
    found = torch.autograd.grad(
        drawn,
        owner.alphas(),
        [g.to(w.dtype) for w, g in zip(weights.values(), upstream, strict=True) if g is not None],
        allow_unused=True,
        retain_graph=True,
    )
    return [gradient.double() for gradient in found if gradient is not None]


def _distance(found: list[Tensor], exact: list[Tensor]) -> float:
    difference = sum(float((a - b).square().sum()) for a, b in zip(found, exact, strict=True))
    return (difference / sum(float(b.square().sum()) for b in exact)) ** 0.5


def _plain_step_class() -> Any:
    """`PlainStep` of benchmarks/baselines: the rival lives beside the results, not in the package."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "baselines" / "plain_darts.py"
    if not path.exists():
        raise ConfigError("what=step compares with benchmarks/baselines; run it in a checkout.")
    spec = importlib.util.spec_from_file_location("darts_plain_baseline", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.PlainStep


def copy_bandwidth_gbs(device: torch.device) -> float:
    """GB/s, read plus written, of a large copy: the denominator of the floor."""
    count = 2**28 if device.type == "cuda" else 2**24
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    row = measure(lambda: target.copy_(source), device=device, warmup_seconds=0.2, max_seconds=0.5)
    return 2 * 4 * count / (row.median_ms * 1e6)


def floor_ms(
    net: nn.Module, batch: int, size: int, bandwidth_gbs: float, *, storage: int = 4
) -> float:
    """Milliseconds that the plan's bytes of one first-order step need; cells without a plan count 0."""
    from darts_core.supernet.plan import describe_plan, plan_cell
    from darts_core.supernet.shapes import cell_sizes

    total = 0.0
    for cell, height, width in cell_sizes(net, size):
        plan = plan_cell(cell, cell.channels)
        if plan.layout is not None:
            rows = describe_plan(plan.layout, batch, height, width)
            total += sum(row["bytes"] for row in rows)
    return 2 * total * storage / 4 / (bandwidth_gbs * 1e6)


def _rows(case: StepCase) -> Iterator[dict[str, Any]]:
    bandwidth = copy_bandwidth_gbs(case.device)
    first: float | None = None
    for name in case.variants():
        row: dict[str, Any] = {"name": name, **case.options, "copy_gbs": bandwidth}
        row.pop("variants")
        try:
            passes, row["error"], row["plain_error"] = case.check(name)
            row["check"] = "passed" if passes else "FAILED"
            if passes:
                step = case.step(name)
                timing = measure(
                    step,
                    device=case.device,
                    batch=case.options["batch_size"],
                    warmup_seconds=case.options["seconds"] / 4,
                    max_seconds=case.options["seconds"],
                )
                row.update(timing.to_dict())
                floor = floor_ms(
                    case.net,
                    case.options["batch_size"],
                    case.options["size"],
                    bandwidth,
                    storage=2 if "bf16" in name else 4,
                )
                row["floor_ms"] = floor
                row["of_floor"] = floor / timing.median_ms
                first = first or timing.median_ms
                row["times_faster"] = first / timing.median_ms
                del step
        except (RuntimeError, DartsError) as error:
            row["check"] = f"could not run: {str(error).splitlines()[0]}"
        if case.gpu:
            torch.cuda.empty_cache()
        yield row


def _print(row: Mapping[str, Any]) -> None:
    if "median_ms" not in row:
        print(f"{row['name']:26s} {row['check']}")
        return
    memory = f"{row['peak_mib']:8.0f} MiB" if row.get("peak_mib") is not None else ""
    print(
        f"{row['name']:26s} {row['median_ms']:9.2f} ms [{row['q05_ms']:.2f}, {row['q95_ms']:.2f}] "
        f"n={row['n']}  {row['times_faster']:5.1f}x  {100 * row['of_floor']:5.1f} % of floor {memory}"
        f"{'  (flagged: ' + row['flag_reason'] + ')' if row.get('flagged') else ''}"
    )


def run(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Time every variant; prints a table and writes a results file.

    Returns:
        rows, and the results file's path.
    """
    name = config.get("device", "auto")
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(available if name == "auto" else name)
    options = dict((config.get("bench") or {}).get("options") or {})
    case = StepCase(options, device)
    rows = []
    for row in _rows(case):
        _print(row)
        rows.append(row)
    words = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    path = write_results(
        "step", rows, device=words, folder=options.get("results") or folder / "results"
    )
    return {"rows": rows, "results": str(path)}
