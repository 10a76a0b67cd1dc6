"""Is the exported file the same function? Judged against eager fp32 before it gets its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darts_core.errors import ExportError
from darts_core.metric import ACCURACY, Metric
from darts_core.sample_inputs import draw_inputs

__all__ = [
    "FP32_LIMIT",
    "INT8_POINTS",
    "LOW_PRECISION_AGREEMENT",
    "Check",
    "compare_on_fresh_inputs",
    "compare_on_split",
    "exact_products",
    "judge",
]

FP32_LIMIT = 1e-4  # largest |difference| / largest |output|
LOW_PRECISION_AGREEMENT = 0.995  # share of val samples with the same answer
INT8_POINTS = 0.5  # points (per cent) of a metric that INT8 may lose on val

Runner = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Check:
    """What was found: relative error on random inputs, agreement and the task's metric on a split."""

    relative_error: float
    agreement: float | None = None
    value: float | None = None
    reference_value: float | None = None
    samples: int = 0
    metric: Metric = ACCURACY

    @property
    def lost(self) -> float:
        """Points (per cent) lost: of a share as it is, of another metric relative to the reference."""
        found, wanted = self.value or 0.0, self.reference_value or 0.0
        drop = self.metric.rating(wanted) - self.metric.rating(found)
        return 100.0 * (drop if self.metric.share else drop / max(abs(wanted), 1e-12))


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Keep TF32 out of fp32 products on a GPU meanwhile; it alone would break the fp32 limit."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def compare_on_fresh_inputs(
    reference: nn.Module,
    runner: Runner,
    input_shape: Sequence[int],
    *,
    device: torch.device,
    batch_sizes: Sequence[int] = (1, 2, 5),
    vocabulary: int = 2,
) -> float:
    """The largest relative error over random inputs drawn anew, one batch of each size.

    Relative to the largest output of the reference, so that small ones do not blow it up. Of a shape (T,),
    token numbers below `vocabulary` are drawn.
    """
    generator = torch.Generator()
    generator.seed()
    worst = 0.0
    for size in batch_sizes:
        x = draw_inputs(input_shape, size, generator=generator, vocabulary=vocabulary).to(device)
        with torch.inference_mode():
            wanted = reference(x).double().cpu()
            found = runner(x).double().cpu()
        if found.shape != wanted.shape or not bool(torch.isfinite(found).all()):
            return float("inf")
        scale = max(float(wanted.abs().max()), 1e-12)
        worst = max(worst, float((found - wanted).abs().max()) / scale)
    return worst


def compare_on_split(
    reference: nn.Module,
    runner: Runner,
    bundle: Any,
    *,
    split: str = "val",
    batch_size: int = 256,
    device: torch.device,
) -> tuple[float, float, float, int]:
    """Share of equal answers, the runner's and the reference's metric on `split`, and its size."""
    task = bundle.task
    meters = [task.meter(bundle.device) for _ in range(2)]
    outputs: list[list[torch.Tensor]] = [[], []]
    for x, y in _batches(bundle, split, batch_size):
        x = x.to(device)
        with torch.inference_mode():
            found = [call(x).to(y.device).float() for call in (runner, reference)]
        for meter, kept, output in zip(meters, outputs, found, strict=True):
            meter.update(output, y)
            kept.append(output)
    if not outputs[0]:
        raise ExportError(f"The {split!r} split is empty; exported files cannot be verified on it.")
    joined = [torch.cat(kept) for kept in outputs]
    own, wanted = (meter.result()[task.metric.name] for meter in meters)
    return float(task.agreement(*joined)), own, wanted, len(joined[0])


def _batches(
    bundle: Any, split: str, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from bundle.batches(split, batch_size, seed=0, epoch=0, drop_last=False, shuffle=False)


def judge(precision: str, check: Check, *, allow_accuracy_loss: bool = False) -> str | None:
    """None if the file may be written, else the sentence that says why not."""
    if precision == "fp32":
        if not check.relative_error <= FP32_LIMIT:
            return (
                f"its outputs differ from eager by {check.relative_error:.2e} of the largest; "
                f"{FP32_LIMIT:.0e} is allowed"
            )
        return None
    if precision in ("bf16", "fp16"):
        if check.agreement is None:
            return "without a data bundle its agreement with eager on val cannot be checked"
        if check.agreement < LOW_PRECISION_AGREEMENT and not allow_accuracy_loss:
            return (
                f"it gives the same answer as eager for {check.agreement:.2%} of the {check.samples} val "
                f"samples; {LOW_PRECISION_AGREEMENT:.1%} is required"
            )
        return None
    if check.value is None or check.reference_value is None:
        return f"without a data bundle its {check.metric.words} on val cannot be checked"
    if check.lost > INT8_POINTS and not allow_accuracy_loss:
        before, after = check.metric.text(check.reference_value), check.metric.text(check.value)
        return (
            f"it loses {check.lost:.2f} {'points' if check.metric.share else '%'} of {check.metric.words} on "
            f"the {check.samples} val samples ({before} to {after}); {INT8_POINTS} is allowed "
            "(allow_accuracy_loss=True writes it all the same)"
        )
    return None
