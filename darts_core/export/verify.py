"""Is the exported file the same function? Judged against eager fp32 before it gets its name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from darts_core.errors import ExportError

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

FP32_LIMIT = 1e-4  # largest |difference| / largest |logit|
LOW_PRECISION_AGREEMENT = 0.995  # share of val images with the same top class
INT8_POINTS = 0.5  # accuracy points (per cent) that INT8 may lose on val

Runner = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Check:
    """What was found: relative error on random inputs, agreement and accuracies on a split."""

    relative_error: float
    agreement: float | None = None
    accuracy: float | None = None
    reference_accuracy: float | None = None
    images: int = 0


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
) -> float:
    """The largest relative error over random inputs drawn anew, one batch of each size.

    Relative to the largest logit of the reference, so that small logits do not blow it up.
    """
    generator = torch.Generator()
    generator.seed()
    worst = 0.0
    for size in batch_sizes:
        x = torch.randn(size, *input_shape, generator=generator).to(device)
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
    """Top-class agreement, the runner's and the reference's accuracy on `split`, and its size."""
    same = right = reference_right = count = 0
    for x, y in _batches(bundle, split, batch_size):
        x = x.to(device)
        with torch.inference_mode():
            wanted = reference(x).argmax(1).cpu()
            found = runner(x).argmax(1).cpu()
        y = y.cpu()
        same += int((wanted == found).sum())
        right += int((found == y).sum())
        reference_right += int((wanted == y).sum())
        count += len(y)
    if count == 0:
        raise ExportError(f"The {split!r} split is empty; exported files cannot be verified on it.")
    return same / count, right / count, reference_right / count, count


def _batches(
    bundle: Any, split: str, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    yield from bundle.batches(split, batch_size, seed=0, epoch=0, drop_last=False, shuffle=False)


def judge(precision: str, check: Check, *, allow_accuracy_loss: bool = False) -> str | None:
    """None if the file may be written, else the sentence that says why not."""
    if precision == "fp32":
        if not check.relative_error <= FP32_LIMIT:
            return (
                f"its logits differ from eager by {check.relative_error:.2e} of the largest logit; "
                f"{FP32_LIMIT:.0e} is allowed"
            )
        return None
    if precision in ("bf16", "fp16"):
        if check.agreement is None:
            return "without a data bundle its agreement with eager on val cannot be checked"
        if check.agreement < LOW_PRECISION_AGREEMENT and not allow_accuracy_loss:
            return (
                f"it names the same class as eager for {check.agreement:.2%} of the "
                f"{check.images} val images; {LOW_PRECISION_AGREEMENT:.1%} is required"
            )
        return None
    if check.accuracy is None or check.reference_accuracy is None:
        return "without a data bundle its accuracy on val cannot be checked"
    lost = 100.0 * (check.reference_accuracy - check.accuracy)
    if lost > INT8_POINTS and not allow_accuracy_loss:
        return (
            f"it loses {lost:.2f} points of accuracy on the {check.images} val images "
            f"({check.reference_accuracy:.2%} to {check.accuracy:.2%}); {INT8_POINTS} is allowed "
            "(allow_accuracy_loss=True writes it all the same)"
        )
    return None
