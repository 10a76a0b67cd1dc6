"""`darts-core bench what=step`: the search step on every path of this device, side by side in one process.

On a GPU: the plain path eager, as one CUDA graph, compiled per mixed operation, compiled inside a graph,
and the fused path at its three precisions, first and second order. On a CPU: the plain and the batched
path, first and second order. Each fast path is checked against the plain path in fp64 first; a row whose
check fails carries no time. Figures are medians with quantiles, a row is so many times faster than the first
of its order, and the floor is the bytes of the plan at the device's own copy bandwidth.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from darts_core.bench.floor import copy_bandwidth_gbs, floor_ms
from darts_core.bench.model import estimate_case
from darts_core.bench.offline import OfflineCase
from darts_core.bench.results import write_results
from darts_core.bench.step_check import alpha_gradients, distance
from darts_core.device import require_device
from darts_core.errors import ConfigError, first_line
from darts_core.export.verify import tf32
from darts_core.latency import measure
from darts_core.relax import Relaxation, Softmax
from darts_core.sample_inputs import draw_inputs
from darts_core.search.captured import CapturedStep
from darts_core.settings import BenchOptions
from darts_core.spaces import get_space
from darts_core.strategies import FirstOrder, SearchSettings, Strategy, Unrolled
from darts_core.supernet import Supernet
from darts_core.supernet.memory import check_network

__all__ = ["CASES", "StepCase", "place_of", "run"]

log = logging.getLogger("darts_core")

_BUDGET = {"fp32": 2.0, "tf32": 2.0, "bf16": 2.0, "batched": 2.0}
_FLOOR = {"fp32": 5e-3, "tf32": 5e-2, "bf16": 2e-1, "batched": 1e-4}


CASES: dict[str, dict[str, Any]] = {
    "darts": {},
    "nasbench201": {"space": "nasbench201"},
    "pc_darts": {"relaxation": "partial_channels"},
    "gdas": {"relaxation": "gumbel"},
    "gdas_nasbench201": {"space": "nasbench201", "relaxation": "gumbel"},
}
"""Supernets by name; on a CPU all of them are timed where the options name none."""


class StepCase:
    """One supernet and batch size whose step is timed.

    Args:
        options: those that are None have the device's defaults: the whole DARTS supernet on a GPU, the
            a small one (8 channels, 3 cells) on a CPU.
        device: where it runs.
        own: values in place of the options'.
    """

    def __init__(self, options: BenchOptions, device: torch.device, **own: Any) -> None:
        gpu = device.type == "cuda"
        usual: dict[str, Any] = {
            "space": "darts",
            "channels": 16 if gpu else 8,
            "layers": 8 if gpu else 3,  # cells, or cells a stage
            "batch_size": 64,
            "size": 32 if gpu else 8,
            "relaxation": "softmax",
            "seconds": 2.0,
            "variants": None,
        }
        given = {key: getattr(options, key) for key in usual} | own
        given = {key: value for key, value in given.items() if value is not None}
        if given.get("space") == "nasbench201":
            usual["layers"] = 5 if gpu else 1
        self.options = {**usual, **given}
        self.device, self.gpu = device, gpu
        torch.manual_seed(0)
        sizes = f"channels={self.options['channels']} and layers={self.options['layers']}"
        check_network(self._supernet, device, f"The supernet of {sizes}")
        self.net = self._supernet().to(device).train()
        size, batch = self.options["size"], self.options["batch_size"]
        self.batches = [
            (
                draw_inputs((3, size, size), batch, device=device),
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
        return Supernet(
            get_space(self.options["space"]),
            channels=self.options["channels"],
            layers=self.options["layers"],
            relaxation=relaxations[name](),
        )

    def variants(self) -> list[str]:
        """The names of all variants of this device, slowest kind first."""
        if not self.gpu:
            names = ["plain", "batched", "plain second order", "batched second order"]
        else:
            names = [
                "plain", "plain graph", "plain compiled", "plain compiled graph", "plain bf16 graph",
                "fused fp32", "fused tf32", "fused bf16", "plain second order",
                "fused tf32 second order",
            ]  # fmt: skip
        wanted = self.options["variants"]
        if wanted is None:
            return names
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise ConfigError(f"Unknown variants {unknown}; choose from {', '.join(names)}.")
        return [name for name in names if name in wanted]

    def captured(self, name: str) -> bool:
        """Whether the step of a variant is one CUDA graph."""
        if "second" in name:
            return self.gpu and not self.net.relaxation.samples
        return self.gpu and ("graph" in name or name.startswith("fused"))

    def step(self, name: str) -> Callable[[], Any]:
        """A callable that makes one step of variant `name`."""
        net = copy.deepcopy(self.net)
        tf32 = self.gpu and "fp32" not in name
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        params, alpha = self.batches
        second = "second" in name
        if name.startswith("plain") and not second:
            step = _plain_step_class()(
                net, (*params, *alpha), autocast="bf16" in name, compiled="compiled" in name
            )
            captured: Callable[[], Any] = step.captured() if "graph" in name else step
            return captured
        if not name.startswith("plain"):
            net.use_path("auto", name.split()[1] if self.gpu else "tf32")
        strategy: Strategy = Unrolled() if second else FirstOrder()
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
        exact = alpha_gradients(copy.deepcopy(self.net).double(), self.net, weights, x.double(), y)
        usual = alpha_gradients(
            copy.deepcopy(self.net), self.net, weights, x, y, autocast=precision == "bf16"
        )
        fast = copy.deepcopy(self.net)
        fast.use_path("auto", precision if self.gpu else "tf32")
        found = alpha_gradients(fast, self.net, weights, x, y)
        error, plain = distance(found, exact), distance(usual, exact)
        return error <= _BUDGET[precision] * plain + _FLOOR[precision], error, plain


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


def _rows(case: StepCase) -> Iterator[dict[str, Any]]:
    bandwidth = copy_bandwidth_gbs(case.device)
    rivals: dict[bool, float] = {}
    for name in case.variants():
        row: dict[str, Any] = {"name": name, **case.options, "copy_gbs": bandwidth}
        row.pop("variants")
        row["captured"] = case.captured(name)
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
                floor = floor_ms(
                    case.net,
                    case.options["batch_size"],
                    case.options["size"],
                    bandwidth,
                    precision=next((p for p in ("tf32", "bf16") if p in name), "fp32"),
                )
                row["floor_ms"] = floor
                row["of_floor"] = floor / timing.median_ms
                row["estimated_ms"] = _estimated_ms(case, name)
                # of each order the slowest kind comes first
                rival = rivals.setdefault("second" in name, timing.median_ms)
                row["times_faster"] = rival / timing.median_ms
                row.update(timing.to_dict())
                del step
        except Exception as error:  # compilers have kinds of their own; the other rows stand
            row["check"] = f"could not run: {first_line(error)}"
        if case.gpu:
            torch.cuda.empty_cache()
        yield row


def _estimated_ms(case: StepCase, name: str) -> float | None:
    """What the model of an H100 says of a fused first-order step's kernels; never a measurement."""
    if not name.startswith("fused") or "second" in name:
        return None
    given = ("space", "relaxation", "channels", "layers", "size")
    sizes = {key: case.options[key] for key in given}
    offline = OfflineCase(precision=name.split()[1], batch=case.options["batch_size"], **sizes)
    return estimate_case(offline).total("estimated_ms")


def _cases(options: BenchOptions, device: torch.device) -> dict[str, dict[str, Any]]:
    """The supernets to time by name, with the options that make them.

    Raises:
        ConfigError: an unknown name in `bench.options.cases`, or a space or relaxation beside it.
    """
    chosen = options.space is not None or options.relaxation is not None
    names = options.cases
    if chosen and names is not None:
        raise ConfigError(
            "bench.options.cases names whole supernets, space and relaxation included; give it, or "
            "bench.options.space and bench.options.relaxation, not both."
        )
    if names is None:
        names = ["darts"] if chosen or device.type == "cuda" else list(CASES)
        if chosen:
            words = (options.space or "darts", options.relaxation)
            return {" ".join(word for word in words if word): {}}
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ConfigError(f"Unknown cases {unknown}; choose from {', '.join(CASES)}.")
    return {name: CASES[name] for name in names}


def _print(row: Mapping[str, Any]) -> None:
    if "median_ms" not in row:
        print(f"{row['name']:26s} {row['check']}")
        return
    memory = f"{row['peak_mib']:8.0f} MiB" if row.get("peak_mib") is not None else ""
    if row.get("estimated_ms") is not None:
        memory += f"  (estimated for an H100, kernels alone: {row['estimated_ms']:.1f} ms)"
    print(
        f"{row['name']:26s} {row['median_ms']:9.2f} ms [{row['q05_ms']:.2f}, {row['q95_ms']:.2f}] "
        f"n={row['n']}  {row['times_faster']:5.1f}x  {100 * row['of_floor']:5.1f} % of floor {memory}"
        f"{'  (flagged: ' + row['flag_reason'] + ')' if row.get('flagged') else ''}"
    )


def place_of(device: str) -> torch.device:
    """The device that `device=` names, made the current one; `auto` is a GPU where there is one.

    Raises:
        DeviceError: there is no such device here.
    """
    available = "cuda" if torch.cuda.is_available() else "cpu"
    return require_device(available if device == "auto" else device)


def run(
    options: BenchOptions, folder: Path, *, device: str = "auto", seed: int = 0
) -> dict[str, Any]:
    """Time every variant; prints a table and writes a results file.

    Returns:
        rows, and the results file's path.

    Raises:
        ConfigError: an option is unknown, or does not go with another.
        DeviceError: the device is not there.
    """
    place = place_of(device)
    rows = []
    # each variant says whether it multiplies in TF32; what comes after in this process has its own settings
    with tf32(False):
        for name, own in _cases(options, place).items():
            case = StepCase(options, place, **own)
            print(
                f"{name}: {case.options['channels']} channels, {case.options['layers']} layers, batch "
                f"{case.options['batch_size']}, {case.options['size']}x{case.options['size']} images"
            )
            for row in _rows(case):
                _print(row)
                rows.append({"case": name, **row})
    words = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
    path = write_results("step", rows, device=words, folder=options.results or folder / "results")
    return {"rows": rows, "results": str(path)}
